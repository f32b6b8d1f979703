"""Training on a worker of a Dask cluster, while painting and predicting stay on this machine.

A worker is asked for a few seconds of training at a time. All that it needs comes with the question: the model with the
state of training, and the paint. The answer is that model further on. So nothing is lost with a worker, Dask puts the
same question to another one; with the cluster, training goes on here. Workers keep features between two questions, and
nothing else. They must be able to read the image: what lies in the memory of this process is sent to them once.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from typing_extensions import override

from napari_sparseseg._types import Annotation
from napari_sparseseg.distributed.cluster import connect, size_of
from napari_sparseseg.engine.checkpoint import decode_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.headstate import HeadState
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.engine.validation import HeldOutScore
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.settings import Settings

if TYPE_CHECKING:
    from distributed import Client, Future

_SECONDS = 3.0  # of training for each question
_PAUSE = 0.01  # seconds between two looks whether an answer is there
_LOOK = 5.0  # seconds between two looks whether a cluster that does not answer has workers
_GOODBYE = 2.0  # seconds that a client is given to end
_SESSIONS = 2  # of which a worker keeps features


@dataclass(frozen=True, slots=True)
class Question:
    """Go on with training for so many seconds: all that it takes, but for the image.

    `model` is the content of a model file with the state of training, `annotations` the paint of each frame that it was
    learning from. With `is_fresh` its pixel head has seen this paint in a short burst only. `score` is what held-out
    paint told last.
    """

    session: str
    settings: Settings
    model: bytes
    annotations: Mapping[int, Annotation]
    is_fresh: bool
    seconds: float
    score: HeldOutScore | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The model with its state after some more steps, as the content of a model file, and its latest score."""

    model: bytes
    steps: tuple[TrainingStep, ...]
    score: HeldOutScore | None


_learners: OrderedDict[str, Learner] = OrderedDict()  # of this worker, by session


def teach(question: Question, image: LiveImage) -> Answer:
    """Train on a worker. The same question has the same answer, but for the number of steps.

    Raises `SparseSegError` for what goes wrong with the training itself.
    """
    learner = _learner_of(question, image)
    fitted, header, tensors = decode_model(question.model)
    training = header["training"], tensors
    learner.go_on(fitted, training, question.annotations, is_fresh=question.is_fresh, score=question.score)
    steps: list[TrainingStep] = []
    started = time.perf_counter()
    # what comes before the first step of the U-Net begins anew with each question
    while not steps or steps[-1].phase != "unet" or time.perf_counter() - started < question.seconds:
        steps.extend(learner.train(0))
    return Answer(learner.encoded(()), tuple(steps), learner.score)


def _learner_of(question: Question, image: LiveImage) -> Learner:
    if question.session not in _learners:
        _learners[question.session] = Learner(image, question.settings)
    _learners.move_to_end(question.session)
    while len(_learners) > _SESSIONS:
        _learners.popitem(last=False)
    learner = _learners[question.session]
    learner.configure(question.settings)
    return learner


class RemoteLearner(Learner):
    """A learner whose U-Net is trained by a worker of a Dask cluster.

    What follows a stroke at once, the short burst of the pixel head and the prediction, happens here. Where a stroke
    comes while the worker computes, its answer still brings the U-Net further. If the cluster is lost, or the last of
    its workers, training goes on here, and `notice` is told a sentence.

    Raises `InputError` if the scheduler does not answer, or has no workers.
    """

    def __init__(
        self,
        image: LiveImage,
        settings: Settings,
        *,
        notice: Callable[[str], None],
        is_wanted: Callable[[], bool] = lambda: True,
        seed: int = 0,
        seconds: float = _SECONDS,
    ) -> None:
        super().__init__(image, replace(settings, device="auto"), notice=notice, is_wanted=is_wanted, seed=seed)
        self._address = settings.device
        self._seconds = seconds
        self._session = uuid4().hex
        self._annotations: Mapping[int, Annotation] = {}
        self._meaning = settings.paint  # of these annotations
        self._is_fresh = False
        self._asked: tuple[Future, Mapping[int, Annotation]] | None = None
        self._looked_at, self._has_workers = 0.0, True
        client = connect(self._address)
        self._close = weakref.finalize(self, client.close, _GOODBYE)
        size_of(client)
        self._client: Client | None = client
        self._image = client.submit(_given, image, pure=False)
        device = self.choice.device
        self.choice = replace(self.choice, reason=f"trains on {self._address}, predicts here ({device})")

    @property
    @override
    def trains_elsewhere(self) -> bool:
        return self._client is not None

    @property
    @override
    def has_news(self) -> bool:
        return self._asked is not None and self._asked[0].done()

    @override
    def learn(self, annotations: Mapping[int, Annotation], classes: ClassTable) -> Iterator[TrainingStep]:
        is_first = self.step == 0
        yield from super().learn(annotations, classes)
        self._annotations, self._meaning, self._is_fresh = annotations, self.paint, is_first

    @override
    def train(self, seconds: float) -> Iterator[TrainingStep]:
        """Steps that have arrived; waits for so long if there are none."""
        if self._client is None or not self._annotations:
            yield from super().train(seconds)
            return
        self._asked = self._asked or self._ask(self._client)
        answer = self._wait(self._client, seconds)
        if answer is not None:
            (_, learnt), self._asked = self._asked, None
            self._take(answer, is_latest=learnt is self._annotations)
            self._asked = self._ask(self._client)  # before the steps are told: the worker shall not wait
            yield from map(self._checked, answer.steps)

    @override
    def forget(self) -> None:
        self._cancel()
        self._annotations = {}
        super().forget()

    @override
    def _use(self, fitted: FittedModel) -> Trainer:
        self._cancel()
        self._annotations = {}
        return super()._use(fitted)

    def _ask(self, client: Client) -> tuple[Future, Mapping[int, Annotation]]:
        question = Question(
            self._session,
            replace(self._settings, device="auto", paint=self._meaning),
            self.encoded(()),
            self._annotations,
            self._is_fresh,
            self._seconds,
            self.score,
        )
        self._looked_at, self._has_workers = time.perf_counter(), True
        return client.submit(teach, question, self._image, pure=False), self._annotations

    def _wait(self, client: Client, seconds: float) -> Answer | None:
        """The answer, if it comes within so many seconds."""
        assert self._asked is not None  # noqa: S101 - train has asked
        future = self._asked[0]
        started = time.perf_counter()
        try:
            while not future.done():
                if self._is_deserted(client):
                    self._come_home("has no workers any more")
                    return None
                if time.perf_counter() - started >= seconds:
                    return None
                time.sleep(_PAUSE)
            answer: Answer = future.result()
        except SparseSegError:
            self._asked = None
            raise
        except Exception as error:  # noqa: BLE001 - whatever has happened to a cluster, it is of no more use
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            self._come_home(f"does not answer any more ({reason})")
            return None
        return answer

    def _is_deserted(self, client: Client) -> bool:
        """Whether there were no workers twice in a row, since one that died may soon be replaced."""
        if time.perf_counter() - self._looked_at < _LOOK:
            return False
        had_workers, self._has_workers = self._has_workers, bool(client.nthreads())
        self._looked_at = time.perf_counter()
        return not (had_workers or self._has_workers)

    def _take(self, answer: Answer, *, is_latest: bool) -> None:
        """Go on from where the worker has come to; the pixel head stays if it has seen later paint."""
        fitted, header, tensors = decode_model(answer.model)
        trainer = self._trainer
        if trainer is None or (fitted.classes, fitted.network.heads) != (trainer.classes, trainer.network.heads):
            return  # a class has come or gone meanwhile, or something else was asked for
        known = fitted.network.state_dict()
        if not is_latest:
            known = {name: value for name, value in known.items() if not name.startswith("pixel.")}
        for network in (trainer.network, trainer.averaged):
            network.load_state_dict(known, strict=False)
        trainer.restore({**header["training"], "round": trainer.state()[0]["round"]}, tensors)
        if is_latest:
            trainer.averaged.context = fitted.network.context
            trainer.averaged.shift.copy_(fitted.network.shift)
            HeadState.of(fitted.network).give_to(trainer.averaged)
            trainer.score = answer.score
            self._is_fresh = False

    def _cancel(self) -> None:
        if self._asked is not None:
            self._asked[0].cancel()
            self._asked = None

    def _come_home(self, what: str) -> None:
        self._asked, self._client = None, None
        self._close()
        self._notice(f"The cluster at {self._address} {what}; training goes on here")


def _given(image: LiveImage) -> LiveImage:
    return image
