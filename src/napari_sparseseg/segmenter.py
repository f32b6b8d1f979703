"""SparseSegmenter: the blocking, scikit-learn-like face of the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_sparseseg._inputs import (
    check_budget,
    check_fits,
    check_suggestion,
    check_truth,
    checked_background,
    open_volumes,
    overlapping_of,
    read_paint,
    unlabelled_of,
)
from napari_sparseseg._types import ArrayLike
from napari_sparseseg.errors import InputError, InputTypeError, NotFittedError
from napari_sparseseg.storage._arrays import checked_spacing
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ImageVolume

if TYPE_CHECKING:
    from distributed import Client

    from napari_sparseseg.config import ModelConfig, ObjectConfig, PaintConfig, PredictionConfig, TrainingConfig
    from napari_sparseseg.distributed.predict import Prediction
    from napari_sparseseg.engine.model import FittedModel
    from napari_sparseseg.engine.objects.grouping import Writable
    from napari_sparseseg.engine.trainer import Trainer, TrainingStep
    from napari_sparseseg.engine.weak.advice import SliceAdvice
    from napari_sparseseg.learning import Learning, Learnt
    from napari_sparseseg.predicting import VolumePrediction

_CONFIGS = ("model", "training", "paint", "prediction", "objects")


class SparseSegmenter:
    """Learns to segment a volume densely from sparse paint.

    Parameters
    ----------
    spacing
        Voxel size along z, y, x (y, x for 2D images) in any unit; None takes voxels for cubes.
    channel_axis
        Position of the channel axis of every image, or None.
    device
        "auto" takes a GPU that torch can use, else the CPU; or a torch device such as "cuda:1".
    random_state
        Seed, `numpy.random.Generator` or None. With a seed and `max_steps`, fitting twice gives the same bits on the
        same machine with the same number of threads.
    background
        Class id that `score` and the Dice estimate leave out; None takes the lowest painted id.
    model
        Shape of the network; None takes the defaults.
    training
        How it learns; None takes the defaults. A single setting of this and the other groups can be changed by
        `set_params(training__learning_rate=1e-3)`.
    paint
        What paint means; None takes the defaults.
    prediction
        How a volume is predicted; None takes the defaults.
    objects
        How `predict_objects` tells objects apart; None takes the defaults.
    progress
        Progress bars: True, False, or None for terminals and notebooks only.

    Attributes
    ----------
    classes_
        Painted class ids, ascending; the order of the class axis of `predict_proba`.
    background_
        Class id that `score` and the Dice estimate leave out; 0 where classes overlap and none of them is it.
    object_classes_
        Class ids that `predict_objects` makes objects of, ascending: those that carried ids of objects in the paint,
        or all but the background.
    extras_
        What the model has learnt besides its classes: some of "affinities" (of objects), "candidates" and "novelty".
    history_
        One `TrainingStep` (step, phase, loss, dice, seconds) for each step of all fits.
    n_steps_
        Steps of the U-Net so far.

    Examples
    --------
    >>> segmenter = SparseSegmenter(spacing=(0.5, 0.2, 0.2))
    >>> labels = segmenter.fit(image, annotation, max_seconds=60).predict(image)  # doctest: +SKIP

    """

    classes_: npt.NDArray[np.int64]
    history_: list[TrainingStep]

    def __init__(
        self,
        spacing: Sequence[float] | None = None,
        channel_axis: int | None = None,
        device: str = "auto",
        random_state: int | np.random.Generator | None = None,
        *,
        background: int | None = None,
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        paint: PaintConfig | None = None,
        prediction: PredictionConfig | None = None,
        objects: ObjectConfig | None = None,
        progress: bool | None = None,
    ) -> None:
        self.spacing = spacing
        self.channel_axis = channel_axis
        self.device = device
        self.random_state = random_state
        self.background = background
        self.model = model
        self.training = training
        self.paint = paint
        self.prediction = prediction
        self.objects = objects
        self.progress = progress
        self._fitted: FittedModel | None = None
        self._trainer: Trainer | None = None

    def fit(
        self,
        image: ArrayLike | Sequence[ArrayLike],
        annotation: ArrayLike | Sequence[ArrayLike],
        *,
        allowed: Mapping[int, Collection[int]] | None = None,
        weight: ArrayLike | float | Sequence[ArrayLike | float] | None = None,
        objects: ArrayLike | Sequence[ArrayLike | None] | None = None,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        callback: Callable[[TrainingStep], object] | None = None,
        start: SparseSegmenter | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn from scratch from one volume, or from lists of volumes and annotations.

        Parameters
        ----------
        image
            Volume of shape (Z, Y, X) or (Y, X), with one more axis at `channel_axis` if that is set, of real numbers:
            a numpy, zarr or dask array, or anything with shape, dtype and `__getitem__`. Or a list of volumes. Voxels
            may be missing (NaN, infinite).
        annotation
            Paint of the image's shape without channels, one array for each volume, of whole numbers: 0 is unpainted,
            1 to 254 are class ids, or codes that `allowed` maps to classes.
        allowed
            For each code that stands for several classes, the ids of those that it leaves possible. By default each
            code is a class.
        weight
            How much the paint counts: a positive number, or an array of the image's shape without channels with one
            weight, 0 or more, for each voxel; for a list of volumes one number, or a list with one entry for each. None
            takes 1.
        objects
            Ids of single objects, of the image's shape without channels: whole numbers from 1 for painted voxels, 0
            for none; for a list of volumes one array or None for each. The model then learns to tell apart objects that
            touch (`predict_objects`). None learns nothing of objects.
        max_seconds
            Time limit in seconds for everything, loading torch included.
        max_steps
            Number of steps of the U-Net; 0 fits only the pixel classifier. Without either limit, learning ends at a
            plateau, or after `TrainingConfig.default_seconds`, two minutes by default.
        callback
            Called with a `TrainingStep` after each step, on the calling thread; learning ends when it returns False.
        start
            Another model to begin with, fitted or saved (the path of a file or a project), of other volumes and maybe
            of other classes: what it knows of images stays, its classes go. It must have as many channels, and voxels
            of about the same shape; `model` takes its shape from it. To go on with the same classes, `load` it and call
            `partial_fit`. By default the network starts from random weights.

        Returns
        -------
        SparseSegmenter
            This segmenter, fitted.

        Raises
        ------
        InputError, InputTypeError
            For what cannot be used; these are subclasses of ValueError and TypeError.
        ModelFileError
            If the file of `start` cannot be trusted or understood.
        NotFittedError
            If the segmenter that is passed as `start` has not been fitted.

        Notes
        -----
        Where classes may overlap (`PaintConfig.overlapping`), a code says that its class is present, a set that the
        classes which it does not name are absent, and `background` that all others are. Or `annotation` has an axis of
        classes 1, 2, ... in front: 0 is unknown, 1 absent, 2 present.

        Where only some objects were painted and nothing else, `PaintConfig.unlabelled` says what the rest means. One
        class is enough then, and the background is `background`, or the lowest free id.

        """
        previous = None if start is None else self._as_start(start)
        return self._learn(
            image,
            annotation,
            previous=None,
            start=previous,
            allowed=allowed,
            weight=weight,
            objects=objects,
            max_seconds=max_seconds,
            max_steps=max_steps,
            callback=callback,
        )

    def partial_fit(
        self,
        image: ArrayLike | Sequence[ArrayLike],
        annotation: ArrayLike | Sequence[ArrayLike],
        *,
        allowed: Mapping[int, Collection[int]] | None = None,
        weight: ArrayLike | float | Sequence[ArrayLike | float] | None = None,
        objects: ArrayLike | Sequence[ArrayLike | None] | None = None,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        callback: Callable[[TrainingStep], object] | None = None,
    ) -> Self:
        """Continue with what has been painted since; like `fit` where nothing has been learnt yet.

        Parameters
        ----------
        image
            As for `fit`, with as many channels as what the model was fitted on.
        annotation
            As for `fit`: all the paint that counts from now on, old and new. New classes may appear.
        allowed, weight, objects, max_seconds, max_steps, callback
            As for `fit`.

        Returns
        -------
        SparseSegmenter
            This segmenter.

        Raises
        ------
        InputError, InputTypeError
            As for `fit`, and for images that do not fit the model.

        """
        return self._learn(
            image,
            annotation,
            previous=self._fitted,
            start=None,
            allowed=allowed,
            weight=weight,
            objects=objects,
            max_seconds=max_seconds,
            max_steps=max_steps,
            callback=callback,
        )

    def predict(self, image: ArrayLike) -> npt.NDArray[np.unsignedinteger]:
        """Labels of the image's spatial shape: painted class ids in the smallest unsigned dtype.

        Where classes may overlap, the likeliest class, or the background (0 if there is none) where none is likelier
        than not. 0 where no channel of the image holds a number (NaN, infinite), as beside a volume that was rotated.

        Raises `NotFittedError` before `fit`, `InputError` for an image that does not fit the model.
        """
        return self._prediction(image).labels()

    def predict_proba(self, image: ArrayLike) -> npt.NDArray[np.float32]:
        """Probabilities, float32, shape (classes, *spatial shape), in the order of `classes_`; raises as `predict`.

        Those of classes that may overlap do not sum to 1. All are 0 where no channel of the image holds a number.
        """
        return self._prediction(image).probabilities()

    def predict_uncertainty(self, image: ArrayLike) -> npt.NDArray[np.float32]:
        """How unsure the model is of each voxel, 0..1, of the image's spatial shape; raises as `predict`.

        The entropy of the classes' probabilities over its maximum: 0 where one is certain, 1 where all are as likely.
        Of classes that may overlap, that of the most uncertain one.
        """
        return self._prediction(image).uncertainty()

    def suggest_slices(
        self,
        image: ArrayLike,
        annotation: ArrayLike,
        n: int = 5,
        *,
        method: Literal["intervals", "uncertainty"] | None = None,
        axes: Collection[int] | None = None,
    ) -> list[SliceAdvice]:
        """Suggest slices to paint next, best first: each as if those before it were painted.

        With a model a bounded number of places is looked at, whatever the image's size.

        Parameters
        ----------
        image
            A volume, as for `fit`.
        annotation
            All the paint there is, as for `fit`, of the image's shape without channels.
        n
            How many slices to suggest at most; 5 by default.
        method
            "intervals" takes the middle of the largest gap between painted slices, and works before `fit`;
            "uncertainty" takes the slice on which the model is least sure, away from painted ones. None takes what
            `PredictionConfig.next_slice` says.
        axes
            Orientations to choose from: 0 z, 1 y, 2 x. None takes all on which voxels are not much longer than wide.

        Returns
        -------
        list of SliceAdvice
            Axis and index of each slice, its score, 0..1, and the voxel (z, y, x) at which to start painting: with a
            model the one on the slice where it is least sure. The order counts, not the scores: that of "uncertainty"
            is a mean over what is left around a slice once those before it are painted, and may rise along the list.

        Raises
        ------
        InputError, InputTypeError
            For a single plane, and for what cannot be used.
        NotFittedError
            For "uncertainty" before `fit`.

        """
        from napari_sparseseg.engine.weak.advice import TILE_VOXELS
        from napari_sparseseg.suggesting import slices_to_paint

        chosen = method or self._config("prediction").next_slice
        volume = ImageVolume(image, self.channel_axis)
        check_suggestion(volume, n, chosen, axes)
        spacing = checked_spacing(self.spacing, n_axes=len(volume.spatial_shape))
        predictor = None
        if self._fitted is not None or chosen == "uncertainty":
            predictor = self._prediction(image).predictor(TILE_VOXELS)
        painted = read_annotation(annotation, volume, overlapping=self._config("paint").overlapping)
        return slices_to_paint(painted, spacing, n, chosen, axes, predictor, progress=self.progress)

    def predict_present(self, image: ArrayLike) -> npt.NDArray[np.bool_]:
        """Which classes are there, shape (classes, *spatial shape), in the order of `classes_`; raises as `predict`.

        Where classes may overlap these are all that are likelier than not; else it is the label, one class a voxel.
        """
        return self._prediction(image).present()

    def predict_candidates(self, image: ArrayLike) -> npt.NDArray[np.bool_]:
        """Which classes come into question at each voxel: bool, shape (classes, *spatial shape), as `predict_proba`.

        The predicted one always does. How many do on average around the paint is `PaintConfig.candidates`, with which
        the model must have learnt. Source of the method: Garcin et al. 2023, arXiv:2303.18118.

        Raises as `predict`, and `InputError` for a model that learnt no candidates.
        """
        return self._prediction(image).candidates()

    def predict_novelty(self, image: ArrayLike) -> npt.NDArray[np.float32]:
        """How unlike everything that was painted each voxel is, float32, 0..1, of the image's spatial shape.

        One in a hundred painted voxels has 1/2 or more. The model must have learnt with `PaintConfig.novelty`.

        Raises as `predict`, and `InputError` for a model that learnt without novelty.
        """
        return self._prediction(image).novelty()

    def predict_objects(self, image: ArrayLike) -> npt.NDArray[np.uint32]:
        """Single objects: ids 1..n of the image's spatial shape, 0 where there is none.

        Objects are made of the classes that carried ids of objects in the paint, or of all but the background. Those
        that touch are told apart by what was learnt from painted ids, or where they are narrow: see `ObjectConfig`.
        `measure_objects` makes a table of them. Raises as `predict`, and `InputError` for settings that the model
        cannot follow.
        """
        return self._prediction(image).objects(self._config("objects"))

    def predict_objects_to(self, image: ArrayLike, ids: Writable) -> None:
        """Find the objects of an image of any size: writes what `predict_objects` returns, in bounded memory.

        `ids` is an array of zeros, uint32, of shape (Z, Y, X), for a plane (1, Y, X): zarr, a memory map or numpy. It
        is written to and read back block by block. Raises as `predict_objects`, and `InputError` for an array that does
        not fit.
        """
        prediction = self._prediction(image)
        shape, dtype = tuple(getattr(ids, "shape", ())), np.dtype(getattr(ids, "dtype", object))
        if shape != prediction.volume.shape or dtype != np.uint32:
            raise InputError(
                f"ids has shape {shape} and dtype {dtype}, but zeros of shape {prediction.volume.shape} (z, y, x) and "
                "dtype uint32 are needed"
            )
        prediction.write_objects(self._config("objects"), ids)

    def predict_to(
        self,
        image: ArrayLike,
        store: str | os.PathLike[str],
        *,
        client: Client | str | None = None,
        workers: int = 1,
        memory: int | str | None = None,
        probabilities: bool | str | os.PathLike[str] = False,
        resume: bool = True,
        overwrite: bool = False,
        spacing: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        unit: str | None = "micrometer",
    ) -> Prediction:
        """Predict an image of any size into an OME-Zarr 0.5 label image with levels of resolution, in bounded memory.

        Interrupted at any moment, the next call with the same model, image and settings goes on where that was, and
        gives the same bytes with the same number of threads. What is under way lies in `STORE.unfinished`, and appears
        at `store` when it is complete. How to use clusters stands in docs/scale.md.

        Parameters
        ----------
        client
            A `distributed.Client`, or the address of a scheduler; its workers must see `store` and the image's file.
        workers
            Without a client: processes on this machine, of one thread each, or 1 for this process and its threads. They
            share the GPUs.
        memory
            What all of it may take, bytes or text such as "4GB"; with a client each worker. None takes half of what is
            free, or half of the workers' limit.
        probabilities
            Also write the classes' probabilities, 0 to 255, to this path, or beside `store` if True.
        resume
            False begins again from the start.
        overwrite
            Replace another result at `store`.
        spacing, offset, unit
            Voxel size, and position of the first voxel, along the image's axes in `unit`; 1 and 0 without them.

        Raises
        ------
        InputError
            For outputs that exist, are predicted by another process, or cannot be written; too little memory; a
            scheduler that does not answer; and as `predict`.

        """
        from napari_sparseseg.distributed.predict import make_request, predict_volume

        prediction = self._prediction(image)
        request = make_request(
            prediction.volume,
            image,
            store,
            probabilities=probabilities,
            spacing=spacing,
            offset=offset,
            unit=unit,
            workers=workers,
            memory=memory,
            device=self.device,
            tile_voxels=self._config("prediction").tile_voxels,
            resume=resume,
            overwrite=overwrite,
            progress=self.progress,
        )
        return predict_volume(request, prediction.fitted, prediction.intensity(), self.save, client)

    def score(self, image: ArrayLike, truth: ArrayLike) -> float:
        """Mean Dice, 0..1, over the classes but the background; voxels where `truth` is 0 are left out.

        A class of `truth` that was never painted counts as 0. Where classes may overlap, each that was painted is
        scored where `truth` says something of it, in the same forms as in `fit`.

        Raises as `predict`, and `InputError` for a truth that is 0 everywhere or names no class of the model.
        """
        prediction = self._prediction(image)
        classes = prediction.fitted.classes
        known = read_annotation(truth, prediction.volume, overlapping=classes.overlapping, name="truth")
        check_truth(known, classes.ids)
        return prediction.score(known)

    def save(self, path: str | os.PathLike[str], *, training_state: bool = False) -> None:
        """Write the model to one file (safetensors with a JSON header), replacing an older one.

        With `training_state` the file also holds optimiser, random state and latest weights, three times as much:
        then load and `partial_fit` do exactly what `partial_fit` would have done without.
        """
        from napari_sparseseg.engine.checkpoint import save_model

        save_model(
            path,
            self._check_fitted(),
            settings=self._settings(),
            history=self.history_,
            trainer=self._trainer if training_state else None,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", progress: bool | None = None) -> Self:
        """Read a model that `save` wrote, or the newest one of a project folder.

        Parameters
        ----------
        path
            The model file, or the folder of a project.
        device
            As for the constructor: "auto" by default, which takes a GPU that torch can use, else the CPU.
        progress
            As for the constructor: progress bars, by default for terminals and notebooks only.

        Returns
        -------
        SparseSegmenter
            A fitted segmenter with the settings that were saved.

        Raises
        ------
        ModelFileError
            If the file cannot be trusted or understood, or if there is no model in the project.
        InputError
            For a device that does not exist.

        """
        from napari_sparseseg.engine.device import choose_device
        from napari_sparseseg.model_files import arguments_in, read_model

        chosen = choose_device(device).device
        fitted, header, tensors = read_model(path)
        fitted.network.to(chosen)
        arguments, history = arguments_in(header, fitted, path)
        segmenter = cls(**arguments, device=device, progress=progress)
        segmenter._fitted, segmenter.history_ = fitted, history
        segmenter.classes_ = np.asarray(fitted.classes.ids)
        if "training" in header:
            segmenter._trainer = segmenter._learning().trainer(fitted, seed=0)
            segmenter._trainer.restore(header["training"], tensors)
        return segmenter

    @property
    def n_steps_(self) -> int:
        """Steps of the U-Net so far."""
        self._check_fitted()
        return self.history_[-1].step if self.history_ else 0

    @property
    def background_(self) -> int:
        """Class id of the background; 0 where classes overlap and none of them is it."""
        return self._check_fitted().classes.background

    @property
    def object_classes_(self) -> npt.NDArray[np.int64]:
        """Class ids that objects are made of, ascending: those that carried ids of objects, or all but the background.

        See `predict_objects`.
        """
        return self.classes_[list(self._check_fitted().classes.object_channels)]

    @property
    def extras_(self) -> tuple[str, ...]:
        """What the model has learnt besides its classes, of "affinities" (of objects), "candidates" and "novelty"."""
        return tuple(sorted(self._check_fitted().network.extras))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return constructor arguments by name; with `deep` also every setting, as `training__dropout`."""
        found = {name: getattr(self, name) for name in signature(type(self)).parameters}
        if deep:
            for group in _CONFIGS:
                found |= {f"{group}__{name}": value for name, value in self._config(group)}
        return found

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments, or single settings as `training__dropout=0.1`; takes effect at the next fit."""
        names = signature(type(self)).parameters
        for key, value in params.items():
            name, is_nested, setting = key.partition("__")
            if name not in names or (is_nested and name not in _CONFIGS):
                raise InputError(f"SparseSegmenter has no parameter {key!r}; it has {', '.join(names)}")
            setattr(self, name, self._config(name).with_changes(**{setting: value}) if is_nested else value)
        return self

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.get_params(deep=False).items() if value is not None}
        text = ", ".join(f"{name}={value!r}" for name, value in shown.items() if (name, value) != ("device", "auto"))
        if self._fitted is None:
            return f"SparseSegmenter({text}): not fitted"
        last = self.history_[-1] if self.history_ else None
        estimate = f", Dice estimate {last.dice:.2f}" if last and last.dice is not None else ""
        classes = ", ".join(str(c) for c in self._fitted.classes.ids)
        return f"SparseSegmenter({text}): classes {classes}, {self.n_steps_} steps{estimate}"

    def _learn(
        self,
        image: Any,
        annotation: Any,
        *,
        previous: FittedModel | None,
        start: FittedModel | None,
        allowed: Mapping[int, Collection[int]] | None,
        weight: Any,
        objects: Any,
        max_seconds: float | None,
        max_steps: int | None,
        callback: Callable[[TrainingStep], object] | None,
    ) -> Self:
        started = time.perf_counter()
        check_budget(max_seconds, max_steps)
        background = checked_background(self.background)
        volumes = open_volumes(image, self.channel_axis)
        known = previous.classes if previous else None
        unlabelled = unlabelled_of(self._config("paint"), known, background)
        paint, classes = read_paint(
            volumes,
            annotation,
            allowed,
            weight,
            objects,
            known_classes=known.ids if known else (),
            overlapping=overlapping_of(self._config("paint"), known, background),
            unlabelled=unlabelled,
        )
        from napari_sparseseg.engine.budget import Budget  # after the checks: it loads torch

        learning = self._learning()
        if previous is None:
            background = unlabelled.class_id(paint) if unlabelled else background
            learnt = learning.begin(volumes, classes, background, start)
        else:
            learnt = learning.go_on(previous, self._trainer, self.history_, volumes)
        learnt, maps = learning.look_at(volumes, classes, learnt)
        if previous is not None:
            self._take(learnt)  # its networks have the new classes now, whatever happens to the paint
        learnt = learnt.learn_from(maps, paint)
        self._take(learnt)
        budget = Budget(learning.training, max_seconds, max_steps, learnt.trainer.step, started)
        learnt.run(budget, callback, progress=self.progress)
        return self

    def _learning(self) -> Learning:
        """What makes models and trainers by the settings as they are now."""
        from napari_sparseseg.learning import Learning

        return Learning(
            spacing=self.spacing,
            device=self.device,
            random_state=self.random_state,
            model=None if self.model is None else self._config("model"),
            training=self._config("training"),
            paint=self._config("paint"),
        )

    def _as_start(self, start: SparseSegmenter | str | os.PathLike[str]) -> FittedModel:
        if isinstance(start, SparseSegmenter):
            return start._check_fitted()  # noqa: SLF001 - of the same class
        if not isinstance(start, str | os.PathLike):
            raise InputTypeError(
                f"start must be a SparseSegmenter or the path of a saved model, not {type(start).__name__}"
            )
        from napari_sparseseg.model_files import read_model

        return read_model(start)[0]

    def _take(self, learnt: Learnt) -> None:
        self._fitted, self._trainer, self.history_ = learnt.fitted, learnt.trainer, learnt.history
        self.classes_ = np.asarray(learnt.fitted.classes.ids)

    def _prediction(self, image: ArrayLike) -> VolumePrediction:
        """What the model says of an image; raises what `predict` does."""
        fitted = self._check_fitted()
        volume = ImageVolume(image, self.channel_axis)
        check_fits(volume, fitted.spec)
        from napari_sparseseg.predicting import VolumePrediction  # after the checks: it loads torch

        return VolumePrediction(
            fitted, volume, self._config("prediction"), cache_bytes=self._cache_bytes, progress=self.progress
        )

    @property
    def _cache_bytes(self) -> int:
        """Memory for features of one volume."""
        return int(self._config("training").cache_mb) << 20

    def _check_fitted(self) -> FittedModel:
        if self._fitted is None:
            raise NotFittedError("this SparseSegmenter has not learnt anything yet; call fit(image, annotation) first")
        return self._fitted

    def _config(self, group: str) -> Any:
        from napari_sparseseg import config

        kind = {
            "model": config.ModelConfig,
            "training": config.TrainingConfig,
            "paint": config.PaintConfig,
            "prediction": config.PredictionConfig,
            "objects": config.ObjectConfig,
        }
        given = getattr(self, group)
        if given is None:
            return kind[group]()
        if not isinstance(given, kind[group]):
            raise InputTypeError(f"{group} must be a {kind[group].__name__} or None, not {type(given).__name__}")
        return given

    def _settings(self) -> dict[str, Any]:
        """Parameters as JSON; a random generator cannot be stored and becomes None."""
        return {
            "spacing": None if self.spacing is None else [float(s) for s in self.spacing],
            "channel_axis": None if self.channel_axis is None else int(self.channel_axis),
            "random_state": int(self.random_state) if isinstance(self.random_state, int | np.integer) else None,
            "background": None if self.background is None else int(self.background),
            "training": self._config("training").model_dump(),
            "paint": self._config("paint").model_dump(),
            "prediction": self._config("prediction").model_dump(),
            "objects": self._config("objects").model_dump(),
        }
