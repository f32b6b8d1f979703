"""From napari's Image layers to the image that is learnt from, and to where its annotation lies in the world."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import behind_dask
from napari_sparseseg.storage.cached import with_cache
from napari_sparseseg.storage.working import Colours, StackedChannels, WorkingArray

FACTORS = (1, 2, 4)
"""Working scales that are offered."""
LONGEST_PREDICTION_S = 300.0
"""Time to predict everything above which a coarser scale is suggested."""

_SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": ""}
_N_COLOURS = 3
_TIME_LABELS = {"t", "time", "frame", "frames"}
_CHANNEL_LABELS = {"c", "ch", "channel", "channels"}


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """An image to learn from, read lazily, and the transform of layers that lie on it.

    `scale`, `translate`, `units` and `axis_labels` have one entry for each axis of the image without channels, which
    are those of annotation and prediction. `spacing`, and `offset` of the first voxel, are along z, y, x (y, x) in the
    unit of x; an image that is flipped has no offset that a file could hold. `shape` is the image's without channels.
    `region` counts voxels of the layer at full resolution; `level` and `step` say how much coarser the image is.
    """

    array: Any = field(repr=False)
    channel_axis: int | None
    time_axis: int | None
    spacing: tuple[float, ...]
    offset: tuple[float, ...] | None
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]
    name: str
    layer_names: tuple[str, ...]
    layers: tuple[weakref.ref[Any], ...] = field(default=(), repr=False)
    level: int = 0
    region: Box | None = None
    step: Shape3D = (1, 1, 1)
    has_voxel_size: bool = True
    """Whether the layer says how large a voxel is."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(self.array.shape) if axis != self.channel_axis)

    @property
    def unit_symbol(self) -> str:
        """Of the unit of `spacing`, or its name; "" for voxels."""
        return _SYMBOLS.get(self.units[-1], self.units[-1]) if self.has_voxel_size else ""

    def is_of(self, layer: Any) -> bool:
        """Whether the image is that of this layer, or has it as a channel; whatever the layer is called by now."""
        return weakref.ref(unwrapped(layer)) in self.layers

    @property
    def n_channels(self) -> int:
        return 1 if self.channel_axis is None else int(self.array.shape[self.channel_axis])

    @property
    def n_voxels(self) -> int:
        """Voxels of one time point."""
        return int(np.prod(self.shape[-len(self.spacing) :]))


def source_of(
    layers: Sequence[Any],
    *,
    level: int = 0,
    region: Box | None = None,
    step: Shape3D = (1, 1, 1),
    keeps_alpha: bool = False,
) -> ImageSource:
    """The image that one Image layer holds, or several of one shape as its channels.

    An axis that is labelled as time or channel is taken for that; of four axes without such labels the first is time.
    Colours of an RGB layer are channels; how opaque its voxels are is none.

    Parameters
    ----------
    layers
        Image layers of a viewer, in the order of the channels.
    level
        Of a multiscale layer.
    region
        Voxels at full resolution, along z, y, x; None for all.
    step
        Voxels of the level along z, y, x that are averaged into one.
    keeps_alpha
        How opaque voxels are is a channel, too, as older versions took it.

    Raises
    ------
    InputError
        The layers cannot be used, or not together; the sentence says why and what to do.
    """
    if not layers:
        raise InputError("no image is chosen; choose an Image layer")
    first, roles = layers[0], _roles(layers[0])
    for layer in layers[1:]:
        _check_together(layer, first)
    arrays = [_level_of(layer, level) for layer in layers]
    channel_axis, time_axis = _axis_of("c", roles), _axis_of("t", roles)
    if first.rgb:
        channel_axis = len(roles)
    array: Any = arrays[0]
    if first.rgb and array.shape[-1] > _N_COLOURS and not keeps_alpha:
        array = Colours(array, name=first.name)
    if len(arrays) > 1:
        array = StackedChannels(arrays, names=[layer.name for layer in layers])
        channel_axis, time_axis = 0, None if time_axis is None else time_axis + 1
    factors = _level_factors(first, level)
    crop = None if region is None else _region_at(region, factors, first, roles, level)
    n_spatial = roles.count("s")
    if crop is not None or max(step[-n_spatial:]) > 1:
        array = WorkingArray(
            array, channel_axis=channel_axis, time_axis=time_axis, region=crop, step=step, name=first.name
        )
    kept = [axis for axis, role in enumerate(roles) if role != "c"]
    scale, translate = _transform(first, factors, crop, step, n_spatial)
    return ImageSource(
        array=array,
        channel_axis=channel_axis,
        time_axis=time_axis,
        spacing=_in_unit_of_x(first, np.abs(scale[-n_spatial:])),
        offset=None if (scale[-n_spatial:] < 0).any() else _in_unit_of_x(first, translate[-n_spatial:]),
        scale=tuple(scale[kept].tolist()),
        translate=tuple(translate[kept].tolist()),
        units=tuple(str(first.units[axis]) for axis in kept),
        axis_labels=tuple(first.axis_labels[axis] for axis in kept),
        name=_common_name([layer.name for layer in layers]),
        layer_names=tuple(layer.name for layer in layers),
        layers=tuple(weakref.ref(unwrapped(layer)) for layer in layers),
        level=level,
        region=region,
        step=step,
        has_voxel_size=_has_voxel_size(first, kept),
    )


def unwrapped(thing: Any) -> Any:
    """What lies behind the proxy that napari wraps around all that it hands to plugins, be it its own or ours."""
    return thing.__wrapped__ if type(thing).__module__ == "napari.utils._proxies" else thing


def n_levels(layer: Any) -> int:
    """Resolution levels of a layer; 1 if it is not multiscale."""
    return len(layer.level_shapes)


def spatial_shape(layer: Any, level: int = 0) -> tuple[int, ...]:
    """Voxels of a layer along its two or three spatial axes; raises `InputError` as `source_of` does."""
    roles = _roles(layer)
    return tuple(int(n) for n in layer.level_shapes[level][: len(roles)][-roles.count("s") :])


# ---------------------------------------------------------------- scale and region


def step_for(factor: int, spacing: Sequence[float]) -> Shape3D:
    """Voxels to average along z, y, x for an image that is `factor` times coarser in its finest direction.

    Axes that are coarse already are averaged less, so that voxels come nearer to cubes.
    """
    finest = min(spacing)
    steps = [max(1, min(factor, round(factor * finest / size))) for size in spacing]
    z, y, x = [1] * (3 - len(steps)) + steps
    return z, y, x


def suggested_factor(shape: Sequence[int], spacing: Sequence[float], seconds_of: Callable[[int], float]) -> int:
    """The finest of `FACTORS` at which predicting everything takes less than `LONGEST_PREDICTION_S`, or the last."""
    for factor in FACTORS:
        if seconds_of(n_voxels_at(shape, step_for(factor, spacing))) <= LONGEST_PREDICTION_S:
            return factor
    return FACTORS[-1]


def n_voxels_at(shape: Sequence[int], step: Shape3D) -> int:
    """Voxels that are left of an image (z, y, x) or (y, x) after averaging."""
    return int(np.prod([-(-n // s) for n, s in zip(shape, step[-len(shape) :], strict=True)]))


def region_on_screen(viewer: Any, layer: Any) -> Box:
    """What can be seen of a layer, in voxels at full resolution; everything along the sliders' axes."""
    sizes = spatial_shape(layer)
    corners = np.asarray(layer.corner_pixels) * np.asarray(layer.downsample_factors)[layer.data_level][: layer.ndim]
    shown = {axis - (viewer.dims.ndim - layer.ndim) for axis in viewer.dims.displayed}
    bounds = [(0, size) for size in sizes]
    for i, axis in enumerate(range(layer.ndim - len(sizes), layer.ndim)):
        if axis in shown:
            bounds[i] = int(np.floor(corners[0, axis])), int(np.ceil(corners[1, axis])) + 1
    return _clipped_box(bounds, sizes)


def region_of_shapes(shapes: Any, layer: Any) -> Box:
    """The box around all shapes of a Shapes layer, in voxels of an image layer; everything across flat shapes.

    Raises `InputError` if there is no shape, or none on the image.
    """
    if not len(shapes.data):
        raise InputError(f"the layer {shapes.name!r} holds no shape; draw a rectangle around the region")
    vertices = np.concatenate([np.asarray(corners) for corners in shapes.data])
    points = np.array([layer.world_to_data(shapes.data_to_world(vertex)) for vertex in vertices])
    sizes = spatial_shape(layer)
    bounds = []
    for size, values in zip(sizes, points.T[-len(sizes) :], strict=True):
        # voxel i reaches from i - 0.5 to i + 0.5
        low, high = int(np.floor(values.min() + 0.5)), int(np.ceil(values.max() + 0.5))
        bounds.append((low, high) if np.ptp(values) > 1e-6 else (0, size))
    box = _clipped_box(bounds, sizes)
    if box.n_voxels == 0:
        raise InputError(f"the shapes of {shapes.name!r} do not lie on the image {layer.name!r}")
    return box


def _clipped_box(bounds: Sequence[tuple[int, int]], sizes: Sequence[int]) -> Box:
    (z, y, x), whole = [(0, 1)] * (3 - len(sizes)) + list(bounds), [1] * (3 - len(sizes)) + list(sizes)
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1])).clipped(Box.whole((whole[0], whole[1], whole[2])))


def _region_at(region: Box, factors: Any, layer: Any, roles: str, level: int) -> Box:
    """The region in voxels of a level, at least one along each axis."""
    n_spatial = roles.count("s")
    sizes = spatial_shape(layer, level)
    bounds = [
        (int(low // factor), max(int(np.ceil(high / factor)), int(low // factor) + 1))
        for low, high, factor in zip(
            region.start[-n_spatial:], region.stop[-n_spatial:], factors[-n_spatial:], strict=True
        )
    ]
    box = _clipped_box(bounds, sizes)
    if box.n_voxels == 0:
        raise InputError(f"the working region does not lie on the image {layer.name!r}; choose another one, or none")
    return box


# ---------------------------------------------------------------- layers


def _roles(layer: Any) -> str:
    """One letter for each axis but colours: t time, c channel, s spatial."""
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    roles = ["t" if label in _TIME_LABELS else "c" if label in _CHANNEL_LABELS else "s" for label in labels]
    if roles == ["s"] * 4:
        roles[0] = "t"
    found = "".join(roles)
    if found not in ("ss", "sss", "tss", "tsss", "css", "csss"):
        raise InputError(
            f"{layer.name!r} has the shape {_shape_text(layer)}, which is none of (y, x), (z, y, x) and "
            f"(t, z, y, x); {_remedy(found)}"
        )
    if layer.rgb and "c" in found:
        raise InputError(f"{layer.name!r} has both colours and a channel axis; convert it to one of them")
    return found


def _remedy(roles: str) -> str:
    if "c" in roles or len(roles) > 4:
        return "split its channels into layers first (right-click on the layer, Split Stack), then choose them here"
    return "set the layer's axis_labels if the first axis is time, or bring its axes into that order"


def _axis_of(role: str, roles: str) -> int | None:
    return roles.index(role) if role in roles else None


def _level_of(layer: Any, level: int) -> Any:
    levels = n_levels(layer)
    if not 0 <= level < levels:
        raise InputError(f"{layer.name!r} has no level {level}, only 0 to {levels - 1}")
    array = layer.data[level] if layer.multiscale else layer.data
    return with_cache(behind_dask(unwrapped(array)))


def _check_together(layer: Any, first: Any) -> None:
    if layer.rgb or first.rgb:
        name = (layer if layer.rgb else first).name
        raise InputError(f"{name!r} is a colour image, which holds its channels already; choose it alone")
    if _roles(layer) != _roles(first) or "c" in _roles(layer):
        raise InputError(f"{layer.name!r} and {first.name!r} have different axes; channels of one image have the same")
    if not np.array_equal(layer.level_shapes, first.level_shapes):
        raise InputError(
            f"{layer.name!r} has the shape {_shape_text(layer)}, but {first.name!r} has "
            f"{_shape_text(first)}; channels of one image have one shape"
        )
    if not all(np.allclose(a, b) for a, b in zip(_world(layer), _world(first), strict=True)):
        raise InputError(
            f"{layer.name!r} and {first.name!r} do not lie at the same place; give them the same scale and translate"
        )


def _shape_text(layer: Any) -> str:
    return f"({', '.join(str(n) for n in layer.level_shapes[0])})"


def _world(layer: Any) -> tuple[Any, Any]:
    """Scale and translate that take data to the world; raises `InputError` if it takes more than these."""
    origin = np.array(layer.data_to_world(np.zeros(layer.ndim)))
    columns = np.array([layer.data_to_world(unit) for unit in np.eye(layer.ndim)]) - origin
    scale = np.diag(columns)
    if not np.allclose(columns, np.diag(scale), atol=1e-6 * float(np.abs(columns).max())):
        raise InputError(
            f"{layer.name!r} is rotated or sheared, and paint follows voxels; take its rotate, shear and affine back, "
            "or resample the image"
        )
    return scale, origin


def _level_factors(layer: Any, level: int) -> Any:
    return np.asarray(layer.downsample_factors)[level][: layer.ndim]


def _transform(layer: Any, factors: Any, crop: Box | None, step: Shape3D, n_spatial: int) -> tuple[Any, Any]:
    """Scale and translate of the working image: a voxel lies in the middle of those that it is the mean of."""
    scale, translate = _world(layer)
    translate = translate + scale * (factors - 1) / 2
    scale = scale * factors
    steps, start = np.ones(layer.ndim), np.zeros(layer.ndim)
    steps[-n_spatial:] = step[-n_spatial:]
    if crop is not None:
        start[-n_spatial:] = crop.start[-n_spatial:]
    return scale * steps, translate + scale * (start + (steps - 1) / 2)


def _in_unit_of_x(layer: Any, lengths: Any) -> tuple[float, ...]:
    units = layer.units[-len(lengths) :]
    found = []
    for length, unit in zip(lengths.tolist(), units, strict=True):
        is_other = unit != units[-1] and unit.dimensionality == units[-1].dimensionality
        # 2 µm are 2000 nm, and not 1999.9999999999998
        found.append(float(f"{(length * unit).to(units[-1]).magnitude:.12g}") if is_other else length)
    return tuple(found)


def _has_voxel_size(layer: Any, axes: Sequence[int]) -> bool:
    scale, _ = _world(layer)
    return any(abs(scale[axis]) != 1 or str(layer.units[axis]) != "pixel" for axis in axes)


def _common_name(names: Sequence[str]) -> str:
    """One name, or what several have in common, such as "cells" of "cells [0]" and "cells [1]"."""
    if len(names) == 1:
        return names[0]
    common = "".join(a[0] for a in _while_equal(names)).strip(" [(_-:.")
    return common if len(common) > 2 else " + ".join(names)


def _while_equal(names: Sequence[str]) -> list[tuple[str, ...]]:
    columns = list(zip(*names, strict=False))
    n_equal = next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))
    return columns[:n_equal]
