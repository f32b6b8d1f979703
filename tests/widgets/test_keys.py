"""Our keys work on our layers, and take nothing away that napari does there, but the digits."""

from __future__ import annotations

import numpy as np
import pytest
from app_model.types import KeyBinding

from napari_sparseseg._types import Plane
from napari_sparseseg.widgets.keys import CLASS_KEYS, LETTER_KEYS

BACKGROUND, OBJECT, OTHER = 1, 2, 3
OURS = {KeyBinding.from_str(key) for key in (*CLASS_KEYS, *LETTER_KEYS)}
DIGITS = {KeyBinding.from_str(key) for key in CLASS_KEYS}


def bound_in_napari(viewer, layer):
    """Keys that napari itself has bound on such a layer, on the viewer, and in its menus."""
    keys = set(viewer.keymap) | set(layer.keymap)
    for provider in (type(viewer), type(layer)):
        for cls in provider.__mro__:
            keys |= set(getattr(cls, "class_keymap", {}))
    from napari._app_model import get_app_model

    return keys | {binding.keybinding for binding in get_app_model().keybindings}


def test_no_key_but_the_digits_clashes(make_napari_viewer):
    viewer = make_napari_viewer()
    layer = viewer.add_labels(np.zeros((8, 8), np.uint8))
    taken = bound_in_napari(viewer, layer)
    assert KeyBinding.from_str("E") in taken, "this is no list of napari's keys"
    assert OURS & taken <= DIGITS


@pytest.mark.window
def test_digits_choose_classes_and_letters_the_tool(set_stage):
    stage = set_stage()
    chosen = []
    stage.bridge.class_changed.connect(chosen.append)
    for mode in ("paint", "correct"):
        stage.bridge.set_mode(mode)
        stage.key("3")
        stage.key("1")
        stage.key("8")
        assert stage.bridge.class_id == BACKGROUND
        stage.key("E")
        assert stage.viewer.layers.selection.active.mode == "erase"
        stage.key("2")
    assert chosen == [OTHER, BACKGROUND, OBJECT] * 2
    assert stage.annotation.selected_label == stage.prediction.selected_label == OBJECT


@pytest.mark.parametrize("mode", ["paint", "correct"])
def test_a_digit_with_the_eraser_in_hand_takes_the_brush(set_stage, mode):
    stage = set_stage()
    stage.tools(mode, OBJECT)
    for key in ("3", "3"):  # another class, and the one that is in hand already
        stage.key("E")
        stage.key(key)
        assert stage.viewer.layers.selection.active.mode == "paint"
    stage.key("F")
    stage.key("2")
    assert stage.viewer.layers.selection.active.mode == "fill", "what paints stays in hand"


def test_a_class_that_goes_leaves_the_eraser_in_hand(set_stage):
    stage = set_stage()
    stage.tools("paint", OTHER)
    stage.key("E")
    stage.live.events.classes_changed.emit(stage.live.classes[:2])
    stage.settle()
    assert stage.bridge.class_id == OBJECT
    assert stage.annotation.mode == "erase"


def test_one_key_hides_the_prediction_and_one_shows_outlines(set_stage):
    stage = set_stage()
    stage.key("H")
    assert not stage.prediction.visible
    stage.key("O")
    assert stage.prediction.contour
    stage.key("H")
    stage.live.predict(OTHER)
    stage.settle()
    stage.key("O")
    assert stage.prediction.visible
    assert not stage.prediction.contour


def test_other_labels_layers_keep_napari_s_keys(set_stage):
    stage = set_stage()
    other = stage.viewer.add_labels(np.zeros((12, 40, 48), np.uint8))
    stage.key("1")
    assert other.mode == "erase"
    stage.key("3")
    assert other.mode == "polygon"
    assert stage.bridge.class_id == OBJECT


def test_layers_that_are_left_behind_get_napari_s_keys_back(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint")
    stage.drag((4, 10, 10), (4, 10, 20))
    layer = stage.annotation
    stage.bridge.close()
    stage.key("1")
    assert layer.mode == "erase"
    assert layer in stage.viewer.layers


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_number_without_class_changes_nothing(set_stage, number):
    stage = set_stage()
    stage.bridge.choose_class(number)
    assert stage.bridge.class_id == OBJECT
