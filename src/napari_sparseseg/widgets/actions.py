"""Actions: carries out what the panels ask for; asks back where something would be lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.qt.threading import thread_worker
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_sparseseg.errors import InputError, SparseSegError
from napari_sparseseg.live.events import WholeState
from napari_sparseseg.storage.atomic import written_whole
from napari_sparseseg.storage.formats import write_labels
from napari_sparseseg.widgets.files import geometry_of
from napari_sparseseg.widgets.leaving import leaving, what_is_lost
from napari_sparseseg.widgets.questions import agrees
from napari_sparseseg.widgets.session import Session
from napari_sparseseg.widgets.sources import ImageSource

_MODEL_FILTER = "Model (*.safetensors)"
_TABLE_FILTER = "Comma-separated values (*.csv)"
_LABELS_FILTER = (
    "OME-Zarr (*.ome.zarr);;TIFF (*.tif);;OME-TIFF (*.ome.tif);;NIfTI (*.nii.gz);;NRRD (*.nrrd);;NPY (*.npy)"
)


class Actions(QObject):
    """What users wish of one session, done; what they can cause is told to them."""

    def __init__(self, session: Session, widget: QWidget) -> None:
        super().__init__(widget)
        self._session = session
        self._widget = widget

    def carry_out(self, wish: Callable[[], object]) -> None:
        """Do something of which users can be told why it cannot be done."""
        with self._session.guarded():
            wish()

    # --- image ---

    def open_image(self, source: ImageSource) -> None:
        """Work on an image; asks if there is paint on another one, which is saved first.

        Asks once more if that cannot be saved, for a reason that did not show before.
        """
        session = self._session
        with session.guarded(), session.opening():
            told = session.live.keeping.unsaved
            # before all is held: what is learnt while the user thinks about it is to be saved too
            if session.has_paint and not self._may_leave_for(source, told):
                return
            with leaving(session, self._widget) as problem:
                is_news = problem not in ("", told)
                if is_news and session.has_paint and not self._may_use_another(what_is_lost(session, problem)):
                    return
                session.open(source)

    def _may_leave_for(self, source: ImageSource, problem: str) -> bool:
        session = self._session
        kept = "The present one is saved first, and Project > Open recent brings paint, model and prediction back."
        return self._may_use_another(
            f"You have painted on “{session.source.name if session.source else 'an image'}”. Working on "
            f"“{source.name}” starts a project of its own. {what_is_lost(session, problem) if problem else kept}"
        )

    def _may_use_another(self, costs: str) -> bool:
        return ask(self._widget, "Use another image?", costs, "Use it")

    # --- classes ---

    def add_class(self) -> int | None:
        """Add a class and paint with it; its id."""
        with self._session.guarded():
            info = self._session.live.add_class()
            self._session.relay.flush()
            self._session.bridge.set_class(info.class_id)
            return info.class_id
        return None

    def rename_class(self, class_id: int, name: str) -> None:
        """Give a class another name."""
        with self._session.guarded():
            self._session.live.rename_class(class_id, name)

    def recolor_class(self, class_id: int, color: tuple[float, float, float]) -> None:
        """Give a class another colour."""
        with self._session.guarded():
            self._session.live.recolor_class(class_id, color)

    def set_background(self, class_id: int) -> None:
        """Give a class the background role."""
        with self._session.guarded():
            self._session.live.set_background(class_id)

    def remove_class(self, class_id: int) -> None:
        """Remove a class; asks if it was painted."""
        live = self._session.live
        names = {info.class_id: info.name for info in live.classes}
        if class_id in live.painted_classes() and not ask(
            self._widget,
            "Remove the class?",
            f"“{names.get(class_id, class_id)}” has been painted. Its paint is removed with it.",
            "Remove",
        ):
            return
        with self._session.guarded():
            live.remove_class(class_id)

    # --- learning ---

    def reset_model(self) -> None:
        """Forget what was learnt, after asking."""
        if ask(
            self._widget,
            "Reset the model?",
            "What was learnt and the predictions are dropped. Your paint stays, and learning begins anew from it.",
            "Reset",
        ):
            with self._session.guarded():
                self._session.live.reset_model()

    def set_complete(self, complete: bool) -> None:
        """Mark the slice on screen as complete, or take that back."""
        with self._session.guarded():
            self._session.set_complete(complete)

    def configure(self, **settings: Any) -> None:
        """Change settings; what cannot be is told, and shown as it was."""
        with self._session.guarded():
            self._session.configure(**settings)
            return
        self._session.configured.emit()

    # --- results ---

    def accept(self, everything: bool) -> None:
        """Copy the prediction into an ordinary layer."""
        with self._session.guarded():
            self._session.accept(everything)

    def predict_all(self) -> None:
        """Predict all of the image into the project; asks if that drops what an older model has begun."""
        whole = self._session.live.whole
        if whole.status.state is WholeState.UNFINISHED and not ask(
            self._widget,
            "Predict all anew?",
            f"{whole.status.share:.0%} of the image has been predicted with the model of then. “Go on” finishes that; "
            "anew, it is dropped, and all is predicted with the model as it is now.",
            "Predict anew",
        ):
            return
        self.carry_out(whole.start)

    def save_model(self) -> None:
        """Ask for a file and write the model to it."""
        path = ask_for_output(self._widget, "Save model", self._suggested("model.safetensors"), _MODEL_FILTER)
        if path:
            with self._session.guarded():
                self._session.live.save_model(path)
                self._session.tell(f"The model was saved to {path}.")

    def load_model(self) -> None:
        """Ask for a file and go on from the model in it."""
        path = ask_for_input(self._widget, "Load model", _MODEL_FILTER)
        if path:
            with self._session.guarded():
                self._session.live.load_model(path)
            self._session.configured.emit()  # a model may say whether classes overlap

    def save_table(self) -> None:
        """Ask for a file and write the objects that are listed to it, in the background."""
        tool = self._session.bridge.found.table
        rows, table = tool.kept_rows(), tool.table
        if table is None:
            return
        source = self._session.source
        if source is not None and source.time_axis is not None:
            rows.insert(0, "time", table.frame)
        path = ask_for_output(self._widget, "Save table", self._suggested("objects.csv"), _TABLE_FILTER)
        if path:
            worker = _write_table(Path(path), rows)
            worker.returned.connect(self._on_exported)
            worker.start()

    def export_labels(self) -> None:
        """Ask for a file and write the prediction to it, in the background."""
        path = ask_for_output(self._widget, "Export labels", self._suggested("labels.ome.zarr"), _LABELS_FILTER)
        if not path:
            return
        with self._session.guarded():
            self._export_to(Path(path))

    def _export_to(self, path: Path) -> None:
        live, source = self._session.live, self._session.source
        if live.shape is None or source is None:
            raise InputError("there is no image, so there are no labels to export")
        n_frames, n_spatial = live.shape[0], len(source.spacing)
        volumes = [live.labels(frame) for frame in range(n_frames)]
        paths = frame_paths(path, n_frames)
        if n_frames > 1 and not _may_replace(self._widget, paths):
            return
        files = {name: volume if n_spatial == 3 else volume[0] for name, volume in zip(paths, volumes, strict=True)}
        unit = source.units[-1] if source.units[-1] != "pixel" else None
        options: dict[str, Any] = {
            "spacing": source.spacing if unit or set(source.spacing) != {1.0} else None,
            "offset": source.offset,
            "unit": unit,
            "class_names": {info.class_id: info.name for info in live.classes},
            "colors": {info.class_id: info.color for info in live.classes},
            "geometry": geometry_of(source),
        }
        worker = _write_all(files, options)
        worker.returned.connect(self._on_exported)
        worker.start()

    def _on_exported(self, outcome: tuple[str, bool]) -> None:
        self._session.tell(*outcome)

    def _suggested(self, ending: str) -> str:
        name = self._session.source.name if self._session.source else "image"
        return re.sub(r"[^\w.-]+", "_", f"{name}_{ending}")


@thread_worker  # type: ignore[untyped-decorator]
def _write_all(files: dict[Path, np.ndarray[Any, Any]], options: dict[str, Any]) -> tuple[str, bool]:
    """Write labels; what to tell the user, and whether that is an error. Errors must not leave a napari worker."""
    try:
        for path, labels in files.items():
            write_labels(path, labels, overwrite=True, **options)
    except (SparseSegError, OSError, MemoryError) as error:
        return f"The labels were not exported: {str(error) or 'out of memory'}", True
    first, *others = files
    return f"The labels were exported to {first}{f' and {len(others)} more' if others else ''}.", False


@thread_worker  # type: ignore[untyped-decorator]
def _write_table(path: Path, rows: Any) -> tuple[str, bool]:
    """Write the rows of a DataFrame; otherwise as `_write_all`."""
    try:
        with written_whole(path, overwrite=True, is_kind=Path.is_file, kind="file") as partial:
            rows.to_csv(partial, index=False)
    except (SparseSegError, OSError) as error:
        return f"The table was not written: {error}", True
    return f"The table ({len(rows):,} {'row' if len(rows) == 1 else 'rows'}) was written to {path}.", False


def frame_paths(path: Path, n_frames: int) -> list[Path]:
    """One file for each time point: cells.tif becomes cells_t000.tif, cells_t001.tif."""
    if n_frames == 1:
        return [path]
    stem, dot, ending = path.name.partition(".")
    return [path.with_name(f"{stem}_t{frame:03d}{dot}{ending}") for frame in range(n_frames)]


# ---------------------------------------------------------------- questions


def ask(widget: QWidget, title: str, question: str, yes: str) -> bool:
    """Whether the user agrees to something that cannot be taken back."""
    return agrees(widget.window(), title, question, yes)


def ask_for_output(widget: QWidget, title: str, suggested: str, filters: str) -> str:
    """A file to write, empty if the user cancelled, also when asked whether one that is there may be replaced."""
    path, chosen = QFileDialog.getSaveFileName(widget.window(), title, suggested, filters)
    output = with_ending(path, chosen) if path else ""
    # the dialog has asked about what was typed
    return output if output == path or _may_replace(widget, [Path(output)]) else ""


def _may_replace(widget: QWidget, paths: Sequence[Path]) -> bool:
    """Whether nothing is there, or the user agrees that it is replaced."""
    there = [path.name for path in paths if path.exists()]
    if not there:
        return True
    more = f" and {len(there) - 1} more" if len(there) > 1 else ""
    are = "are" if more else "is"
    return ask(widget, "Replace?", f"{there[0]}{more} {are} there already and would be replaced.", "Replace")


def ask_for_input(widget: QWidget, title: str, filters: str) -> str:
    """A file to read, empty if the user cancelled."""
    path, _ = QFileDialog.getOpenFileName(widget.window(), title, "", filters)
    return path


def with_ending(path: str, filter_text: str) -> str:
    """A name without an ending gets that of the chosen filter: "cells" and "TIFF (*.tif)" give cells.tif."""
    endings = re.findall(r"\*(\.[\w.]+)", filter_text)
    return path if "." in Path(path).name or not endings else path + endings[0]
