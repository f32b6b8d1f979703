"""`predict`: segment images with a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import counted, note, print_table

if TYPE_CHECKING:
    from napari_sparseseg.cli._prediction import Done, Work

_OUTPUT = "Output"
_LARGE = "Large images"
_SUFFIX = "_labels.ome.zarr"
_ENDINGS = (".ome.zarr", ".ome.tiff", ".ome.tif", ".nii.gz")  # endings of two parts


def register() -> None:
    """Add the command to the application."""
    add(
        predict,
        "napari-sparseseg predict cells.safetensors cells.tif -o labels.tif",
        "napari-sparseseg predict m.safetensors big.zarr -o big-labels.zarr --workers 8",
        "napari-sparseseg predict m.safetensors *.tif -o results --suffix _labels.tif",
        "napari-sparseseg predict m.safetensors images/ -o results --table amounts.csv",
        "napari-sparseseg predict m.safetensors s3://b/a.zarr -o a.zarr --level auto",
        "napari-sparseseg predict m.safetensors a.tif -o b.tif --probabilities p.zarr",
        "napari-sparseseg predict m.safetensors a.tif -o b.tif --novelty new.ome.zarr",
    )


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model of 'train'.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="One image, several, or a folder of them.", show_default=False),
    ],
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
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of one image, also write which classes come into question, 1 or 0 for each: .ome.zarr or .npy. For "
            "models trained with --set paint.candidates=1.2 or the like.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    novelty: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of one image, also write what is like nothing that was painted: .ome.zarr (0 to 255) or .npy "
            "(float32, 0 to 1). For models trained with --set paint.novelty=features.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a CSV table of how much of each class every image holds, in voxels and physical units.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=_OUTPUT)
    ] = False,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    level: _options.Level = None,
    series: _options.Series = None,
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
        typer.Option("--restart", help="Start over where an earlier run was interrupted.", rich_help_panel=_LARGE),
    ] = False,
) -> None:
    """Segment images with a model, and write the labels.

    Images may be larger than memory; of large ones, the same command goes on where it was interrupted.
    """
    sizes, number = _options.parse_spacing(spacing), _options.parse_level(level)
    budget = _options.parse_memory(memory)
    if scheduler is not None and workers > 1:
        raise typer.BadParameter("the scheduler has workers of its own; leave one of both out", param_hint="--workers")

    from napari_sparseseg.cli._images import open_model

    maps = {"probabilities": probabilities, "candidates": candidates, "novelty": novelty}
    asked = {name: path for name, path in maps.items() if path is not None}
    plan = _plan_outputs(images, output, suffix, asked)
    plan.check(asked, table, overwrite=overwrite, inputs=[model, *plan.images])

    segmenter = open_model(model, device=device)
    if tile_voxels is not None:
        segmenter.set_params(prediction__tile_voxels=tile_voxels)

    from napari_sparseseg.cli._prediction import Reading, Work

    large = {"workers": workers, "client": scheduler, "memory": budget, "resume": not restart}
    reading = Reading(axes, sizes, number, series)
    work = Work(segmenter, reading, n_images=len(plan.images), overwrite=overwrite, large=large)
    done, failed = _predict_all(work, plan) if plan.folder else ([_predict_one(work, plan, asked)], [])
    if table is not None and done:
        from napari_sparseseg.storage.table import write_amounts

        write_amounts(table, (row for each in done for row in each.amounts()), overwrite=overwrite)
        typer.echo(f"{table}")
    if failed:
        done_text = f"{counted(len(done), 'image')} segmented, {len(failed)} failed"
        typer.echo(f"{done_text}: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which output each image is written to; `folder` is that of several images, None for a single one."""

    images: Sequence[str]
    outputs: Sequence[Path]
    folder: Path | None

    def check(
        self, maps: Mapping[str, Path], table: Path | None, *, overwrite: bool, inputs: Sequence[Path | str]
    ) -> None:
        """Check everything that will be written, and make the folder."""
        from napari_sparseseg.cli._outputs import check_file

        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        _check_outputs(self.outputs, maps, overwrite=overwrite, inputs=inputs)
        if table is not None:
            written = [*self.outputs, *maps.values()]
            check_file(table, overwrite=overwrite, inputs=inputs, outputs=written, example="amounts.csv")


def _plan_outputs(images: Sequence[str], output: Path, suffix: str | None, maps: Mapping[str, Path]) -> _Plan:
    """Find the images, and tell whether the output is one file or a folder of several."""
    from napari_sparseseg.cli._pairs import images_of

    paths = images_of(images)
    if paths == images and len(paths) == 1 and suffix is None and not _is_folder(output):
        return _Plan(paths, [output], None)
    for name in maps:
        verb = "is" if name == "novelty" else "are"
        raise typer.BadParameter(f"{name} {verb} written for a single image only", param_hint=f"--{name}")
    _check_folder(output, images)
    return _Plan(paths, _outputs_in(output, paths, _SUFFIX if suffix is None else suffix), output)


def _is_folder(path: Path) -> bool:
    """Whether an output of one image is meant as a folder for it."""
    return path.is_dir() and path.suffix != ".zarr"


def _check_folder(output: Path, images: Sequence[str]) -> None:
    """Refuse what is or looks like a file: with an asterisk, users may not expect several images."""
    from napari_sparseseg.storage.formats import label_suffixes

    for image in images:
        if output.is_dir() and Path(image).is_dir() and output.samefile(image):
            raise typer.BadParameter(
                f"{output} holds the images, and the next run would take the labels for some; give another folder",
                param_hint="--output",
            )
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
    outputs: Sequence[Path], maps: Mapping[str, Path], *, overwrite: bool, inputs: Sequence[Path | str]
) -> None:
    """Check everything that will be written; `maps` are by name, such as "novelty"."""
    from napari_sparseseg.cli._outputs import check_labels, check_map

    for output in outputs:
        check_labels(output, overwrite=overwrite, inputs=inputs)
    written = [*outputs]
    for name, path in maps.items():
        check_map(path, name, overwrite=overwrite, inputs=inputs, outputs=written)
        written.append(path)


def _predict_one(work: Work, plan: _Plan, maps: Mapping[str, Path]) -> Done:
    """Segment a single image, and write the maps that were asked for."""
    (image,), (output,) = plan.images, plan.outputs
    others = {name: path for name, path in maps.items() if name != "probabilities"}
    work.check_maps(image, output, others)
    done = work.predict(image, output, maps.get("probabilities"))
    work.write_maps(image, others)
    _print_result(done, maps)
    return done


def _predict_all(work: Work, plan: _Plan) -> tuple[list[Done], list[str]]:
    """Segment one image after the other; returns what was done, and which images failed."""
    from napari_sparseseg.cli._app import sentence
    from napari_sparseseg.errors import SparseSegError

    done, failed = [], []
    for number, (path, output) in enumerate(zip(plan.images, plan.outputs, strict=True), 1):
        note(f"{path} ({number} of {len(plan.images)})")
        try:
            done.append(work.predict(path, output))
        except (SparseSegError, OSError, MemoryError) as error:
            failed.append(path)
            text = sentence(error)
            typer.echo(f"Error: {text if path in text else f'{path}: {text}'}", err=True)
        else:
            typer.echo(f"{output}  {done[-1].seconds:.1f} s")
    return done, failed


def _print_result(done: Done, maps: Mapping[str, Path]) -> None:
    file = done.image.file
    axes = ", ".join(f"{letter} {n}" for letter, n in zip(file.axes, file.array.shape, strict=True) if letter != "C")
    n_voxels = done.total()
    total = sum(n_voxels.values())
    print_table(
        [
            ("Image", f"{done.image.path} ({axes})"),
            ("Classes", ", ".join(f"{class_id}: {n / total:.1%}" for class_id, n in n_voxels.items())),
            ("Predicting", f"{done.seconds:.1f} s"),
            ("Labels", str(done.outputs[0])),
            *((name.capitalize(), str(path)) for name, path in maps.items()),
        ]
    )
