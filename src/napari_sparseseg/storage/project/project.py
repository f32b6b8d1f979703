"""Project: the folder NAME.sparseseg, in which nothing is lost."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.errors import InputError, InputTypeError, ProjectError, ProjectReadOnlyError
from napari_sparseseg.storage._arrays import shape_of
from napari_sparseseg.storage.durable import (
    PARTIAL,
    Copying,
    Disk,
    RealDisk,
    SourceError,
    copy_folder,
    replace_file,
    write_folder,
)
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.loading import JOURNAL
from napari_sparseseg.storage.project.lock import UNCOPIED, ProjectLock
from napari_sparseseg.storage.project.manifest import (
    FORMAT,
    MANIFEST,
    PREVIOUS,
    VERSION,
    ImageEntry,
    LayerPlace,
    Manifest,
    ProjectCheckpoint,
    ProjectClass,
    ProjectSettings,
    read_manifest,
)
from napari_sparseseg.storage.project.migrations import migrated
from napari_sparseseg.storage.project.provenance import methods_of, provenance_of
from napari_sparseseg.storage.project.reference import refer_to

SUFFIX = ".sparseseg"
CHECKPOINTS = "checkpoints"
_N_CHECKPOINTS = 2
_N_COPIES = 3  # that are tried while another window writes
_PATIENCE = 30.0  # seconds to wait for the journal
_FILES = (MANIFEST, PREVIOUS, MANIFEST + PARTIAL, PREVIOUS + PARTIAL, *UNCOPIED)
_PARTS = ("journal", "annotation", "prediction")
_CHECKPOINT = re.compile(r"[0-9]{6}\.safetensors")


class UnreadableProjectError(ProjectError):
    """The folder of a project is not there any more, or a file in it cannot be read."""


class Project:
    """A project folder: images with their annotation, classes, settings, models and predictions.

    Made by `create` or `open`. Usable from any thread; `close` it, or use it in a `with` statement, so that others
    may write to it.

    Attributes
    ----------
    path
        The folder.
    problems
        Sentences about what was damaged and has been worked around.

    Examples
    --------
    >>> with Project.open("nuclei.sparseseg", read_only=True) as project:  # doctest: +SKIP
    ...     annotation = project.images[0].annotation()

    """

    def __init__(
        self, path: Path, manifest: Manifest, lock: ProjectLock | None, disk: Disk, problems: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.disk = disk
        self.problems = tuple(problems)
        self._manifest = manifest
        self._lock = lock
        self._changing = threading.RLock()
        self._images = [ProjectImage(self, number) for number in range(len(manifest.images))]

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        classes: Sequence[ProjectClass] = (),
        settings: ProjectSettings | None = None,
        disk: Disk | None = None,
    ) -> Self:
        """Make a new project, without images, and open it for writing.

        Parameters
        ----------
        path
            Folder to make; its name must end in ".sparseseg", and the folder around it must exist.
        classes
            Classes that can be painted; none by default.
        settings
            Settings of model, training, paint and prediction; None takes the defaults.
        disk
            How files are written; None takes the real disk. For tests.

        Returns
        -------
        Project
            The open project; `close` it, or use it in a `with` statement.

        Raises
        ------
        ProjectError
            If something lies at the path already, its name does not end in ".sparseseg", or it cannot be written.
        InputTypeError
            If `path` is no path.

        """
        folder, disk = _checked_path(path), disk or RealDisk()
        if folder.exists():
            raise ProjectError(f"{folder} exists; open it, or choose another name")
        manifest = Manifest(
            id=uuid.uuid4().hex,
            created=time.time(),
            program=version("napari-sparseseg"),
            classes=tuple(classes),
            settings=settings or ProjectSettings(),
        )
        partial = folder.with_name(f".{folder.name}.{manifest.id[:8]}{PARTIAL}")
        try:
            write_folder(disk, partial, _new_files(manifest))
            disk.rename(partial, folder)
            disk.sync_folder(folder.parent)
        except OSError as error:
            with suppress(OSError):
                disk.remove(partial)
            raise ProjectError(f"{folder} cannot be made ({error.strerror or error}); choose another place") from error
        return cls._locked(folder, disk)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False, disk: Disk | None = None) -> Self:
        """Open a project; one of an older version is migrated on a copy beside it, which is opened.

        Only one program at a time can write to a project. If another one does, or the folder cannot be written to, the
        project is opened for reading only: see `is_read_only` and `reason`.

        Parameters
        ----------
        path
            The project's folder, whose name ends in ".sparseseg".
        read_only
            True opens it for reading even if it could be written to, so that another process may write; False by
            default.
        disk
            How files are written; None takes the real disk. For tests.

        Returns
        -------
        Project
            The open project. `problems` says what was damaged and has been worked around.

        Raises
        ------
        ProjectVersionError
            If the project was made by a newer version of the program.
        ProjectError
            If there is no project at the path, or it is damaged beyond use or cannot be migrated.
        InputTypeError
            If `path` is no path.

        """
        folder, disk = _checked_path(path), disk or RealDisk()
        if not folder.is_dir():
            raise ProjectError(f"there is no project at {folder}; choose a folder whose name ends in {SUFFIX}")
        try:
            folder = migrated(folder, disk)
        except OSError as error:
            raise ProjectError(
                f"{folder} cannot be migrated ({error.strerror or error}); make room beside it, or copy it elsewhere"
            ) from error
        return cls._read(folder, None, disk) if read_only else cls._locked(folder, disk)

    @classmethod
    def _locked(cls, folder: Path, disk: Disk) -> Self:
        lock = ProjectLock(folder)
        try:
            project = cls._read(folder, lock, disk)
            if not project.is_read_only:
                project.clean()
        except BaseException:
            lock.release()
            raise
        return project

    @classmethod
    def _read(cls, folder: Path, lock: ProjectLock | None, disk: Disk) -> Self:
        manifest, problems = _read_newest(folder)
        _check_links(folder, len(manifest.images))
        return cls(folder, manifest, lock, disk, problems)

    def close(self) -> None:
        """Write the rest of the journals, and let others write to the project."""
        for image in self._images:
            image.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shown = ", read-only" if self.is_read_only else ""
        return f"Project({str(self.path)!r}: {len(self.images)} images{shown})"

    # --- what it holds ---

    @property
    def name(self) -> str:
        """Name of the folder, without ".sparseseg"."""
        return self.path.stem

    @property
    def is_read_only(self) -> bool:
        """Whether the project can only be read: opened so, locked by another writer, not writable, or closed."""
        return self._lock is None or bool(self._lock.reason)

    @property
    def reason(self) -> str:
        """Why the project cannot be written to, in one sentence; empty if it can be, or was opened with `read_only`."""
        return self._lock.reason if self._lock is not None else ""

    @property
    def manifest(self) -> Manifest:
        """What the project holds apart from arrays and models, as it was committed last."""
        return self._manifest

    @property
    def classes(self) -> tuple[ProjectClass, ...]:
        """The classes that can be painted."""
        return self._manifest.classes

    @property
    def highest_class(self) -> int:
        """The highest id that a class ever had, 0 if there was none."""
        return max((self._manifest.highest_class, *(info.class_id for info in self.classes)))

    @property
    def settings(self) -> ProjectSettings:
        """Settings of model, training, paint and prediction, and the device that is asked for."""
        return self._manifest.settings

    @property
    def images(self) -> tuple[ProjectImage, ...]:
        """The images, in the order in which they were added."""
        return tuple(self._images)

    # --- changing ---

    def add_image(
        self,
        array: ArrayLike,
        *,
        shape: tuple[int, int, int, int] | None = None,
        path: str | os.PathLike[str] | None = None,
        title: str = "",
        channel_axis: int | None = None,
        time_axis: int | None = None,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        axes: str | None = None,
        level: int = 0,
        series: int = 0,
        place: LayerPlace | None = None,
    ) -> ProjectImage:
        """Add an image. Its voxels are not copied: the project refers to its file or URL.

        Reads a few voxels, by which the image is recognised when it is opened again.

        Parameters
        ----------
        array
            The image, of any numeric dtype: (Z, Y, X) or (Y, X), besides axes of channels and time if these are named.
        shape
            Shape of the annotation: frames, z, y, x. None takes it from the array.
        path
            File, folder or URL that the array was opened from. None, if it is only in memory: then it must be passed
            again whenever the project is opened.
        title
            Name to show; by default the last part of the path, or "image". Cut after 1000 characters.
        channel_axis
            Position of the channel axis in the array; None if it has none.
        time_axis
            Position of the time axis in the array; None if it has none, which makes one frame.
        spacing
            Voxel size along z, y, x, in any unit; 1 by default.
        axes
            Letters of the axes in the file, as they were passed to `open_image`; None lets the file say.
        level
            Level of resolution that was opened; 0, the finest, by default.
        series
            Which image of the file was opened; the first, 0, by default.
        place
            How the image was shown in napari; None if it was not.

        Returns
        -------
        ProjectImage
            The image, which is also the last of `images`.

        Raises
        ------
        ProjectReadOnlyError
            If the project is only open for reading.
        InputError
            If the array is empty, or has more or fewer than 2 or 3 spatial axes.
        ValueError
            If shape, spacing or the position of an axis is impossible.
        OSError
            If the project cannot be written.

        """
        reference = refer_to(path, array, self.path, axes=axes, level=level, series=series)
        name = title or (Path(str(path)).name if path is not None else "image")
        axis = {"channel_axis": channel_axis, "time_axis": time_axis}
        shape = shape or _annotated_shape(array, channel_axis, time_axis)
        return self.add_entry(title=name[:1000], shape=shape, spacing=spacing, reference=reference, place=place, **axis)

    def add_entry(self, **fields: Any) -> ProjectImage:
        """Add an image by the fields of its `ImageEntry`."""
        with self.writing():
            entry = ImageEntry(**fields)
            image = ProjectImage(self, len(self._images))
            self._make_image_folders(image.folder)
            self.commit(self._manifest.changed(images=(*self._manifest.images, entry)))
            self._images.append(image)
            return image

    def update(
        self,
        *,
        classes: Sequence[ProjectClass] | None = None,
        highest_class: int = 0,
        settings: ProjectSettings | None = None,
    ) -> bool:
        """Write classes or settings if they differ; returns whether they did. Raises OSError.

        `highest_class` is the highest id that any class has had meanwhile.
        """
        with self.writing():
            changed = self._manifest.with_highest_class(self.highest_class, highest_class)
            if classes is not None and tuple(classes) != changed.classes:
                changed = changed.changed(classes=tuple(classes), classes_number=changed.classes_number + 1)
            if settings is not None and settings != changed.settings:
                changed = changed.changed(settings=settings, refused={})
            if changed is self._manifest:
                return False
            self.commit(changed)
            return True

    def refresh(self) -> bool:
        """Know what another window has written since, if this one only reads; whether there is more of the images.

        Classes that a journal has told of stay until newer ones are written. Models are known by `checkpoints` alone.
        """
        if not self.is_read_only:
            return False
        try:
            written = self._written()
        except ProjectError:  # what is known is all there is
            return False
        with self._changing:
            known, images = self._manifest, written.images[: len(self._images)]
            if len(images) < len(self._images):
                return False
            taken = written.changed(images=images, checkpoints=known.checkpoints)
            if written.classes_number < known.classes_number:
                taken = taken.changed(classes=known.classes, classes_number=known.classes_number)
            self._manifest = taken.with_highest_class(known.highest_class)
            return images != known.images

    def take_classes(self, classes: Sequence[ProjectClass], number: int, highest_class: int = 0) -> None:
        """Take classes that are newer in a journal than in the manifest; they are written with the next commit."""
        with self._changing:
            self._manifest = self._manifest.with_highest_class(self.highest_class, highest_class)
            if number > self._manifest.classes_number:
                self._manifest = self._manifest.changed(classes=tuple(classes), classes_number=number)

    def add_checkpoint(self, content: bytes, **about: Any) -> ProjectCheckpoint:
        """Write a model file; the last two are kept. `about` are fields of `ProjectCheckpoint`. Raises OSError."""
        with self.writing():
            folder = self.path / CHECKPOINTS
            numbers = [int(path.stem) for path in folder.glob("[0-9]*.safetensors") if path.stem.isdigit()]
            entry = ProjectCheckpoint(number=max(numbers, default=0) + 1, **{"time": time.time(), **about})
            try:
                replace_file(self.disk, self._checkpoint_path(entry), content)
                kept = (*self._manifest.checkpoints, entry)[-_N_CHECKPOINTS:]
                self.commit(self._manifest.changed(checkpoints=kept))
            finally:
                self._clean_checkpoints()
            return entry

    def drop_checkpoints(self) -> None:
        """Forget all models, because the user started again. Raises OSError."""
        with self.writing():
            if self._manifest.checkpoints:
                self.commit(self._manifest.changed(checkpoints=()))
                self._clean_checkpoints()

    def checkpoints(self) -> tuple[tuple[ProjectCheckpoint, Path], ...]:
        """Models and their files, newest first; readers take the first one that loads.

        If this window only reads, they are those of now: another one may have removed all that were known.
        """
        with suppress(ProjectError), self._changing:  # else what is known is all there is
            self._manifest = self._manifest.changed(checkpoints=self._written().checkpoints)
        found = [(entry, self._checkpoint_path(entry)) for entry in reversed(self._manifest.checkpoints)]
        return tuple((entry, path) for entry, path in found if path.is_file() and not path.is_symlink())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the project while it is changed. Raises `ProjectReadOnlyError` if it is only open for reading."""
        if self.is_read_only:
            raise ProjectReadOnlyError(self.reason or f"{self.path.name} was opened for reading only; open it again")
        with self._changing:
            yield

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest, which counts from then on. Raises OSError; the one before still counts then."""
        with self.writing():
            replace_file(self.disk, self.path / PREVIOUS, self._manifest.encoded())
            replace_file(self.disk, self.path / MANIFEST, manifest.encoded())
            self._manifest = manifest

    def copy_to(self, path: str | os.PathLike[str], *, only_what_is_written: bool = False) -> tuple[str, ...]:
        """Copy the project to another place, with all strokes so far; the copy appears whole or not at all.

        To move a project, copy it, close it, open the copy, and remove the old folder. Raises `ProjectError` if
        something lies there or it cannot be written, and if there are strokes that cannot be written here or files that
        cannot be read, unless the caller knows that and wants `only_what_is_written`: the names of such files are
        returned then.
        """
        target = _checked_path(path)
        if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(self.path)):
            raise ProjectError(f"{target} lies in the project itself; choose a place outside of {self.path}")
        if target.exists():
            raise ProjectError(f"{target} exists; choose another name")
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        for image in () if only_what_is_written else self._images:
            if image.journal is not None and not image.journal.sync(timeout=_PATIENCE):
                raise ProjectError(f"{self.path} cannot be copied: {image.journal.error}; make room first")
        try:
            with self._changing:
                manifest, unread = self._copy_files(partial, all_of_them=not only_what_is_written)
                images = tuple(self._in_copy(target, *each, unread) for each in enumerate(manifest.images))
                replace_file(self.disk, partial / MANIFEST, manifest.changed(images=images).encoded())
            self.disk.rename(partial, target)
            self.disk.sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                self.disk.remove(partial)
            if isinstance(error, SourceError):
                raise UnreadableProjectError(f"{self.path} cannot be read ({error.strerror or error})") from error
            raise ProjectError(f"{target} cannot be made ({error.strerror or error}); choose another place") from error
        return tuple(path.relative_to(self.path).as_posix() for path in unread)

    def make_folders(self) -> None:
        """Make the project's folders again after somebody removed them; models and predictions are lost then."""
        with self.writing():
            is_gone = not (self.path / MANIFEST).is_file()
            for folder in (self.path, self.path / CHECKPOINTS, self.path / "images"):
                self.disk.make_folder(folder)
            for name, content in _new_files(self._manifest).items():
                if name.endswith("zarr.json"):
                    replace_file(self.disk, self.path / name, content)
            for image in self._images:
                self._make_image_folders(image.folder)
            if is_gone:
                images = tuple(i.model_copy(update={"folds": (), "prediction": None}) for i in self._manifest.images)
                self.commit(self._manifest.changed(images=images, checkpoints=()))

    # --- record ---

    def provenance(self) -> dict[str, Any]:
        """Who painted what and when, which models there were, and all settings, ready to be written as JSON."""
        self.refresh()
        return provenance_of(self)

    def methods(self) -> str:
        """Describe in a paragraph how the images were segmented, for the methods section of a paper."""
        self.refresh()
        return methods_of(self)

    # --- inside ---

    def _written(self) -> Manifest:
        """What is written of the project: by another window, if this one only reads. Raises `ProjectError`."""
        if not self.is_read_only:
            return self._manifest
        manifest, _ = _read_newest(self.path)
        if manifest.id != self._manifest.id:
            raise ProjectError(f"{self.path} is another project now; open it again")
        return manifest

    def _copy_files(self, target: Path, *, all_of_them: bool) -> tuple[Manifest, list[Path]]:
        """Copy what is written, again if it changes meanwhile; the manifest that goes with it, and what is unreadable.

        Raises `SourceError` if that must not be or is the manifest itself, OSError if the copy cannot be written.
        """
        copying = Copying()
        for _ in range(_N_COPIES):
            copying.unread.clear()
            manifest = self._written_or_unreadable()
            copy_folder(self.disk, self.path, target, without=UNCOPIED, copying=copying)
            is_of_one_moment = all(map(os.path.lexists, copying.unread))
            if is_of_one_moment and self._written_or_unreadable() == manifest:
                break
        for path, error in copying.unread.items():
            if all_of_them or path == self.path / MANIFEST:
                raise error
        return manifest, list(copying.unread)

    def _in_copy(self, target: Path, number: int, entry: ImageEntry, unread: Sequence[Path]) -> ImageEntry:
        """An image as a copy knows it: without all of its journal, folds hold what is nowhere else."""
        journal = self.path / "images" / str(number) / JOURNAL
        lacks_journal = any(path.is_relative_to(journal) or journal.is_relative_to(path) for path in unread)
        folds = tuple(fold.model_copy(update={"is_base": lacks_journal or fold.is_base}) for fold in entry.folds)
        return entry.model_copy(update={"reference": entry.reference.seen_from(target), "folds": folds})

    def _written_or_unreadable(self) -> Manifest:
        try:
            return self._written()
        except ProjectError as error:
            raise SourceError(None, str(error)) from error

    def _checkpoint_path(self, entry: ProjectCheckpoint) -> Path:
        return self.path / CHECKPOINTS / f"{entry.number:06}.safetensors"

    def _make_image_folders(self, folder: Path) -> None:
        self.disk.make_folder(folder)
        replace_file(self.disk, folder / "zarr.json", _group({}))
        for part in _PARTS:
            self.disk.make_folder(folder / part)
        self.disk.sync_folder(folder)
        self.disk.sync_folder(folder.parent)

    def clean(self) -> None:
        """Remove what an interrupted writer left behind."""
        for image in self._images:
            image.clean()
            image.clean_pixels()
            image.whole.clean()
        self._clean_checkpoints()

    def _clean_checkpoints(self) -> None:
        kept = {self._checkpoint_path(entry) for entry in self._manifest.checkpoints}
        for path in (self.path / CHECKPOINTS).iterdir() if (self.path / CHECKPOINTS).is_dir() else ():
            is_ours = _CHECKPOINT.fullmatch(path.name.removesuffix(PARTIAL)) is not None
            if is_ours and path not in kept:
                with suppress(OSError):  # another time, then
                    self.disk.remove(path)


def is_project(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a project, or was one; only looks at names."""
    folder = Path(path)
    return folder.suffix == SUFFIX and any((folder / name).is_file() for name in (MANIFEST, PREVIOUS))


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path is of type {type(path).__name__}, but a str or pathlib.Path is needed")
    folder = Path(path).absolute()
    if ".." in folder.parts:  # the way may lead through a project that is moved away
        folder = Path(os.path.realpath(folder.parent), folder.name)
    if folder.suffix != SUFFIX:
        raise ProjectError(f"{folder} is not the name of a project; it must end in {SUFFIX}")
    return folder


def _annotated_shape(array: ArrayLike, channel_axis: int | None, time_axis: int | None) -> tuple[int, int, int, int]:
    """Frames, z, y, x of an array with 2 or 3 spatial axes."""
    sizes = shape_of(array, "image")
    spatial = [n for axis, n in enumerate(sizes) if axis not in (channel_axis, time_axis)]
    if len(spatial) not in (2, 3):
        raise InputError(f"image has {len(spatial)} spatial axes (shape {sizes}), but 2 or 3 are needed; name its axes")
    z, y, x = [1, *spatial][-3:]
    return (1 if time_axis is None else sizes[time_axis]), z, y, x


def _read_newest(folder: Path) -> tuple[Manifest, list[str]]:
    """The manifest, or the previous one if it is damaged, and sentences about problems."""
    try:
        return read_manifest(folder / MANIFEST)
    except ProjectError as error:
        if type(error) is not ProjectError or not (folder / PREVIOUS).is_file():
            raise
        manifest, problems = read_manifest(folder / PREVIOUS)
        return manifest, [f"{error}. The state before was opened; no stroke is missing", *problems]


def _check_links(folder: Path, n_images: int) -> None:
    """Refuse a project with links: what is written to it would land outside of it, or could not be written."""
    files = [folder / name for name in _FILES]
    parts = [folder / CHECKPOINTS, folder / "images", *files]
    for number in range(n_images):
        image = folder / "images" / str(number)
        parts += [image, *(image / part for part in (*_PARTS, "objects", "pixels", "whole"))]
    for path in parts:
        if path.is_symlink():
            raise ProjectError(f"{path} is a link, which no project has; copy what it leads to into its place")
    for path in files:
        if path.is_dir():
            raise ProjectError(f"{path} is a folder in the place of a file; take it away")


def _new_files(manifest: Manifest) -> Mapping[str, bytes]:
    return {
        "zarr.json": _group({"sparseseg": {"format": FORMAT, "version": VERSION}}),
        "images/zarr.json": _group({}),
        f"{CHECKPOINTS}/zarr.json": _group({}),
        MANIFEST: manifest.encoded(),
    }


def _group(attributes: Mapping[str, Any]) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}).encode()
