"""The released weights as ONNX: `python -m justenough.studies.xray.model --weights W -o FILE`."""

from justenough.studies.xray.data import CLASSES, SIDE
from justenough.train import convert

if __name__ == "__main__":
    convert.main(CLASSES, 1, (SIDE, SIDE))
