"""How learning and predicting go on where a project was left. On the compute thread."""

from __future__ import annotations

import numpy as np

from napari_sparseseg.engine.checkpoint import load_model
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import InputError, ModelFileError, ProjectError
from napari_sparseseg.live.loop import LiveLoop
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.zarrs import damage


def resume(loop: LiveLoop, project: ProjectImage) -> None:
    """Bring back prediction, model, state of training and learning curve; what is damaged is left out, and told."""
    _resume_prediction(loop, project)
    for _, path in project.project.checkpoints():
        try:
            fitted, header, tensors = load_model(path)
            steps = [TrainingStep(**step) for step in header["history"]]
            training = (header["training"], tensors) if "training" in header else None
            loop.adopt(fitted, steps[-1] if steps else None, training)
        except ModelFileError as error:
            loop.reporter.notice(f"{error}. The model before is used")
        except InputError as error:
            loop.reporter.notice(str(error))
            return
        else:
            loop.reporter.resume(steps)
            loop.drop_gone()
            return


def _resume_prediction(loop: LiveLoop, project: ProjectImage) -> None:
    """Show what was predicted, shard by shard."""
    try:
        found = project.prediction()
        if found is None:
            return
        for frame, box in project.predicted_parts():
            with damage(project.folder):
                labels = np.asarray(found[(frame, *box.slices)], np.uint8)
            if labels.any():
                for update in loop.predictor.restore(frame, box, labels):
                    loop.reporter.tile(update)
                loop.make_room()
    except ProjectError as error:
        loop.reporter.notice(f"The prediction could not be read ({error}); it is made anew")
