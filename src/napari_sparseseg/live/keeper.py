"""Keeper: who is told of what changes in an image, to keep it. Savers and onlookers are keepers."""

from __future__ import annotations

from napari_sparseseg.live.events import SavingStatus
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.storage.project.elsewhere import Present


class Keeper:
    """Keeps one image until it is closed: a `Saver` writes it to its project, an `Onlooker` notices what cannot be.

    This one is for an image without a project, and keeps nothing. `fault` says what is wrong with that.
    """

    def __init__(self, status: SavingStatus | None = None, fault: str = "") -> None:
        self.status = status or SavingStatus()
        self._fault = fault

    def start(self, opened: Opened) -> None:
        """Keep from now on what was opened."""

    def hear_journal(self, error: str) -> None:
        """Strokes could not be written, or can be again (""); any thread."""

    def note_classes(self) -> None:
        """The classes have changed."""

    def note_model(self) -> None:
        """The model is another one now, though maybe of the same step."""

    def expect_clearing(self) -> None:
        """The model is about to begin anew."""

    def forget_model(self) -> None:
        """The user began anew: neither models nor a prediction that were saved come back."""

    def save(self) -> None:
        """Save everything soon; returns at once."""

    def hold(self) -> bool:
        """Save everything, then nothing until `go_on`; False if that takes too long, and then it is saved on."""
        return True

    def go_on(self) -> None:
        """Save again after `hold`; what was handed over was not written elsewhere."""

    def close(self) -> bool:
        """Save everything and keep it no longer; whether all of it is on disk, or was handed over."""
        return True

    @property
    def unsaved(self) -> str:
        """Why not all is on disk, in one sentence; empty if it is."""
        return self.fault

    @property
    def fault(self) -> str:
        """The same as far as it is known without looking."""
        return self._fault

    def present(self) -> Present | None:
        """All there is in memory, handed over to who writes it elsewhere; None if it belongs to no project.

        After `hold`. Raises `InputError` if there is nothing to be done but to wait.
        """
        return None
