"""Objects found by SparseSegmenter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zarr

from napari_sparseseg import ModelConfig, ObjectConfig, PredictionConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg._types import Box
from napari_sparseseg.engine.objects.finding import ObjectFinder, taught_rows
from napari_sparseseg.engine.objects.grouping import group_objects
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.errors import InputError, InputTypeError, NotFittedError

MODEL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
TRAINING = TrainingConfig(warm_start_steps=20, patch_voxels=2048, check_every=5)
OBJECTS = ObjectConfig(reach=4.0, smallest=5)
SHAPE = (12, 40, 44)
NUMBER = 1 + (np.indices(SHAPE)[1] // 10) * 5 + np.indices(SHAPE)[2] // 10
IS_CELL = (np.indices(SHAPE)[1] % 10 > 1) & (np.indices(SHAPE)[2] % 10 > 1) & (np.indices(SHAPE)[2] < 40)
IMAGE = (4.0 * IS_CELL + np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)
CODES = np.zeros(SHAPE, np.uint8)
CODES[[2, 6, 9]] = (1 + IS_CELL)[[2, 6, 9]]
IDS = np.where(CODES == 2, NUMBER, 0)
TILES = PredictionConfig(tile_voxels=4096)


def fitted(image=IMAGE, codes=CODES, ids=IDS, **options):
    options = {"random_state": 0, "model": MODEL, "training": TRAINING, "objects": OBJECTS, **options}
    return SparseSegmenter(**options).fit(image, codes, objects=ids, max_steps=8)


@pytest.fixture(scope="module")
def of_objects():
    """A model that has learnt from ids; tests must not change it."""
    return fitted()


@pytest.fixture(scope="module")
def of_classes():
    return fitted(ids=None)


def parts_of(segmenter, tiles):
    """Model, features of the image, and a predictor with such tiles."""
    prediction = segmenter._prediction(IMAGE)
    model, features = prediction.fitted, prediction.features()
    return model, features, Predictor(model.network, features, tile_voxels=tiles.tile_voxels)


def found_by(finder):
    ids = np.zeros(SHAPE, np.uint32)
    shares = list(finder.find(ids))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    return ids


def predicted(predictor, rows):
    """Probabilities and affinities of the whole volume."""
    n_classes, arrays = 2, None
    for tile in predictor.predict(extras=("affinities",)):
        if arrays is None:
            arrays = np.zeros((n_classes, *SHAPE), np.float32), np.zeros((len(rows), *SHAPE), np.float32)
        arrays[0][(slice(None), *tile.box.slices)] = tile.probabilities
        if rows:
            arrays[1][(slice(None), *tile.box.slices)] = tile.affinities[rows]
    return arrays


class TestAnswers:
    def test_ids_are_consecutive_and_lie_where_the_class_is(self, of_objects):
        found = of_objects.predict_objects(IMAGE)
        assert (found.shape, found.dtype) == (SHAPE, np.uint32)
        np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
        assert not (found > 0)[of_objects.predict(IMAGE) == 1].any()

    def test_they_are_written_to_an_array_on_disk(self, of_objects, tmp_path):
        ids = zarr.create_array(tmp_path / "ids", shape=SHAPE, chunks=(4, 8, 8), dtype="uint32", fill_value=0)
        of_objects.predict_objects_to(IMAGE, ids)
        np.testing.assert_array_equal(ids[:], of_objects.predict_objects(IMAGE))
        for wrong in (np.zeros(SHAPE, np.int32), np.zeros(SHAPE[1:], np.uint32), None):
            with pytest.raises(InputError, match="dtype uint32 are needed"):
                of_objects.predict_objects_to(IMAGE, wrong)

    def test_clear_objects_are_found_from_classes_alone(self, of_classes):
        found = of_classes.predict_objects(IMAGE)
        inside = [np.bincount(found[(n == NUMBER) & IS_CELL]).argmax() for n in np.unique(NUMBER[IS_CELL])]
        assert min(inside) > 0
        assert len(set(inside)) == len(inside)

    @pytest.mark.parametrize("tiles", [TILES, PredictionConfig()], ids=["many tiles", "one tile"])
    @pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
    def test_tiles_and_memory_change_nothing(self, of_objects, tiles, cache_bytes):
        model, features, predictor = parts_of(of_objects, tiles)
        rows = taught_rows(model.network)
        probabilities, affinities = predicted(predictor, rows)
        offsets = [model.network.affinity.offsets[row] for row in rows]
        wanted = group_objects(probabilities, affinities, offsets, object_channels=(1,), config=OBJECTS)
        finder = ObjectFinder(model, features, OBJECTS, tile_voxels=tiles.tile_voxels, cache_bytes=cache_bytes)
        np.testing.assert_array_equal(found_by(finder), wanted)

    @pytest.mark.parametrize("uses_pairs", [True, False])
    def test_in_a_region_it_is_as_if_there_was_nothing_beyond_and_what_is_known_counts(self, of_objects, uses_pairs):
        region = Box((2, 5, 3), tuple(n - 3 for n in SHAPE))
        inside = (slice(None), *region.slices)
        model, features, predictor = parts_of(of_objects, TILES)
        rows = taught_rows(model.network) if uses_pairs else []
        probabilities, affinities = (array[inside].copy() for array in predicted(predictor, rows))
        probabilities[:, :, 4:9] = np.array([1, 0])[:, None, None, None]
        offsets = [model.network.affinity.offsets[row] for row in rows]
        wanted = group_objects(
            probabilities, affinities if rows else None, offsets, object_channels=(1,), config=OBJECTS
        )

        def amend(box, values):
            known = torch.zeros(SHAPE, dtype=torch.bool)
            known[:, 9:14] = True
            values[:, known[box.slices]] = torch.tensor([[1.0], [0.0]])

        finder = ObjectFinder(
            model, features, OBJECTS, tile_voxels=TILES.tile_voxels, region=region, amend=amend, uses_pairs=uses_pairs
        )
        found = np.zeros(region.shape, np.uint32)
        assert list(finder.find(found))[-1] == 1
        np.testing.assert_array_equal(found, wanted)

    def test_no_tile_is_predicted_twice(self, of_objects, monkeypatch):
        model, features, predictor = parts_of(of_objects, TILES)
        boxes = []
        tile_of = Predictor.tile_with
        monkeypatch.setattr(
            Predictor, "tile_with", lambda self, extras, box: boxes.append(box) or tile_of(self, extras, box)
        )
        found_by(ObjectFinder(model, features, OBJECTS, tile_voxels=TILES.tile_voxels))
        assert len(boxes) == len(set(boxes)) == predictor.n_tiles > 1
        assert sum(box.n_voxels for box in boxes) == Box.whole(SHAPE).n_voxels

    def test_memory_that_runs_out_makes_tiles_smaller(self, of_objects, monkeypatch):
        model, features, _ = parts_of(of_objects, TILES)
        tile_of = Predictor.tile_with

        def tight(self, extras, box):
            if box.n_voxels > 3000:
                raise MemoryError
            return tile_of(self, extras, box)

        monkeypatch.setattr(Predictor, "tile_with", tight)
        finder = ObjectFinder(model, features, OBJECTS, tile_voxels=1 << 21)
        found = found_by(finder)
        assert 0 < found.max() < found.size

    def test_a_plane_of_a_volume_and_single_planes(self, of_objects):
        plane = of_objects.predict_objects(IMAGE[6:7])
        assert plane.shape == (1, *SHAPE[1:])
        flat = fitted(IMAGE[6], CODES[6], IDS[6])
        found = flat.predict_objects(IMAGE[6])
        assert found.shape == SHAPE[1:]
        assert (found > 0).mean() > 0.2


class TestSettings:
    def test_affinities_that_paint_has_not_taught_count_for_nothing(self, of_classes):
        segmenter = fitted()
        head = segmenter._fitted.network.affinity
        head.taught = (0,) * len(head.taught)
        segmenter.set_params(objects__method="auto")
        untaught = segmenter.predict_objects(IMAGE)
        segmenter.set_params(objects__method="distance")
        np.testing.assert_array_equal(segmenter.predict_objects(IMAGE), untaught)

    def test_affinities_that_were_not_learnt_cannot_be_asked_for(self, of_classes):
        of_classes.set_params(objects__method="affinities")
        with pytest.raises(InputError, match="has learnt none"):
            of_classes.predict_objects(IMAGE)
        of_classes.set_params(objects=OBJECTS)

    def test_what_is_smaller_than_asked_for_is_left_out(self, of_classes):
        of_classes.set_params(objects__smallest=10**6)
        assert not of_classes.predict_objects(IMAGE).any()
        of_classes.set_params(objects=OBJECTS)

    def test_without_a_setting_objects_are_as_large_as_painted_ones(self):
        segmenter = fitted(objects=OBJECTS.with_changes(smallest=0))
        head, n_painted = segmenter._fitted.network.affinity, len(np.unique(IDS)) - 1
        assert segmenter.predict_objects(IMAGE).max() == n_painted
        assert head.smallest == pytest.approx(64**1.5 * 0.75, rel=0.05)  # sections of 8 x 8 pixels
        head.smallest = 10**6
        assert not segmenter.predict_objects(IMAGE).any()

    def test_settings_and_answers_are_saved_with_the_model(self, of_objects, tmp_path):
        of_objects.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model", device="cpu")
        assert loaded.objects == OBJECTS
        np.testing.assert_array_equal(loaded.predict_objects(IMAGE), of_objects.predict_objects(IMAGE))

    def test_models_that_were_saved_without_these_settings_take_the_defaults(self, of_objects, tmp_path, monkeypatch):
        settings = of_objects._settings()
        del settings["objects"]
        monkeypatch.setattr(SparseSegmenter, "_settings", lambda _: settings)
        of_objects.save(tmp_path / "model")
        assert SparseSegmenter.load(tmp_path / "model", device="cpu").objects == ObjectConfig()

    def test_settings_of_another_kind_are_refused(self):
        with pytest.raises(InputTypeError, match="objects must be a ObjectConfig or None, not PredictionConfig"):
            SparseSegmenter(objects=PredictionConfig()).get_params()

    def test_nothing_is_found_before_anything_is_learnt(self):
        with pytest.raises(NotFittedError, match="call fit"):
            SparseSegmenter().predict_objects(IMAGE)
