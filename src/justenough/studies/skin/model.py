"""Trained weights as ONNX: `python -m justenough.studies.skin.model --weights W -o FILE`."""

from justenough.studies.skin.data import CLASSES, HEIGHT, WIDTH
from justenough.train import convert

if __name__ == "__main__":
    convert.main(CLASSES, 3, (HEIGHT, WIDTH))
