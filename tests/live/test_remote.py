"""Training on a worker of a cluster: what is learnt there is what would be learnt here."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from livekit import PATIENCE, QUICK, SMALL, Listener, make_image, make_truth, paint_both, rest, view_of

from napari_sparseseg import LiveSegmenter
from napari_sparseseg.config import PaintConfig, PredictionConfig
from napari_sparseseg.distributed.cluster import local_client
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.headstate import HeadState
from napari_sparseseg.errors import InputError
from napari_sparseseg.live import remote
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.remote import Question, RemoteLearner, teach
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume

TRUTH = make_truth()
IMAGE = make_image(TRUTH)
TWO = ClassTable((1, 2), 1)


@pytest.fixture(scope="module")
def client():
    """A cluster of one process of one thread, as the learners here have."""
    with local_client(1) as client:
        yield client


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    remote._learners.clear()  # those of questions that were answered in this process
    torch.set_num_threads(before)


def annotation_of(*planes):
    codes = np.zeros_like(TRUTH)
    for z in planes or (6,):
        codes[z] = TRUTH[z]
    return read_annotation(codes, ArrayVolume(np.zeros(codes.shape)))


def make(address, notice=pytest.fail, paint=None, **options):
    image = LiveImage.of(IMAGE, channel_axis=None, time_axis=None, spacing=None)
    settings = Settings(SMALL, QUICK, PredictionConfig(), address, paint or PaintConfig())
    learner = (
        RemoteLearner(image, settings, notice=notice, seconds=0, **options)
        if is_address(address)
        else Learner(image, settings, **options)
    )
    torch.set_num_threads(1)
    return learner


def train(learner, n_steps):
    started = time.perf_counter()
    while learner.step < n_steps:
        assert time.perf_counter() - started < PATIENCE
        list(learner.train(0.2 if learner.trains_elsewhere else 0))


def address_of(client):
    return client.cluster.scheduler_address


def assert_equal(a, b):
    first, second = a.weights().state_dict(), b.weights().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert a.weights().context == b.weights().context
    assert HeadState.of(a.weights()) == HeadState.of(b.weights())
    assert a.score == b.score


@pytest.mark.parametrize(
    "paint", [PaintConfig(), PaintConfig(novelty="embedding", candidates=1.5)], ids=["plain", "further heads"]
)
def test_the_worker_learns_bit_for_bit_what_would_be_learnt_here(client, paint):
    learners = make("cpu", paint=paint), make(address_of(client), paint=paint)
    for learner in learners:
        list(learner.learn({0: annotation_of()}, TWO))
        train(learner, 7)
    assert_equal(*learners)
    learners[1]._cancel()  # what was asked last would bring it a step further on the old paint
    for learner in learners:
        list(learner.learn({0: annotation_of(3, 6)}, TWO))
        train(learner, 12)
    assert [learner.step for learner in learners] == [12, 12]
    assert learners[0].score is not None
    assert_equal(*learners)


def test_an_answer_is_not_over_before_the_unet_has_made_a_step():
    image = LiveImage.of(IMAGE, channel_axis=None, time_axis=None, spacing=None)
    settings = Settings(SMALL, QUICK.with_changes(warm_up_steps=2), PredictionConfig(), "cpu")
    learner = Learner(image, settings)
    annotations = {0: annotation_of()}
    list(learner.learn(annotations, TWO))
    answer = teach(Question("a", settings, learner.encoded(()), annotations, is_fresh=True, seconds=0), image)
    assert [step.phase for step in answer.steps][-3:] == ["warm-up", "warm-up", "unet"]


def test_a_worker_takes_the_features_of_a_model_that_was_loaded():
    image = LiveImage.of(IMAGE, channel_axis=None, time_axis=None, spacing=None)
    settings = Settings(SMALL, QUICK, PredictionConfig(), "cpu")
    annotations = {0: annotation_of()}
    for model in (SMALL, SMALL.with_changes(scales=(1.0, 2.0))):
        learner = Learner(image, replace(settings, model=model))
        list(learner.learn(annotations, TWO))
        question = Question("a", settings, learner.encoded(()), annotations, is_fresh=True, seconds=0)
        assert teach(question, image).steps[-1].phase == "unet"
        assert remote._learners["a"].map(0).bank == learner.spec.bank


def test_a_stroke_meanwhile_keeps_what_the_worker_has_learnt(client):
    learner = make(address_of(client))
    list(learner.learn({0: annotation_of()}, TWO))
    train(learner, 3)
    list(learner.train(0.2))  # a question is under way
    list(learner.learn({0: annotation_of(3, 6)}, TWO))
    pixel = learner.weights().pixel.classify.weight
    unet = learner.weights().unet.classify.weight
    while not learner.has_news:
        time.sleep(0.01)
    before = learner.step
    steps = list(learner.train(0))
    assert steps[-1].step == learner.step == before + len(steps)
    assert torch.equal(learner.weights().pixel.classify.weight, pixel)
    assert not torch.equal(learner.weights().unet.classify.weight, unet)


def test_an_answer_about_other_classes_does_not_count(client):
    learner = make(address_of(client))
    list(learner.learn({0: annotation_of()}, TWO))
    train(learner, 3)
    before = learner.step
    list(learner.learn({0: annotation_of()}, ClassTable((1, 2, 5), 1)))
    train(learner, before + 2)
    assert learner.fitted.classes.ids == (1, 2, 5)


ASKED_FOR = pytest.mark.parametrize(
    "paint", [PaintConfig(novelty="embedding"), PaintConfig(candidates=1.5)], ids=["novelty", "candidates"]
)


@ASKED_FOR
def test_an_answer_from_before_something_else_was_asked_for_does_not_count(client, paint):
    learner = make(address_of(client))
    list(learner.learn({0: annotation_of()}, TWO))
    train(learner, 3)
    list(learner.train(0))  # a question is under way
    learner.configure(replace(learner._settings, paint=paint))
    list(learner.learn({0: annotation_of(3, 6)}, TWO))
    train(learner, learner.step + 2)
    assert learner.fitted.network.heads.novelty == paint.novelty
    assert learner.fitted.network.heads.candidates == (paint.candidates > 0)


@ASKED_FOR
def test_what_is_asked_for_of_paint_takes_hold_with_the_next_stroke(client, paint):
    learner = make(address_of(client))
    list(learner.learn({0: annotation_of()}, TWO))
    train(learner, 3)
    heads = learner.fitted.network.heads
    learner.configure(replace(learner._settings, paint=paint))
    train(learner, learner.step + 3)
    assert learner.fitted.network.heads == heads


def test_a_worker_that_dies_is_replaced(client):
    learner = make(address_of(client))
    list(learner.learn({0: annotation_of()}, TWO))
    train(learner, 3)
    (pid,) = client.run(os.getpid).values()
    os.kill(pid, signal.SIGKILL)
    train(learner, 6)
    assert set(client.run(os.getpid).values()) != {pid}


def test_without_the_cluster_training_goes_on_here():
    told = []
    with local_client(1) as short_lived:
        learner = make(address_of(short_lived), notice=told.append)
        list(learner.learn({0: annotation_of()}, TWO))
        train(learner, 2)
    train(learner, 6)
    assert len(told) == 1
    assert "training goes on here" in told[0]
    assert not learner.trains_elsewhere


def test_without_workers_training_goes_on_here(monkeypatch):
    monkeypatch.setattr(remote, "_LOOK", 0.5)
    told = []
    with local_client(1) as emptied:
        learner = make(address_of(emptied), notice=told.append)
        list(learner.learn({0: annotation_of()}, TWO))
        train(learner, 2)
        emptied.cluster.scale(0)
        train(learner, 6)
    assert len(told) == 1
    assert "has no workers any more; training goes on here" in told[0]
    assert not learner.trains_elsewhere


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("napari_sparseseg.distributed.cluster._PATIENCE", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        make("tcp://127.0.0.1:9")


def test_from_paint_to_prediction(client):
    live = LiveSegmenter(device=address_of(client), model=SMALL, training=QUICK)
    live.heard = Listener(live)
    try:
        live.open(IMAGE)
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(5)
        rest(live)
        assert "trains on tcp://" in live.status.device_reason
        assert (live.labels(0) == TRUTH).mean() > 0.9
        assert not live.heard.failures
    finally:
        live.close()
