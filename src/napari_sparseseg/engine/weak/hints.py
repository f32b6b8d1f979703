"""What paint suggests about its surroundings: strokes grown on their slice, shapes interpolated between two slices.

Nothing here uses the network: a suggestion comes from the image and the paint alone, and may be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import random_walker, slic

from napari_sparseseg._types import UNPAINTED, Annotation, Box, Shape3D, Spacing, Volume
from napari_sparseseg.engine.paint import painted_axis

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
GrowthMethod = Literal["walker", "superpixels"]

_SCALES = (0.7, 1.4, 2.8)  # of the features of a voxel, in units of the finest voxel edge of the slice
_SHRINKAGE = 0.1  # of the covariance towards a sphere: a few strokes are not enough to estimate it
_BETA = 2000.0  # how much the walker avoids steps between voxels that look different
_TILE = 256  # voxels; a slice is grown tile by tile, so that a large one costs time, but no memory
_MOST_EXAMPLES = 20_000  # voxels of a class from which its look is learnt
_COMPACTNESS = 0.1


class SlicePaint(NamedTuple):
    """The paint of one slice: `codes` (rows, columns) of single classes, and where anything is painted at all."""

    codes: Codes
    is_painted: npt.NDArray[np.bool_]


def grow(
    volume: Volume,
    annotation: Annotation,
    axis: int,
    index: int,
    *,
    spacing: Spacing,
    method: GrowthMethod = "walker",
    reach: float = 12.0,
    certainty: float = 0.9,
    weight: float = 0.3,
) -> Annotation:
    """Suggest classes for the unpainted voxels around the strokes of the slice at `index` across `axis`.

    A voxel is suggested as a class if it looks like the strokes of that class, with a probability of at least
    `certainty` (linear discriminant analysis of smoothed intensities, edges and ridges; Fisher 1936), and lies in what
    these strokes reach. By "walker": of random walks that start there and avoid steps between voxels that look
    different, a share of at least `certainty` ends first on these strokes (Grady 2006, doi:10.1109/TPAMI.2006.233). By
    "superpixels": it lies in a superpixel that paint of this class alone has touched (SLIC; Achanta et al. 2012,
    doi:10.1109/TPAMI.2012.120). `reach`, in units of the finest voxel edge of the slice, is how far from paint a walk
    may start, and twice the edge of a superpixel.

    Painted voxels are never suggested, including those that were painted with a set of classes. Nothing is suggested
    if fewer than two classes are painted on the slice. `spacing` is along z, y, x. Any thread; a few tenths of a
    second for 256 by 256 voxels.
    """
    paint = paint_on(annotation, axis, index)
    ids = np.unique(paint.codes[paint.codes != UNPAINTED])
    if len(ids) < 2:
        return _nothing(annotation.shape)
    edges = _in_plane(spacing, axis)
    margin = [int(np.ceil(reach / edge)) for edge in edges]
    window = _window(paint.is_painted, margin)
    image = _plane(volume, axis, index, window)
    inside = SlicePaint(paint.codes[window], paint.is_painted[window])
    scores = _scores(_look(image, edges), inside.codes, ids)
    grown = np.zeros_like(inside.codes)
    for core, around in _tiles(inside.codes.shape, margin):
        there = scores[around], inside.codes[around], ids, edges, reach
        found = _walk(*there, certainty) if method == "walker" else _snap(*there)
        offset = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(core, around, strict=True))
        grown[core] = found[offset]
    posterior = _softmax(scores)
    looks = np.where(posterior.max(-1) >= certainty, ids[posterior.argmax(-1)], UNPAINTED)
    agreed = np.where((grown == looks) & ~inside.is_painted, grown, UNPAINTED).astype(np.uint8)
    whole = np.zeros_like(paint.codes)
    whole[window] = agreed
    return _as_annotation(annotation.shape, [(axis, index, whole)], weight)


def between(
    annotation: Annotation,
    axis: int,
    *,
    spacing: Spacing,
    around: int | None = None,
    max_gap: float | None = None,
    weight: float = 0.3,
) -> Annotation:
    """Suggest classes between neighbouring painted slices across `axis`, by interpolating the shapes on both.

    The shape of each class is the signed distance to its outline on a slice, positive inside. Where the linear
    interpolation between two slices is above 0 the class is suggested, or the one with the largest value if there are
    several (shape-based interpolation; Raya & Udupa 1990, doi:10.1109/42.52980). So a class is suggested only if it is
    painted on both slices in about the same place. Slices are those on which the paint was made (`painted_slices`).

    With `around`, only the gap in which this slice lies is filled, or those on both sides of it if it is painted.
    Gaps of more than `max_gap`, in the unit of `spacing`, stay empty. Painted voxels are never suggested. Any thread;
    a few milliseconds a slice.
    """
    edges = _in_plane(spacing, axis)
    pairs = [(a, b) for a, b in pairwise(painted_slices(annotation, axis)) if b - a > 1]
    if around is not None:
        pairs = [(a, b) for a, b in pairs if a <= around <= b]
    if max_gap is not None:
        pairs = [(a, b) for a, b in pairs if (b - a) * spacing[axis] <= max_gap]
    found = []
    for first, last in pairs:
        ends = [paint_on(annotation, axis, index).codes for index in (first, last)]
        ids = np.intersect1d(ends[0], ends[1])
        ids = ids[ids != UNPAINTED]
        if not len(ids):
            continue
        low, high = (np.stack([_signed_distance(codes == class_id, edges) for class_id in ids]) for codes in ends)
        for index in range(first + 1, last):
            share = np.float32((index - first) / (last - first))
            depth = (1 - share) * low + share * high
            shape = np.where(depth.max(0) > 0, ids[depth.argmax(0)], UNPAINTED).astype(np.uint8)
            shape[paint_on(annotation, axis, index).is_painted] = UNPAINTED
            found.append((axis, index, shape))
    return _as_annotation(annotation.shape, found, weight)


def painted_slices(annotation: Annotation, axis: int) -> list[int]:
    """Positions along `axis` of the slices across it on which paint was made, ascending.

    A painted voxel counts for that one of the three planes through it that holds most paint.
    """
    across = painted_axis(annotation.coordinates, annotation.shape) == axis
    positions: list[int] = np.unique(annotation.coordinates[across, axis]).tolist()
    return positions


def paint_on(annotation: Annotation, axis: int, index: int) -> SlicePaint:
    """The paint that lies on one slice, no matter on which slice it was made."""
    here = annotation.coordinates[:, axis] == index
    rows, columns = np.delete(annotation.coordinates[here], axis, axis=1).T
    shape = [n for a, n in enumerate(annotation.shape) if a != axis]
    codes, is_painted = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
    is_painted[rows, columns] = True
    codes[rows, columns] = annotation.codes[here]
    codes[np.isin(codes, list(annotation.allowed))] = UNPAINTED
    return SlicePaint(codes, is_painted)


# ---------------------------------------------------------------- growing


def _walk(
    scores: Floats, codes: Codes, ids: Codes, edges: tuple[float, float], reach: float, certainty: float
) -> Codes:
    """The class on whose strokes most walks from each voxel end, if that share is at least `certainty`."""
    present = ids[np.isin(ids, codes)]
    if not len(present):
        return np.zeros_like(codes)
    seeds = np.searchsorted(present, codes).astype(np.int32) + 1
    seeds[codes == UNPAINTED] = 0
    seeds[edt.edt(seeds == 0, anisotropy=edges, parallel=1) > reach] = -1
    if len(present) == 1 or not (seeds == 0).any():
        return np.where(seeds >= 0, present[0] if len(present) == 1 else UNPAINTED, UNPAINTED).astype(np.uint8)
    # log odds against the first class, compressed: where everything is certain, a difference means less
    odds = np.arcsinh((scores - scores[..., :1])[..., 1:])
    if not odds.any():  # the classes look the same
        return np.zeros_like(codes)
    shares = random_walker(
        odds, seeds, beta=_BETA, mode="cg_j", return_full_prob=True, channel_axis=-1, prob_tol=np.inf
    )
    best = np.where(seeds >= 0, shares.max(0), 0)
    return np.where(best >= certainty, present[shares.argmax(0)], UNPAINTED).astype(np.uint8)


def _snap(scores: Floats, codes: Codes, ids: Codes, edges: tuple[float, float], reach: float) -> Codes:
    """The class of each superpixel that paint of one class alone has touched."""
    area = codes.size * edges[0] * edges[1]
    n_segments = max(2, round(area / (reach / 2) ** 2))
    posterior = _softmax(scores)
    segments = slic(
        posterior, n_segments=n_segments, compactness=_COMPACTNESS, spacing=edges, channel_axis=-1, start_label=0
    )
    touched = np.stack([np.bincount(segments[codes == i], minlength=segments.max() + 1) > 0 for i in ids])
    of_segment = np.where(touched.sum(0) == 1, ids[touched.argmax(0)], UNPAINTED).astype(np.uint8)
    snapped: Codes = of_segment[segments]
    return snapped


def _look(image: Floats, edges: tuple[float, float]) -> Floats:
    """How each voxel of a slice looks, (rows, columns, features), from an image (channels, rows, columns).

    Smoothed intensity, and strength of edges and ridges, at several scales, each with mean 0 and standard deviation 1.
    What is missing (NaN) looks like the median.
    """
    features = []
    for channel in image:
        present = channel[~np.isnan(channel)]
        low, middle, high = np.percentile(present if present.size else [0.0], [25, 50, 75])
        known = np.where(np.isnan(channel), middle, channel)
        compressed = np.arcsinh((known - middle) / max(high - low, np.finfo(np.float32).tiny))
        for scale in _SCALES:
            sigma = [scale / edge for edge in edges]
            features.append(ndimage.gaussian_filter(compressed, sigma))
            features.append(ndimage.gaussian_gradient_magnitude(compressed, sigma))
            features.append(ndimage.gaussian_laplace(compressed, sigma))
    look = np.stack(features, axis=-1)
    spread = look.std((0, 1))
    normalised: Floats = ((look - look.mean((0, 1))) / np.where(spread > 0, spread, 1)).astype(np.float32)
    return normalised


def _scores(look: Floats, codes: Codes, ids: Codes) -> Floats:
    """Log-likelihood of each class at each voxel up to a constant, (rows, columns, classes), learnt from the paint."""
    rng = np.random.default_rng(0)
    examples = [look[codes == class_id] for class_id in ids]
    examples = [e if len(e) <= _MOST_EXAMPLES else rng.choice(e, _MOST_EXAMPLES, replace=False) for e in examples]
    means = np.stack([e.mean(0) for e in examples]).astype(np.float64)
    centred = np.concatenate([e - mean for e, mean in zip(examples, means, strict=True)])
    covariance = centred.T @ centred / len(centred)
    n = len(covariance)
    sphere = np.eye(n) * max(np.trace(covariance) / n, 1e-6)
    slopes = np.linalg.solve((1 - _SHRINKAGE) * covariance + _SHRINKAGE * sphere, means.T)
    offsets = -0.5 * np.einsum("cn,nc->c", means, slopes)
    scores: Floats = (look @ slopes.astype(np.float32) + offsets).astype(np.float32)
    return scores


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares


# ---------------------------------------------------------------- slices


def _signed_distance(mask: npt.NDArray[np.bool_], edges: tuple[float, float]) -> Floats:
    """Distance to the outline of a mask, positive inside; some voxel must be true. The slice's edge is no outline."""
    inside = edt.edt(mask, anisotropy=edges, parallel=1)
    outside = edt.edt(~mask, anisotropy=edges, parallel=1)
    largest = np.float32(sum(mask.shape))  # if all voxels are inside, there is no outline
    distance: Floats = np.where(mask, np.minimum(inside, largest), -outside).astype(np.float32)
    return distance


def _in_plane(spacing: Spacing, axis: int) -> tuple[float, float]:
    """Voxel edges along rows and columns of slices across `axis`, in units of the finer one."""
    first, second = (edge for a, edge in enumerate(spacing) if a != axis)
    return first / min(first, second), second / min(first, second)


def _plane(volume: Volume, axis: int, index: int, window: tuple[slice, slice]) -> Floats:
    """Part of a slice of the image, (channels, rows, columns)."""
    parts = list(window)
    parts.insert(axis, slice(index, index + 1))
    start, stop = [part.start for part in parts], [part.stop for part in parts]
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    plane: Floats = np.take(volume.read(box), 0, axis=axis + 1).astype(np.float32)
    return plane


def _window(is_painted: npt.NDArray[np.bool_], margin: Sequence[int]) -> tuple[slice, slice]:
    """The smallest part of a slice that holds all paint, with a margin."""
    rows, columns = (np.flatnonzero(is_painted.any(axis=other)) for other in (1, 0))
    first, second = (
        slice(max(0, int(line[0]) - m), min(n, int(line[-1]) + 1 + m))
        for line, m, n in zip((rows, columns), margin, is_painted.shape, strict=True)
    )
    return first, second


def _tiles(shape: tuple[int, ...], margin: Sequence[int]) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles that cover a slice, each without and with a margin, which is cut off at the slice's edge."""
    for top in range(0, shape[0], _TILE):
        for left in range(0, shape[1], _TILE):
            core = tuple(slice(a, min(a + _TILE, n)) for a, n in zip((top, left), shape, strict=True))
            around = tuple(
                slice(max(0, part.start - m), min(n, part.stop + m))
                for part, m, n in zip(core, margin, shape, strict=True)
            )
            yield (core[0], core[1]), (around[0], around[1])


def _as_annotation(shape: Shape3D, slices: Sequence[tuple[int, int, Codes]], weight: float) -> Annotation:
    """What was suggested on slices, each given by axis, index and codes, ordered by z."""
    places, values = [np.empty((0, 3), np.int32)], [np.empty(0, np.uint8)]
    for axis, index, codes in slices:
        rows, columns = np.nonzero(codes)
        in_plane = np.stack([rows, columns], axis=1)
        places.append(np.insert(in_plane, axis, index, axis=1).astype(np.int32))
        values.append(codes[rows, columns])
    coordinates, codes = np.concatenate(places), np.concatenate(values)
    order = np.argsort(coordinates[:, 0], kind="stable")
    return Annotation(shape, coordinates[order], codes[order], np.full(len(codes), weight, np.float32))


def _nothing(shape: Shape3D) -> Annotation:
    return _as_annotation(shape, (), 1.0)
