"""Commands of the manifest: the main actions, for napari's command palette and menus."""

from __future__ import annotations

from collections.abc import Callable

import napari
from napari.utils.notifications import show_info

from napari_sparseseg.widgets.session import Session, find_session


def start_training() -> None:
    """Train, until it is paused."""
    _act(lambda session: session.live.start())


def pause_training() -> None:
    """Stop learning; what was learnt stays."""
    _act(lambda session: session.live.pause())


def update_once() -> None:
    """Learn in a short burst, predict everything once, then rest."""
    _act(lambda session: session.live.update_once())


def mark_slice_complete() -> None:
    """Say that what is unpainted on the slice on screen is background."""
    _act(lambda session: session.set_complete(True))


def accept_slice() -> None:
    """Copy the prediction of the slice on screen into an ordinary layer."""
    _act(lambda session: session.accept(everything=False))


def accept_all() -> None:
    """Copy the whole prediction into an ordinary layer."""
    _act(lambda session: session.accept(everything=True))


def toggle_prediction() -> None:
    """Hide the prediction, or show it again."""
    _act(lambda session: session.bridge.toggle_prediction())


def toggle_outlines() -> None:
    """Show the prediction as outlines, or filled."""
    _act(lambda session: session.bridge.toggle_outlines())


def _act(action: Callable[[Session], object]) -> None:
    viewer = napari.current_viewer()
    session = None if viewer is None else find_session(viewer)
    if session is None:
        show_info("Open the dock first: Layers > Segment > Sparse Segmentation.")
        return
    with session.guarded():
        action(session)
