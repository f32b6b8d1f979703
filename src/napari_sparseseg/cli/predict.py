"""`predict`: segment images with a model."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import counted, note, print_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.segmenter import SparseSegmenter

_OUTPUT = "Output"
_LARGE = "Large images, written as OME-Zarr"
_SUFFIX = "_labels.ome.zarr"
_ENDINGS = (".ome.zarr", ".ome.tiff", ".ome.tif", ".nii.gz")  # endings of two parts


def register() -> None:
    """Add the command to the application."""
    add(
        predict,
        "napari-sparseseg predict cells.safetensors cells.tif -o labels.tif",
        "napari-sparseseg predict m.safetensors big.zarr -o big-labels.zarr --workers 8",
        "napari-sparseseg predict m.safetensors *.tif -o results --suffix _labels.tif",
        "napari-sparseseg predict m.safetensors a.tif -o b.tif --probabilities p.zarr",
    )


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model of 'train'.", show_default=False)],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="One image, or several.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Of one image: file for the labels, whose ending tells the format. Of several: a folder.",
            rich_help_panel=_OUTPUT,
        ),
    ],
    suffix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=f"What takes the place of each image's ending, in a folder; it tells the format. [default: {_SUFFIX}]",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of one image, also write how likely each class is: .ome.zarr (0 to 255) or .npy (float32).",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=_OUTPUT)
    ] = False,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    device: _options.Device = "auto",
    tile_voxels: Annotated[
        int | None,
        typer.Option(
            min=4096,
            metavar="N",
            help="Voxels computed at once; fewer need less memory.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes on this machine that share the work, and its GPUs.",
            rich_help_panel=_LARGE,
        ),
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler, such as tcp://host:8786, whose workers see the files.",
            show_default=False,
            rich_help_panel=_LARGE,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What all of it may take, such as 8GB; with a scheduler each worker. [default: half of what is free]",
            show_default=False,
            rich_help_panel=_LARGE,
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew where an earlier run was interrupted.", rich_help_panel=_LARGE),
    ] = False,
) -> None:
    """Segment images with a model, and write the labels.

    Labels that are written as OME-Zarr may be larger than memory; interrupted, the same command goes on.
    """
    in_folder = len(images) > 1 or suffix is not None or _is_folder(output)
    if in_folder and probabilities is not None:
        raise typer.BadParameter("probabilities are written for a single image only", param_hint="--probabilities")
    sizes = _options.parse_spacing(spacing)
    if scheduler is not None and workers > 1:
        raise typer.BadParameter("the scheduler has workers of its own; leave one of both out", param_hint="--workers")
    if in_folder:
        _check_folder(output)
    outputs = _outputs_in(output, images, _SUFFIX if suffix is None else suffix) if in_folder else [output]
    if in_folder:
        output.mkdir(parents=True, exist_ok=True)
    _check_outputs(outputs, probabilities, overwrite=overwrite, inputs=[model, *images])

    from napari_sparseseg.cli._images import open_model

    segmenter = open_model(model, device=device)
    if tile_voxels is not None:
        segmenter.set_params(prediction__tile_voxels=tile_voxels)
    large = {"workers": workers, "client": scheduler, "memory": memory, "resume": not restart}
    work = _Work(segmenter, axes, sizes, overwrite=overwrite, large=large)
    if in_folder:
        _predict_all(work, images, outputs)
    else:
        _print_result(work.predict(images[0], output, probabilities))


def _is_folder(path: Path) -> bool:
    """Whether an output of one image is meant as a folder for it."""
    return path.is_dir() and path.suffix != ".zarr"


def _check_folder(output: Path) -> None:
    """Refuse what is or looks like a file: it is easily forgotten that an asterisk may stand for several images."""
    from napari_sparseseg.storage.formats import label_suffixes

    if not output.is_dir() and (output.exists() or output.name.lower().endswith(label_suffixes())):
        raise typer.BadParameter(
            f"of several images the output is a folder, and {output} is the name of a file", param_hint="--output"
        )


def _outputs_in(folder: Path, images: Sequence[str], suffix: str) -> list[Path]:
    if "/" in suffix or os.sep in suffix or not suffix:
        raise typer.BadParameter(f"{suffix!r} is not the end of a file's name", param_hint="--suffix")
    outputs = [folder / f"{_stem(image)}{suffix}" for image in images]
    for number, output in enumerate(outputs):
        if output in outputs[:number]:
            first = images[outputs.index(output)]
            raise typer.BadParameter(
                f"{first} and {images[number]} would both become {output}; predict them one after the other",
                param_hint="IMAGE",
            )
    return outputs


def _stem(image: str) -> str:
    name = image.rstrip("/").rpartition("/")[2]
    ending = next((ending for ending in _ENDINGS if name.lower().endswith(ending)), Path(name).suffix)
    return Path(name[: len(name) - len(ending)]).name


def _check_outputs(
    outputs: Sequence[Path], probabilities: Path | None, *, overwrite: bool, inputs: Sequence[Path | str]
) -> None:
    """Check everything that will be written."""
    from napari_sparseseg.cli._outputs import check_labels, check_probabilities

    for output in outputs:
        check_labels(output, overwrite=overwrite, inputs=inputs)
    if probabilities is not None:
        check_probabilities(probabilities, overwrite=overwrite, inputs=[*inputs, *outputs])


@dataclass(frozen=True, slots=True)
class _Done:
    """What was written, and from what."""

    image: Image
    outputs: Sequence[Path]
    n_voxels: dict[int, int]
    seconds: float


class _Work:
    """What predicting one image takes besides the image."""

    def __init__(
        self,
        segmenter: SparseSegmenter,
        axes: str | None,
        spacing: Sequence[float] | None,
        *,
        overwrite: bool,
        large: Mapping[str, Any],
    ) -> None:
        self._segmenter = segmenter
        self._axes, self._spacing = axes, spacing
        self._overwrite, self._large = overwrite, large

    def predict(self, path: str, output: Path, probabilities: Path | None = None) -> _Done:
        """Segment one image, time point by time point, and write its labels."""
        from napari_sparseseg.cli._images import Image, warn_of_other_voxels
        from napari_sparseseg.cli._outputs import check_holds_time, write_probabilities
        from napari_sparseseg.storage.formats import write_labels
        from napari_sparseseg.storage.series import write_series

        started = time.perf_counter()
        image = Image.open(path, axes=self._axes, spacing=self._spacing)
        n_times, is_series = len(image.times), image.file.time_axis is not None
        if is_series:
            check_holds_time(output, probabilities)
        warn_of_other_voxels(image, self._segmenter)
        self._segmenter.set_params(channel_axis=image.channel_axis)
        if not is_series and all(path is None or path.suffix == ".zarr" for path in (output, probabilities)):
            return self._predict_large(image, output, probabilities, started)
        if self._large["workers"] > 1 or self._large["client"] is not None:
            raise typer.BadParameter(
                f"several workers write OME-Zarr of a single time point only, and {output} is none; end it with "
                ".ome.zarr, or leave --workers and --scheduler out",
                param_hint="--output",
            )
        n_voxels: Counter[int] = Counter()
        likely: list[npt.NDArray[np.float32]] | None = None if probabilities is None else []
        frames = self._segment(image, n_voxels, likely)
        form: dict[str, Any] = {"spacing": image.spacing, "unit": image.unit, "overwrite": self._overwrite}
        if is_series:
            write_series(output, frames, n_times, **form)
        else:
            write_labels(output, next(frames), **form)
        if probabilities is not None and likely is not None:
            write_probabilities(probabilities, likely, image, overwrite=self._overwrite)
        written = [output] if probabilities is None else [output, probabilities]
        return _Done(image, written, dict(sorted(n_voxels.items())), time.perf_counter() - started)

    def _predict_large(self, image: Image, output: Path, probabilities: Path | None, started: float) -> _Done:
        """Segment into an OME-Zarr, which need not fit into memory."""
        done = self._segmenter.predict_to(
            image.volume(0),
            output,
            probabilities=probabilities or False,
            spacing=image.spacing,
            unit=image.unit,
            overwrite=self._overwrite,
            **self._large,
        )
        if done.n_resumed:
            note(f"{done.n_resumed} of {done.n_shards} shards were there already")
        written = [output] if probabilities is None else [output, probabilities]
        return _Done(image, written, dict(done.n_voxels), time.perf_counter() - started)

    def _segment(
        self, image: Image, n_voxels: Counter[int], likely: list[npt.NDArray[np.float32]] | None
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
                labels = _most_likely(likely[-1], self._segmenter.classes_)
            n_voxels.update(_counts(labels))
            yield labels


def _most_likely(probabilities: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    import numpy as np

    lookup = classes.astype(np.min_scalar_type(int(classes.max())))
    labels: npt.NDArray[Any] = lookup[probabilities.argmax(0)]
    return labels


def _counts(labels: npt.NDArray[Any]) -> dict[int, int]:
    import numpy as np

    return {class_id: int(n) for class_id, n in enumerate(np.bincount(labels.ravel())) if n}


def _predict_all(work: _Work, images: Sequence[str], outputs: Sequence[Path]) -> None:
    """Segment one image after the other; one that fails does not keep the others from it."""
    from napari_sparseseg.cli._app import sentence
    from napari_sparseseg.errors import SparseSegError

    failed = []
    for number, (path, output) in enumerate(zip(images, outputs, strict=True), 1):
        note(f"{path} ({number} of {len(images)})")
        try:
            done = work.predict(path, output)
        except (SparseSegError, OSError, MemoryError) as error:
            failed.append(path)
            text = sentence(error)
            typer.echo(f"Error: {text if path in text else f'{path}: {text}'}", err=True)
        else:
            typer.echo(f"{output}  {done.seconds:.1f} s")
    if failed:
        done_text = f"{counted(len(images) - len(failed), 'image')} segmented, {len(failed)} failed"
        typer.echo(f"{done_text}: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _print_result(done: _Done) -> None:
    file = done.image.file
    axes = ", ".join(f"{letter} {n}" for letter, n in zip(file.axes, file.array.shape, strict=True) if letter != "C")
    total = sum(done.n_voxels.values())
    print_table(
        [
            ("Image", f"{done.image.path} ({axes})"),
            ("Classes", ", ".join(f"{class_id}: {n / total:.1%}" for class_id, n in done.n_voxels.items())),
            ("Predicting", f"{done.seconds:.1f} s"),
            *(("Labels" if not number else "Probabilities", str(path)) for number, path in enumerate(done.outputs)),
        ]
    )
