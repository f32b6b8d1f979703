"""TIFF as microscopes write it."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
import tifffile
from image_files import make_image, write_imagej_tiff, write_ome_tiff

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.formats import tiff as module


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.tif"


class TestPlain:
    def test_says_nothing_about_voxels(self, path):
        image = make_image()
        tifffile.imwrite(path, image, photometric="minisblack", metadata=None)
        found = open_image(path)
        assert (found.format, found.axes, found.channel_names) == ("TIFF", "ZYX", ())
        assert (found.spacing, found.known_spacing, found.unit) == (None, {}, None)
        np.testing.assert_array_equal(found.array[...], image, strict=True)

    def test_dots_per_inch_are_no_voxel_size(self, path):
        tifffile.imwrite(path, make_image((24, 18)), resolution=(72, 72), resolutionunit="inch")
        assert open_image(path).spacing is None
        tifffile.imwrite(path, make_image(), imagej=True, resolution=(72, 72), metadata={"axes": "ZYX", "unit": "inch"})
        assert open_image(path).spacing is None

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_colours_are_channels(self, path, planar):
        image = make_image((24, 18, 3) if planar == "contig" else (3, 24, 18), np.uint8)
        tifffile.imwrite(path, image, photometric="rgb", planarconfig=planar)
        found = open_image(path)
        assert found.axes == ("YXC" if planar == "contig" else "CYX")
        np.testing.assert_array_equal(found.array[...], image)

    def test_stacks_in_colour_have_depth_and_channels(self, path):
        tifffile.imwrite(path, make_image((5, 24, 18, 3), np.uint8), photometric="rgb")
        assert open_image(path).axes == "ZYXC"

    def test_colours_besides_channels_are_refused(self, path):
        tifffile.imwrite(path, make_image((2, 24, 18, 3), np.uint8), imagej=True, metadata={"axes": "CYXS"})
        with pytest.raises(InputError, match=r"image.tif has colours and channels besides"):
            open_image(path)

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_byte_order_and_packing_play_no_part(self, path, byteorder, compression):
        image = make_image()
        tifffile.imwrite(path, image, byteorder=byteorder, compression=compression)
        np.testing.assert_array_equal(open_image(path).array[1:4, 3:9, 2:], image[1:4, 3:9, 2:])

    def test_several_images_are_chosen_by_series(self, path):
        with tifffile.TiffWriter(path) as writer:
            writer.write(make_image((24, 18)), metadata=None)
            writer.write(make_image((5, 6, 7)), photometric="minisblack", metadata=None)
        assert open_image(path, series=1).array.shape == (5, 6, 7)
        assert open_image(path).n_series == 2
        with pytest.raises(InputError, match=r"image.tif has 2 image\(s\), so there is no series 2"):
            open_image(path, series=2)

    def test_unknown_codecs_are_named(self, path, monkeypatch):
        tifffile.imwrite(path, make_image(), compression="zlib")
        monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", _NoCodecs())
        with pytest.raises(InputError, match=r'needs the library imagecodecs .*pip install "napari-sparseseg\[tiff\]"'):
            open_image(path)


class _NoCodecs:
    def __getitem__(self, key):
        raise KeyError(f"{key} requires the 'imagecodecs' package")

    def __contains__(self, key):
        return False


class TestAlpha:
    """The alpha channel of a picture, which says of each voxel that it is opaque, is no channel to learn from."""

    @pytest.fixture(params=[2**29, 0], ids=["held", "in pieces"])
    def colours(self, request, monkeypatch):
        monkeypatch.setattr(module, "_HELD_BYTES", request.param)
        return make_image((24, 18, 3), np.uint8)

    @pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
    @pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
    def test_is_left_out(self, path, colours, options, kind):
        image = np.dstack([colours, np.full((24, 18), 255, np.uint8)])
        tifffile.imwrite(path, image, photometric="rgb", extrasamples=[kind], **options)
        found = open_image(path)
        assert (found.axes, found.array.shape) == ("YXC", (24, 18, 3))
        np.testing.assert_array_equal(found.array[...], colours, strict=True)
        np.testing.assert_array_equal(found.array[3:9, :, -1], colours[3:9, :, -1])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(found.array))[...], colours)

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_is_left_out_of_planes_of_colours(self, path, colours, compression):
        image = np.concatenate([np.moveaxis(colours, -1, 0), np.full((1, 24, 18), 255, np.uint8)])
        options = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
        tifffile.imwrite(path, image, compression=compression, **options)
        found = open_image(path)
        assert found.axes == "CYX"
        np.testing.assert_array_equal(found.array[...], image[:3])

    @pytest.mark.parametrize("options", [{}, {"ome": True}, {"imagej": True}, {"compression": "zlib"}])
    def test_is_left_out_of_stacks(self, path, options):
        image = make_image((5, 24, 18, 4), np.uint8)
        image[..., 3] = 255
        metadata = {"axes": "ZYXS"}
        tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unassalpha"], metadata=metadata, **options)
        found = open_image(path)
        assert found.axes == "ZYXC"
        np.testing.assert_array_equal(found.array[...], image[..., :3])

    @pytest.mark.parametrize(("dtype", "opaque"), [(np.uint16, 65535), (np.float32, 1)])
    def test_is_opaque_at_the_largest_value(self, path, dtype, opaque):
        image = make_image((24, 18, 4), dtype)
        image[..., 3] = opaque
        tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unassalpha"])
        assert open_image(path).array.shape == (24, 18, 3)

    @pytest.mark.parametrize(
        "options",
        [
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
            {"photometric": "minisblack", "planarconfig": "contig"},
        ],
    )
    def test_is_no_other_channel(self, path, options):
        image = make_image((24, 18, 4), np.uint8)
        image[..., 3] = 255
        tifffile.imwrite(path, image, **options)
        np.testing.assert_array_equal(open_image(path).array[...], image)

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_is_not_what_tifffile_makes_of_four_channels(self, path, planar):
        # without a word from its caller, it writes them as colours and alpha
        image = make_image((24, 18, 4) if planar == "contig" else (4, 24, 18))
        tifffile.imwrite(path, image, photometric="rgb", planarconfig=planar, extrasamples=["unassalpha"])
        np.testing.assert_array_equal(open_image(path).array[...], image)


class TestImageJ:
    def test_time_is_read_frame_by_frame(self, path):
        image = make_image((3, 5, 2, 24, 18))
        tifffile.imwrite(path, image, imagej=True, metadata={"axes": "TZCYX"})
        found = open_image(path)
        assert (found.axes, found.n_frames, found.spacing) == ("TZCYX", 3, None)
        np.testing.assert_array_equal(found.frame(1).array[2:4, 1], image[1, 2:4, 1])

    def test_distance_of_slices_is_1_where_it_is_left_out(self, path):
        tifffile.imwrite(path, make_image(), imagej=True, resolution=(4, 4), metadata={"axes": "ZYX", "unit": "um"})
        assert open_image(path).spacing == (1.0, 0.25, 0.25)

    def test_distance_of_slices_has_no_direction(self, path):
        metadata = {"axes": "ZYX", "unit": "um", "spacing": -0.5}  # as ImageJ takes it, too
        tifffile.imwrite(path, make_image(), imagej=True, resolution=(5, 5), metadata=metadata)
        assert open_image(path).spacing == (0.5, 0.2, 0.2)

    def test_stacks_that_were_saved_as_time_keep_their_voxel_size(self, path):
        metadata = {"axes": "TYX", "unit": "\\u00B5m", "spacing": 3.0}
        tifffile.imwrite(path, make_image(), imagej=True, resolution=(4, 2), metadata=metadata)
        found = open_image(path, axes="ZYX")
        assert (found.spacing, found.unit) == ((3.0, 0.5, 0.25), "micrometer")

    def test_distance_of_slices_alone_says_nothing_without_a_unit(self, path):
        tifffile.imwrite(path, make_image(), imagej=True, metadata={"axes": "ZYX"})
        assert open_image(path).known_spacing == {}

    def test_2d_has_a_pixel_size(self, path):
        tifffile.imwrite(path, make_image((24, 18)), imagej=True, resolution=(4, 2), metadata={"unit": "nm"})
        found = open_image(path)
        assert (found.axes, found.spacing, found.unit) == ("YX", (0.5, 0.25), "nanometer")


class TestOME:
    def test_channels_have_names(self, path):
        metadata = {"axes": "CZYX", "Channel": {"Name": ["DAPI", "405"]}, "PhysicalSizeX": 0.5}
        tifffile.imwrite(path, make_image((2, 5, 24, 18)), ome=True, metadata=metadata)
        found = open_image(path)
        assert found.channel_names == ("DAPI", "405")
        assert found.spacing is None  # of x alone

    def test_voxel_sizes_of_some_axes_are_kept_without_a_guess_at_the_others(self, path):
        sizes = {"PhysicalSizeX": 200, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.3, "PhysicalSizeYUnit": "µm"}
        tifffile.imwrite(path, make_image((2, 5, 24, 18)), ome=True, metadata={"axes": "CZYX", **sizes})
        found = open_image(path)
        assert (found.spacing, found.known_spacing, found.unit) == (None, {"Y": 300, "X": 200}, "nanometer")

    def test_voxel_sizes_of_all_axes_are_known_too(self, path):
        write_ome_tiff(path, make_image(), (2, 0.3, 0.2))
        assert open_image(path).known_spacing == {"Z": 2, "Y": 0.3, "X": 0.2}

    def test_units_may_differ(self, path):
        metadata = {"axes": "ZYX"}
        for letter, size, unit in (("X", 0.5, "µm"), ("Y", 500, "nm"), ("Z", 0.002, "mm")):
            metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": unit}
        tifffile.imwrite(path, make_image(), ome=True, metadata=metadata)
        found = open_image(path)
        assert (found.spacing, found.unit) == (pytest.approx((2.0, 0.5, 0.5)), "micrometer")

    def test_each_series_has_its_own_voxel_size(self, path):
        with tifffile.TiffWriter(path, ome=True) as writer:
            writer.write(make_image((24, 18)), metadata={"PhysicalSizeX": 1.5, "PhysicalSizeY": 1.5})
            writer.write(make_image((20, 10)), metadata={"PhysicalSizeX": 2.5, "PhysicalSizeY": 3.5})
        assert open_image(path).spacing == (1.5, 1.5)
        assert open_image(path, series=1).spacing == (3.5, 2.5)

    @pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
    def test_levels_of_a_pyramid(self, path, options, monkeypatch):
        monkeypatch.setattr(module, "_HELD_BYTES", 0)
        image = make_image((96, 64))
        with tifffile.TiffWriter(path, ome=True) as writer:
            sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
            writer.write(image, subifds=1, metadata={"axes": "YX", **sizes}, **options)
            writer.write(image[::2, ::2], subfiletype=1, **options)
        full, half = open_image(path), open_image(path, level=1)
        assert (full.n_levels, full.array.shape, full.spacing) == (2, (96, 64), (0.25, 0.5))
        assert half.spacing == (0.5, 1.0)
        assert (full.offset, half.offset) == ((0, 0), (0.125, 0.25))
        np.testing.assert_array_equal(full.array[10:40, 5:30], image[10:40, 5:30])
        np.testing.assert_array_equal(half.array[...], image[::2, ::2])
        with pytest.raises(InputError, match=r"image.tif has 2 level\(s\), so there is no level 2"):
            open_image(path, level=2)

    @pytest.mark.parametrize(
        "xml", ["<OME><Image>", '<OME xmlns="a"><BinaryOnly MetadataFile="companion.ome"/></OME>', "<OME/>"]
    )
    def test_unreadable_metadata_cost_the_voxel_size_only(self, path, xml):
        write_ome_tiff(path, make_image(), (2, 1, 1))
        tifffile.tiffcomment(path, xml.encode())
        found = open_image(path, axes="ZYX")
        assert (found.array.shape, found.spacing, found.channel_names) == ((5, 24, 18), None, ())

    def test_missing_files_of_a_set_are_noticed(self, tmp_path):
        for name in ("a", "b"):
            write_ome_tiff(tmp_path / f"{name}.ome.tif", make_image((1, 24, 18)), (1, 1, 1))
        xml = tifffile.tiffcomment(tmp_path / "a.ome.tif")
        uuid = '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="c.ome.tif">urn:uuid:7</UUID></TiffData>'
        xml = xml.replace('SizeZ="1"', 'SizeZ="2"').replace("</Pixels>", f"{uuid}</Pixels>")
        tifffile.tiffcomment(tmp_path / "a.ome.tif", xml.encode())
        with pytest.raises(InputError, match="lacks 1 of its 2 planes; put the files of the set into one folder"):
            open_image(tmp_path / "a.ome.tif")


class TestPagesThatDiffer:
    """tifffile takes the pages of a series for alike, and makes garbage of one that is not, or calls it damaged."""

    @pytest.mark.parametrize("packing", [{}, {"rowsperstrip": 8}, {"tile": (16, 16)}])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda page: page[:60], "is 60 x 72, those before it are 64 x 72"),
            (lambda page: page[:, :70], "is 64 x 70, those before it are 64 x 72"),
            (lambda page: np.tile(page, (2, 1)), "is 128 x 72, those before it are 64 x 72"),
            (lambda page: page.astype(np.uint16), "is uint16, those before it are uint8"),
            (lambda page: page.view(np.int8), "is int8, those before it are uint8"),
        ],
    )
    def test_are_named(self, path, change, said, packing, compression):
        with tifffile.TiffWriter(path) as writer:
            for number, page in enumerate(make_image((24, 64, 72), np.uint8)):
                writer.write(
                    change(page) if number == 12 else page,
                    photometric="minisblack",
                    metadata=None,
                    contiguous=False,
                    compression=compression,
                    **packing,
                )
        with pytest.raises(InputError, match=rf"image.tif has pages that differ: page 12 .*{said}; leave it out"):
            open_image(path)

    def test_may_be_in_colour(self, path):
        grey = {"photometric": "minisblack", "metadata": None, "contiguous": False}
        with tifffile.TiffWriter(path) as writer:
            for number, page in enumerate(make_image((24, 64, 72), np.uint8)):
                if number == 12:
                    writer.write(np.stack([page] * 3, -1), photometric="rgb", metadata=None)
                else:
                    writer.write(page, **grey)
        with pytest.raises(InputError, match=r"page 12 .*is 64 x 72 x 3, those before it are 64 x 72;"):
            open_image(path)

    def test_may_be_packed_in_another_way(self, path):
        with tifffile.TiffWriter(path) as writer:
            for number, page in enumerate(make_image((24, 64, 72), np.uint8)):
                packed = "zlib" if number == 12 else None
                writer.write(page, photometric="minisblack", metadata=None, contiguous=False, compression=packed)
        with pytest.raises(InputError, match=r"page 12 .*is packed in another way than those before it;"):
            open_image(path)

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_may_be_of_an_ome_tiff(self, path, compression):
        write_ome_tiff(path, make_image(), (2, 1, 1), compression=compression)
        self.shorten_page(path, 3)
        with pytest.raises(InputError, match=r"page 3 .*is 20 x 18, those before it are 24 x 18;"):
            open_image(path)

    def test_may_be_of_an_imagej_tiff(self, path):
        write_imagej_tiff(path, make_image(), (2, 1, 1), compression="zlib")
        self.shorten_page(path, 3)
        with pytest.raises(InputError, match=r"page 3 .*is 20 x 18, those before it are 24 x 18;"):
            open_image(path)

    def test_may_lie_in_other_files_of_a_set(self, tmp_path):
        for name in ("a", "b"):
            write_ome_tiff(tmp_path / f"{name}.ome.tif", make_image((2, 24, 18)), (1, 1, 1))
        xml = tifffile.tiffcomment(tmp_path / "a.ome.tif")
        uuid = xml.split('UUID="')[1].split('"')[0]
        first = f'<TiffData IFD="0" PlaneCount="2"><UUID FileName="a.ome.tif">{uuid}</UUID></TiffData>'
        second = '<TiffData IFD="0" FirstZ="2" PlaneCount="2"><UUID FileName="b.ome.tif">urn:uuid:7</UUID></TiffData>'
        kept, _, rest = xml.replace('SizeZ="2"', 'SizeZ="4"').partition("<TiffData")
        xml = f"{kept}{first}{second}</Pixels>{rest.partition('</Pixels>')[2]}"
        tifffile.tiffcomment(tmp_path / "a.ome.tif", xml.encode())
        assert open_image(tmp_path / "a.ome.tif").array.shape == (4, 24, 18)
        self.shorten_page(tmp_path / "b.ome.tif", 1)
        with pytest.raises(InputError, match=r"page 1 of .*b.ome.tif .*is 20 x 18, those before it are 24 x 18;"):
            open_image(tmp_path / "a.ome.tif")

    def test_are_not_looked_for_where_one_page_tells_of_all(self, path, monkeypatch):
        write_imagej_tiff(path, make_image(), (2, 1, 1))
        monkeypatch.setattr(module, "_layout", None)
        assert open_image(path).array.shape == (5, 24, 18)

    @staticmethod
    def shorten_page(path, number):
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages[number].tags["ImageLength"].overwrite(20)


@pytest.mark.parametrize("write", [write_ome_tiff, write_imagej_tiff])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_never_a_shorter_image(path, write, options, kept):
    write(path, make_image((10, 50, 40)), (1, 1, 1), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"image.tif (is damaged|is cut short|cannot be read)"):
        open_image(path)


@pytest.mark.parametrize("metadata", [{}, None])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_nor_is_a_plain_one(path, metadata, options, kept):
    tifffile.imwrite(path, make_image((10, 50, 40)), photometric="minisblack", metadata=metadata, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"image.tif (is damaged|is cut short|cannot be read)"):
        open_image(path)


def test_damaged_strips_are_told_when_they_are_read(path, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    tifffile.imwrite(path, make_image((10, 50, 40)), compression="zlib", metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[7].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 50] = bytes(50)
    path.write_bytes(data)
    found = open_image(path)
    assert found.array[:7].shape == (7, 50, 40)
    with pytest.raises(InputError, match=r"image.tif cannot be read as an image .*it is damaged"):
        found.array[7]


def test_files_are_closed_with_their_arrays(path, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    tifffile.imwrite(path, make_image(), compression="zlib")
    found = open_image(path)
    frame_like = found.array.taken(0, 2)
    del found
    gc.collect()
    assert frame_like[...].shape == (24, 18)
    del frame_like
    gc.collect()  # an open file would be a ResourceWarning, which is an error
