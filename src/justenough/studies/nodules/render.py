"""Outlines to pictures: eight 64 x 64 views and nine shape numbers per annotation.

Contours are filled by the even-odd rule on a grid twice as fine as the views, a whole block
of contours at once; the views are sums of small integers. So they come out bit for bit the
same on every machine, and one slice is filled once however many views show it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.studies.nodules.contours import Contours

Array = NDArray[Any]

# Part of the key of every cache: raise it whenever a view or a shape number could change.
VERSION = 1
SIDE = 64
VIEWS = (
    "axial slice at 25 %",
    "axial slice at 50 %",
    "axial slice at 75 %",
    "axial projection, scaled",
    "coronal projection, scaled",
    "sagittal projection, scaled",
    "axial projection, 1 mm/px",
    "coronal projection, 1 mm/px",
)
SHAPE_NAMES = (
    "log_volume_mm3",
    "log_extent_mm",
    "circularity",
    "axis_ratio_2_1",
    "axis_ratio_3_1",
    "fill",
    "n_slices",
    "slice_mm",
    "pixel_mm",
)
# The longest extent takes 1 / 1.12 of a scaled view, so that nothing touches its border.
_ROOM = 1.12
# Grey values of a pixel of which 0 to 4 of its 4 samples lie inside.
_GREY = np.array([0, 64, 128, 191, 255], np.uint8)


def render(contours: Contours, block: int = 48) -> tuple[Array, Array]:
    """Draw every annotation.

    Args:
        contours: n annotations.
        block: Annotations drawn at once; it changes the memory needed, not the result.

    Returns:
        Views (n, 8, 64, 64) uint8 in the order of `VIEWS`, and shape numbers (n, 9) float32
        in the order of `SHAPE_NAMES`.
    """
    n = len(contours.patient)
    views = np.empty((n, len(VIEWS), SIDE, SIDE), np.uint8)
    shape = np.empty((n, len(SHAPE_NAMES)), np.float32)
    for i in range(0, n, block):
        part = contours.take(i, min(i + block, n))
        views[i : i + block], shape[i : i + block] = _render_block(part)
    return views, shape


def _render_block(c: Contours) -> tuple[Array, Array]:
    of_slice, first = _slices(c)
    owner, z = c.owner[first], c.z_mm[first]
    low, high = _bounds(c)
    begin = np.flatnonzero(np.diff(owner, prepend=-1))
    top, bottom = z[begin], z[np.append(begin[1:], len(z)) - 1]
    flat_mm = (high - low).max(1) * c.pixel_mm
    extent_mm = np.maximum(flat_mm, bottom - top + c.slice_mm)
    centre, middle = (low + high) / 2, (top + bottom) / 2

    views = np.empty((len(low), len(VIEWS), SIDE, SIDE), np.uint8)
    scaled = extent_mm * _ROOM / SIDE
    area = _fill_slices(c, of_slice, centre, scaled)
    at = _nearest(owner, z, middle, scaled, c.slice_mm)
    _draw_scaled(views, area, at, begin)
    shape = _shape_numbers(c, area, at, owner, scaled, extent_mm)

    same = np.ones(len(low))
    area = _fill_slices(c, of_slice, centre, same)
    at = _nearest(owner, z, middle, same, c.slice_mm)
    # 12 mm of nodule along the line of sight is white
    views[:, 6] = np.minimum(_axial_sum(area, at, begin) * 255 // 48, 255)
    views[:, 7] = np.minimum(_stack(area.sum(1, np.int64), at) * 255 // 48, 255)
    return views, shape


def _slices(c: Contours) -> tuple[Array, Array]:
    """Per contour, its slice (m,); per slice, its first contour (s,)."""
    new = np.ones(len(c.owner), bool)
    new[1:] = (np.diff(c.owner) != 0) | (np.diff(c.z_mm) != 0)
    return np.cumsum(new) - 1, np.flatnonzero(new)


def _bounds(c: Contours) -> tuple[Array, Array]:
    """Per annotation, the least and greatest x and y of its points, (n, 2) each, pixels."""
    begin = c.start[np.searchsorted(c.owner, np.arange(len(c.patient)))]
    return np.minimum.reduceat(c.points, begin), np.maximum.reduceat(c.points, begin)


def _fill_slices(c: Contours, of_slice: Array, centre: Array, mm_per_px: Array) -> Array:
    """Samples inside the nodule, 0 to 4 per pixel, (s, 64, 64) uint8, each slice drawn once."""
    per_point = np.repeat(c.owner, np.diff(c.start))
    zoom = c.pixel_mm / mm_per_px * 2
    xy = (c.points - centre[per_point]) * zoom[per_point, None] + SIDE
    drawn = fill(xy, c.start)
    first = np.flatnonzero(np.diff(of_slice, prepend=-1))
    inside = drawn[:, first]
    # the first contour of a slice encloses; what follows adds to it and then cuts holes
    inside *= c.inside[first].astype(np.uint8)[None, :, None, None]
    for k in np.setdiff1d(np.arange(len(of_slice)), first).tolist():
        s = of_slice[k]
        if c.inside[k]:
            inside[:, s] |= drawn[:, k]
        else:
            inside[:, s] &= ~drawn[:, k]
    both = inside[0::2] + inside[1::2]
    return np.ascontiguousarray((both[:, :, 0] + both[:, :, 1]).swapaxes(0, 1))


def fill(xy: Array, start: Array) -> Array:
    """Fill closed polygons by the even-odd rule.

    A sample belongs to a polygon when a ray to its top crosses the outline an odd number of
    times. Each edge toggles every column that it crosses, from the row of the crossing down.

    Args:
        xy: (p, 2) corners in samples; sample (i, j) has its centre at x = j + .5, y = i + .5.
        start: (m + 1,) where each polygon's corners begin, and the end of the last.

    Returns:
        (128, m, 2, 64) uint8 of 0 and 1: row, polygon, parity of the column, half the column.
    """
    m, size = len(start) - 1, 2 * SIDE
    following = np.arange(1, len(xy) + 1)
    following[start[1:] - 1] = start[:-1]
    (x0, y0), (x1, y1) = xy.T, xy[following].T
    swap = x0 > x1
    x0, x1, y0, y1 = (np.where(swap, b, a) for a, b in ((x0, x1), (x1, x0), (y0, y1), (y1, y0)))
    left = np.clip(np.ceil(x0 - 0.5).astype(np.intp), 0, size)
    count = np.clip(np.ceil(x1 - 0.5).astype(np.intp), 0, size) - left
    slope = (y1 - y0) / np.where(x1 > x0, x1 - x0, 1.0)

    edge = np.repeat(np.arange(len(xy)), count)
    column = np.arange(len(edge)) + np.repeat(left - np.cumsum(count) + count, count)
    y = y0[edge] + (column + 0.5 - x0[edge]) * slope[edge]
    row = np.clip(np.ceil(y - 0.5).astype(np.intp), 0, size)
    polygon = np.repeat(np.arange(m), np.diff(start))[edge]
    toggles = np.zeros((size + 1, m, 2, SIDE), np.uint8)
    cell = ((row * m + polygon) * 2 + column % 2) * SIDE + column // 2
    np.add.at(toggles.reshape(-1), cell, 1)
    for i in range(1, size):
        toggles[i] += toggles[i - 1]
    return toggles[:size] & 1


def _nearest(owner: Array, z: Array, middle: Array, mm_per_px: Array, slice_mm: Array) -> Array:
    """Per annotation and plane (n, 64), the slice that covers it, or s where none does."""
    n = len(middle)
    position = middle[:, None] + (np.arange(SIDE) - (SIDE - 1) / 2) * mm_per_px[:, None]
    first = np.searchsorted(owner, np.arange(n))
    count = np.bincount(owner, minlength=n)
    padded = np.full((n, count.max()), np.inf)
    padded[owner, np.arange(len(owner)) - first[owner]] = z
    distance = np.abs(position[:, :, None] - padded[:, None, :])
    # contours of one annotation are apart by its slice distance up to rounding
    near = distance.min(2) <= slice_mm[:, None] / 2 + 1e-6
    return np.where(near, first[:, None] + distance.argmin(2), len(owner))


def _stack(per_slice: Array, at: Array) -> Array:
    """Values per slice (s, ...) laid out by plane (n, planes, ...), zero where no slice is."""
    return np.concatenate((per_slice, np.zeros_like(per_slice[:1])))[at]


def _weights(at: Array, n_slices: int) -> Array:
    """How many of an annotation's 64 planes show each slice, (s,)."""
    return np.bincount(at.reshape(-1), minlength=n_slices + 1)[:n_slices]


def _axial_sum(area: Array, at: Array, begin: Array) -> Array:
    """Samples inside along z, (n, 64, 64): 0 to 256."""
    weighted = area * _weights(at, len(area)).astype(np.uint16)[:, None, None]
    end = np.append(begin[1:], len(area))
    # reduceat over whole pictures is four times slower than this loop
    sums = [weighted[a:b].sum(0) for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
    return np.stack(sums).astype(np.int64)


def _draw_scaled(views: Array, area: Array, at: Array, begin: Array) -> None:
    """Write the six views in which every nodule has the same size."""
    filled = _stack(area.max((1, 2)) > 0, at)
    planes = filled.sum(1)
    order = np.argsort(~filled, axis=1, kind="stable")
    for k, quarter in enumerate((1, 2, 3)):
        place = np.round((planes - 1) * quarter / 4).astype(int)
        # a contour of no area fills no plane: show the middle one, which is blank
        plane = np.where(planes > 0, order[np.arange(len(at)), np.maximum(place, 0)], SIDE // 2)
        views[:, k] = _GREY[_stack(area, at[np.arange(len(at)), plane])]
    many = np.maximum(planes, 1)[:, None, None]
    views[:, 3] = _axial_sum(area, at, begin) * 255 // (4 * many)
    for k, axis in ((4, 1), (5, 2)):
        # white from two thirds of the view's depth on
        depth = _stack(area.sum(axis, np.int64), at)
        views[:, k] = np.minimum(depth * (255 * 3) // (4 * SIDE * 2), 255)


def _shape_numbers(
    c: Contours, area: Array, at: Array, owner: Array, mm_per_px: Array, extent_mm: Array
) -> Array:
    """The nine numbers of `SHAPE_NAMES`, (n, 9)."""
    samples = np.bincount(owner, area.sum((1, 2), np.int64) * _weights(at, len(area)))
    volume_mm3 = samples / 4 * mm_per_px**3
    axes = _axes(area, at)
    return np.stack(
        (
            np.log(volume_mm3 + 1),
            np.log(extent_mm),
            _circularity(c),
            np.sqrt(axes[:, 1] / axes[:, 0]),
            np.sqrt(axes[:, 2] / axes[:, 0]),
            volume_mm3 / extent_mm**3,
            np.bincount(owner),
            c.slice_mm,
            c.pixel_mm,
        ),
        axis=1,
    )


def _circularity(c: Contours) -> Array:
    """Isoperimetric quotient sqrt(4 pi A) / L of the contours, weighted by A L, (n,)."""
    following = np.arange(1, len(c.points) + 1)
    following[c.start[1:] - 1] = c.start[:-1]
    p, q = c.points, c.points[following]
    begin = c.start[:-1]
    length = np.add.reduceat(np.hypot(*(q - p).T), begin)
    area = np.abs(np.add.reduceat(p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1], begin)) / 2
    area[~c.inside] = 0
    round_part = np.bincount(c.owner, area * np.sqrt(4 * np.pi * area))
    return round_part / np.maximum(np.bincount(c.owner, area * length), 1e-6)


def _axes(area: Array, at: Array) -> Array:
    """Variances along the principal axes, longest first, (n, 3), in view pixels squared."""
    inside = area > 2
    i = np.arange(SIDE, dtype=np.float64) - SIDE / 2
    by_x, by_y = inside.sum(1, np.float64), inside.sum(2, np.float64)
    xy = np.einsum("sx,x->s", np.einsum("syx,y->sx", inside, i), i)
    moments = np.stack((by_x.sum(1), by_x @ i, by_y @ i, by_x @ i**2, by_y @ i**2, xy), axis=1)
    per_plane = _stack(moments, at)
    n, x, y, xx, yy, xy = per_plane.sum(1).T
    z, zz = per_plane[:, :, 0] @ i, per_plane[:, :, 0] @ i**2
    xz, yz = per_plane[:, :, 1] @ i, per_plane[:, :, 2] @ i
    first = np.stack((x, y, z), axis=1)
    second = np.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), axis=1).reshape(-1, 3, 3)
    count = np.maximum(n, 2)[:, None, None]
    covariance = (second - first[:, :, None] * first[:, None, :] / count) / (count - 1)
    # three voxels or fewer have no shape: call them round
    covariance[n <= 3] = np.eye(3)
    return np.maximum(np.linalg.eigvalsh(covariance)[:, ::-1], 1e-3)
