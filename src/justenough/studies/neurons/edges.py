"""Loops over connections, for Numba to compile: sums of inputs by index, by block and by bits."""

from typing import Any

import numpy as np

from justenough.studies.neurons.loops import Loop, all_made, wide

_ONE8, _ONE64 = np.uint8(1), np.uint64(1)


def _add(index: Any, weight: Any, total: Any) -> None:
    for e in range(index.size):
        total[np.uint32(index[e])] += weight[e]


def _add_in_blocks(bits: Any, local: Any, number: Any, weight: Any, total: Any) -> None:
    e, size = np.uint64(0), np.int64(1) << bits
    for b in range(number.shape[0]):
        here = total[b * size : (b + 1) * size]
        for s in range(number.shape[1]):
            end = e + np.uint64(number[b, s])
            while e < end:
                here[np.uint64(local[e])] += weight[e]
                e += _ONE64


def _step_in_blocks(bits: Any, local: Any, number: Any, step: Any, total: Any) -> None:
    e, size = np.uint64(0), np.int64(1) << bits
    for b in range(number.shape[0]):
        here = total[b * size : (b + 1) * size]
        for s in range(number.shape[1]):
            end = e + np.uint64(number[b, s])
            while e < end:
                here[np.uint64(local[e])] += step
                e += _ONE64


def _count_rows(target: Any, total: Any) -> None:
    for s in range(target.shape[0]):
        for q in range(target.shape[1]):
            total[np.uint32(target[s, q])] += np.float32(1)


def _count_near(offset: Any, total: Any) -> None:
    for s in range(offset.shape[0]):
        here = total[max(0, min(s, total.size - 128) - 127) :] if s >= 127 else total
        for q in range(offset.shape[1]):
            here[np.uint32(np.int32(offset[s, q]) + np.int32(127))] += np.float32(1)


def _count(index: Any, total: Any) -> None:
    for e in range(index.size):
        total[np.uint32(index[e])] += _ONE8


def _count_bits(packed: Any, total: Any) -> None:
    for s in range(packed.shape[0]):
        for w in range(packed.shape[1]):
            word, here = packed[s, w], total[64 * w : 64 * w + 64]
            if word:
                for q in range(64):
                    here[q] += np.uint8((word >> np.uint64(q)) & np.uint64(1))


def _inputs(index: Any, ends: Any, fired: Any, total: Any) -> None:
    begin = 0
    for t in range(ends.size):
        number = 0
        for e in range(begin, ends[t]):
            number += fired[index[e]]
        total[t], begin = number, ends[t]


def _inputs_by_bits(packed: Any, mask: Any, total: Any) -> None:
    for t in range(packed.shape[0]):
        number = np.uint64(0)
        for w in range(mask.size):
            x = packed[t, w] & mask[w]
            x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
            low = np.uint64(0x3333333333333333)
            x = (x & low) + ((x >> np.uint64(2)) & low)
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            number += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
        total[t] = np.int64(number)


def edge_loops() -> dict[str, Loop]:
    """Rows of sources added to what their targets hold."""
    return all_made(
        {
            "add": _add, "add in blocks": _add_in_blocks, "step in blocks": _step_in_blocks,
            "count rows": _count_rows, "count near": _count_near, "count": _count,
            "count bits": _count_bits, "inputs": _inputs, "inputs by bits": _inputs_by_bits,
        }
    )  # fmt: skip


def _dense(matrix: Any, v: Any, out: Any) -> None:
    for r in range(matrix.shape[0]):
        row, parts = matrix[r], np.zeros(16, np.float32)
        for c in range(0, row.size, 16):
            for q in range(16):
                parts[q] += row[c + q] * v[c + q]
        out[r] = parts.sum()


# Four sums, so that additions do not wait for each other; on both sides alike.
def _csr32(start: Any, column: Any, value: Any, v: Any, out: Any) -> None:
    for r in range(out.size):
        c, w = column[start[r] : start[r + 1]], value[start[r] : start[r + 1]]
        s = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))
        whole = c.size - c.size % 4
        for e in range(0, whole, 4):
            s = (
                s[0] + w[e] * v[np.uint32(c[e])], s[1] + w[e + 1] * v[np.uint32(c[e + 1])],
                s[2] + w[e + 2] * v[np.uint32(c[e + 2])],
                s[3] + w[e + 3] * v[np.uint32(c[e + 3])],
            )  # fmt: skip
        total = s[0] + s[1] + s[2] + s[3]
        for e in range(whole, c.size):
            total += w[e] * v[np.uint32(c[e])]
        out[r] = total


def _csr16(start: Any, column: Any, value: Any, v: Any, out: Any) -> None:
    for r in range(out.size):
        c, w = column[start[r] : start[r + 1]], value[start[r] : start[r + 1]]
        s = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))
        whole = c.size - c.size % 4
        for e in range(0, whole, 4):
            s = (
                s[0] + wide(w[e]) * v[c[e]], s[1] + wide(w[e + 1]) * v[c[e + 1]],
                s[2] + wide(w[e + 2]) * v[c[e + 2]], s[3] + wide(w[e + 3]) * v[c[e + 3]],
            )  # fmt: skip
        total = s[0] + s[1] + s[2] + s[3]
        for e in range(whole, c.size):
            total += wide(w[e]) * v[c[e]]
        out[r] = total


def _blocks(start: Any, column: Any, value: Any, spread: Any, out: Any) -> None:
    # spread has each element of v 16 times, so that a block is one vector loop of 256.
    for r in range(start.size - 1):
        total = np.zeros(256, np.float32)
        for e in range(start[r], start[r + 1]):
            block, x = value[e], spread[256 * column[e] : 256 * column[e] + 256]
            for q in range(256):
                total[q] += wide(block[q]) * x[q]
        out[16 * r : 16 * r + 16] = total.reshape(16, 16).sum(axis=0)


def matrix_loops() -> dict[str, Loop]:
    """A matrix by a vector: dense, CSR in 32 and 16 bits, and blocks of 16 x 16 in FP16."""
    return all_made({"dense": _dense, "csr32": _csr32, "csr16": _csr16, "blocks": _blocks})
