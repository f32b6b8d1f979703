"""The project's own exceptions: each names what was found, why it cannot be, and what to do."""

from __future__ import annotations


class SparseSegError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(SparseSegError, ValueError):
    """A value that was passed in cannot be used; the message says which one and what to do."""


class InputTypeError(SparseSegError, TypeError):
    """Something of the wrong kind was passed in (a string for an image, objects, complex numbers)."""


class NotFittedError(InputError, AttributeError):
    """A model was asked to predict, score or save before it has learnt anything.

    An AttributeError too, as in scikit-learn: `hasattr(segmenter, "n_steps_")` tells whether it was fitted.
    """


class ModelFileError(InputError):
    """A model file is damaged, of another kind, or was written by a newer version."""


class ProjectError(InputError):
    """A project folder is damaged, of another kind, or cannot be used as it is asked to."""


class ProjectVersionError(ProjectError):
    """A project was written by a newer version of the program."""


class ProjectReadOnlyError(ProjectError):
    """A project that is open for reading only cannot be changed: another program writes to it, or nobody may."""


class TrainingError(SparseSegError, RuntimeError):
    """Training cannot go on: the loss is no number any more."""


class InputWarning(UserWarning):
    """The input can be used, but probably is not what was meant."""
