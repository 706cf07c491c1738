"""A folder of images as cases: one subfolder for each class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.case_files import Stamp, stamp
from justenough.core.cases import Cases
from justenough.core.rows import IN_MEMORY_BYTES, Rows, row_bytes
from justenough.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
LARGEST = 100_000_000


@dataclass(frozen=True, eq=False)
class Images:
    """Image files as rows (n, 3, height, width) or (n, height, width, 3), decoded when asked for.

    Attributes:
        files: One a row, and what each was when it was found; another one is refused.
        width, height: Pixels to resize to.
        mean, std: (3,) per channel.
        layout: `nchw` or `nhwc`.
    """

    files: tuple[tuple[Path, Stamp], ...]
    width: int
    height: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    layout: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows."""
        one = (self.height, self.width)
        return (len(self.files), *((3, *one) if self.layout == "nchw" else (*one, 3)))

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The images at `rows` (k,), each 0 to n - 1."""
        out = np.empty((len(rows), *self.shape[1:]), np.float32)
        for k, row in enumerate(rows.tolist()):
            path, was = self.files[row]
            pixels = (_read(path, self.width, self.height, was) - self.mean) / self.std
            out[k] = pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels
        return out


def load_images(
    folder: Path, name: str, size: str, *, mean: str = "", std: str = "", layout: str = "nchw"
) -> Cases:
    """Read images as float32 RGB, scaled to 0..1, then (x - mean) / std per channel.

    Labels are the class subfolders in alphabetical order. A file's name up to its first
    `__` is its group, when every file has one (`patient7__left.png`). Up to IN_MEMORY_BYTES
    are decoded into memory; more are decoded again whenever their rows are asked for.

    Args:
        folder: Holds one subfolder for each class.
        name: Model input that takes the images.
        size: WIDTHxHEIGHT in pixels to resize to (bilinear).
        mean: One number or three, comma-separated, in units of full scale; empty is 0.
        std: The same; empty is 1.
        layout: `nchw` or `nhwc`.

    Raises:
        InputError: No Pillow, no images, an unreadable one, or an argument that does not fit.
    """
    width, height = _size(size)
    if layout not in ("nchw", "nhwc"):
        raise InputError(f"layout {layout!r} is unknown; give nchw or nhwc")
    off, scale = _channels("mean", mean, 0.0), _channels("std", std, 1.0)
    if (scale <= 0).any():
        raise InputError(f"--std {std} must be positive")
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = [
        (k, p)
        for k, c in enumerate(classes)
        for p in sorted((folder / c).iterdir())
        if p.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise InputError(f"{folder.name} holds no class subfolder with images in it")
    found = tuple((p.absolute(), stamp(p.stat())) for _, p in files)
    images = Images(found, width, height, off, scale, layout)
    whole = row_bytes(images) * len(files) <= IN_MEMORY_BYTES
    x = images[np.arange(len(files))] if whole else Rows.of(images)
    groups = None
    if all("__" in p.stem for _, p in files):
        groups = np.array([p.stem.partition("__")[0] for _, p in files])
    return Cases({name: x}, np.array([k for k, _ in files]), groups)


def _read(path: Path, width: int, height: int, was: Stamp) -> NDArray[Any]:
    try:
        from PIL import Image
    except ImportError as e:
        raise InputError("reading images needs Pillow: pip install 'justenough[imaging]'") from e
    try:
        if stamp(path.stat()) != was:
            raise InputError(
                f"the image {path.name} changed while the cases were read; leave them alone "
                "until the run has ended, and call again"
            )
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise InputError(
                    f"{path.name} has {image.width}x{image.height} pixels; at most {LARGEST:,}"
                )
            rgb = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(rgb, np.float32) / 255
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"cannot read the image {path.name}: {e}") from e


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise InputError(f"--image {text!r} is not WIDTHxHEIGHT, such as 224x224")
    if int(width) * int(height) > LARGEST:
        raise InputError(f"--image {text!r} has more than {LARGEST:,} pixels; give a smaller size")
    return int(width), int(height)


def _channels(what: str, text: str, default: float) -> NDArray[np.float32]:
    if not text:
        return np.full(3, default, np.float32)
    try:
        values = np.array([float(v) for v in text.split(",")])
    except ValueError:
        raise InputError(f"--{what} {text!r} is not one number or three") from None
    if len(values) not in (1, 3) or not (np.abs(values) < 1e30).all():
        raise InputError(f"--{what} {text!r} is not one number or three")
    return np.broadcast_to(values, 3).astype(np.float32)
