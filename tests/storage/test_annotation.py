"""Annotation arrays read as lists of painted voxels, and what is refused."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage import annotation as module
from napari_sparseseg.storage.annotation import check_classes, drop_uninformative, read_annotation
from napari_sparseseg.storage.volume import ArrayVolume

SHAPE = (4, 5, 6)


def volume_of(shape, channel_axis=None):
    return ArrayVolume(np.zeros(shape, np.uint8), channel_axis)


def paint(shape=SHAPE, dtype=np.uint8, **at):
    """An array that is 0 but for `z_y_x=value`."""
    array = np.zeros(shape, dtype)
    for position, value in at.items():
        array[tuple(int(i) for i in position.strip("_").split("_"))] = value
    return array


def read(array, **options):
    return read_annotation(array, volume_of(array.shape), **options)


class TestReading:
    def test_gives_the_painted_voxels_only(self):
        found = read(paint(_0_1_2=3, _3_4_5=1, _0_1_1=254))
        assert found.shape == SHAPE
        assert found.coordinates.tolist() == [[0, 1, 1], [0, 1, 2], [3, 4, 5]]
        assert found.codes.tolist() == [254, 3, 1]
        assert found.weights.tolist() == [1, 1, 1]
        assert found.allowed == {}
        assert [part.dtype for part in (found.coordinates, found.codes, found.weights)] == [
            np.int32,
            np.uint8,
            np.float32,
        ]

    @given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(0, 100)))
    def test_gives_each_painted_voxel_once_in_order(self, array):
        found = read(array)
        volume = array if array.ndim == 3 else array[np.newaxis]
        np.testing.assert_array_equal(found.coordinates, np.argwhere(volume))
        np.testing.assert_array_equal(found.codes, volume[volume != 0])

    @pytest.mark.parametrize("dtype", ["bool", "i1", ">i2", "<u4", ">u8", "i8", "f2", ">f4", "f8", "longdouble"])
    def test_takes_whole_numbers_of_any_dtype(self, dtype):
        found = read(paint(_0_1_2=1, _3_4_5=1).astype(dtype))
        assert found.codes.tolist() == [1, 1]

    def test_takes_2d_images(self):
        found = read(paint((5, 6), _1_2=7))
        assert (found.shape, found.coordinates.tolist()) == ((1, 5, 6), [[0, 1, 2]])

    def test_leaves_out_the_channel_axis_of_the_image(self):
        assert len(read_annotation(paint(_1_1_1=1), volume_of((4, 3, 5, 6), 1))) == 1

    def test_may_find_nothing_painted(self):
        found = read(paint())
        assert (len(found), found.coordinates.shape, found.classes()) == (0, (0, 3), ())


class TestLazyAnnotations:
    @pytest.fixture(autouse=True)
    def small_slabs(self, monkeypatch):
        monkeypatch.setattr(module, "_SLAB_VOXELS", 60)

    def test_are_read_slab_by_slab(self):
        class Recorder:
            shape, dtype = SHAPE, np.dtype(np.uint8)
            depths = ()

            def __getitem__(self, index):
                self.depths += ((index[0].start, index[0].stop),)
                return paint(_0_0_1=1, _3_0_0=2)[index]

        recorder = Recorder()
        found = read(recorder)
        assert recorder.depths == ((0, 2), (2, 4))
        assert found.coordinates.tolist() == [[0, 0, 1], [3, 0, 0]]

    @pytest.mark.parametrize("depth", [1, 3, 4])
    def test_may_be_zarr_or_dask(self, depth):
        array = paint(_0_0_1=1, _1_0_2=3, _3_0_0=2)
        stored = zarr.create_array(store={}, data=array, chunks=(depth, 5, 2))
        for lazy in (stored, da.from_array(array, chunks=(depth, 5, 2))):
            found = read(lazy, weight=da.from_array(np.full(SHAPE, 2.0), chunks=depth))
            np.testing.assert_array_equal(found.coordinates, np.argwhere(array))
            assert found.codes.tolist() == [1, 3, 2]
            assert found.weights.tolist() == [2, 2, 2]

    def test_whole_chunks_are_read_at_once(self):
        slabs = [(slab.start[0], slab.stop[0]) for slab in module._slabs((10, 5, 6), 3)]
        assert slabs == [(0, 3), (3, 6), (6, 9), (9, 10)]

    def test_but_not_if_they_are_too_large(self, monkeypatch):
        monkeypatch.setattr(module, "_CHUNK_SLAB_VOXELS", 89)
        assert next(module._slabs((10, 5, 6), 3)).shape == (2, 5, 6)


class TestWrongCodes:
    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (paint(dtype="i2", _1_2_3=-1), ["annotation holds -1 at index (1, 2, 3)", "cannot be negative"]),
            (paint(dtype="i4", _0_0_0=-1), ["-1 stands for unpainted", "add 1 to all values", "class 0"]),
            (paint((5, 6), "i2", _2_3=-7), ["annotation holds -7 at index (2, 3)"]),
            (paint(_1_2_3=255), ["annotation holds 255 at index (1, 2, 3)", "255 is reserved"]),
            (paint(dtype="u8", _1_2_3=2**64 - 1), ["18446744073709551615", "largest usable label is 254"]),
            (paint(dtype="i4", _0_0_0=300, _1_0_0=400), ["300", "skimage.segmentation.relabel_sequential"]),
            (paint(dtype="f4", _1_2_3=1.5), ["annotation holds 1.5 at index (1, 2, 3)", "numpy.rint"]),
            (paint(dtype="f8", _1_2_3=1e30), ["1e+30", "254"]),
            (paint(dtype="f8", _1_2_3=np.nan), ["nan at index (1, 2, 3)", "numpy.nan_to_num"]),
            (paint(dtype="f8", _1_2_3=np.inf), ["inf at index (1, 2, 3)"]),
        ],
    )
    def test_are_named_with_their_place_and_the_remedy(self, array, said):
        with pytest.raises(InputError) as caught:
            read(array)
        for words in said:
            assert words in str(caught.value)

    def test_place_counts_from_the_volume_not_the_slab(self, monkeypatch):
        monkeypatch.setattr(module, "_SLAB_VOXELS", 1)
        with pytest.raises(InputError, match=r"holds 255 at index \(3, 2, 1\)"):
            read(paint(_3_2_1=255))

    def test_too_many_classes(self):
        array = np.arange(129).reshape(3, 1, 43)
        with pytest.raises(InputError, match=r"128 classes are painted, but at most 127 .* or is this the image\?"):
            read(array)

    @pytest.mark.parametrize("array", [None, [[1, 2]], "paint.tif", np.zeros(SHAPE, complex), np.ma.zeros(SHAPE)])
    def test_no_array_of_real_numbers(self, array):
        with pytest.raises(InputTypeError, match=r"annotation (is|has)"):
            read_annotation(array, volume_of(SHAPE))

    def test_uses_the_name_that_was_given(self):
        with pytest.raises(InputError, match="annotation 2 holds 255"):
            read(paint(_0_0_0=255), name="annotation 2")


class TestWrongShapes:
    @pytest.mark.parametrize(
        ("image", "channel_axis", "shape", "said"),
        [
            ((3, 5, 6), None, (5, 6), "axis 0 of the image (size 3) looks like a channel axis: pass channel_axis=0"),
            ((5, 6, 3), None, (5, 6), "looks like a channel axis: pass channel_axis=2"),
            ((64, 64, 3), 0, (64, 64), "looks like a channel axis: pass channel_axis=2"),
            (
                (20, 5, 6),
                None,
                (5, 6),
                "if axis 0 of the image (size 20) is a channel axis, pass channel_axis=0; if not",
            ),
            ((20, 5, 6), None, (5, 6), "the annotation needs all 20 slices, 0 where nothing is painted"),
            ((4, 5, 6), None, (4, 5, 6, 3), "axis 3 of the annotation looks like a channel axis"),
            ((4, 5, 6), None, (4, 5, 6, 3), "pass annotation[:, :, :, 0]"),
            ((5, 6), None, (1, 5, 6), "pass annotation[0]"),
            ((2, 4, 5, 6), 0, (2, 4, 5, 6), "axis 0 of the annotation looks like a channel axis"),
            ((4, 5, 6), None, (6, 5, 4), "pass numpy.transpose(annotation, (2, 1, 0))"),
            ((4, 5, 6), None, (5, 6, 4), "pass numpy.transpose(annotation, (2, 0, 1))"),
            ((4, 5, 6), None, (4, 5, 7), "crop, resize or pad it"),
            ((4, 5, 6), None, (4, 5, 7), "annotation has shape (4, 5, 7), but the image has shape (4, 5, 6);"),
            ((2, 4, 5, 6), 0, (4, 5, 7), "but the image has shape (4, 5, 6) besides its channel axis 0;"),
            ((4, 5, 6), None, (4, 0, 6), "annotation is empty"),
        ],
    )
    def test_name_both_shapes_and_the_remedy(self, image, channel_axis, shape, said):
        with pytest.raises(InputError) as caught:
            read_annotation(np.zeros(shape, np.uint8), volume_of(image, channel_axis))
        assert said in str(caught.value)

    def test_transpose_that_is_proposed_fits(self):
        assert np.transpose(np.zeros((5, 6, 4)), (2, 0, 1)).shape == (4, 5, 6)


class TestWeights:
    def test_may_be_one_number(self):
        assert read(paint(_0_0_0=1, _1_1_1=2), weight=np.float32(2.5)).weights.tolist() == [2.5, 2.5]

    def test_may_differ_and_zero_drops_the_voxel(self):
        weight = np.arange(120.0).reshape(SHAPE)
        found = read(paint(_0_0_0=1, _0_0_2=2, _3_4_5=3), weight=weight)
        assert (found.codes.tolist(), found.weights.tolist()) == ([2, 3], [2, 119])

    def test_that_are_zero_in_float32_drop_the_voxel(self):
        found = read(paint(_0_0_0=1, _1_1_1=2), weight=paint(dtype="f8", _0_0_0=1e-60, _1_1_1=1))
        assert found.codes.tolist() == [2]

    def test_may_be_a_mask(self):
        assert read(paint(_0_0_0=1, _1_1_1=2), weight=paint(dtype=bool, _1_1_1=True)).codes.tolist() == [2]

    @pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf"), 1e39, 1e-60])
    def test_that_are_unusable_numbers(self, weight):
        with pytest.raises(InputError, match=r"weight is .*, but must be positive and finite"):
            read(paint(_0_0_0=1), weight=weight)

    @pytest.mark.parametrize(
        ("value", "said"),
        [(-0.5, r"weight holds -0.5 at index \(1, 2, 3\)"), (1e39, "at most 3.4e"), (np.nan, "weight has 1 voxel")],
    )
    def test_that_hold_unusable_values(self, value, said):
        with pytest.raises(InputError, match=said):
            read(paint(_0_0_0=1), weight=paint(dtype="f8", _1_2_3=value))

    @pytest.mark.parametrize("weight", [True, "heavy", [1.0], np.zeros(SHAPE, complex)])
    def test_of_the_wrong_kind(self, weight):
        with pytest.raises(InputTypeError, match=r"weight (is|has)"):
            read(paint(_0_0_0=1), weight=weight)

    def test_of_another_shape(self):
        with pytest.raises(InputError, match=r"weight has shape \(5, 6\), but the image has shape \(4, 5, 6\)"):
            read(paint(_0_0_0=1), weight=np.ones((5, 6)))


class TestSets:
    def test_are_kept_as_frozen_sets(self):
        found = read(paint(_0_0_0=1, _1_1_1=130), allowed={np.uint8(130): [1, np.int64(3)], 131: np.array([2])})
        assert found.allowed == {130: frozenset({1, 3}), 131: frozenset({2})}
        assert found.classes() == (1, 3)

    @pytest.mark.parametrize(
        ("allowed", "said"),
        [
            ({130: set()}, r"allowed\[130\] is empty, .*name at least one class"),
            ({130: {1, 0}}, r"0, a class of allowed\[130\], is out of range; use 1 to 254"),
            ({130: {1, 255}}, r"255, a class of allowed\[130\]"),
            ({0: {1, 2}}, "0, a key of allowed, is out of range; use 1 to 254"),
            ({255: {1, 2}}, "255, a key of allowed"),
            ({130: {1, 131}, 131: {1, 2}}, r"allowed\[130\] names 131, which is itself a key of allowed"),
            ({130: {1, 130}}, r"allowed\[130\] names 130"),
        ],
    )
    def test_that_are_unusable(self, allowed, said):
        with pytest.raises(InputError, match=said):
            read(paint(_0_0_0=1), allowed=allowed)

    @pytest.mark.parametrize(
        ("allowed", "said"),
        [
            ([(130, {1})], "allowed is of type list, but must map codes"),
            ({130: 3}, r"allowed\[130\] is 3 \(int\), but must be a set of classes, e.g. \{1, 3\}"),
            ({130: "13"}, r"allowed\[130\] is '13'"),
            ({"a": {1}}, "a key of allowed must be an integer, not 'a'"),
            ({130: {1.5}}, r"a class of allowed\[130\] must be an integer, not 1.5"),
            ({130: {True}}, "must be an integer, not True"),
        ],
    )
    def test_of_the_wrong_kind(self, allowed, said):
        with pytest.raises(InputTypeError, match=said):
            read(paint(_0_0_0=1), allowed=allowed)


class TestDropUninformative:
    def test_leaves_out_sets_of_every_class(self):
        found = read(paint(_0_0_0=1, _0_0_1=130, _0_0_2=131, _0_0_3=3), allowed={130: {1, 3}, 131: {1}}, weight=2)
        kept = drop_uninformative(found, (1, 3))
        assert kept.codes.tolist() == [1, 131, 3]
        assert kept.coordinates.tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 3]]
        assert kept.weights.tolist() == [2, 2, 2]

    def test_keeps_them_where_another_volume_has_more_classes(self):
        found = read(paint(_0_0_0=1, _0_0_1=130, _0_0_3=3), allowed={130: {1, 3}})
        assert drop_uninformative(found, (1, 2, 3)) is found


class TestCheckClasses:
    def test_collects_those_of_all_volumes(self):
        first = read(paint(_0_0_0=9, _1_1_1=130), allowed={130: {1, 3}})
        assert check_classes([first, read(paint()), read(paint(_0_0_0=2))]) == (1, 2, 3, 9)

    @pytest.mark.parametrize("annotations", [[], [read(paint())], [read(paint(_0_0_0=1), weight=paint())]])
    def test_nothing_painted(self, annotations):
        with pytest.raises(InputError, match=r"nothing is painted: .* paint at least two classes"):
            check_classes(annotations)

    @pytest.mark.parametrize(("only", "other"), [(7, 1), (1, 2)])
    def test_one_class(self, only, other):
        annotations = [read(paint(_0_0_0=only)), read(paint())]
        with pytest.raises(
            InputError, match=f"only class {only} is painted.* paint at least one more, .* class {other}"
        ):
            check_classes(annotations)

    def test_too_many_over_several_volumes(self):
        halves = [read(np.arange(start, start + 64).reshape(1, 8, 8)) for start in (1, 65)]
        with pytest.raises(InputError, match="128 classes are painted"):
            check_classes(halves)

    def test_nothing_but_sets_of_every_class(self):
        with pytest.raises(InputError, match=r"each painted voxel allows every class \(1, 3\)"):
            check_classes([read(paint(_0_0_0=130), allowed={130: {1, 3}})])


class TestObjects:
    def test_ids_belong_to_the_painted_voxels(self):
        found = read(paint(_0_1_2=3, _3_4_5=1, _2_0_0=1), objects=paint(dtype=np.int64, _0_1_2=7, _3_4_5=9))
        assert found.objects.tolist() == [7, 0, 9]
        assert found.objects.dtype == np.int32

    def test_where_there_are_none_there_is_no_array(self):
        assert read(paint(_0_1_2=3)).objects is None
        assert read(paint(_0_1_2=3), objects=paint()).objects is None

    @given(
        st.sampled_from(["uint8", "int16", "uint32", "int64", "uint64", "float64", "bool"]),
        st.dictionaries(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), st.integers(0, 2**64 - 1), max_size=8),
    )
    def test_ids_of_any_integers_stay_apart(self, dtype, ids):
        largest = {"f": 2**53, "b": 1}.get(np.dtype(dtype).kind) or np.iinfo(dtype).max
        objects, codes = np.zeros(SHAPE, dtype), np.ones(SHAPE, np.uint8)
        for place, value in ids.items():
            objects[place] = min(value, largest)
        found = read(codes, objects=objects).objects
        wanted = objects.ravel()
        if not wanted.any():
            assert found is None
            return
        assert ((found == 0) == (wanted == 0)).all()
        assert (found >= 0).all()
        assert (
            len({*zip(found.tolist(), wanted.tolist(), strict=True)}) == len(np.unique(found)) == len(np.unique(wanted))
        )
        if wanted.max() < 2**31:
            np.testing.assert_array_equal(found, wanted.astype(np.int64))

    @pytest.mark.parametrize(
        ("dtype", "at", "text"),
        [
            (np.int32, {"_0_1_2": -4}, r"holds -4 at index \(0, 1, 2\).*cannot be negative"),
            (np.float32, {"_0_1_2": 1.5}, r"holds 1\.5 at index \(0, 1, 2\).*whole numbers"),
            (np.uint16, {"_2_0_0": 3}, r"holds 3 at index \(2, 0, 0\).*need a class as well"),
        ],
    )
    def test_ids_that_cannot_be_used_are_named(self, dtype, at, text):
        with pytest.raises(InputError, match="objects " + text):
            read(paint(_0_1_2=3), objects=paint(dtype=dtype, **at))

    def test_another_shape_is_refused(self):
        with pytest.raises(InputError, match="objects has shape"):
            read(paint(_0_1_2=3), objects=np.zeros((4, 5, 7), int))

    def test_they_go_with_voxels_that_do_not_count(self):
        weight = np.ones(SHAPE)
        weight[0, 1, 2] = 0
        ids = paint(dtype=int, _0_1_2=7, _3_4_5=9)
        assert read(paint(_0_1_2=3, _3_4_5=1), weight=weight, objects=ids).objects.tolist() == [9]
        annotation = read(paint(_0_1_2=3, _3_4_5=1), allowed={3: {1, 2}}, objects=ids)
        assert drop_uninformative(annotation, (1, 2)).objects.tolist() == [9]
