"""Learning from paint, step by step."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from synthetic import (
    QUICK,
    make_annotation,
    make_blobs,
    make_features,
    make_noise,
    make_trainer,
    paint_planes,
    whole,
)

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.checks import Checks
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.lessons import Targets, criterion_of
from napari_sparseseg.engine.losses import partial_label_loss
from napari_sparseseg.engine.network import PixelHead
from napari_sparseseg.engine.pixelfit import fit_pixel_head

SHAPE = (14, 30, 28)
PLANES = ((0, 3), (0, 7), (0, 11))
IMAGE, TRUTH = make_blobs(SHAPE)
CODES = paint_planes(TRUTH, *PLANES)


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def are_equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def unet_steps(trainer, n, progress=lambda _: 0.0):
    """The first n steps of the U-Net; the ones of the pixel head are passed over."""
    return list(islice((s for s in trainer.steps(progress) if s.phase == "unet"), n))


def pixel_steps(trainer):
    found = []
    for step in trainer.steps():
        if step.phase == "unet":
            return found
        found.append(step)
    return found


class TestSteps:
    def test_the_pixel_head_comes_first_then_the_unet_counts_its_steps(self):
        steps = list(islice(make_trainer(IMAGE, CODES).steps(), 20))
        n_pixel = sum(step.phase == "pixel" for step in steps)
        assert 0 < n_pixel < 20
        assert [step.phase for step in steps] == ["pixel"] * n_pixel + ["unet"] * (20 - n_pixel)
        assert [step.step for step in steps] == [0] * n_pixel + list(range(1, 21 - n_pixel))

    def test_the_loss_falls(self):
        losses = [step.loss for step in unet_steps(make_trainer(IMAGE, CODES), 80)]
        assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])

    def test_the_dice_estimate_rises_above_chance(self):
        codes = paint_planes(make_blobs((14, 60, 60))[1], *PLANES)
        trainer = make_trainer(make_blobs((14, 60, 60))[0], codes)
        steps = unet_steps(trainer, 60)
        assert 0.6 < steps[-1].dice <= 1

    def test_the_same_seed_gives_the_same_bits_another_seed_does_not(self):
        first, again, other = (make_trainer(IMAGE, CODES, seed=seed) for seed in (1, 1, 2))
        losses = [[step.loss for step in unet_steps(trainer, 6)] for trainer in (first, again, other)]
        assert losses[0] == losses[1] != losses[2]
        assert are_equal(weights_of(first.averaged), weights_of(again.averaged))

    @pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
    def test_stopping_at_any_step_leaves_a_network_that_predicts(self, n):
        trainer = make_trainer(IMAGE, CODES)
        steps = trainer.steps()
        for _ in range(n):
            next(steps)
        steps.close()
        trainer.finish()
        before = weights_of(trainer.averaged)
        assert all(torch.isfinite(value).all() for value in before.values())
        assert 0 <= trainer.averaged.context <= 1
        with torch.no_grad():
            assert torch.isfinite(trainer.averaged(make_features(IMAGE).read(whole((14, 28, 28))))).all()
        assert are_equal(before, weights_of(trainer.averaged))

    def test_stopping_and_going_on_with_new_paint_keeps_counting(self):
        trainer = make_trainer(IMAGE, CODES)
        unet_steps(trainer, 4)
        more = paint_planes(TRUTH, *PLANES, (1, 5))
        trainer.learn_from([make_features(IMAGE)], [make_annotation(more)])
        assert [step.step for step in unet_steps(trainer, 3)] == [5, 6, 7]

    def test_weights_move_as_whole_matrices_the_more_is_painted(self):
        strokes = np.zeros_like(CODES)
        strokes[7, 4, 4:10], strokes[7, 20, 4:10] = 1, 2
        trainer = make_trainer(IMAGE, CODES)
        assert trainer._optimiser.wholeness > 0.9
        trainer.learn_from([make_features(IMAGE)], [make_annotation(strokes)])
        assert trainer._optimiser.wholeness < 0.1
        trainer.learn_from([make_features(IMAGE)], [make_annotation(CODES)])
        assert trainer._optimiser.wholeness > 0.9

    def test_new_paint_does_not_change_how_features_are_standardised(self):
        trainer = make_trainer(IMAGE, CODES)
        mean = trainer.averaged.mean.clone()
        trainer.learn_from([make_features(10 * IMAGE)], [make_annotation(paint_planes(TRUTH, (1, 5)))])
        assert torch.equal(trainer.averaged.mean, mean)
        assert torch.equal(trainer.network.mean, mean)

    @pytest.mark.parametrize("shape", [(12, 1, 30), (1, 30, 1), (1, 1, 30), (12, 13, 1), (12, 1, 1), (1, 25, 26)])
    def test_volumes_that_are_flat_along_any_axis_can_be_learnt(self, shape):
        image = make_noise(shape)
        codes = (1 + (image > 0)).astype(np.uint8)
        trainer = make_trainer(image, codes)
        assert len(unet_steps(trainer, 12)) == 12

    @pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (1.0, 1.95, 2.05), (2.05, 1.0, 1.95), (1.0, 1.0, 30.0)])
    def test_any_voxel_size_can_be_learnt(self, spacing):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(patch_voxels=700), spacing)
        assert len(unet_steps(trainer, 12)) == 12

    @pytest.mark.parametrize(
        "changes", [{"flips": False}, {"turns": False}, {"gain": 0.0}, {"batch_size": 1}, {"batch_size": 5}]
    )
    def test_augmentations_and_batches_can_be_chosen(self, changes):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(**changes))
        assert len(unet_steps(trainer, 3)) == 3


class TestGradient:
    @pytest.fixture
    def seen(self, monkeypatch):
        """Logits of the U-Net, where they lie in the patch and where it was painted, of one training step."""
        codes = CODES.copy()
        codes[:, ::2, ::3] = 0  # unpainted voxels between painted ones
        trainer = make_trainer(IMAGE, codes)
        seen = {}
        decode, classify, loss = trainer.network.unet.decoded, trainer.network.unet.classify.forward, trainer._loss

        def kept_decode(stem, inner):
            seen["inner"] = inner
            return decode(stem, inner)

        def kept_classify(decoded):
            logits = classify(decoded)
            logits.retain_grad()
            seen["logits"] = logits
            return logits

        def kept_loss(patches, rows, targets):
            seen["rows"] = rows
            seen["loss"] = loss(patches, rows, targets)
            return seen["loss"]

        monkeypatch.setattr(trainer.network.unet, "decoded", kept_decode)
        monkeypatch.setattr(trainer.network.unet.classify, "forward", kept_classify)
        monkeypatch.setattr(trainer, "_loss", kept_loss)
        monkeypatch.setattr(trainer._optimiser, "step", lambda value, size: value.backward())
        unet_steps(trainer, 1)
        return seen

    def test_is_exactly_zero_at_voxels_that_are_not_painted(self, seen):
        gradient = seen["logits"].grad.abs().sum(dim=1)  # batch, z, y, x
        painted = torch.zeros(gradient.shape, dtype=torch.bool)
        for number, rows in enumerate(seen["rows"]):
            painted[(number, *torch.from_numpy((rows - seen["inner"].start).T))] = True
        assert painted.any()
        assert not painted.all()
        assert (gradient[~painted] == 0).all()
        assert (gradient[painted] > 0).all()

    def test_equals_that_of_decoding_the_whole_patch(self):
        whole, part = make_trainer(IMAGE, CODES), make_trainer(IMAGE, CODES)
        decoded = whole.network.unet.decoded

        def decode_everything(stem, inner):
            return decoded(stem)[(slice(None), slice(None), *inner.slices)]

        whole.network.unet.decoded = decode_everything
        unet_steps(whole, 3)
        unet_steps(part, 3)
        for of_whole, of_part in zip(whole.network.unet.parameters(), part.network.unet.parameters(), strict=True):
            torch.testing.assert_close(of_part, of_whole, rtol=1e-3, atol=1e-4)

    def test_held_out_paint_is_never_learnt_from(self):
        trainer = make_trainer(make_blobs((14, 60, 60))[0], paint_planes(make_blobs((14, 60, 60))[1], *PLANES))
        (paint,) = trainer._course.paints
        assert paint.held_out.any()
        for _ in range(20):
            _, (location, _) = trainer._course.sampler.draw(2, np.random.default_rng(0))
            _, numbers = trainer._painted(location, trainer._draw_augmentation((0, 1, 2)))
            assert paint.learnt[numbers].all()

    def test_the_painted_voxels_of_a_patch_keep_their_features_when_it_is_turned(self):
        trainer = make_trainer(IMAGE, CODES)
        for _ in range(10):
            axis, (location,) = trainer._course.sampler.draw(1, trainer._rng)
            order = (0, 2, 1) if axis == 0 else (0, 1, 2)
            augmentation = trainer._draw_augmentation(order)
            patch = trainer._patch(location, augmentation)
            positions, numbers = trainer._painted(location, augmentation)
            plain = trainer.network.standardised(trainer._maps[0].at(trainer._course.paints[0].coordinates[numbers]))
            torch.testing.assert_close(patch[tuple(torch.from_numpy(positions.T.copy()))], augmentation.gain * plain)


class TestAveraging:
    def test_without_memory_the_average_is_the_latest(self):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(averaging=0.0))
        unet_steps(trainer, 5)
        assert are_equal(weights_of(trainer.averaged.unet), weights_of(trainer.network.unet))

    def test_the_average_is_the_running_mean_of_the_weights(self):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(averaging=0.9))
        expected = weights_of(trainer.network.unet)
        for step in unet_steps_one_by_one(trainer, 6):
            keep = min(0.9, (1 + step.step) / (10 + step.step))
            latest = weights_of(trainer.network.unet)
            expected = {name: keep * expected[name] + (1 - keep) * latest[name] for name in expected}
            for name, value in weights_of(trainer.averaged.unet).items():
                torch.testing.assert_close(value, expected[name])

    def test_the_caller_s_network_is_the_one_that_predicts(self):
        trainer = make_trainer(IMAGE, CODES)
        before = weights_of(trainer.averaged)
        unet_steps(trainer, 3)
        assert not are_equal(before, weights_of(trainer.averaged))


def unet_steps_one_by_one(trainer, n):
    return islice((s for s in trainer.steps() if s.phase == "unet"), n)


class TestChangingClasses:
    @pytest.fixture
    def trainer(self):
        trainer = make_trainer(IMAGE, np.where(CODES == 2, 7, CODES))
        unet_steps(trainer, 4)
        return trainer

    @pytest.mark.parametrize(("ids", "kept"), [((1, 7, 200), [0, 1]), ((1, 3, 7), [0, 2]), ((1, 3, 7, 9), [0, 2])])
    def test_the_other_logits_stay(self, trainer, ids, kept):
        patch, pixels = (
            torch.rand(1, trainer.averaged.mean.numel(), 8, 8, 8),
            torch.rand(7, trainer.averaged.mean.numel()),
        )
        networks = trainer.averaged, trainer.network
        before = [(network.unet(patch), network.pixel(pixels)) for network in networks]
        trainer.change_classes(ClassTable(ids, 1))
        for network, (unet, pixel) in zip(networks, before, strict=True):
            assert network.n_classes == network.unet(patch).shape[1] == len(ids)
            torch.testing.assert_close(network.unet(patch)[:, kept], unet)
            torch.testing.assert_close(network.pixel(pixels)[:, kept], pixel)

    def test_the_new_class_starts_out_unlikely(self, trainer):
        trainer.change_classes(ClassTable((1, 7, 9), 1))
        features = trainer._maps[0].at(trainer._course.paints[0].coordinates)
        probabilities = trainer.averaged.pixel(trainer.averaged.standardised(features)).softmax(-1)
        assert probabilities[:, 2].mean() < 0.2

    def test_the_optimiser_keeps_what_it_knows(self, trainer):
        before = trainer._optimiser
        trainer.change_classes(ClassTable((1, 7, 9), 1))
        after = trainer._optimiser
        assert after.n_steps == before.n_steps
        for kind in ("means", "squares"):
            for old, new, parameter in zip(getattr(before, kind), getattr(after, kind), after.parameters, strict=True):
                assert new.shape == parameter.shape
                assert torch.equal(new[: len(old)], old)
                assert not new[len(old) :].any()

    def test_a_removed_class_is_gone_and_the_others_stay(self, trainer):
        trainer.change_classes(ClassTable((1, 3, 7), 1))
        patch, pixels = (
            torch.rand(1, trainer.averaged.mean.numel(), 8, 8, 8),
            torch.rand(7, trainer.averaged.mean.numel()),
        )
        unet, pixel = trainer.averaged.unet(patch), trainer.averaged.pixel(pixels)
        trainer.change_classes(ClassTable((3, 7), 3))
        torch.testing.assert_close(trainer.averaged.unet(patch), unet[:, 1:])
        torch.testing.assert_close(trainer.averaged.pixel(pixels), pixel[:, 1:])

    def test_a_burst_fits_the_pixel_head_for_so_many_steps(self, trainer):
        bursts = [s for s in islice(trainer.steps(burst=40), 4) if s.phase == "pixel"]
        assert 1 <= len(bursts) <= 2

    def test_a_burst_without_context_ends_by_itself(self, trainer):
        steps = list(trainer.steps(with_context=False, burst=40))
        assert {step.phase for step in steps} == {"pixel"}

    def test_without_a_burst_the_unet_goes_on_at_once(self, trainer):
        n = trainer.step
        steps = list(islice(trainer.steps(burst=0), 2))
        assert [(step.phase, step.step) for step in steps] == [("unet", n + 1), ("unet", n + 2)]

    def test_a_later_burst_keeps_the_mix_and_the_first_one_chooses_it(self, monkeypatch):
        trainer = make_trainer(IMAGE, CODES)
        checks = []
        choose = Checks.choose_mix

        def noting(self, *args):
            checks.append(trainer.step)
            return choose(self, *args)

        monkeypatch.setattr(Checks, "choose_mix", noting)
        list(trainer.steps(with_context=False, burst=20))
        assert checks == [0]
        unet_steps(trainer, 3)
        checks.clear()
        list(trainer.steps(with_context=False, burst=20))
        assert checks == []

    def test_changing_nothing_changes_nothing(self, trainer):
        optimiser = trainer._optimiser
        trainer.change_classes(ClassTable((1, 7), 1))
        assert trainer._optimiser is optimiser

    def test_the_new_class_is_learnt(self):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(warm_start_steps=200))
        unet_steps(trainer, 3)
        codes, image = CODES.copy(), IMAGE.copy()
        codes[[3, 7, 11], :12] = 5
        image[:, :12] += 5
        trainer.change_classes(ClassTable((1, 2, 5), 1))
        trainer.learn_from([make_features(image)], [make_annotation(codes)])
        unet_steps(trainer, 3)
        features = make_features(image).at(np.argwhere(codes == 5).astype(np.int32))
        found = trainer.averaged.pixel(trainer.averaged.standardised(features)).argmax(-1)
        assert (found == 2).float().mean() > 0.8


class TestHeldOut:
    LARGE = (14, 60, 60)

    def make(self, **changes):
        image, truth = make_blobs(self.LARGE)
        return make_trainer(image, paint_planes(truth, *PLANES), QUICK.with_changes(**changes))

    def test_is_given_back_at_seventy_percent_of_a_known_budget(self):
        trainer = self.make()
        released = [
            (step.step, trainer.is_released)
            for step in islice(trainer.steps(lambda step: step / 20), 40)
            if step.phase == "unet"
        ]
        assert all(is_released == (step > 14) for step, is_released in released)
        (paint,) = trainer._course.paints
        assert paint.learnt.all()

    def test_mix_and_estimate_stay_after_that(self):
        trainer = self.make()
        steps = trainer.steps(lambda step: step / 20)
        next(step for step in steps if trainer.is_released)
        known = trainer.averaged.context, trainer.dice
        next(step for step in steps if step.step == 18)
        trainer.finish()
        assert trainer.averaged.context == known[0]
        assert trainer.dice == known[1] is not None

    def test_is_kept_where_nobody_knows_the_budget(self):
        trainer = self.make()
        unet_steps(trainer, 15)
        assert not trainer.is_released

    def test_rotates_with_each_round(self):
        trainer = self.make()
        first = trainer._course.paints[0].held_out
        trainer.learn_from(trainer._maps, trainer._annotations)
        assert (trainer._course.paints[0].held_out != first).any()

    def test_without_it_the_unet_s_share_grows_with_its_steps(self):
        trainer = self.make(held_out=0.0)
        steps = (step.step for step in islice(trainer.steps(), 60) if step.phase == "unet")
        shares = [trainer.averaged.context for step in steps if step % QUICK.check_every == 0]
        assert trainer.dice is None
        assert shares == sorted(shares)
        assert 0 < shares[-1] < 1

    def test_an_old_score_does_not_decide_about_new_paint_without_held_out(self):
        trainer = self.make()
        unet_steps(trainer, 6)
        assert trainer.score is not None
        few = np.zeros(self.LARGE, np.uint8)
        few[7, 3:6, 3:30], few[7, 10:13, 3:30] = 1, 2
        trainer.learn_from(trainer._maps, [make_annotation(few)])
        unet_steps(trainer, 5)
        other = self.make()
        unet_steps(other, 6)
        other.score = None  # what is left after saving and loading
        other.learn_from(other._maps, [make_annotation(few)])
        unet_steps(other, 5)
        assert trainer.averaged.context == other.averaged.context

    def test_every_class_is_learnt_whatever_is_held_out(self):
        image = make_noise((14, 60, 60))
        codes = np.zeros(image.shape, np.uint8)
        codes[2:12, 5:10, 5:10], codes[2:12, 40:45, 40:45] = 1, 2  # 250 voxels each, through ten slices
        for seed in range(15):
            trainer = make_trainer(image, codes, seed=seed)
            (paint,) = trainer._course.paints
            assert paint.allowed[paint.learnt].any(axis=0).all()


class TestState:
    def test_an_exact_copy_continues_with_the_same_bits(self):
        first = make_trainer(IMAGE, CODES)
        unet_steps(first, 4)
        plain, tensors = first.state()
        second = make_trainer(IMAGE, CODES, seed=99)
        second.averaged.load_state_dict(first.averaged.state_dict())
        second.network.load_state_dict(first.averaged.state_dict())
        second.restore(plain, {name: value.clone() for name, value in tensors.items()})
        for trainer in (first, second):
            trainer.learn_from(trainer._maps, trainer._annotations)
        assert [s.loss for s in unet_steps(first, 5)] == [s.loss for s in unet_steps(second, 5)]
        assert are_equal(weights_of(first.averaged), weights_of(second.averaged))
        assert are_equal(weights_of(first.network), weights_of(second.network))


class TestPixelHead:
    def fit(self, features, allowed, weights, n_steps=60, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = PixelHead(features.shape[1], allowed.shape[1], 16)
        rng = np.random.default_rng(0)
        options = {"n_steps": n_steps, "dropout": 0.1, "noise": 0.0, "rng": rng} | options
        return head, list(
            fit_pixel_head(head, features, Targets(allowed, weights), criterion_of(PaintConfig()), **options)
        )

    def test_learns_what_single_voxels_tell(self):
        features = torch.from_numpy(make_noise((500, 2)))
        answers = (features[:, 0] > 0).long()
        head, losses = self.fit(features, torch.nn.functional.one_hot(answers, 2).bool(), torch.ones(500))
        assert losses[-1] < 0.5 * losses[0]
        assert (head(features).argmax(-1) == answers).float().mean() > 0.9

    def test_voxels_of_weight_zero_are_not_learnt(self):
        features = torch.from_numpy(make_noise((500, 2)))
        answers = (features[:, 0] > 0).long()
        lies = answers.clone()
        lies[250:] = 1 - lies[250:]
        weights = torch.ones(500)
        weights[250:] = 0
        head, _ = self.fit(features, torch.nn.functional.one_hot(lies, 2).bool(), weights)
        assert (head(features).argmax(-1) == answers).float().mean() > 0.9

    def test_its_loss_is_that_of_partial_labels(self):
        features = torch.from_numpy(make_noise((100, 2)))
        allowed = torch.ones(100, 2, dtype=torch.bool)
        allowed[:50, 0] = False
        head, _ = self.fit(features, allowed, torch.ones(100))
        assert partial_label_loss(head(features), allowed, torch.ones(100)).item() < 0.1

    def test_single_voxels_can_be_learnt(self):
        _, losses = self.fit(torch.eye(2), torch.eye(2).bool(), torch.ones(2))
        assert np.isfinite(losses).all()

    def test_noise_on_the_features_does_not_hide_what_they_tell(self):
        features = torch.from_numpy(make_noise((500, 2)))
        answers = (features[:, 0] > 0).long()
        head, _ = self.fit(features, torch.nn.functional.one_hot(answers, 2).bool(), torch.ones(500), noise=0.5)
        assert (head(features).argmax(-1) == answers).float().mean() > 0.85

    def test_in_a_hurry_it_ends_before_all_steps_are_done(self):
        features = torch.from_numpy(make_noise((50, 2)))
        shares = iter([0.0, 0.1, 0.5, 1.2])
        _, losses = self.fit(
            features, torch.ones(50, 2).bool() & (features > 0), torch.ones(50), 10**9, hurry=lambda: next(shares)
        )
        assert len(losses) == 1

    def test_from_few_strokes_it_learns_for_a_shorter_time(self):
        config = QUICK.with_changes(warm_start_steps=120)
        strokes = np.where(np.arange(CODES.size).reshape(CODES.shape) % 37 == 0, CODES, 0)
        few, many = (len(pixel_steps(make_trainer(IMAGE, codes, config))) for codes in (strokes, CODES))
        assert few < many / 2

    def test_a_rare_class_takes_longer(self):
        config = QUICK.with_changes(warm_start_steps=120)
        rare = np.where((CODES == 2) & (np.arange(CODES.size).reshape(CODES.shape) % 30 > 0), 1, CODES)
        long, usual = (len(pixel_steps(make_trainer(IMAGE, codes, config))) for codes in (rare, CODES))
        assert usual * 1.5 < long <= usual * 2.5 + 1

    def test_steps_are_told_while_it_is_fitted(self):
        steps = pixel_steps(make_trainer(IMAGE, CODES, QUICK.with_changes(warm_start_steps=100)))
        assert len(steps) > 2
        assert all(np.isfinite(step.loss) for step in steps)


class TestVolumes:
    def test_several_volumes_are_learnt_together(self):
        trainer = make_trainer(IMAGE, CODES)
        second = make_blobs((5, 40, 12), seed=5)
        codes = paint_planes(second[1], (0, 2))
        trainer.learn_from(
            [make_features(IMAGE), make_features(second[0])], [make_annotation(CODES), make_annotation(codes)]
        )
        assert len(unet_steps(trainer, 8)) == 8

    def test_a_volume_without_paint_does_no_harm(self):
        trainer = make_trainer(IMAGE, CODES)
        nothing = make_annotation(np.zeros((5, 6, 7), np.uint8))
        trainer.learn_from(
            [make_features(np.zeros((5, 6, 7))), make_features(IMAGE)], [nothing, make_annotation(CODES)]
        )
        assert len(unet_steps(trainer, 4)) == 4

    def test_sets_of_classes_are_learnt(self):
        codes = CODES.copy()
        codes[3][codes[3] == 2] = 3
        codes[7][codes[7] > 0] = 130
        trainer = make_trainer(IMAGE, codes, allowed={130: {1, 2}})
        steps = unet_steps(trainer, 5)
        assert all(np.isfinite(step.loss) for step in steps)
        assert trainer.classes.ids == (1, 2, 3)

    @pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
    def test_rare_classes_can_be_lifted(self, balance):
        trainer = make_trainer(IMAGE, CODES, QUICK.with_changes(class_balance=balance))
        assert len(unet_steps(trainer, 2)) == 2


class TestMeaningOfPaint:
    def test_smoothing_makes_both_heads_less_certain(self):
        def certainty(**paint):
            trainer = make_trainer(IMAGE, CODES, QUICK, paint=PaintConfig(**paint))
            unet_steps(trainer, 30)
            features = trainer._maps[0].read(whole(SHAPE))
            with torch.no_grad():
                return [
                    trainer.averaged(features).max(-1)[0].mean(),
                    trainer.averaged.at_a_glance(features).max(-1)[0].mean(),
                ]

        plain, smooth = certainty(), certainty(label_smoothing=0.3)
        assert smooth[0] < plain[0]
        assert smooth[1] < plain[1]
