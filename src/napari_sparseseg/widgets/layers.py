"""The two layers that are painted on, and their colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sparseseg._types import MAX_CLASSES
from napari_sparseseg.live.events import ClassInfo

RGBA = tuple[float, float, float, float]
Words = Callable[[tuple[int, ...]], str]

CLEAR: RGBA = (0.0, 0.0, 0.0, 0.0)
SET_COLOR: RGBA = (0.55, 0.55, 0.55, 0.7)
"""Paint that leaves several classes possible."""
BACKGROUND_ALPHA = 0.45


class History(Protocol):
    """Where strokes are taken back, instead of in the layer itself."""

    def undo(self) -> object: ...

    def redo(self) -> object: ...


class TellingLabels(Labels):  # type: ignore[misc]  # napari has no types
    """Labels that say in words what is under the cursor, beside the number in napari's status.

    While `words` is None it behaves like any other labels layer. It is called with the place of a voxel in the layer,
    on the thread on which napari makes up its status.
    """

    def __init__(self, data: Any, **kwargs: Any) -> None:
        self.words: Words | None = None
        super().__init__(data, **kwargs)

    def get_status(
        self, position: Any = None, *, dims_displayed: Any = None, world: bool = False, **kwargs: Any
    ) -> Any:
        """As napari's, with the words."""
        status = super().get_status(position, dims_displayed=dims_displayed, world=world, **kwargs)
        told = "" if position is None or self.words is None else self._words_at(position, dims_displayed, world)
        if told:
            status["coordinates"] += f" {told}"
            status["value"] += f" {told}"
        return status

    def _words_at(self, position: Any, dims_displayed: Any, world: bool) -> str:
        if self.words is None or (dims_displayed is not None and len(dims_displayed) > 2):
            return ""  # in 3D the cursor is on a ray
        data = self.world_to_data(position) if world else position
        place = tuple(round(float(value)) for value in data[-self.ndim :])
        inside = all(0 <= index < size for index, size in zip(place, self.data.shape, strict=True))
        return self.words(place) if inside else ""


class SharedHistoryLabels(TellingLabels):
    """Labels that are painted in 2D and whose strokes are taken back elsewhere, together with those of other layers.

    While `history` is None it behaves like any other labels layer.
    """

    def __init__(self, data: Any, **kwargs: Any) -> None:
        self.history: History | None = None
        super().__init__(data, **kwargs)

    def undo(self) -> None:
        """Take back the last stroke, on whichever of the layers it was made."""
        if self.history is None:
            super().undo()
        else:
            self.history.undo()

    def redo(self) -> None:
        """Make the last stroke again that was taken back."""
        if self.history is None:
            super().redo()
        else:
            self.history.redo()

    @property
    def n_edit_dimensions(self) -> int:
        """Always 2: what is painted must be seen."""
        return 2

    @n_edit_dimensions.setter
    def n_edit_dimensions(self, _wanted: int) -> None:
        # The event brings the number back that stands in napari's controls.
        self.events.n_edit_dimensions()


class AnnotationLayer(SharedHistoryLabels):
    """What the user has painted: classes, and in grey the sets of classes that are still possible."""


class PredictionLayer(SharedHistoryLabels):
    """What the network predicts, with the user's paint over it; painting on it corrects."""


class ClassLayer(SharedHistoryLabels):
    """Where one class is that may overlap others; the brush says that it is there, the eraser that it is not."""


class FoundLayer(SharedHistoryLabels):
    """The objects that were found; points on it correct them."""


class SuggestionLayer(SharedHistoryLabels):
    """Paint that the program proposes; it cannot be painted on."""


# napari tells what kind of layer it has (icon, menus, writers, duplicates) by the name of its class.
for _layer_class in (
    TellingLabels,
    SharedHistoryLabels,
    AnnotationLayer,
    PredictionLayer,
    ClassLayer,
    FoundLayer,
    SuggestionLayer,
):
    _layer_class.__name__ = "Labels"


def add_below_ours(viewer: Any, layer: Any) -> None:
    """Add a layer beneath our two, which stay in view, and leave the selected one selected: the user goes on."""
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    ours = [
        index
        for index, other in enumerate(viewer.layers)
        if isinstance(other, SharedHistoryLabels) and other.history is not None
    ]
    if ours:
        viewer.layers.move(len(viewer.layers) - 1, ours[0])
    viewer.layers.selection.active = active


def add_on_top(viewer: Any, layer: Any) -> None:
    """Add a layer above all others, and leave the selected one selected: the user goes on."""
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    viewer.layers.selection.active = active


def exchange(viewer: Any, before: Iterable[Any], layer: Any, add: Callable[[Any, Any], None] = add_on_top) -> None:
    """Add a layer in the place of those before it, as far as they are there, under the name that one of them may have.

    They go last: napari may crash where a layer is added to a viewer from which the last one has just been removed.
    """
    name = layer.name
    add(viewer, layer)
    for each in before:
        if each in viewer.layers:
            viewer.layers.remove(each)
    layer.name = name


def annotation_colormap(classes: Iterable[ClassInfo]) -> DirectLabelColormap:
    """Colours of the annotation: the classes', the background fainter, whatever is no class grey."""
    colors: dict[int | None, RGBA] = {None: SET_COLOR, 0: CLEAR}
    for info in classes:
        colors[info.class_id] = (*info.color, BACKGROUND_ALPHA if info.is_background else 1.0)
    return DirectLabelColormap(color_dict=colors)


def suggestion_colormap(classes: Iterable[ClassInfo]) -> DirectLabelColormap:
    """Colours of what is suggested: the classes', the background too, since it is asked for as well."""
    colors: dict[int | None, RGBA] = {None: SET_COLOR, 0: CLEAR}
    for info in classes:
        colors[info.class_id] = (*info.color, 1.0)
    return DirectLabelColormap(color_dict=colors)


def prediction_colormap(classes: Iterable[ClassInfo]) -> DirectLabelColormap:
    """Colours of the prediction: the classes'; the background, and classes that have gone, are not seen.

    Sets of classes are grey: so they are seen while they are painted.
    """
    colors: dict[int | None, RGBA] = {None: CLEAR, 0: CLEAR, **dict.fromkeys(range(MAX_CLASSES + 1, 255), SET_COLOR)}
    for info in classes:
        colors[info.class_id] = CLEAR if info.is_background else (*info.color, 1.0)
    return DirectLabelColormap(color_dict=colors)


def class_colormap(classes: Iterable[ClassInfo]) -> DirectLabelColormap:
    """The colours of all classes, the background's as well; what is no class is not seen."""
    colors: dict[int | None, RGBA] = {None: CLEAR, 0: CLEAR}
    for info in classes:
        colors[info.class_id] = (*info.color, 1.0)
    return DirectLabelColormap(color_dict=colors)


def set_colormap(layer: Labels, colormap: DirectLabelColormap) -> None:
    """Give a layer other colours; "show selected" stays as it is, which napari would forget."""
    colormap.use_selection = layer.show_selected_label
    colormap.selection = layer.selected_label
    layer.colormap = colormap
