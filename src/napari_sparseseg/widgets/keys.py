"""Keys on our two layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

N_CLASS_KEYS = 9
CLASS_KEYS = tuple(str(number) for number in range(1, N_CLASS_KEYS + 1))
PREDICTION_KEY = "H"
OUTLINES_KEY = "O"
NEXT_OBJECT_KEY = "N"
PICK_OBJECT_KEY = "J"

CLASS_KEYS_TIP = (
    "Keys 1 to 9 choose the class to paint, while the annotation or the prediction layer is selected. "
    "They replace napari's tool keys there; the letters E P F L Z still choose the tool."
)


class KeyActions(Protocol):
    """What the keys do."""

    def choose_class(self, number: int) -> None: ...

    def toggle_prediction(self) -> None: ...

    def toggle_outlines(self) -> None: ...

    def next_object(self) -> None: ...

    def pick_object(self) -> None: ...


def bind_keys(layer: Any, actions: KeyActions) -> None:
    """Bind the keys on this layer alone, where they come before those of all labels layers and of the viewer."""
    for number, key in enumerate(CLASS_KEYS, start=1):
        layer.bind_key(key, _choosing(actions, number), overwrite=True)
    layer.bind_key(PREDICTION_KEY, _calling(actions.toggle_prediction), overwrite=True)
    layer.bind_key(OUTLINES_KEY, _calling(actions.toggle_outlines), overwrite=True)
    layer.bind_key(NEXT_OBJECT_KEY, _calling(actions.next_object), overwrite=True)
    layer.bind_key(PICK_OBJECT_KEY, _calling(actions.pick_object), overwrite=True)


def unbind_keys(layer: Any) -> None:
    """Give the layer napari's own keys back."""
    for key in (*CLASS_KEYS, PREDICTION_KEY, OUTLINES_KEY, NEXT_OBJECT_KEY, PICK_OBJECT_KEY):
        layer.bind_key(key, None)


def _choosing(actions: KeyActions, number: int) -> Callable[[Any], None]:
    # napari looks at what a key returns: something callable would be called when the key is let go
    def choose(_layer: Any) -> None:
        actions.choose_class(number)

    return choose


def _calling(action: Callable[[], None]) -> Callable[[Any], None]:
    def call(_layer: Any) -> None:
        action()

    return call
