"""Image, annotation and label files: which library reads and writes which, behind a few functions."""

from __future__ import annotations

from napari_sparseseg.storage.formats._geometry import Geometry
from napari_sparseseg.storage.formats._image import ImageFile
from napari_sparseseg.storage.formats._reading import annotation_suffixes, image_suffixes, open_annotation, open_image
from napari_sparseseg.storage.formats._writing import check_output, label_suffixes, write_labels

__all__ = [
    "Geometry",
    "ImageFile",
    "annotation_suffixes",
    "check_output",
    "image_suffixes",
    "label_suffixes",
    "open_annotation",
    "open_image",
    "write_labels",
]
