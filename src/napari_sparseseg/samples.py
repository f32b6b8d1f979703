"""Volumes with a known truth to try things on, and a simulated person who paints a few of their slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_sparseseg._types import UNPAINTED, Shape3D, Spacing
from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKGROUND, NUCLEUS, MEMBRANE = 1, 2, 3
CLASS_NAMES: Mapping[int, str] = {BACKGROUND: "background", NUCLEUS: "nucleus", MEMBRANE: "membrane"}

# Lengths of the generated tissue, in micrometres.
_CELL_SIZE = 7.5
_MEMBRANE_HALF_WIDTH = 0.38
_NUCLEUS_RADIUS = 2.6
_BLUR: Spacing = (0.36, 0.15, 0.15)
_SMALLEST_EXTENT = 6.0

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]
MaskArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """A volume and what is truly in it.

    `image` is (z, y, x), or has one more axis at `channel_axis`; `truth` is (z, y, x) and holds the class ids that
    `class_names` names, in each voxel; `spacing` is in micrometres.
    """

    name: str
    image: npt.NDArray[Any]
    truth: LabelArray
    spacing: Spacing
    class_names: Mapping[int, str]
    channel_axis: int | None = None


# ---------------------------------------------------------------- generated tissue


def tissue(shape: Shape3D = (48, 128, 128), spacing: Spacing = (0.5, 0.25, 0.25), seed: int = 0) -> Sample:
    """Generate cells with stained membranes and nuclei, as a fluorescence microscope would show them.

    Packed cells around an empty lumen, both dyes in one channel, chromatin and granules, uneven light, blur that is
    wider along z, photon and camera noise. The brightness of the classes overlaps, so that no threshold tells them
    apart. The same arguments give the same voxels; the global random state is neither read nor changed.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    spacing
        Size of a voxel along z, y, x in micrometres; cells are about 7.5 micrometres wide whatever it is.
    seed
        Which tissue to generate.
    """
    _check_extent(shape, spacing)
    rng = np.random.default_rng(seed)
    cells = _grow_cells(rng, shape, spacing)
    truth = np.full(shape, BACKGROUND, np.uint8)
    truth[cells.nucleus] = NUCLEUS
    truth[cells.membrane] = MEMBRANE
    image = _expose(rng, _stain(rng, cells, spacing), spacing)
    return Sample("tissue", image, truth, spacing, CLASS_NAMES)


def _check_extent(shape: Shape3D, spacing: Spacing) -> None:
    extent = np.multiply(shape, spacing)
    if not (np.isfinite(extent) & (extent >= _SMALLEST_EXTENT)).all():
        raise InputError(
            f"A volume of {shape} voxels of {spacing} micrometres is too small to hold a cell; "
            f"ask for at least {_SMALLEST_EXTENT:g} micrometres along each axis."
        )


@dataclass(frozen=True)
class _Cells:
    """Where the parts of the cells are; each array is (z, y, x)."""

    index: npt.NDArray[np.intp]
    lumen: MaskArray
    membrane: MaskArray
    nucleus: MaskArray
    n_cells: int


def _grow_cells(rng: np.random.Generator, shape: Shape3D, spacing: Spacing) -> _Cells:
    """Voronoi cells around jittered seeds, in space that is bent a little so that the walls are curved."""
    extent = np.multiply(shape, spacing)
    seeds = _cell_seeds(rng, extent)
    # The seed in the middle always has a nucleus, so that each class occurs in the smallest volume.
    central = int(np.argmin(np.linalg.norm(seeds - extent / 2, axis=1)))
    is_lumen = _in_lumen(rng, seeds, extent)
    is_lumen[central] = False

    grid = np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    points = np.stack([axis + 0.7 * _noise(rng, shape, spacing, 3.0) for axis in grid], axis=-1).reshape(-1, 3)
    distance, nearest = cKDTree(seeds).query(points, k=2)
    first, second = nearest.T
    apart = np.linalg.norm(seeds[first] - seeds[second], axis=1)
    to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
    membrane = (to_wall < _MEMBRANE_HALF_WIDTH) & ~(is_lumen[first] & is_lumen[second])

    has_nucleus = ~is_lumen & (rng.random(len(seeds)) > 0.08)
    has_nucleus[central] = True
    reach = _nucleus_reach(rng, points - seeds[first], first, len(seeds))
    reach += 0.16 * _noise(rng, shape, spacing, 1.3).ravel()
    nucleus = (reach < 1) & (to_wall > _MEMBRANE_HALF_WIDTH + 0.35) & has_nucleus[first]
    if not nucleus.any():  # the smallest volumes may show no more than the rims of cells
        depth = np.where(is_lumen[first], 0, to_wall)
        nucleus = depth > 0.8 * depth.max()
    return _Cells(
        first.reshape(shape),
        is_lumen[first].reshape(shape),
        membrane.reshape(shape),
        nucleus.reshape(shape),
        len(seeds),
    )


def _cell_seeds(rng: np.random.Generator, extent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cell centres in micrometres: a staggered lattice that reaches beyond the volume, each centre displaced."""
    n_around = (np.ceil(extent / _CELL_SIZE / 2) + 1).astype(int)
    z, y, x = np.meshgrid(*(np.arange(-n, n + 1) for n in n_around), indexing="ij")
    lattice = np.stack([z, y + 0.5 * (z % 2), x + 0.5 * (y % 2)], axis=-1).reshape(-1, 3) * _CELL_SIZE
    jitter = rng.uniform(-0.3, 0.3, lattice.shape) * _CELL_SIZE
    jitter[len(lattice) // 2] /= 4
    seeds: npt.NDArray[np.float64] = lattice + jitter + extent / 2
    return seeds


def _in_lumen(
    rng: np.random.Generator, seeds: npt.NDArray[np.float64], extent: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Which seeds lie in an empty tube that runs obliquely down through the tissue."""
    axis = np.array([1.0, *rng.uniform(-0.5, 0.5, 2)])
    axis /= np.linalg.norm(axis)
    side = rng.choice([0.22, 0.78], 2)
    offset = seeds - extent * [0.5, *side]
    from_axis = np.linalg.norm(offset - np.outer(offset @ axis, axis), axis=1)
    inside: npt.NDArray[np.bool_] = from_axis < 0.9 * _CELL_SIZE
    return inside


def _nucleus_reach(
    rng: np.random.Generator, offset: npt.NDArray[np.float64], cell: npt.NDArray[np.intp], n_cells: int
) -> npt.NDArray[np.float64]:
    """Distance from the centre of the cell's nucleus, 1 on the surface of a turned ellipsoid of its own size."""
    turns, _ = np.linalg.qr(rng.normal(size=(n_cells, 3, 3)))
    radii = _NUCLEUS_RADIUS * rng.uniform(0.85, 1.1, (n_cells, 1)) * rng.uniform(0.75, 1.25, (n_cells, 3))
    centres = rng.normal(scale=0.5, size=(n_cells, 3))
    turned = np.einsum("nij,nj->ni", turns[cell], offset - centres[cell]) / radii[cell]
    reach: npt.NDArray[np.float64] = np.linalg.norm(turned, axis=1)
    return reach


def _stain(rng: np.random.Generator, cells: _Cells, spacing: Spacing) -> FloatArray:
    """Density of dye before the microscope sees it, about 0 to 1."""
    shape = cells.index.shape
    per_cell = rng.uniform(0.8, 1.2, (2, cells.n_cells)).astype(np.float32)
    cytoplasm_of, nucleus_of = per_cell[:, cells.index]
    granules = np.maximum(_noise(rng, shape, spacing, 0.35) - 1.6, 0)
    cytoplasm = cytoplasm_of * (0.18 + 0.04 * _noise(rng, shape, spacing, 0.8)) + 0.8 * granules
    chromatin = nucleus_of * (0.88 + 0.22 * _noise(rng, shape, spacing, 0.4) + 0.12 * _noise(rng, shape, spacing, 1.1))
    patches = 0.68 + 0.12 * _noise(rng, shape, spacing, 1.2)

    density = np.where(cells.lumen, np.float32(0.05), cytoplasm)
    density[cells.nucleus] = chromatin[cells.nucleus]
    density[cells.membrane] = patches[cells.membrane]
    return np.maximum(density, np.float32(0.02))


def _expose(rng: np.random.Generator, density: FloatArray, spacing: Spacing) -> npt.NDArray[np.uint16]:
    """Count photons as a camera: blur, light that falls off with depth and to the sides, photons, read noise."""
    blurred = ndimage.gaussian_filter(density, [b / s for b, s in zip(_BLUR, spacing, strict=True)])
    depth = np.linspace(1.0, 0.65, density.shape[0], dtype=np.float32)[:, None, None]
    uneven = 1 + 0.14 * _noise(rng, density.shape, spacing, 12.0)
    photons = 100 * blurred * depth * np.clip(uneven, 0.55, 1.5)
    counts = rng.poisson(photons) * 9.0 + rng.normal(100, 14, density.shape)
    exposed: npt.NDArray[np.uint16] = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return exposed


def _noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: Spacing, length: float) -> FloatArray:
    """Smooth noise of mean 0 and deviation 1 with this correlation length in micrometres.

    Long lengths are drawn on a coarse lattice, three points to a length, since filtering at full size is slow.
    """
    steps = np.maximum(1, np.floor(length / np.array(spacing) / 3)).astype(int)
    coarse_shape = [-(-n // int(step)) + 3 for n, step in zip(shape, steps, strict=True)]
    white = rng.standard_normal(coarse_shape, dtype=np.float32)
    coarse: FloatArray = ndimage.gaussian_filter(white, length / (np.array(spacing) * steps), mode="wrap")
    coarse /= coarse.std()
    where = [np.arange(n, dtype=np.float32) / step for n, step in zip(shape, steps, strict=True)]
    for axis, positions in enumerate(where):
        coarse = _interpolate(coarse, positions, axis)
    return coarse


def _interpolate(values: FloatArray, positions: FloatArray, axis: int) -> FloatArray:
    below = positions.astype(int)
    share = (positions - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    between: FloatArray = values.take(below, axis) * (1 - share) + values.take(below + 1, axis) * share
    return between


# ---------------------------------------------------------------- a real volume


def cells3d() -> Sample:
    """Real cells of the Allen Institute for Cell Science, as scikit-image distributes them: 60 x 256 x 256 voxels.

    The image is downloaded once and kept in the cache of scikit-image; it is (z, channel, y, x), channel 0 shows
    membranes and channel 1 nuclei.

    Nobody has annotated this volume. Its truth is *derived* from the two channels by fixed rules: nucleus where the
    smoothed nuclear channel exceeds its Otsu threshold, membrane where a band-pass of the membrane channel exceeds
    its own Otsu threshold and there is no nucleus, background elsewhere. A score against it says how well these rules
    were learnt from a few slices, not how well a person's annotation was.

    Raises
    ------
    InputError
        The volume is not in the cache and cannot be downloaded.
    """
    from skimage import data

    try:
        image = data.cells3d()  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"The volume cells3d could not be downloaded ({error}); connect to the internet and try again, "
            "or use the generated sample 'tissue', which needs no download."
        ) from error
    spacing: Spacing = (0.29, 0.26, 0.26)
    truth = _derive_truth(image[:, 0], image[:, 1], spacing)
    return Sample("cells3d", image, truth, spacing, CLASS_NAMES, channel_axis=1)


def _derive_truth(membranes: npt.NDArray[Any], nuclei: npt.NDArray[Any], spacing: Spacing) -> LabelArray:
    is_nucleus = ndimage.binary_fill_holes(_above_otsu(_smooth(nuclei, spacing, 0.5)))
    is_membrane = _above_otsu(_smooth(membranes, spacing, 0.3) - _smooth(membranes, spacing, 2.0))
    truth = np.full(membranes.shape, BACKGROUND, np.uint8)
    truth[is_membrane] = MEMBRANE
    truth[is_nucleus] = NUCLEUS
    return truth


def _smooth(image: npt.NDArray[Any], spacing: Spacing, length: float) -> FloatArray:
    """Blur by a Gaussian of this deviation in micrometres."""
    smoothed: FloatArray = ndimage.gaussian_filter(image.astype(np.float32), [length / s for s in spacing])
    return smoothed


def _above_otsu(image: FloatArray) -> MaskArray:
    from skimage.filters import threshold_otsu

    above: MaskArray = image > threshold_otsu(image)  # type: ignore[no-untyped-call]
    return above


# ---------------------------------------------------------------- simulated painting

_BRUSH_RADIUS = 2
_FILLED_SHARE = 0.55


def paint_slices(truth: LabelArray, n_slices: int = 3, *, seed: int = 0, axis: int = 0) -> LabelArray:
    """Paint a few slices of a truth as a person in a hurry would.

    In about half of each slice areas are filled with a round brush that mostly stays off their borders, and thin
    structures are traced, with gaps; elsewhere there are a few strokes. Each class that a slice shows gets some paint.

    Parameters
    ----------
    truth
        Class ids along z, y, x; 0 is never painted.
    n_slices
        How many slices, spread evenly over the inner 60 % of the volume.
    seed
        Moves the strokes; the slices stay.
    axis
        The axis that the slices lie across.

    Returns
    -------
    annotation
        Shape of `truth`, uint8: 0 = unpainted, otherwise the class id.
    """
    if truth.ndim != 3 or not 1 <= n_slices <= truth.shape[axis]:
        raise InputError(
            f"n_slices is {n_slices} for a truth of shape {truth.shape} and axis {axis}; it must lie between 1 and the "
            "number of slices of a volume (z, y, x)."
        )
    rng = np.random.default_rng(seed)
    annotation = np.full(truth.shape, UNPAINTED, np.uint8)
    fractions = np.linspace(0.2, 0.8, n_slices) if n_slices > 1 else [0.5]
    for index in np.rint(np.multiply(fractions, truth.shape[axis] - 1)).astype(int):
        plane = (*(slice(None),) * axis, index)
        annotation[plane] = _paint_plane(truth[plane], rng)
    return annotation


def _paint_plane(truth: LabelArray, rng: np.random.Generator) -> LabelArray:
    """Paint of one slice; areas are filled with the brush, and what is mostly thinner than the brush is traced."""
    filled = _filled_part(rng, truth.shape)
    painted = np.full(truth.shape, UNPAINTED, np.uint8)
    for class_id in np.unique(truth[truth != UNPAINTED]).tolist():
        region = truth == class_id
        from_border = _from_border(region)
        is_thin = (from_border > _BRUSH_RADIUS).sum() < 0.2 * region.sum()
        reachable = _brushed(rng, from_border)
        if is_thin:
            reachable |= _traced(rng, region)
        paint = reachable & (filled | _strokes(rng, reachable & ~filled))
        painted[paint if paint.any() else region] = class_id
    return painted


def _filled_part(rng: np.random.Generator, shape: tuple[int, ...]) -> MaskArray:
    """Choose what gets painted densely: a wobbly patch of a given share of the slice."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    centre = rng.uniform(-0.3, 0.3, 2)
    wobble = ndimage.gaussian_filter(rng.normal(size=shape), [n / 8 for n in shape], mode="reflect")
    distance = np.hypot(y[:, None] - centre[0], x[None] - centre[1]) + 0.15 * wobble / wobble.std()
    part: MaskArray = distance <= np.quantile(distance, _FILLED_SHARE)
    return part


def _from_border(region: MaskArray) -> FloatArray:
    """Measure how far each pixel of the region is from other classes; the border of the slice is none."""
    distance: FloatArray = ndimage.distance_transform_edt(np.pad(region, 1, mode="edge"))[1:-1, 1:-1]
    return distance


def _brushed(rng: np.random.Generator, from_border: FloatArray) -> MaskArray:
    """Fill an area with a round brush up to a pixel or two from its border, here and there right up to it."""
    wander = ndimage.gaussian_filter(rng.normal(size=from_border.shape), 3)
    margin = np.maximum(1.25 + 0.5 * wander / wander.std(), 0.5)
    brushed: MaskArray = ndimage.binary_opening(from_border > margin, _disk(_BRUSH_RADIUS))
    return brushed


def _traced(rng: np.random.Generator, region: MaskArray) -> MaskArray:
    """Follow a thin structure along its middle with a brush three pixels wide, with gaps."""
    from skimage.morphology import skeletonize

    gaps = ndimage.gaussian_filter(rng.normal(size=region.shape), 4)
    middle = skeletonize(region) & (gaps > np.quantile(gaps, 0.15))  # type: ignore[no-untyped-call]
    traced: MaskArray = ndimage.binary_dilation(middle)
    return traced


def _strokes(rng: np.random.Generator, region: MaskArray, n_strokes: int = 3) -> MaskArray:
    """Curved brush strokes that start somewhere in the region; they may run out of it."""
    path = np.zeros(region.shape, bool)
    starts = np.argwhere(region)
    if not len(starts):
        return path
    length = max(region.shape) // 5
    for start in starts[rng.integers(len(starts), size=n_strokes)]:
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(scale=0.15, size=length))
        steps = np.cumsum(np.stack([np.sin(turns), np.cos(turns)], axis=1), axis=0)
        y, x = np.clip(np.rint(start + steps), 0, np.subtract(region.shape, 1)).astype(int).T
        path[y, x] = True
    stroked: MaskArray = ndimage.binary_dilation(path, _disk(_BRUSH_RADIUS))
    return stroked


def _disk(radius: int) -> MaskArray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: MaskArray = y**2 + x**2 <= radius**2 + 0.5
    return disk
