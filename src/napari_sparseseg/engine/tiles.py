"""Tiles: cutting a volume into boxes that cover every voxel once, and the halo around each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from napari_sparseseg._types import Box, Shape3D


def frame_of(shape: Shape3D, stride: Shape3D) -> Box:
    """The volume, extended at its far ends to multiples of `stride`; the network computes within it."""
    z, y, x = (-(-n // s) * s for n, s in zip(shape, stride, strict=True))
    return Box.whole((z, y, x))


def tile_input(tile: Box, frame: Box, stride: Shape3D, halo: Shape3D) -> Box:
    """What must be read for a tile: the tile, rounded out to the stride's grid, with its halo, in the frame."""
    start = [a // s * s for a, s in zip(tile.start, stride, strict=True)]
    stop = [-(-b // s) * s for b, s in zip(tile.stop, stride, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).grown(halo).clipped(frame)


def tile_shape_for(shape: Shape3D, stride: Shape3D, halo: Shape3D, max_voxels: int) -> Shape3D:
    """Largest tile, in multiples of `stride`, whose input with halo has at most `max_voxels`.

    It is at least as wide as the halo on both sides of it: smaller ones would spare some megabytes, and compute each
    voxel tens or hundreds of times.
    """
    frame = frame_of(shape, stride)
    edges = list(frame.shape)
    least = [max(s, -(-2 * h // s) * s) for h, s in zip(halo, stride, strict=True)]
    while True:
        tile = Box.whole((edges[0], edges[1], edges[2]))
        inner = tile_input(tile.shifted(_middle(frame, tile, stride)), frame, stride, halo)
        wider = [axis for axis in range(3) if edges[axis] > least[axis]]
        if inner.n_voxels <= max_voxels or not wider:
            return tile.shape
        axis = max(wider, key=lambda a: edges[a] // stride[a])
        edges[axis] = max(least[axis], -(-edges[axis] // (2 * stride[axis])) * stride[axis])


def tile_grid(region: Box, tile_shape: Shape3D) -> Iterator[Box]:
    """Tiles that cover the region, each voxel once; their origins are multiples of `tile_shape`."""
    ranges = [range(a // t * t, b, t) for a, b, t in zip(region.start, region.stop, tile_shape, strict=True)]
    for start in product(*ranges):
        stop = tuple(a + t for a, t in zip(start, tile_shape, strict=True))
        yield Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).clipped(region)


def _middle(frame: Box, tile: Box, stride: Shape3D) -> Shape3D:
    """Offset of a tile in the middle of the frame, where its halo is largest."""
    z, y, x = ((f - t) // 2 // s * s for f, t, s in zip(frame.shape, tile.shape, stride, strict=True))
    return z, y, x
