"""An image that is worked on, and all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.score import StrokeScore
from napari_sparseseg.live.switchboard import Switchboard
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.strokes import AnnotationStore


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Image, paint, `labels` predicted (frames, z, y, x) and `objects` found; wishes, where it is kept, how good it is.

    Another image comes with another such record, so that threads never mix two.
    """

    image: LiveImage
    store: AnnotationStore
    labels: npt.NDArray[np.uint8]
    switch: Switchboard
    project: ProjectImage | None = None
    score: StrokeScore = field(default_factory=StrokeScore)
    objects: ObjectIds = field(default_factory=ObjectIds)

    def __post_init__(self) -> None:
        self.store.on_edit = self.objects.forget_undone
