"""Prediction of one image: opened at its level, segmented time point by time point, written."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_sparseseg.cli._console import note
from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.distributed.predict import Prediction
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.table import ClassAmount

_PIECE = ".ome.zarr"
MANY_VOXELS = 1 << 28  # minutes of work on a CPU, too much to lose when it is interrupted


@dataclass(frozen=True, slots=True)
class Reading:
    """What the user says about the files; `level` None takes the level whose voxels are like the model's."""

    axes: str | None
    spacing: Sequence[float] | None
    level: int | None
    series: int | None = None

    def how(self) -> dict[str, Any]:
        """All but the level, as `Image.open` takes it."""
        return {"axes": self.axes, "spacing": self.spacing, "series": self.series}


@dataclass(frozen=True, slots=True)
class Done:
    """What was written, and from what; `n_voxels` has the voxels of each class for each time point."""

    image: Image
    outputs: Sequence[Path]
    n_voxels: Sequence[Mapping[int, int]]
    seconds: float

    def total(self) -> dict[int, int]:
        """Voxels of each class in all time points."""
        ids = sorted({class_id for counts in self.n_voxels for class_id in counts})
        return {class_id: sum(counts.get(class_id, 0) for counts in self.n_voxels) for class_id in ids}

    def amounts(self) -> Iterator[ClassAmount]:
        """Rows of a table of results."""
        from napari_sparseseg.storage.table import class_amounts

        for number, counts in enumerate(self.n_voxels):
            yield from class_amounts(
                self.image.path,
                counts,
                time=None if self.image.file.time_axis is None else number,
                spacing=self.image.spacing,
                unit=self.image.unit,
            )


class Work:
    """Predicts images with one model and one set of options; `large` are further arguments of `predict_to`."""

    def __init__(
        self,
        segmenter: SparseSegmenter,
        reading: Reading,
        *,
        n_images: int = 1,
        overwrite: bool,
        large: Mapping[str, Any],
    ) -> None:
        from napari_sparseseg.cli._images import Doubts

        self._doubts = Doubts(segmenter, n_images=n_images, series=reading.series)
        self._segmenter, self._reading = segmenter, reading
        self._overwrite, self._large = overwrite, large

    def predict(self, path: str, output: Path, probabilities: Path | None = None) -> Done:
        """Segment one image and write its labels."""
        from napari_sparseseg.cli._outputs import check_holds_time, write_map
        from napari_sparseseg.storage.formats import write_labels
        from napari_sparseseg.storage.series import write_series
        from napari_sparseseg.storage.unfinished import HeldFolder

        started = time.perf_counter()
        image = self._open(path)
        is_series = image.file.time_axis is not None
        if is_series:
            check_holds_time(output, probabilities)
        self._doubts.warn(image)
        self._segmenter.set_params(channel_axis=image.channel_axis)
        if not is_series and all(path is None or path.suffix == ".zarr" for path in (output, probabilities)):
            return self._predict_large(image, output, probabilities, started)
        if self._is_large(image) and (probabilities is None or (probabilities.suffix == ".zarr" and not is_series)):
            return self._predict_piecewise(image, output, probabilities, started)
        if self._asks_for_pieces():
            raise typer.BadParameter(
                f"{probabilities} cannot be written piece by piece; end it with .ome.zarr, or leave "
                "--workers, --scheduler and --memory out",
                param_hint="--probabilities",
            )
        n_voxels: list[dict[int, int]] = []
        likely: list[npt.NDArray[np.float32]] | None = None if probabilities is None else []
        frames = self._segment(image, n_voxels, likely)
        if is_series:
            write_series(output, frames, len(image.times), **image.place(), overwrite=self._overwrite)
        else:
            write_labels(output, next(frames), **image.place(), geometry=image.geometry, overwrite=self._overwrite)
        if probabilities is not None and likely is not None:
            write_map(probabilities, likely, image, overwrite=self._overwrite)
        HeldFolder.remove_left(Path(os.path.realpath(output)))  # of a run piece by piece
        written = [output] if probabilities is None else [output, probabilities]
        return Done(image, written, n_voxels, time.perf_counter() - started)

    def check_maps(self, path: str, output: Path, maps: Mapping[str, Path]) -> None:
        """Check what `write_maps` will do, before anything is predicted; `output` is that of the labels.

        Raises `InputError` for what the model has not learnt or a file cannot hold, and `BadParameter` for what is not
        done piece by piece.
        """
        from napari_sparseseg.cli._outputs import check_holds_time, check_map_holds_time
        from napari_sparseseg.predicting import LEARNABLE

        for name in maps:
            if name not in self._segmenter.extras_:
                what, group, setting, value = LEARNABLE[name]
                raise InputError(
                    f"the model has not learnt {what}; train it again with --set {group}.{setting}={value}"
                )
            if self._asks_for_pieces():
                raise typer.BadParameter(
                    f"{name} cannot be computed piece by piece; write {'it' if name == 'novelty' else 'them'} by a "
                    "command of its own, without --workers, --scheduler and --memory",
                    param_hint=f"--{name}",
                )
        if maps and self._open(path).file.time_axis is not None:
            check_holds_time(output)
            for name, file in maps.items():
                check_map_holds_time(file, name)

    def write_maps(self, path: str, maps: Mapping[str, Path]) -> None:
        """Write further maps of one image, "candidates" or "novelty"."""
        if not maps:
            return
        from napari_sparseseg.cli._outputs import write_map

        image = self._open(path)
        self._segmenter.set_params(channel_axis=image.channel_axis)
        tell = {"candidates": self._segmenter.predict_candidates, "novelty": self._segmenter.predict_novelty}
        for name, file in maps.items():
            write_map(file, [tell[name](image.volume(t)) for t in image.times], image, overwrite=self._overwrite)

    def _open(self, path: str) -> Image:
        from napari_sparseseg.cli._images import Image, matching_level_of

        level, how = self._reading.level, self._reading.how()
        if level is None:
            level = matching_level_of(path, self._segmenter, **how)
        image = Image.open(path, level=level, **how)
        if self._reading.level is None:
            note(f"{path}: level {level} of 0 to {image.finest.n_levels - 1} is taken")
        return image

    def _predict_large(self, image: Image, output: Path, probabilities: Path | None, started: float) -> Done:
        """Segment into an OME-Zarr, which may be larger than memory."""
        done = self._segmenter.predict_to(
            image.volume(0),
            output,
            probabilities=probabilities or False,
            **image.place(),
            overwrite=self._overwrite,
            **self._large,
        )
        if done.n_resumed:
            note(f"{done.n_resumed} of {done.n_shards} shards were there already")
        written = [output] if probabilities is None else [output, probabilities]
        return Done(image, written, [done.n_voxels], time.perf_counter() - started)

    def _asks_for_pieces(self) -> bool:
        return self._large["workers"] > 1 or any(self._large[name] is not None for name in ("client", "memory"))

    def _is_large(self, image: Image) -> bool:
        """Whether a time point is predicted piece by piece, so that an interruption loses little."""
        return self._asks_for_pieces() or math.prod(image.file.spatial_shape) >= MANY_VOXELS

    def _predict_piecewise(self, image: Image, output: Path, probabilities: Path | None, started: float) -> Done:
        """Segment into an OME-Zarr beside the output for each time point, and write the output from these."""
        from napari_sparseseg.cli._outputs import check_labels
        from napari_sparseseg.storage.unfinished import HeldFolder

        # where links lead to, since others may name the same output otherwise
        target = Path(os.path.realpath(output))
        with closing(HeldFolder(target)) as held:
            written = [output] if probabilities is None else [output, probabilities]
            for path in written:  # another process may have done so until now
                check_labels(path, overwrite=self._overwrite, inputs=())
            done = [self._predict_piece(image, number, held.folder, probabilities) for number in image.times]
            note(f"Writing {output}")
            with held.written(target) as path:
                self._write_pieces(image, path, [each.labels for each in done])
                check_labels(output, overwrite=self._overwrite, inputs=())
            held.empty()
        return Done(image, written, [each.n_voxels for each in done], time.perf_counter() - started)

    def _write_pieces(self, image: Image, output: Path, pieces: Sequence[Path]) -> None:
        """Write the output, where nothing lies, from the OME-Zarrs of its time points."""
        import zarr

        from napari_sparseseg.storage.formats import write_labels
        from napari_sparseseg.storage.series import write_series

        frames = [zarr.open_array(piece / "0", mode="r") for piece in pieces]
        if image.file.time_axis is None:
            write_labels(output, frames[0], **image.place(), geometry=image.geometry)
        else:
            write_series(output, frames, len(frames), dtype=frames[0].dtype, **image.place())

    def _predict_piece(self, image: Image, number: int, folder: Path, probabilities: Path | None) -> Prediction:
        """Segment one time point into an OME-Zarr in the folder of pieces."""
        if len(image.times) > 1:
            note(f"Time point {number + 1} of {len(image.times)}")
        return self._segmenter.predict_to(
            image.volume(number),
            folder / f"{number}{_PIECE}",
            probabilities=probabilities or False,
            **image.place(),
            overwrite=self._overwrite,  # of the probabilities: what lies among the pieces is always replaced
            **self._large,
        )

    def _segment(
        self, image: Image, n_voxels: list[dict[int, int]], likely: list[npt.NDArray[np.float32]] | None
    ) -> Iterator[npt.NDArray[Any]]:
        """Labels of each time point; counts the voxels of each class, and keeps probabilities where there is a list."""
        for number in image.times:
            if len(image.times) > 1:
                note(f"Time point {number + 1} of {len(image.times)}")
            volume = image.volume(number)
            if likely is None:
                labels = self._segmenter.predict(volume)
            else:
                likely.append(self._segmenter.predict_proba(volume))
                labels = _most_likely(likely[-1], self._segmenter)
            n_voxels.append(_counts(labels))
            yield labels


def _most_likely(probabilities: npt.NDArray[np.float32], segmenter: SparseSegmenter) -> npt.NDArray[Any]:
    import torch

    from napari_sparseseg.engine.classes import ClassTable
    from napari_sparseseg.engine.labelling import best_labels

    # not the settings, which may have changed since the model was fitted; a loaded one has `overlapping` of the fit
    overlapping = segmenter.get_params()["paint__overlapping"]
    classes = ClassTable(tuple(map(int, segmenter.classes_)), segmenter.background_, overlapping=overlapping)
    return best_labels(torch.from_numpy(probabilities), classes)


def _counts(labels: npt.NDArray[Any]) -> dict[int, int]:
    import numpy as np

    return {class_id: int(n) for class_id, n in enumerate(np.bincount(labels.ravel())) if n}
