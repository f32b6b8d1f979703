"""Session: what a viewer keeps of the plugin while the dock comes and goes."""

from __future__ import annotations

import atexit
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_sparseseg._types import Plane
from napari_sparseseg.errors import InputError, SparseSegError
from napari_sparseseg.live.events import CurvePoint, SavingStatus, WholeStatus
from napari_sparseseg.live.live_segmenter import LiveSegmenter
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.widgets.bridge import LayerBridge
from napari_sparseseg.widgets.ending import Ending, Exits, ask_to_close, ask_to_exit
from napari_sparseseg.widgets.home import (
    Earlier,
    find_earlier,
    import_old_journals,
    new_project,
    note_recent,
    prefer_own_reader,
    unused_path,
)
from napari_sparseseg.widgets.relay import GuiRelay
from napari_sparseseg.widgets.restoring import add_to, recognised, shape_of_source
from napari_sparseseg.widgets.sources import ImageSource, unwrapped

MAPS = ("probability", "uncertainty", "ambiguity", "novelty", "freshness", "class_layers")
"""Layers that can be switched on."""
_MOST_POINTS = 20_000
_CANDIDATES = 1.2  # candidate classes per voxel, if their layer is switched on and the settings give no number

_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()


def find_session(viewer: Any) -> Session | None:
    """The session of a viewer, None if the dock was never opened there."""
    return _sessions.get(unwrapped(viewer))


def session_of(viewer: Any) -> Session:
    """The session of a viewer, a new one if there is none."""
    found = find_session(viewer)
    if found is None:
        # registered after Qt was loaded, hence called before Qt deletes its objects; once
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        found = _sessions[unwrapped(viewer)] = Session(viewer)
        _exits().start()
    return found


def _close_all() -> None:
    for session in list(_sessions.values()):
        session.close()


@cache
def _exits() -> Exits:
    """Asks before napari ends, for all sessions, as long as there is one: any window may be told to exit."""
    return Exits(_may_exit)


def _may_exit() -> bool:
    """Whether napari may end, which closes all windows: if strokes are in memory only in any, the user is asked."""
    problems = [problem for session in list(_sessions.values()) if (problem := session.loss)]
    return not problems or ask_to_exit("; ".join(problems))


class Session(QObject):
    """The live segmenter of one viewer, with the relay and the bridge that tie it to the viewer.

    It outlives the dock, which may be closed and opened again, and ends with the viewer.
    """

    source_changed = Signal(object)
    """The `ImageSource` in use now."""
    source_returned = Signal(object)
    """The `ImageSource` in use: its layers were removed, and others with the same voxels have taken their place."""
    message_shown = Signal(str, bool)
    """Something the user was told: the sentence, and whether it is an error."""
    maps_changed = Signal()
    """Layers were switched on or off, but not by the user."""
    configured = Signal()
    offered = Signal(object)
    """`Earlier` paint of the image that was opened, None if there is none any more."""
    closed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(unwrapped(viewer))
        self._own: weakref.WeakSet[Any] = weakref.WeakSet()
        self._before: list[weakref.ref[Any]] | None = None
        self._dock: weakref.ref[Any] | None = None
        self._removed = ""
        self._after_removal = QTimer(self)
        self._after_removal.setSingleShot(True)
        self._after_removal.timeout.connect(self._on_image_gone)
        self._after_insertion = QTimer(self)
        self._after_insertion.setSingleShot(True)
        self._after_insertion.timeout.connect(self._on_images_added)
        self._is_image_gone = self._was_live = False
        self._unshown: list[str] = []  # layers of `MAPS` that come as soon as the image is on screen
        self._showing = QTimer(self)
        self._showing.setSingleShot(True)
        self._showing.timeout.connect(self._show_next_map)
        self._is_closed = self.is_opening = False
        self.project: Project | None = None
        self.offer: Earlier | None = None
        self._is_new = False  # made by itself, and nothing painted in it yet
        self._faults: set[str] = set()  # that were told and last
        self._notices: set[str] = set()
        self.source: ImageSource | None = None
        self.curve: list[CurvePoint] = []
        self.probability: int | None = None
        self.uncertainty = self.freshness = self.ambiguity = self.novelty = self.class_layers = False
        prefer_own_reader()
        self.live = LiveSegmenter()
        self.relay = GuiRelay(self.live.events, self)
        self.bridge = LayerBridge(viewer, self.live, self.relay)
        self._ending = Ending(self, self._may_close)
        self._ending.ended.connect(self.close)
        self._connect(viewer)
        # the last resort: no thread may outlive the viewer
        self._finalizer = weakref.finalize(unwrapped(viewer), self.live.close)

    # --- image ---

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Another image is opened within, and meanwhile no other one, whoever wishes that.

        Raises `InputError` if one is being opened already.
        """
        if self.is_opening:
            raise InputError("another image is being opened; try again once it is there")
        self.is_opening = True
        try:
            yield
        finally:
            self.is_opening = False

    def open(self, source: ImageSource, image: ProjectImage | None = None) -> None:
        """Work on another image, of a project or, without one, of a new project; the one before is saved and closed.

        Raises `InputError`; then what was open stays open. Whatever is raised, the project is in use if it is `project`
        by then, and must not be closed.
        """
        if self._is_closed:  # while what was open was being saved
            raise InputError("the viewer is closed, so nothing can be opened in it any more")
        is_new = image is None
        taken = image or self._new_image(source)
        was_used = self._is_used
        try:
            self.live.open(
                source.array,
                channel_axis=source.channel_axis,
                time_axis=source.time_axis,
                spacing=source.spacing,
                project=taken,
            )
        except BaseException:
            if is_new:
                _finish(taken.project if taken else None, is_unused=True)
            raise
        self.relay.drop_answers()
        if self._is_on_screen(source):  # else it is still the one that was removed, in a project of another name
            self._predict_again()
        elif self._is_image_gone:
            self.live.pause()
        before, self.project = self.project, taken.project if taken else None
        if before is not self.project:
            _finish(before, is_unused=self._is_new and not was_used)
        self._is_new = is_new
        self._faults.clear()
        self._notices.clear()
        if taken is not None and not is_new:
            self._remember()
        self.source = source
        try:
            self.bridge.open(source)
            self._show_wished_maps_soon()
        finally:  # by now it is the image in use, and takes the strokes
            self.source_changed.emit(source)
        self._offer(find_earlier(taken) if taken is not None and is_new else None)

    @property
    def is_image_on_screen(self) -> bool:
        """Whether the viewer has all layers of the image in use."""
        return self.source is not None and self._is_on_screen(self.source)

    def take_back(self, found: ImageSource) -> bool:
        """Go on with the image in use, which was removed, on these layers; False if they do not lie where it lay."""
        source = self.source
        if source is None or _place_of(found) != _place_of(source):
            return False
        self.source = replace(source, layers=found.layers, layer_names=found.layer_names)
        self._put_beneath_paint(found)
        self._predict_again()
        self.source_returned.emit(self.source)
        self.tell(f"The image “{source.name}” is back: work goes on, with Train also the training.")
        return True

    def _put_beneath_paint(self, source: ImageSource) -> None:
        """Move the layers of an image below ours, which they would hide."""
        viewer, ours = self._viewer(), (self.bridge.annotation_layer, self.bridge.prediction_layer)
        if viewer is None:
            return
        for layer in (reference() for reference in source.layers):
            lowest = min((viewer.layers.index(each) for each in ours if each is not None), default=len(viewer.layers))
            if viewer.layers.index(layer) > lowest:
                viewer.layers.move(viewer.layers.index(layer), lowest)

    def _is_on_screen(self, source: ImageSource) -> bool:
        viewer = self._viewer()
        return viewer is not None and all(layer() in viewer.layers for layer in source.layers)

    def _new_image(self, source: ImageSource) -> ProjectImage | None:
        """Make a project for an image: in the user's folder, else in a temporary one, else none.

        Raises `InputError` for voxels that cannot be read; then there is no project.
        """
        import_old_journals(lambda text: self.tell(text))
        made: Project | None = None
        for make in (new_project, _temporary_project):
            try:
                made = make(source.name)
                return add_to(made, source, shape_of_source(source))
            except (InputError, OSError) as error:
                _finish(made, is_unused=True)
                self.tell(f"nothing is saved yet: {error}", True)
            except Exception as error:  # lazy arrays run other people's code, which raises what it likes
                _finish(made, is_unused=True)
                reason = str(error) or type(error).__name__
                raise InputError(
                    f"the voxels of “{source.name}” cannot be read ({reason}); repair the file, or choose another image"
                ) from error
        return None

    @property
    def _is_used(self) -> bool:
        return self.live.status.revision > 0 or self.live.status.has_model

    def _remember(self) -> None:
        """List the project among the recent ones."""
        if self.project is not None and self.project.images:
            image = self.live.project
            title = image.entry.title if image else self.project.name
            with suppress(OSError):  # whoever looks for it opens it by its folder
                note_recent(self.project.path, title)

    def _offer(self, earlier: Earlier | None) -> None:
        self.offer = earlier
        self.offered.emit(earlier)

    def decline(self) -> None:
        """Withdraw the offer of earlier paint, which stays among the recent projects."""
        self._offer(None)

    @property
    def has_paint(self) -> bool:
        """Whether anything was painted, including paint that belongs to no slice, such as a script's."""
        return bool(self.live.painted_classes()) or any(painted.n_voxels for painted in self.live.painted_slices())

    def configure(self, **settings: Any) -> None:
        """Change settings of the live segmenter, as its own `configure`; raises what that raises."""
        self.live.configure(**settings)
        self.configured.emit()

    def set_complete(self, complete: bool) -> None:
        """Mark the slice on screen as complete, or take that back; raises `InputError`."""
        plane: Plane | None = self.bridge.current_plane()
        if plane is None:
            if self.bridge.is_open and self.source is not None:
                raise InputError("there is no layer that shows a slice; Paint or Correct brings one back")
            raise InputError("there is no slice to mark yet; open an image first")
        self.live.set_complete(plane, complete)

    def accept(self, everything: bool) -> None:
        """Copy the prediction, of the slice on screen or all of it, into an ordinary layer; raises `InputError`."""
        layer = self.bridge.accept(everything)
        if layer is None:
            raise InputError("there is nothing to accept yet: open an image and paint two classes")
        what = "The prediction" if everything else "The prediction of this slice"
        self.tell(f"{what} was copied to the layer “{layer.name}”.")

    def show_whole(self) -> None:
        """Add a layer of what was predicted into the project; raises `InputError`."""
        if self.bridge.show_whole() is None:
            raise InputError("there is nothing to show yet: predict all of the image first")

    # --- layers ---

    def show_maps(self, **wished: Any) -> None:
        """Switch layers on and off: those of `MAPS`; `probability` is that of a class id, or None.

        From now on the model learns what such a layer shows.
        """
        viewer = self._viewer()
        self._before = [] if viewer is None else [weakref.ref(layer) for layer in viewer.layers]
        shows: dict[str, Callable[[Any], None]] = {
            "probability": self.bridge.show_probability,
            "uncertainty": self.bridge.show_uncertainty,
            "freshness": self.bridge.show_freshness,
            "class_layers": self.bridge.show_class_layers,
            "ambiguity": self.bridge.show_ambiguity,
            "novelty": self.bridge.show_novelty,
        }
        try:
            for name, wish in wished.items():
                if wish:
                    self._have_learnt(name)
                shows[name](wish)
                setattr(self, name, wish)
                self._unshown = [other for other in self._unshown if other != name]
        finally:
            self._own.update(layer for layer in (viewer.layers if viewer else ()) if self.owns(layer))
            self._before = None

    def _show_wished_maps_soon(self) -> None:
        """Show the layers that are switched on for another image as well, one by one once it is on screen.

        Making them takes long. Those that cannot be shown are switched off, and the user is told.
        """
        self._drop_class_layers()
        self._unshown = [name for name in MAPS if getattr(self, name) not in (None, False)]
        self._showing.start(0)

    def _show_next_map(self) -> None:
        if not self._unshown or self._is_closed or self._ending.is_under_way:
            return
        name = self._unshown.pop(0)
        self._showing.start(0)
        wish, off = getattr(self, name), None if name == "probability" else False
        try:
            # what this project does not learn is not learnt unasked
            self.show_maps(**{name: wish if self._is_learnt(name) else off})
        except (InputError, MemoryError) as error:
            self.show_maps(**{name: off})
            self.tell(str(error) or f"there is not enough memory for the layer of {name}", True)
        self.maps_changed.emit()

    def _is_learnt(self, name: str) -> bool:
        """Whether the model learns what a layer shows; raises `InputError` if it cannot."""
        if name == "ambiguity" and self.live.is_overlapping:
            raise InputError("where classes overlap, a voxel may be each of them; ambiguity tells nothing there")
        if name == "class_layers" and not self.live.is_overlapping:
            raise InputError("classes do not overlap in this project, so one layer shows them all")
        paint = self.live.settings.paint
        return not ((name == "ambiguity" and not paint.candidates) or (name == "novelty" and paint.novelty == "off"))

    def _have_learnt(self, name: str) -> None:
        """Change the settings so that the model learns what a layer shows; raises `InputError` if it cannot."""
        if self._is_learnt(name):
            return
        paint = self.live.settings.paint
        if name == "ambiguity":
            self.configure(paint=paint.with_changes(candidates=_CANDIDATES))
            self.tell("What else voxels may be is learnt from now on (Settings: Candidate classes).")
        else:
            self.configure(paint=paint.with_changes(novelty="features"))
            self.tell("What is like nothing that was painted is told from now on (Settings: Novelty).")

    def _drop_class_layers(self) -> None:
        """Switch the layers of the classes off where these do not overlap: what is painted there would mean sets."""
        if self.class_layers and not self.live.is_overlapping:
            self.show_maps(class_layers=False)
            self.maps_changed.emit()

    def forget_map(self, name: str) -> None:
        """Note that one of these layers is gone."""
        setattr(self, name, None if name == "probability" else False)

    def owns(self, layer: Any) -> bool:
        """Whether `show_maps` has made this layer, which then is no image to learn from."""
        layer = unwrapped(layer)
        return layer in self._own or (self._before is not None and weakref.ref(layer) not in self._before)

    # --- dock ---

    def take_dock(self, dock: QWidget) -> None:
        """Show the session in this dock; another one that shows it, closed by now, is retired."""
        before = self._dock() if self._dock is not None else None
        self._dock = weakref.ref(dock)
        if before is not None and before is not dock:
            before.detach()

    # --- what the user is told ---

    def tell(self, text: str, is_error: bool = False) -> None:
        """Tell the user something, as a notification of napari's and in the dock; GUI thread."""
        if not text or self._is_closed or self._ending.is_under_way:
            return
        is_file_name = "." in text.split(maxsplit=1)[0].rstrip(".!?")  # which is written as it is
        sentence = (text[0] if is_file_name else text[0].upper()) + text[1:] + ("" if text[-1] in ".!?" else ".")
        (show_error if is_error else show_info)(sentence)
        self.message_shown.emit(sentence, is_error)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Tell users of errors that they can cause, instead of raising them."""
        try:
            yield
        except SparseSegError as error:
            self.tell(str(error), True)

    # --- end ---

    def watch(self, window: QObject) -> None:
        """End the session when this window closes."""
        self._ending.watch(window)

    @property
    def loss(self) -> str:
        """Why something painted is in memory only, and ends with the session; empty if nothing is."""
        return self.live.keeping.unsaved if self.has_paint else ""

    def _may_close(self) -> bool:
        """Whether the window may close: if strokes are in memory only, the user is asked."""
        problem = self.loss
        return not problem or ask_to_close(problem)

    def close(self) -> None:
        """End the thread and let go of viewer and layers; may be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._finalizer.detach()
        self._ending.stop()
        for timer in (self._after_removal, self._after_insertion, self._showing):
            timer.stop()
        viewer = self._viewer()
        if viewer is not None:
            _sessions.pop(viewer, None)
            viewer.layers.events.removed.disconnect(self._on_layer_removed)
            viewer.layers.events.inserted.disconnect(self._on_layer_inserted)
        if not _sessions:
            _exits().stop()
        for end in (self.relay.close, self.live.close, self.bridge.close):
            with suppress(RuntimeError):  # where the process ends, Qt may have deleted what they hold
                end()
        _finish(self.project, is_unused=self._is_new and not self._is_used)
        self.project = None
        self.closed.emit()
        self.source = None

    # --- what happens ---

    def _connect(self, viewer: Any) -> None:
        unwrapped(viewer).layers.events.removed.connect(self._on_layer_removed)
        unwrapped(viewer).layers.events.inserted.connect(self._on_layer_inserted)
        self.relay.curve.connect(self._on_curve)
        self.relay.curve_cleared.connect(self._on_curve_cleared)
        self.relay.failed.connect(self._on_failed)
        self.relay.noticed.connect(self._on_noticed)
        self.relay.saving.connect(self._on_saving)
        self.relay.whole.connect(self._on_whole)
        self.relay.paint.connect(self._on_paint)
        self.bridge.problem.connect(self._on_failed)
        self.bridge.layers_lost.connect(self._on_layers_lost)
        self.configured.connect(self._drop_class_layers)

    def _on_failed(self, reason: str) -> None:
        self.tell(reason, True)

    def _on_noticed(self, sentence: str) -> None:
        self._tell_once(sentence, self._notices)

    def _on_saving(self, status: SavingStatus) -> None:
        """Tell of each fault once, until everything is saved again."""
        if status.error or status.reason:
            self._tell_once(status.error or status.reason, self._faults)
        elif self._faults:
            self._faults.clear()
            self.tell("Everything is saved again")

    def _on_whole(self, status: WholeStatus) -> None:
        """Show a prediction of the whole image that has just been completed."""
        if status.is_new:
            with self.guarded():
                self.show_whole()
            self.tell("All of the image was predicted into the project")

    def _tell_once(self, sentence: str, told: set[str]) -> None:
        if sentence not in told:
            told.add(sentence)
            self.tell(sentence, True)

    def _on_paint(self) -> None:
        if self._is_new and self._is_used:
            self._is_new = False
            self._remember()
        if self.offer is not None and self.has_paint:
            self._offer(None)

    def _on_layers_lost(self, text: str) -> None:
        self.tell(text, False)

    def _on_curve(self, points: list[CurvePoint]) -> None:
        self.curve.extend(points)
        if len(self.curve) > _MOST_POINTS:
            self.curve = self.curve[::2]

    def _on_curve_cleared(self) -> None:
        self.curve = []

    def _on_layer_removed(self, event: Any) -> None:
        if self.source is not None and self.source.is_of(event.value):
            self._removed = event.value.name
            # not now: napari removes all layers when it closes, and there is nobody to tell then
            self._after_removal.start(0)

    def _on_image_gone(self) -> None:
        if self.is_image_on_screen:
            return  # it is back already
        self.live.pause()
        if not self.has_paint:
            self.source = None  # nothing is lost: the next image is taken by itself
            self.source_changed.emit(None)
            return
        self._was_live = self._was_live if self._is_image_gone else self.live.status.is_live
        self._is_image_gone = True
        self.live.set_live(False)
        what = f"The image “{self._removed}” was removed"
        self.tell(f"{what}: training and prediction pause until it is back. Your paint is kept.")

    def _on_layer_inserted(self, _event: Any) -> None:
        if self._is_image_gone:
            self._after_insertion.start(0)  # by then its place is known, and all layers of a sample are there

    def _on_images_added(self) -> None:
        """If the image that was removed has come back, go on with it; another one is left to the user."""
        viewer, image, source = self._viewer(), self.live.project, self.source
        if viewer is None or image is None or source is None or not self._is_image_gone:
            return
        layers = [layer for layer in viewer.layers if isinstance(layer, Image) and not self.owns(layer)]
        candidates = [layers] if len(source.layers) > 1 else [[layer] for layer in layers]
        sources = (recognised(image, candidate) for candidate in candidates)
        for found in sources:
            if found is not None and self.take_back(found):
                break

    def _predict_again(self) -> None:
        """Predict as it was before the image was removed."""
        if self._is_image_gone and self._was_live:
            self.live.set_live(True)
        self._is_image_gone = False


def _place_of(source: ImageSource) -> tuple[Any, ...]:
    """What must be equal for layers of one source to lie on the other."""
    return source.shape, source.scale, source.translate, source.units, source.region, source.step, source.level


def _temporary_project(name: str) -> Project:
    return Project.create(unused_path(Path(tempfile.mkdtemp(prefix="sparseseg-")), name))


def _finish(project: Project | None, *, is_unused: bool) -> None:
    """Close a project, and remove one that was made automatically and never used."""
    if project is not None:
        project.close()
        if is_unused:
            with suppress(OSError):  # an empty folder is left then
                RealDisk().remove(project.path)
