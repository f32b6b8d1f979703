"""Onlooker: what a `Saver` is for an image whose project is open for reading only."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import SavingStatus
from napari_sparseseg.live.keeper import Keeper
from napari_sparseseg.live.kept import present_of, project_classes, project_settings, with_model
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.worker import Worker
from napari_sparseseg.storage.project.elsewhere import Present
from napari_sparseseg.storage.project.image import ProjectImage


class Onlooker(Keeper):
    """Notices what is changed, which stays in memory until it is written elsewhere."""

    def __init__(
        self, project: ProjectImage, classes: ClassList, worker: Worker, settings: Callable[[], Settings]
    ) -> None:
        super().__init__(SavingStatus(str(project.project.path), project.project.reason))
        self._project = project.project
        self._classes = classes
        self._worker = worker
        self._settings = settings
        self._has_other_model = self._is_begun_anew = self._is_handed_over = False
        self._opened: Opened | None = None
        self._at_first: tuple[object, ...] = ()

    @override
    def start(self, opened: Opened) -> None:
        """Notice from now on what is changed."""
        self._opened = opened
        self._at_first = self._now(opened)

    @override
    def note_model(self) -> None:
        self._has_other_model = True

    @override
    def forget_model(self) -> None:
        self._is_begun_anew = True

    @override
    def go_on(self) -> None:
        self._is_handed_over = False

    @override
    def close(self) -> bool:
        """Whether nothing was changed, or all of it handed over."""
        return self._is_handed_over or not self.unsaved

    @property
    @override
    def unsaved(self) -> str:
        """What was changed here is saved nowhere: says so in one sentence; empty if nothing was."""
        opened = self._opened
        if opened is None:
            return ""
        status, saved = opened.switch.status, self._project.manifest.checkpoints[-1:]
        has_learnt = status.has_model and [entry.step for entry in saved] != [status.step]
        has_changed = self._has_other_model or self._is_begun_anew or self._now(opened) != self._at_first
        if has_learnt or has_changed:
            return f"{self._project.name} is open for reading only, and what you have changed is in memory only"
        return ""

    @property
    @override
    def fault(self) -> str:
        """The same, for nothing has to be looked at."""
        return self.unsaved

    @override
    def present(self) -> Present:
        """Waits for the model; raises `InputError` if that takes too long."""
        opened = self._opened
        assert opened is not None  # noqa: S101 - `start` has set it
        present = present_of(opened, self._classes, self._settings(), is_begun_anew=self._is_begun_anew)
        present = with_model(present, self._worker, opened, is_needed=True)
        self._is_handed_over = True
        return present

    def _now(self, opened: Opened) -> tuple[object, ...]:
        """What differs as soon as something was changed, but for what is learnt."""
        classes, settings = project_classes(self._classes), project_settings(self._settings())
        return opened.store.revision, opened.objects.n_writes, classes, settings
