"""One picture that says what was painted, what came out and how it was learnt."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED, Shape3D, Spacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; classes take them in ascending order and then again.
COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442")
_ROWS = ("Image", "Paint", "Prediction", "Truth")
_PHASES = {"pixel": "pixel head", "warm-up": "warm-up", "unet": "U-Net"}
_INK = "#333333"
_FAINT = "#B8B8B8"

FloatArray = npt.NDArray[np.floating[Any]]


class LearningPoint(Protocol):
    """What the learning curve needs of a training step; `dice` is None where nothing was estimated."""

    @property
    def seconds(self) -> float:
        """Time since learning began."""

    @property
    def phase(self) -> str:
        """What learnt in this step; losses of different phases cannot be compared."""

    @property
    def loss(self) -> float:
        """Loss of this step."""

    @property
    def dice(self) -> float | None:
        """Dice on held-out paint, where this step estimated it."""


def class_colours(class_names: Mapping[int, str]) -> dict[int, str]:
    """Give each class a colour, as "#rrggbb", in ascending order of the class ids."""
    return {class_id: COLOURS[i % len(COLOURS)] for i, class_id in enumerate(sorted(class_names))}


def draw_summary(
    path: Path,
    *,
    image: npt.NDArray[Any],
    annotation: npt.NDArray[np.integer[Any]],
    labels: npt.NDArray[np.integer[Any]],
    truth: npt.NDArray[np.integer[Any]],
    spacing: Spacing,
    history: Sequence[LearningPoint],
    class_names: Mapping[int, str],
    title: str,
    dice: Mapping[int, float],
    channel_axis: int | None = None,
    unit: str = "µm",
) -> None:
    """Write a PNG: image, paint, prediction and truth in three orthogonal planes, Dice per class, learning curves.

    The xy plane is the painted slice next to the middle, the other two cut through the centre of the volume, where
    nearly nothing is painted. Nothing global of matplotlib is used or changed, and `path` appears complete or not at
    all.

    Parameters
    ----------
    path
        The PNG to write.
    image, annotation, labels, truth
        Volumes of one shape (z, y, x); the image may have one more axis at `channel_axis`.
    spacing
        Size of a voxel along z, y, x in `unit`.
    history
        Training steps, in order.
    class_names
        Name of each class id; it fixes the order of the colours.
    title
        Stands above the picture.
    dice
        Dice of each class, shown beside its name.
    """
    from matplotlib.figure import Figure

    colours = class_colours(class_names)
    layout = _Layout.of(truth.shape, spacing)
    figure = Figure(figsize=(layout.width, layout.height), dpi=150, facecolor="white")
    figure.text(_MARGIN / layout.width, 1 - 0.2 / layout.height, title, fontsize=11, fontweight="bold", va="center")
    volumes = _Volumes(_channels(image, channel_axis), annotation, labels, truth)
    _draw_planes(figure, layout, volumes, colours, unit)
    _draw_dice(layout.side_axes(figure, 0.0, 0.2), class_names, colours, dice)
    _draw_loss(layout.side_axes(figure, 0.29, 0.58), history)
    _draw_estimate(layout.side_axes(figure, 0.67, 0.96), history)
    _save(figure, path)


# ---------------------------------------------------------------- where things stand, in inches

_MARGIN = 0.15
_TOP = 0.65
_BOTTOM = 0.35
_LEFT = 0.45
_GAP = 0.09
_ROW_HEIGHT = 1.85
_PLANES_WIDTH = 6.0
_NARROWEST_COLUMN = 0.8
_SIDE_LEFT = 1.15
_SIDE_WIDTH = 2.3
_SIDE_RIGHT = 0.5


@dataclass(frozen=True)
class _Layout:
    """Three columns of planes to one scale, four rows of them, and a column of diagrams to their right."""

    scale: float
    extent: Spacing
    columns: tuple[float, float, float]
    row: float

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: Spacing) -> _Layout:
        depth, height, width = (n * s for n, s in zip(shape, spacing, strict=True))
        scale = min(_ROW_HEIGHT / max(height, width), _PLANES_WIDTH / (width + 2 * depth))
        narrow, wide = (max(scale * size, _NARROWEST_COLUMN) for size in (depth, width))
        return cls(scale, (depth, height, width), (wide, narrow, narrow), max(scale * max(height, width), 1.0))

    @property
    def width(self) -> float:
        return _LEFT + sum(self.columns) + 2 * _GAP + _SIDE_LEFT + _SIDE_WIDTH + _SIDE_RIGHT

    @property
    def height(self) -> float:
        return _TOP + self.inner_height + _BOTTOM

    @property
    def inner_height(self) -> float:
        return 4 * self.row + 3 * _GAP

    def plane_axes(self, figure: Figure, row: int, column: int) -> Axes:
        """Add the axes of one plane; a plane that is smaller than its place is centred in it."""
        left = _LEFT + sum(self.columns[:column]) + column * _GAP
        bottom = _BOTTOM + (3 - row) * (self.row + _GAP)
        return self._axes(figure, left, bottom, self.columns[column], self.row)

    def side_axes(self, figure: Figure, top: float, bottom: float) -> Axes:
        """Add axes at the right, between two heights as parts of the rows, from the top."""
        left = _LEFT + sum(self.columns) + 2 * _GAP + _SIDE_LEFT
        height = (bottom - top) * self.inner_height
        return self._axes(figure, left, _BOTTOM + (1 - bottom) * self.inner_height, _SIDE_WIDTH, height)

    def _axes(self, figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
        return figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))


# ---------------------------------------------------------------- planes


@dataclass(frozen=True)
class _Volumes:
    """What the rows show; each is (z, y, x), the channels have one more axis in front."""

    channels: npt.NDArray[Any]
    annotation: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    truth: npt.NDArray[Any]

    def centre(self) -> Shape3D:
        """Say where the planes cut: in the middle of the volume, along z in the painted slice next to it."""
        z, y, x = (n // 2 for n in self.annotation.shape)
        painted = np.flatnonzero((self.annotation != UNPAINTED).any(axis=(1, 2)))
        if len(painted):
            z = int(painted[np.argmin(np.abs(painted - z))])
        return z, y, x


def _channels(image: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[Any]:
    return image[None] if channel_axis is None else np.moveaxis(image, channel_axis, 0)


def _cut(volume: npt.NDArray[Any], plane: str, centre: Shape3D) -> npt.NDArray[Any]:
    """Cut a plane as rows and columns; z runs to the right in xz and yz, so that the three stand side by side."""
    z, y, x = centre
    if plane == "xy":
        return volume[..., z, :, :]
    across = volume[..., y, :] if plane == "xz" else volume[..., x]
    return across.swapaxes(-1, -2)


def _coloured(channels: npt.NDArray[Any], limits: Sequence[tuple[float, float]]) -> FloatArray:
    """Colour a plane, red, green and blue from 0 to 1: grey, or magenta and green where there are two channels."""
    stretched = [
        np.clip((channel.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        for channel, (low, high) in zip(channels, limits, strict=True)
    ]
    if len(stretched) == 2:
        return np.stack([stretched[0], stretched[1], stretched[0]], axis=-1)
    return np.repeat(np.mean(stretched, axis=0)[..., None], 3, axis=-1)


def _tinted(backdrop: FloatArray, labels: npt.NDArray[Any], colours: Mapping[int, str]) -> FloatArray:
    """Dim the backdrop, in grey, and lay the colours of the classes over its labelled pixels."""
    from matplotlib.colors import to_rgb

    tinted: FloatArray = np.repeat(0.55 * backdrop.mean(axis=-1, keepdims=True), 3, axis=-1)
    for class_id, colour in colours.items():
        chosen = labels == class_id
        tinted[chosen] = 0.25 * tinted[chosen] + 0.75 * np.array(to_rgb(colour))
    return tinted


def _draw_planes(figure: Figure, layout: _Layout, volumes: _Volumes, colours: Mapping[int, str], unit: str) -> None:
    limits = [tuple(np.percentile(channel, (0.5, 99.7)).tolist()) for channel in volumes.channels]
    z, y, x = centre = volumes.centre()
    depth, height, width = layout.extent
    is_painted = (volumes.annotation[z] != UNPAINTED).any()
    titles = (f"xy, slice {z}" + " (painted)" * bool(is_painted), f"xz, y = {y}", f"yz, x = {x}")
    sizes = ((width, height), (depth, width), (depth, height))
    for column, (plane, across) in enumerate((("xy", "x"), ("xz", "z"), ("yz", "z"))):
        image = _coloured(_cut(volumes.channels, plane, centre), limits)
        overlaid = (volumes.annotation, volumes.labels, volumes.truth)
        pictures = [image, *(_tinted(image, _cut(volume, plane, centre), colours) for volume in overlaid)]
        right, bottom = sizes[column]
        for row, picture in enumerate(pictures):
            ax = layout.plane_axes(figure, row, column)
            ax.imshow(picture, extent=(0, right, bottom, 0), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == column == 0:
                _draw_scale_bar(ax, width, height, unit)
            if column == 0:
                ax.set_ylabel(_ROWS[row], fontsize=9, fontweight="bold")
            if row == 0:
                ax.set_title(titles[column], fontsize=8, pad=4)
        ax.set_xlabel(f"{across} →", fontsize=8, labelpad=3)


def _draw_scale_bar(ax: Axes, width: float, height: float, unit: str) -> None:
    """Draw a bar of a round length, about a quarter of the picture, in its lower left corner."""
    from matplotlib.patheffects import withStroke

    target = width / 4
    power = 10.0 ** np.floor(np.log10(target))
    length = max(power * step for step in (1, 2, 5) if power * step <= target)
    left, y = 0.05 * width, 0.95 * height
    edge = [withStroke(linewidth=2, foreground="black")]
    ax.plot([left, left + length], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    ax.text(
        left,
        y - 0.03 * height,
        f"{length:g} {unit}",
        color="white",
        ha="left",
        va="bottom",
        fontsize=8,
        fontweight="bold",
        path_effects=edge,
    )


# ---------------------------------------------------------------- diagrams


def _draw_dice(ax: Axes, class_names: Mapping[int, str], colours: Mapping[int, str], dice: Mapping[int, float]) -> None:
    """Draw the legend: one bar a class, as long as its Dice."""
    classes = sorted(class_names)
    heights = [dice.get(class_id, np.nan) for class_id in classes]
    ax.barh(range(len(classes)), 1, height=0.5, color="#F0F0F0")
    ax.barh(range(len(classes)), heights, height=0.5, color=[colours[c] for c in classes])
    for position, value in enumerate(heights):
        ax.text(1.02, position, f"{value:.3f}" if np.isfinite(value) else "none", va="center", fontsize=9)
    ax.set_yticks(range(len(classes)), [class_names[c] for c in classes], fontsize=9)
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title("Dice over the planes without paint", fontsize=9, loc="left")


def _draw_loss(ax: Axes, history: Sequence[LearningPoint]) -> None:
    for phase, style in zip(dict.fromkeys(point.phase for point in history), cycle(("--", "-", ":"))):
        points = [(p.seconds, p.loss) for p in history if p.phase == phase]
        seconds, losses = np.array(points, dtype=float).T
        ax.plot(seconds, losses, color=_FAINT, linewidth=0.6)
        ax.plot(seconds, _running_mean(losses), style, color=_INK, linewidth=1.4, label=_PHASES.get(phase, phase))
    if history:
        ax.legend(fontsize=8, frameon=False, loc="upper right")
    ax.set_ylim(bottom=0)
    ax.set_title("Training loss", fontsize=9, loc="left")
    _open(ax, history)


def _draw_estimate(ax: Axes, history: Sequence[LearningPoint]) -> None:
    points = [(p.seconds, p.dice) for p in history if p.dice is not None]
    seconds, estimates = np.array(points, dtype=float).reshape(-1, 2).T
    # An estimate holds until the next one is made.
    ax.plot(
        seconds, estimates, color=_INK, linewidth=1.4, drawstyle="steps-post", marker="o", markersize=3, markevery=[-1]
    )
    if not points:
        ax.text(0.5, 0.5, "none was made", transform=ax.transAxes, ha="center", va="center", fontsize=8)
    ax.set_ylim(0, 1)
    ax.set_title("Dice estimate, on held-out paint", fontsize=9, loc="left")
    ax.set_xlabel("Seconds of learning", fontsize=8)
    _open(ax, history)


def _open(ax: Axes, history: Sequence[LearningPoint]) -> None:
    """Leave two sides of the axes, and give the curves one range of time."""
    ax.set_xlim(0, max((point.seconds for point in history), default=1.0) or 1.0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.6)
    ax.tick_params(labelsize=8, width=0.6)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)


def _running_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average the twentieth of the values around each; towards the ends fewer."""
    reach = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(len(values)) - reach, 0)
    stop = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    mean: npt.NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return mean


# ---------------------------------------------------------------- writing


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.png")
    try:
        figure.savefig(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
