"""ScaleSection: which part of a big image is worked on, at which resolution, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from napari.layers import Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.progress import duration
from napari_sparseseg.widgets.controls import MessageLabel, Section, count_text
from napari_sparseseg.widgets.sources import (
    FACTORS,
    ImageSource,
    n_levels,
    n_voxels_at,
    region_of_shapes,
    region_on_screen,
    source_of,
    step_for,
    suggested_factor,
)

_WHOLE, _ON_SCREEN, _SHAPES = "whole", "screen", "shapes"
_REGION_TIP = "Work on a part of the image only: what is on screen now, or what a rectangle of a Shapes layer encloses."
_LEVEL_TIP = "Which resolution of a multiscale image to work on; level 0 is the finest."
_SCALE_TIP = "Work on a coarser image, in which each voxel is the mean of several. Coarse axes are averaged less."


class ScaleSection(Section):
    """Folded at first. `region` is in voxels at full resolution; it is taken when it is chosen."""

    chosen = Signal()
    """The user chose something else."""
    failed = Signal(str)
    """Why a region cannot be used."""

    def __init__(self, viewer: Any, seconds_of: Callable[[int], float]) -> None:
        super().__init__(
            "Working region and scale", "For big images: work on a part of it, or at a coarser resolution."
        )
        self._viewer = viewer
        self._seconds_of = seconds_of
        self._layer: Any = None
        self.region: Box | None = None
        self._regions, self._levels, self._scales = QComboBox(), QComboBox(), QComboBox()
        self._expected = MessageLabel(role="muted")
        self._build()
        for box in (self._levels, self._scales):
            box.activated.connect(lambda: self.chosen.emit())
        self._regions.activated.connect(self._on_region_activated)

    @property
    def level(self) -> int:
        return max(0, self._levels.currentIndex())

    @property
    def factor(self) -> int:
        return FACTORS[max(0, self._scales.currentIndex())]

    def show_layer(self, layer: Any) -> None:
        """Offer what there is for another image layer, None for none; everything of it at full resolution."""
        self._layer = layer
        self.region = None
        levels = 1 if layer is None else n_levels(layer)
        self._levels.clear()
        self._levels.addItems([_level_text(layer, level) for level in range(levels)])
        self._level_label.setVisible(levels > 1)
        self._levels.setVisible(levels > 1)
        self._scales.setCurrentIndex(0)
        self.show_regions()
        self._regions.setCurrentIndex(0)

    def show_regions(self) -> None:
        """Offer the Shapes layers that there are now; the choice stays while its layer does."""
        chosen = self._regions.currentText()
        self._regions.clear()
        self._regions.addItem("Whole image", _WHOLE)
        self._regions.addItem("What is on screen", _ON_SCREEN)
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes):
                self._regions.addItem(f"Rectangle in “{layer.name}”", _SHAPES)
                self._regions.setItemData(self._regions.count() - 1, layer.name, _NAME_ROLE)
        self._regions.setCurrentIndex(max(0, self._regions.findText(chosen)))

    def show_choice(self, source: ImageSource) -> None:
        """Show region, level and scale of an image that is in use."""
        self.region = source.region
        self._levels.setCurrentIndex(source.level)
        self._scales.setCurrentIndex(FACTORS.index(max(f for f in FACTORS if f <= max(source.step))))
        if source.region is None:
            self._regions.setCurrentIndex(0)

    def suggest(self, source: ImageSource) -> None:
        """Choose the scale at which everything is predicted in minutes."""
        factor = suggested_factor(source.shape[-len(source.spacing) :], source.spacing, self._seconds_of)
        self._scales.setCurrentIndex(FACTORS.index(factor))

    def show_expected(self, source: ImageSource | None) -> None:
        """Say how large the working image is and how long predicting all of it takes."""
        if source is None:
            self._expected.show_text("")
            return
        seconds = self._seconds_of(source.n_voxels)
        size = size_text(source.shape[-len(source.spacing) :])
        text = f"{size}: about {duration(seconds)} to predict everything once."
        self._expected.show_text(f"{text} {self._hint(source)}")

    def _hint(self, source: ImageSource) -> str:
        shape = source.shape[-len(source.spacing) :]
        factor = suggested_factor(shape, source.spacing, self._seconds_of)
        if factor == 1:
            return "What is on screen comes first."
        seconds = self._seconds_of(n_voxels_at(shape, step_for(factor, source.spacing)))
        return f"{factor} times coarser it takes {duration(seconds)}."

    def _build(self) -> None:
        self._scales.addItems(["Full", *(f"{factor} times coarser" for factor in FACTORS[1:])])
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        self._level_label = QLabel("Level")
        rows = (
            (QLabel("Region"), self._regions, _REGION_TIP),
            (self._level_label, self._levels, _LEVEL_TIP),
            (QLabel("Resolution"), self._scales, _SCALE_TIP),
        )
        for line, (label, box, tip) in enumerate(rows):
            label.setBuddy(box)
            box.setAccessibleName(label.text())
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            for widget in (label, box):
                widget.setToolTip(tip)
            grid.addWidget(label, line, 0)
            grid.addWidget(box, line, 1)
        self.body.addLayout(grid)
        self.body.addWidget(self._expected)

    def _on_region_activated(self, index: int) -> None:
        kind, name = self._regions.itemData(index), self._regions.itemData(index, _NAME_ROLE)
        try:
            self.region = self._region(kind, name)
        except InputError as error:
            self.region = None
            self._regions.setCurrentIndex(0)
            self.chosen.emit()
            self.failed.emit(str(error))
        else:
            self.chosen.emit()

    def _region(self, kind: str, name: str) -> Box | None:
        if self._layer is None or kind == _WHOLE:
            return None
        if kind == _ON_SCREEN:
            return region_on_screen(self._viewer, self._layer)
        return region_of_shapes(self._viewer.layers[name], self._layer)


_NAME_ROLE = 0x0101
"""Qt.ItemDataRole.UserRole + 1, as a number that both bindings take."""


def _level_text(layer: Any, level: int) -> str:
    if layer is None:
        return ""
    return f"{level}: {size_text(layer.level_shapes[level][: layer.ndim])}"


def size_text(sizes: Iterable[float]) -> str:
    """Sizes along the axes, with multiplication signs between them."""
    words = (count_text(int(size)) if float(size).is_integer() else f"{size:.3g}" for size in sizes)
    return " \u00d7 ".join(words)


def chosen_source(layers: list[Any], section: ScaleSection) -> ImageSource:
    """The image of these layers at the region and scale of the section; raises `InputError`."""
    plain = source_of(layers, level=section.level)
    step = step_for(section.factor, plain.spacing)
    if section.region is None and max(step) == 1:
        return plain
    return source_of(layers, level=section.level, region=section.region, step=step)
