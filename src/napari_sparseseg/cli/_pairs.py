"""Which images there are, and which annotation belongs to which: one behind the other, by two folders, or a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import typer

from napari_sparseseg.cli._console import counted
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.atomic import is_zarr
from napari_sparseseg.storage.formats import annotation_suffixes, image_suffixes

_COLUMNS = ("image", "annotation")
_LONG_ENDINGS = (".ome",)


def read_pairs(files: Sequence[str]) -> list[tuple[str, str]]:
    """Paths of images with their annotations.

    `files` may be such paths in turn, two folders whose files have the same names up to their endings, or one CSV file
    with the columns image and annotation, whose paths start at its folder.

    Raises `InputError` for folders and tables in which no pair is found, a usage error for an odd number of files.
    """
    if len(files) == 1 and files[0].lower().endswith(".csv"):
        return _pairs_of_table(Path(files[0]))
    if len(files) == 2 and all(_is_folder_of_files(file) for file in files):
        return _pairs_of_folders(Path(files[0]), Path(files[1]))
    if len(files) % 2:
        raise typer.BadParameter(
            f"{counted(len(files), 'file')} cannot be paired; give each image with its annotation behind it, two "
            "folders, or a table that ends with .csv",
            param_hint="IMAGE ANNOTATION",
        )
    return list(zip(files[::2], files[1::2], strict=True))


def images_of(files: Sequence[str]) -> list[str]:
    """Paths of images, each folder replaced by the images in it.

    Raises `InputError` for a folder without any.
    """
    found: list[str] = []
    for file in files:
        if not _is_folder_of_files(file):
            found.append(file)
            continue
        inside = sorted(path for path in Path(file).iterdir() if _is_image(path))
        if not inside:
            raise InputError(
                f"{file} is a folder without images; give one that holds some, which end with "
                f"{', '.join(image_suffixes())}"
            )
        found += map(str, inside)
    return found


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(image_suffixes()) and not path.name.startswith(".")


def _is_folder_of_files(file: str) -> bool:
    return Path(file).is_dir() and not is_zarr(Path(file))


def _pairs_of_folders(images: Path, annotations: Path) -> list[tuple[str, str]]:
    found, painted = _by_stem(images, image_suffixes()), _by_stem(annotations, annotation_suffixes())
    pairs = [(str(found[stem]), str(painted[stem])) for stem in sorted(found) if stem in painted]
    # images that nobody has painted yet are usual, paint without its image is a mistake
    lost = sorted(painted.keys() - found.keys())
    if lost:
        raise InputError(
            f"{painted[lost[0]]} has no image in {images}; the names must be the same up to their endings, such as "
            f"{lost[0]}.tif"
        )
    if not pairs:
        kinds = ", ".join(annotation_suffixes())
        raise InputError(f"{annotations} holds no annotation; its files must end with one of {kinds}")
    return pairs


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by their names without endings."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        ending = max((end for end in suffixes if name.lower().endswith(end)), key=len, default=None)
        if ending is None or name.startswith("."):
            continue
        stem = name[: -len(ending)]
        stem = next((stem[: -len(end)] for end in _LONG_ENDINGS if stem.lower().endswith(end)), stem)
        if stem in found:
            raise InputError(f"{found[stem]} and {path} have the same name up to their endings; keep one of them there")
        found[stem] = path
    return found


def _pairs_of_table(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of text with commas ({error}); save it anew as CSV") from error
    for number, row in enumerate(rows, 2):
        if not all(row.get(column) for column in _COLUMNS):
            raise InputError(
                f"line {number} of {path} does not name an image and its annotation; the first line must be "
                "image,annotation and each other one hold both paths"
            )
    if not rows:
        raise InputError(f"{path} holds no pairs; its first line must be image,annotation, then one line for each pair")
    return [(_placed(path, row["image"]), _placed(path, row["annotation"])) for row in rows]


def _placed(table: Path, file: str) -> str:
    return file if "://" in file else str(table.parent / file)
