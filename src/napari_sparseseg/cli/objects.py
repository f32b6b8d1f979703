"""`objects`: find single objects in an image, and measure them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import counted, note, print_table, short_unit
from napari_sparseseg.cli._prediction import MANY_VOXELS

if TYPE_CHECKING:
    import pandas as pd

    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.segmenter import SparseSegmenter

_CHUNKS = (8, 128, 128)  # of ids on disk, which are measured a few planes at a time
_FILTERS = "Which objects are kept, in the image and in the table"


def register() -> None:
    """Add the command to the application."""
    add(
        objects,
        "napari-sparseseg objects m.safetensors a.tif -o objects.tif --table o.csv",
        "napari-sparseseg objects m.safetensors a.tif -o o.ome.zarr --min-size 20",
        "napari-sparseseg objects m.safetensors a.tif -o o.tif --set objects.neck=0.5",
    )


def objects(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model of 'train'.", show_default=False)],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT", help="File for the ids of objects, whose ending tells the format."
        ),
    ],
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a table of all objects, as CSV.", show_default=False),
    ] = None,
    min_size: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SIZE",
            help="Smallest volume (area of a plane), in the unit of the voxel size.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    max_size: Annotated[
        float | None,
        typer.Option(min=0, metavar="SIZE", help="Largest.", show_default=False, rich_help_panel=_FILTERS),
    ] = None,
    without_border: Annotated[
        bool,
        typer.Option(
            "--without-border", help="Leave out what touches the edge of the image.", rich_help_panel=_FILTERS
        ),
    ] = False,
    overwrite: _options.Overwrite = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of objects or prediction, such as objects.neck=0.5; may be given several times.",
            show_default=False,
        ),
    ] = None,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    series: _options.Series = None,
    device: _options.Device = "auto",
) -> None:
    """Find single objects in an image, number them, and measure them.

    A model that has learnt from painted ids of objects tells apart what touches by what it learnt; any other one cuts
    where objects are narrow.
    """
    values = _options.parse_settings(settings or [])
    for group in set(values) - {"objects", "prediction"}:
        raise typer.BadParameter(f"{group}.{next(iter(values[group]))} changes nothing here", param_hint="--set")
    if min_size is not None and max_size is not None and min_size > max_size:
        raise typer.BadParameter(
            f"the smallest size, {min_size:g}, is above the largest, {max_size:g}, so no object would be left",
            param_hint="--min-size",
        )
    sizes = _options.parse_spacing(spacing)
    from napari_sparseseg.cli._images import Doubts, Image, open_model
    from napari_sparseseg.cli._outputs import check_file, check_holds_time, check_labels

    check_labels(output, overwrite=overwrite, inputs=[model, image])
    if table is not None:
        check_file(table, overwrite=overwrite, inputs=[model, image], outputs=[output], example="objects.csv")
    started = time.perf_counter()
    segmenter = open_model(model, device=device)
    for group, changes in values.items():
        segmenter.set_params(**{f"{group}__{name}": value for name, value in changes.items()})
    opened = Image.open(image, axes=axes, spacing=sizes, series=series)
    if opened.file.time_axis is not None:
        check_holds_time(output, None)
    Doubts(segmenter, series=series).warn(opened)
    segmenter.set_params(channel_axis=opened.channel_axis)
    search = _Search(segmenter, opened, {"min_size": min_size, "max_size": max_size, "without_border": without_border})
    search.write(output, overwrite=overwrite)
    if table is not None:
        search.write_table(table, overwrite=overwrite)
    _print_result(search, [output] if table is None else [output, table], time.perf_counter() - started)


class _Search:
    """The objects of each time point of an image, found when they are written."""

    def __init__(self, segmenter: SparseSegmenter, image: Image, filters: dict[str, Any]) -> None:
        self._segmenter, self._filters = segmenter, filters
        self.image = image
        self.is_series = image.file.time_axis is not None
        self.tables: list[pd.DataFrame] = []
        self.n_left_out = 0

    def write(self, output: Path, *, overwrite: bool) -> None:
        """Find all objects, and write their ids."""
        from napari_sparseseg.storage.formats import write_labels
        from napari_sparseseg.storage.series import write_series

        form: dict[str, Any] = {**self.image.place(), "overwrite": overwrite}
        with closing(self._frames(output)) as frames:
            if self.is_series:
                write_series(output, frames, len(self.image.times), dtype="uint32", **form)
            else:
                write_labels(output, next(frames), geometry=self.image.geometry, **form)

    def write_table(self, path: Path, *, overwrite: bool) -> None:
        """Write what was measured; in a series each row begins with the number of its time point."""
        from napari_sparseseg.cli._outputs import write_csv

        columns = list(self.tables[0].columns)
        rows = [
            ((number, *row) if self.is_series else row)
            for number, table in enumerate(self.tables)
            for row in table.itertuples(index=False, name=None)
        ]
        write_csv(path, ["time", *columns] if self.is_series else columns, rows, overwrite=overwrite)

    def _frames(self, output: Path) -> Generator[ArrayLike]:
        """What each of them yields is written before the next one is asked for."""
        for number in self.image.times:
            if len(self.image.times) > 1:
                note(f"Time point {number + 1} of {len(self.image.times)}")
            with ExitStack() as scratch:
                yield self._found(number, output, scratch)

    def _found(self, number: int, output: Path, scratch: ExitStack) -> ArrayLike:
        """Ids of one time point, of which those that are filtered out are gone."""
        import numpy as np

        from napari_sparseseg.engine.objects.measure import passes
        from napari_sparseseg.measuring import measure_objects
        from napari_sparseseg.storage.cached import with_cache
        from napari_sparseseg.storage.renumbered import Renumbered

        volume, filters = self.image.volume(number), self._filters
        is_large = len(self.image.file.spatial_axes) == 3 and math.prod(volume.shape) >= MANY_VOXELS
        ids, labels = self._written(volume, output, scratch) if is_large else self._in_memory(volume)
        axis = self.image.channel_axis
        everything = measure_objects(ids, with_cache(volume), labels, self.image.spacing, channel_axis=axis)
        if labels is None:
            everything.insert(1, "class", int(self._segmenter.object_classes_.max(initial=0)))
        table = everything[passes(everything, **filters)].reset_index(drop=True)
        kept = np.zeros(len(everything) + 1, np.uint32)
        kept[table["id"]] = table["id"]
        self.n_left_out += len(everything) - len(table)
        self.tables.append(table)
        return Renumbered(ids, kept)

    def _in_memory(self, volume: ArrayLike) -> tuple[ArrayLike, ArrayLike | None]:
        """Ids, and labels unless all objects are of one class."""
        ids = self._segmenter.predict_objects(volume)
        return ids, self._segmenter.predict(volume) if self._has_classes else None

    def _written(self, volume: ArrayLike, output: Path, scratch: ExitStack) -> tuple[ArrayLike, ArrayLike | None]:
        """The same of an image that may be larger than memory, in files beside the output until that is written."""
        import zarr

        from napari_sparseseg.storage.atomic import writable
        from napari_sparseseg.storage.cached import with_cache

        with writable(output):
            place = tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".partial", dir=output.parent)
            folder = Path(scratch.enter_context(place))
            z, y, x = volume.shape[-3:]  # channels come first
            ids = zarr.create_array(folder / "ids", shape=(z, y, x), chunks=_CHUNKS, dtype="uint32", fill_value=0)
        self._segmenter.predict_objects_to(volume, ids)
        if not self._has_classes:
            return with_cache(ids), None
        done = self._segmenter.predict_to(volume, folder / "labels.ome.zarr")
        return with_cache(ids), with_cache(zarr.open_array(done.labels / "0", mode="r"))

    @property
    def _has_classes(self) -> bool:
        """Whether objects are of several classes: else there is no need to predict the classes once more."""
        return len(self._segmenter.object_classes_) > 1


def _print_result(search: _Search, outputs: list[Path], seconds: float) -> None:
    import pandas as pd

    table = pd.concat(search.tables)
    size = "area" if "area" in table else "volume"
    unit = "voxels" if search.image.spacing is None else short_unit(search.image.unit) or "the unit of the voxel size"
    left_out = f", {counted(search.n_left_out, 'other')} left out" if search.n_left_out else ""
    rows = [("Image", str(search.image.path)), ("Objects", f"{len(table)}{left_out}")]
    if len(table):
        rows.append((f"Median {size}", f"{table[size].median():.4g}, lengths in {unit}"))
    rows += [("Finding", f"{seconds:.1f} s"), ("Ids", str(outputs[0]))]
    rows += [("Table", str(path)) for path in outputs[1:]]
    print_table(rows)
