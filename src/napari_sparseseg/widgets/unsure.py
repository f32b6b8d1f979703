"""UnsureTool: a brush that says "could be any of these classes"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import UNPAINTED
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.tools import take_brush

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair
    from napari_sparseseg.widgets.tools import ToolSync

_FEWEST = 2  # classes between which somebody can be unsure


class UnsureTool(QObject):
    """While it is on, strokes paint a set of classes instead of one; choosing a class ends that. GUI thread only."""

    changed = Signal()
    """It was switched, or other classes are possible."""
    problem = Signal(str)

    def __init__(self, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.is_on = False
        self.classes: tuple[ClassInfo, ...] = ()
        """Those that can be chosen from."""
        self._excluded: set[int] = set()
        self._live = live
        self._pair: LayerPair | None = None
        self._tools: ToolSync | None = None

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that are possible where the brush goes, ascending."""
        return tuple(info.class_id for info in self.classes if info.class_id not in self._excluded)

    def open(self, pair: LayerPair, tools: ToolSync) -> None:
        """Paint on the layers of this image, once it is switched on."""
        self._pair, self._tools = pair, tools
        tools.code_changed.connect(self._on_code_changed)

    def close(self) -> None:
        """Switch off and let go of the image."""
        self.switch(False)
        if self._tools is not None:
            self._tools.code_changed.disconnect(self._on_code_changed)
        self._pair = self._tools = None

    def show_classes(self, classes: Iterable[ClassInfo]) -> None:
        """Take the classes that there are; too few of them end it."""
        self.classes = tuple(classes)
        self._excluded &= {info.class_id for info in self.classes}
        if len(self.class_ids) < _FEWEST:
            self._excluded.clear()
        self._renew()

    def toggle(self) -> None:
        """Paint a set of classes, or one again."""
        self.switch(not self.is_on)

    def switch(self, wanted: bool) -> None:
        """Paint a set of classes, or one again."""
        if wanted and self._tools is None:
            self.problem.emit("Choose an image first: it is painted on then")
            return
        self.is_on = wanted
        self._renew()
        if self.is_on and self._pair is not None:
            take_brush(self._pair.both)

    def allow(self, class_id: int, possible: bool) -> None:
        """Let a class be possible where the brush goes, or not; two at least remain."""
        if possible:
            self._excluded.discard(class_id)
        elif len(self.class_ids) > _FEWEST:
            self._excluded.add(class_id)
        self._renew()

    def _renew(self) -> None:
        """Have the layers painted with what is wanted now."""
        if self._pair is not None and self._tools is not None:
            code = UNPAINTED
            if self.is_on:
                try:
                    code = self._live.code_for_any_of(self.class_ids)
                except SparseSegError as error:
                    self.is_on = False
                    self.problem.emit(str(error))
            self._pair.set_code = code
            self._tools.set_code(code)
        self.changed.emit()

    def _on_code_changed(self, code: int) -> None:
        if code == UNPAINTED and self.is_on:
            self.switch(False)
