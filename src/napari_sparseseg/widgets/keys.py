"""Keys on our two layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_sparseseg.widgets.bridge import LayerBridge

N_CLASS_KEYS = 9
CLASS_KEYS = tuple(str(number) for number in range(1, N_CLASS_KEYS + 1))
PREDICTION_KEY = "H"
OUTLINES_KEY = "O"
NEXT_OBJECT_KEY = "N"
PICK_OBJECT_KEY = "J"
UNSURE_KEY = "U"
LETTER_KEYS = (PREDICTION_KEY, OUTLINES_KEY, NEXT_OBJECT_KEY, PICK_OBJECT_KEY, UNSURE_KEY)

CLASS_KEYS_TIP = (
    "Keys 1 to 9 choose the class to paint, while the annotation or the prediction layer is selected. "
    "They replace napari's tool keys there; the letters E P F L Z still choose the tool."
)


def bind_keys(layer: Any, bridge: LayerBridge) -> None:
    """Bind the keys on this layer alone, where they come before those of all labels layers and of the viewer."""
    actions = {
        PREDICTION_KEY: bridge.toggle_prediction,
        OUTLINES_KEY: bridge.toggle_outlines,
        NEXT_OBJECT_KEY: bridge.objects.take_next,
        PICK_OBJECT_KEY: bridge.objects.pick,
        UNSURE_KEY: bridge.unsure.toggle,
    }
    for number, key in enumerate(CLASS_KEYS, start=1):
        layer.bind_key(key, _choosing(bridge.choose_class, number), overwrite=True)
    for key in LETTER_KEYS:
        layer.bind_key(key, _calling(actions[key]), overwrite=True)


def unbind_keys(layer: Any) -> None:
    """Give the layer napari's own keys back."""
    for key in (*CLASS_KEYS, *LETTER_KEYS):
        layer.bind_key(key, None)


def _choosing(choose_class: Callable[[int], None], number: int) -> Callable[[Any], None]:
    # napari looks at what a key returns: something callable would be called when the key is let go
    def choose(_layer: Any) -> None:
        choose_class(number)

    return choose


def _calling(action: Callable[[], None]) -> Callable[[Any], None]:
    def call(_layer: Any) -> None:
        action()

    return call
