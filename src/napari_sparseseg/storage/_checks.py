"""What may be painted where: each check says what was found and what would be right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, NO_OBJECT, Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._edits import Codes, Mask
from napari_sparseseg.storage.palette import FIRST_SET, Palette

MAX_OBJECT = 2**31 - 1

StoreShape = tuple[int, int, int, int]
"""Frames, z, y, x."""


def checked_region(region: Region, plane: Plane | None, shape: StoreShape) -> tuple[Box, Mask | None]:
    """The region's box, which must lie within the image, and its mask; the plane must lie within it too."""
    check_frame(region.frame, shape)
    if plane is not None:
        check_plane(plane, shape)
    box = region.box
    if box.clipped(Box.whole(shape[1:])) != box or min(box.shape) < 1:
        raise InputError(f"{box} is empty or reaches out of the image, whose shape is {shape[1:]}")
    if region.mask is None:
        return box, None
    mask = np.asarray(region.mask, np.bool_)
    if mask.shape != box.shape:
        raise InputError(f"the mask has shape {mask.shape}, its box {box.shape}")
    return box, mask


def checked_codes(codes: int | npt.ArrayLike, box: Box, palette: Palette) -> Codes:
    """Codes as uint8: a single one, or one for each voxel of the box."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu" or array.shape not in ((), box.shape):
        raise InputError(f"codes must be integers of shape {box.shape}, not {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() > MAX_CODE:
        raise InputError(f"codes are 0 to {MAX_CODE}, but {array.min()} to {array.max()} were painted")
    wanted = array.astype(np.uint8)
    check_known(wanted, palette)
    return wanted


def checked_shown(shown: npt.ArrayLike, box: Box) -> Codes:
    """Labels of a prediction as uint8, one for each voxel of the box."""
    labels = np.asarray(shown)
    if labels.shape != box.shape or labels.dtype.kind not in "iu":
        raise InputError(
            f"the labels that were shown must be integers of shape {box.shape}, not {labels.dtype} of {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > MAX_CLASSES:
        raise InputError(f"labels are 0 to {MAX_CLASSES}, but {labels.min()} to {labels.max()} were shown")
    return labels.astype(np.uint8, copy=False)


def checked_classes(class_ids: int | npt.ArrayLike, box: Box) -> Codes:
    """Class ids as uint8: a single one, or one for each voxel of the box, 0 for none."""
    array = np.asarray(class_ids)
    if array.dtype.kind not in "iu" or array.shape not in ((), box.shape):
        raise InputError(f"classes must be integers of shape {box.shape}, not {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() > MAX_CLASSES:
        raise InputError(f"classes are 1 to {MAX_CLASSES}, but {array.min()} to {array.max()} were named")
    return array.astype(np.uint8)


def check_known(codes: Codes, palette: Palette) -> None:
    """Refuse codes of sets that nobody made."""
    for code in (FIRST_SET + np.flatnonzero(np.bincount(codes.reshape(-1))[FIRST_SET:])).tolist():
        if code not in palette:
            raise InputError(f"code {code} stands for nothing; a set of classes gets its code from code_for")


def check_class(class_id: int) -> None:
    if not 1 <= class_id <= MAX_CLASSES:
        raise InputError(f"class {class_id} is out of range; ids are 1 to {MAX_CLASSES}")


def check_object(object_id: int, codes: Codes) -> None:
    """Refuse ids that cannot be, and objects that are painted with sets of classes."""
    if not NO_OBJECT <= object_id <= MAX_OBJECT:
        raise InputError(f"object {object_id} is out of range; ids are 1 to {MAX_OBJECT}, 0 is no object")
    if object_id != NO_OBJECT and codes.max() >= FIRST_SET:
        raise InputError(f"object {object_id} needs a class, but a set of classes (code {codes.max()}) was painted")


def check_frame(frame: int, shape: StoreShape) -> None:
    if not 0 <= frame < shape[0]:
        raise InputError(f"frame {frame} is out of range; the image has {shape[0]}")


def check_plane(plane: Plane, shape: StoreShape) -> None:
    check_frame(plane.frame, shape)
    if plane.axis not in (0, 1, 2) or not 0 <= plane.index < shape[1 + plane.axis]:
        raise InputError(f"{plane} is not a slice of an image of shape {shape[1:]}")
