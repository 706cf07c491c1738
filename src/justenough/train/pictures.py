"""Pictures of one size out of a tar that somebody gave: nothing in it is trusted.

Nothing is unpacked to disk, no link is followed, and a picture's size is known to be right
before it is decoded.
"""

import io
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
# More members than any set read here has, and larger ones: a tar past these is not the set.
MOST_MEMBERS = 50_000
MOST_BYTES = 2_000_000
SUFFIXES = (".jpg", ".jpeg")


def read_tar(path: Path, *, width: int, height: int, grey: bool = False) -> dict[str, Array]:
    """Read every JPEG of a plain (uncompressed) tar.

    Members whose names do not end in `.jpg` or `.jpeg` are passed by.

    Args:
        path: The tar.
        width: Of every picture, in pixels; pictures are not resized.
        height: The same.
        grey: One channel (luma, ITU-R 601-2) in place of red, green and blue.

    Returns:
        By name in the tar, in its order: (channels, height, width) uint8, 1 or 3 channels.

    Raises:
        InputError: No Pillow, no such file, no plain tar, a name that leads elsewhere or comes
            twice, a link, a picture of another size or kind, too many members or none.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path.name!r}; give the tar of pictures")
    found: dict[str, Array] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for k, member in enumerate(tar):
                if k >= MOST_MEMBERS:
                    raise InputError(
                        f"{path.name} has more than {MOST_MEMBERS:,} members; "
                        "give the data set alone"
                    )
                if member.name.lower().endswith(SUFFIXES):
                    _check(member, found)
                    held = tar.extractfile(member)
                    data = b"" if held is None else held.read(MOST_BYTES)
                    found[member.name] = decode(member.name, data, (width, height), grey=grey)
    # hostile sizes and headers make tarfile recurse or seek to places that are not there
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(
            f"{path.name} cannot be read to its end as an uncompressed tar ({e}); give one"
        ) from e
    if not found:
        raise InputError(f"{path.name} holds no name that ends in .jpg or .jpeg; give pictures")
    return found


def decode(name: str, data: bytes, size: tuple[int, int], *, grey: bool = False) -> Array:
    """One JPEG as (channels, height, width) uint8.

    Args:
        name: Said in errors.
        data: The JPEG file.
        size: (width, height) that the picture must have.
        grey: One channel in place of three.

    Raises:
        InputError: No Pillow, another size, or no JPEG that can be decoded to its end.
    """
    try:
        from PIL import Image
    except ImportError as e:
        raise InputError("reading pictures needs Pillow: pip install 'justenough[imaging]'") from e
    try:
        with warnings.catch_warnings():
            # a picture too large to decode has the wrong size, which is said below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # the header alone is read here, and by the JPEG decoder alone
            image = Image.open(io.BytesIO(data), formats=("JPEG",))
        with image:
            if image.size != size:
                raise InputError(
                    f"{name!r} is {image.width}x{image.height} pixels; "
                    f"give pictures of {size[0]}x{size[1]}"
                )
            pixels = np.asarray(image.convert("L" if grey else "RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{name!r} cannot be decoded as JPEG ({e}); give a whole one") from e
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check(member: tarfile.TarInfo, found: Mapping[str, Array]) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise InputError(
            f"the tar names {member.name!r}, which leads out of a folder; give plain names"
        )
    if not member.isreg() or member.issparse():
        raise InputError(f"{member.name!r} is no plain file in the tar; give one without links")
    if not 0 <= member.size <= MOST_BYTES:
        raise InputError(
            f"{member.name!r} has {member.size:,} bytes in the tar; give at most {MOST_BYTES:,}"
        )
    if member.name in found:
        raise InputError(f"{member.name!r} is twice in the tar; give each picture once")
