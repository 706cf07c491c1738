"""Codes of any width stored without gaps, the first value in the lowest bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Bytes = NDArray[np.uint8]


def packed_size(n: int, bits: int) -> int:
    """Bytes that `n` codes of `bits` bits take.

    >>> [packed_size(5, b) for b in (2, 4, 6, 8, 16)]
    [2, 3, 4, 5, 10]
    """
    return (n * bits + 7) // 8


def pack(codes: NDArray[Any], bits: int) -> Bytes:
    """Pack codes into a little-endian stream of bits: 2-bit four to a byte, 6-bit four to three.

    The first of two 4-bit codes is in the low half of the byte, as ONNX stores INT4 and
    FLOAT4E2M1 (onnx.proto, TensorProto.int32_data).

    Args:
        codes: Unsigned integers below 2**bits, any shape; taken in C order.
        bits: 1 to 16.

    Returns:
        Bytes, shape (packed_size(codes.size, bits),); bits behind the last code are 0.

    >>> pack(np.array([1, 2, 3]), 4).tolist()
    [33, 3]
    """
    flat = np.ravel(codes)
    if bits == 16:
        return np.ascontiguousarray(flat, "<u2").view(np.uint8)
    if bits == 8:
        return np.ascontiguousarray(flat, np.uint8)
    if bits == 6:
        return _pack_6(flat)
    if 8 % bits == 0:
        per = 8 // bits
        rows = _padded(flat, per).astype(np.uint8).reshape(-1, per)
        packed = rows[:, 0].copy()
        for k in range(1, per):
            packed |= rows[:, k] << np.uint8(k * bits)
        return packed
    planes = (flat[:, None].astype(np.uint16) >> np.arange(bits, dtype=np.uint16)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little")


def unpack(data: Bytes, bits: int, n: int) -> NDArray[Any]:
    """Return the `n` codes that `pack` stored, as uint8, or uint16 where `bits` > 8.

    Raises:
        InputError: There are fewer or more bytes than `n` codes take.

    >>> unpack(np.array([33, 3], np.uint8), 4, 3).tolist()
    [1, 2, 3]
    """
    if len(data) != packed_size(n, bits):
        raise InputError(
            f"got {len(data)} bytes; {n} codes of {bits} bits take {packed_size(n, bits)}"
        )
    if bits == 16:
        return data.view("<u2").astype(np.uint16)
    if bits == 8:
        return data.copy()
    if bits == 6:
        return _unpack_6(data, n)
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes: Bytes = ((data[:, None] >> shifts) & np.uint8(2**bits - 1)).ravel()
        return codes[:n]
    planes = np.unpackbits(data, bitorder="little")[: n * bits].reshape(n, bits)
    weights = (1 << np.arange(bits)).astype(np.uint16)
    whole: NDArray[Any] = (planes * weights).sum(axis=1, dtype=np.uint16)
    return whole.astype(np.uint8 if bits < 8 else np.uint16)


def _padded(flat: NDArray[Any], multiple: int) -> NDArray[Any]:
    short = -len(flat) % multiple
    return np.concatenate([flat, np.zeros(short, flat.dtype)]) if short else flat


def _pack_6(flat: NDArray[Any]) -> Bytes:
    a, b, c, d = _padded(flat, 4).astype(np.uint8).reshape(-1, 4).T
    triples = np.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], axis=1)
    return triples.ravel()[: packed_size(len(flat), 6)]


def _unpack_6(data: Bytes, n: int) -> Bytes:
    x, y, z = _padded(data, 3).reshape(-1, 3).T
    codes = np.stack([x & 63, (x >> 6 | y << 2) & 63, (y >> 4 | z << 4) & 63, z >> 2], axis=1)
    return codes.ravel()[:n]
