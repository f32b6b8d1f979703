"""Files by somebody who knows their format: they lead nowhere, and take no memory that they do not fill."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from functools import cache

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from image_files import make_image, write_ilastik, write_nifti, write_nrrd

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_annotation, open_image
from napari_sparseseg.storage.formats._bounds import leads_inside


@contextmanager
def little_memory(limit=32 << 20):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@cache
def zeros_packed(n_bytes):
    """So many zeros, as gzip packs them, made piece by piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(n_bytes >> 20)), packer.flush()])


@pytest.mark.parametrize("name", ["a", "a/b.raw", "..a", "a..b"])
def test_names_below_the_folder(name):
    assert leads_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../../b",
        "/a",
        "\\a",
        "a\\..\\..\\b",
        "C:a",
        "C:\\a",
        "//host/a",
        "a::http://b",
        "file:a",
        "a\0",
    ],
)
def test_names_that_lead_elsewhere(name):
    assert not leads_inside(name)


class TestMessages:
    """What a file says of itself is quoted, but not at any length."""

    def test_of_archives(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for number in range(200):
                archive.writestr(f"{number}\n\x07" + "x" * 500, b"")
        with pytest.raises(InputError) as error:
            open_image(tmp_path / "a.npz")
        assert len(str(error.value)) < 1500
        assert str(error.value).isprintable()

    @pytest.mark.parametrize("version", ["1" * 5000, "a\nb", 10**40, [[]] * 2000])
    def test_of_versions(self, tmp_path, version):
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
        group.attrs["ome"] = {"version": version, "multiscales": []}
        with pytest.raises(InputError, match=r"a.zarr is OME-Zarr .*, of which only") as error:
            open_image(tmp_path / "a.zarr")
        assert len(str(error.value)) < 1500
        assert str(error.value).isprintable()


class TestNRRD:
    @pytest.mark.parametrize("name", ["../secret.raw", "{folder}/secret.raw", "sub/../../secret.raw", "/dev/zero"])
    def test_voxels_lie_in_the_folder_of_their_header(self, tmp_path, name):
        (tmp_path / "secret.raw").write_bytes(bytes(120))
        (tmp_path / "in").mkdir()
        header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 6 4\nencoding: raw\ndata file: {name}\n\n"
        (tmp_path / "in" / "a.nhdr").write_text(header.format(folder=tmp_path))
        with pytest.raises(InputError, match=r"a.nhdr names a file outside its folder .*; put all its files into one"):
            open_image(tmp_path / "in" / "a.nhdr")

    def test_voxels_may_lie_in_a_folder_below(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "a.raw").write_bytes(bytes(range(120)))
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 6 4\nencoding: raw\ndata file: sub/a.raw\n\n"
        (tmp_path / "a.nhdr").write_text(header)
        assert open_image(tmp_path / "a.nhdr").array[3, 5, 4] == 119

    def test_missing_voxels_are_named(self, tmp_path):
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 6 4\nencoding: raw\ndata file: a.raw\n\n"
        (tmp_path / "a.nhdr").write_text(header)
        with pytest.raises(InputError, match=r"a.nhdr has its voxels in a.raw, which is missing; put it into"):
            open_image(tmp_path / "a.nhdr")

    @pytest.mark.parametrize("skips", ["line skip: 2\nbyte skip: 3", "lineskip: 2\nbyteskip: 3"])
    @pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
    def test_what_is_to_be_skipped_is_skipped(self, tmp_path, skips, encoding):
        image = make_image((2, 3, 4), np.uint8)
        header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: {encoding}\n{skips}\n\na\nb\n".encode()
        content = {
            "raw": b"xyz" + image.tobytes(),
            "gzip": gzip.compress(b"xyz" + image.tobytes()),
            "ascii": b"xyz" + " ".join(map(str, image.ravel())).encode(),
        }
        (tmp_path / "a.nrrd").write_bytes(header + content[encoding])
        np.testing.assert_array_equal(open_image(tmp_path / "a.nrrd").array[...], image)

    def test_raw_voxels_may_be_counted_from_the_end(self, tmp_path):
        image = make_image((2, 3, 4), np.uint8)
        header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: raw\nbyte skip: -1\n\nwhatever"
        (tmp_path / "a.nrrd").write_bytes(header + image.tobytes())
        np.testing.assert_array_equal(open_image(tmp_path / "a.nrrd").array[...], image)

    @pytest.mark.parametrize(
        ("encoding", "skips"),
        [("hex", ""), ("gzip", "byte skip: -1\n"), ("raw", "line skip: -1\n"), ("raw", "byte skip: -2\n")],
    )
    def test_what_cannot_be_read_is_refused(self, tmp_path, encoding, skips):
        header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: {encoding}\n{skips}\n"
        (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(99))
        with pytest.raises(InputError, match=r"a.nrrd is packed in a way that is not read .*; save it as raw"):
            open_image(tmp_path / "a.nrrd")

    @pytest.mark.timeout(20)
    def test_lines_that_do_not_exist_are_not_looked_for(self, tmp_path):
        write_nrrd(tmp_path / "a.nrrd", make_image(), (1, 1, 1))
        content = (tmp_path / "a.nrrd").read_bytes().replace(b"\n\n", b"\nline skip: 1000000000000\n\n", 1)
        (tmp_path / "a.nrrd").write_bytes(content)
        with pytest.raises(InputError, match=r"a.nrrd cannot be read"):
            open_image(tmp_path / "a.nrrd").array[0]

    def test_no_more_is_unpacked_than_the_image_needs(self, tmp_path):
        header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: gzip\n\n"
        (tmp_path / "a.nrrd").write_bytes(header + zeros_packed(64 << 20))
        with little_memory():
            assert not open_image(tmp_path / "a.nrrd").array[...].any()

    @pytest.mark.parametrize("encoding", ["gzip", "bzip2", "ascii"])
    def test_claims_take_no_memory(self, tmp_path, encoding):
        write_nrrd(tmp_path / "a.nrrd", make_image(), (1, 1, 1), encoding=encoding)
        content = (tmp_path / "a.nrrd").read_bytes().replace(b"sizes: 18 24 5", b"sizes: 1000000 1000000 1000000")
        (tmp_path / "a.nrrd").write_bytes(content)
        with little_memory(), pytest.raises(InputError, match=r"a.nrrd is too short for the \d+ bytes that it claims"):
            open_image(tmp_path / "a.nrrd")

    def test_claims_of_bombs_take_no_memory(self, tmp_path):
        header = b"NRRD0004\ntype: uint16\ndimension: 3\nsizes: 1000000000000 12 3\nencoding: gzip\n\n"
        (tmp_path / "a.nrrd").write_bytes(header + zeros_packed(64 << 20))
        with little_memory(), pytest.raises(InputError, match=r"a.nrrd is too short for the \d+ bytes that it claims"):
            open_image(tmp_path / "a.nrrd")

    def test_claims_of_a_file_beside_name_the_header(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(bytes(100))
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 7 3\nencoding: raw\ndata file: a.raw\n\n"
        (tmp_path / "a.nhdr").write_text(header)
        with pytest.raises(InputError, match=r"a.nhdr is too short for the 105 bytes that it claims"):
            open_image(tmp_path / "a.nhdr")

    def test_text_may_be_short(self, tmp_path):
        header = b"NRRD0004\ntype: double\ndimension: 3\nsizes: 100 3 2\nencoding: ascii\n\n"
        (tmp_path / "a.nrrd").write_bytes(header + b" ".join([b"1"] * 600))
        assert open_image(tmp_path / "a.nrrd").array[...].sum() == 600

    def test_headers_are_bounded(self, tmp_path):
        with (tmp_path / "a.nrrd").open("wb") as file:
            file.write(b"NRRD0004\ntype: ")
            file.truncate(1 << 31)  # a hole: it takes no room on disk
        with little_memory(128 << 20), pytest.raises(InputError):
            open_image(tmp_path / "a.nrrd")


class TestNIfTI:
    def test_claims_of_packed_files_are_compared_with_their_size(self, tmp_path):
        write_nifti(tmp_path / "a.nii.gz", make_image(), (1, 1, 1))
        content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
        struct.pack_into("<3h", content, 42, 32767, 32767, 32767)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
        with (
            little_memory(),
            pytest.raises(InputError, match=r"a.nii.gz is too short for the \d+ bytes that it claims"),
        ):
            open_image(tmp_path / "a.nii.gz").array[0, 0, 0]

    def test_no_more_is_unpacked_than_the_image_needs(self, tmp_path):
        image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4))
        head = image.header.binaryblock + bytes(4)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(head) + zeros_packed(64 << 20))
        with little_memory():
            open_image(tmp_path / "a.nii.gz").array[...]

    @pytest.mark.parametrize("offset", [2e9, float("inf"), float("nan"), -5.0])
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_headers_are_bounded(self, tmp_path, name, offset):
        write_nifti(tmp_path / "a.nii", make_image(), (1, 1, 1))
        content = bytearray((tmp_path / "a.nii").read_bytes())
        struct.pack_into("<f", content, 108, offset)
        struct.pack_into("<Bxxxii", content, 348, 1, 2**31 - 16, 6)  # an extension that claims two gigabytes
        packed = gzip.compress(content[:360]) + zeros_packed(64 << 20)
        (tmp_path / name).write_bytes(packed if name.endswith(".gz") else content)
        with little_memory(), pytest.raises(InputError, match=rf"{name} has its voxels .* bytes behind its beginning"):
            open_image(tmp_path / name)


def ome_tiff(path, other, image, more=""):
    """An OME-TIFF that says that its planes are in another file."""
    depth, height, width = image.shape
    text = (
        f'<?xml version="1.0"?>{more}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="{depth}">'
        f"<UUID FileName={other}>urn:uuid:2</UUID>"
        "</TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(path, image, description=text, metadata=None)


class TestTIFF:
    @pytest.fixture
    def folder(self, tmp_path):
        tifffile.imwrite(tmp_path / "secret.tif", make_image(seed=1), metadata=None)
        (tmp_path / "in").mkdir()
        return tmp_path / "in"

    @pytest.mark.parametrize(
        "name",
        [
            '"../secret.tif"',
            "'../secret.tif'",
            '"&#46;&#46;&#47;secret.tif"',
            '"{outside}/secret.tif"',
            '"a/../../secret.tif"',
        ],
    )
    def test_planes_lie_in_the_folder(self, folder, name):
        ome_tiff(folder / "a.ome.tif", name.format(outside=folder.parent), make_image())
        with pytest.raises(InputError, match=r"a.ome.tif names a file outside its folder"):
            open_image(folder / "a.ome.tif")

    def test_planes_may_lie_beside(self, folder):
        tifffile.imwrite(folder / "b.tif", make_image(seed=1), metadata=None)
        ome_tiff(folder / "a.ome.tif", '"b.tif"', make_image())
        np.testing.assert_array_equal(open_image(folder / "a.ome.tif").array[...], make_image(seed=1))

    def test_names_do_not_hide_in_entities(self, folder):
        more = '<!DOCTYPE OME [<!ENTITY up "../secret.tif">]>'
        ome_tiff(folder / "a.ome.tif", '"&up;"', make_image(), more)
        with pytest.raises(InputError, match=r"a.ome.tif defines XML entities"):
            open_image(folder / "a.ome.tif")

    def test_pieces_are_bounded(self, folder):
        path = folder / "a.tif"
        tifffile.imwrite(path, make_image((1, 16, 16)), tile=(16, 16), compression="zlib", metadata=None)
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tags = tiff.pages.first.tags
            for name in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
                tags[name].overwrite(2**16)
        with (
            little_memory(),
            pytest.raises(InputError, match=r"a.tif has strips or tiles of 8589934592 bytes; save it"),
        ):
            open_image(path)

    @pytest.mark.parametrize("name", ["ImageWidth", "ImageLength"])
    def test_claims_of_more_pieces_than_there_are(self, folder, name):
        path = folder / "a.tif"
        # the description gives the series another size than its page has
        layout = {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16), "compression": "zlib"}
        tifffile.imwrite(path, make_image((3, 48, 40)), **layout)
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages.first.tags[name].overwrite(2**29)
        with little_memory(), pytest.raises(InputError, match=r"a.tif lacks strips or tiles: .* it has 27; copy"):
            open_image(path)

    @pytest.mark.parametrize("count", [-1, -(2**31)])
    def test_pieces_have_sizes(self, folder, count):
        path = folder / "a.tif"
        tifffile.imwrite(path, make_image((1, 16, 16)), tile=(16, 16), compression="zlib", metadata=None)
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages.first.tags["TileByteCounts"].overwrite(count, dtype=tifffile.DATATYPE.SLONG)
        with little_memory(), pytest.raises(InputError, match=r"a.tif is cut short, its strips or tiles"):
            open_image(path)


class TestIlastik:
    BLOCK = "PixelClassification/LabelSets/labels000/block0000"

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "in" / "a.ilp"
        path.parent.mkdir()
        write_ilastik(path, [((4, 5, 6, 1), [((0, 0, 0, 0), np.ones((2, 3, 4, 1), np.uint8))])])
        with h5py.File(tmp_path / "secret.h5", "w") as file:
            file["labels"] = np.full((2, 3, 4, 1), 7, np.uint8)
        return path

    def change(self, path, make):
        """Put something else in the place of the block, with the same attributes."""
        with h5py.File(path, "r+") as project:
            attributes = dict(project[self.BLOCK].attrs)
            del project[self.BLOCK]
            make(project)
            if isinstance(project.get(self.BLOCK, getlink=True), h5py.HardLink):
                project[self.BLOCK].attrs.update(attributes)

    @pytest.mark.parametrize("name", [BLOCK, "PixelClassification/LabelNames", "Input Data/infos/lane0000"])
    @pytest.mark.parametrize("link", [h5py.ExternalLink("../secret.h5", "/labels"), h5py.SoftLink("/")])
    def test_links_are_not_followed(self, path, name, link):
        with h5py.File(path, "r+") as project:
            del project[name]
            project[name] = link
        with pytest.raises(InputError, match=r"a.ilp holds a link \(.*\); save the project again"):
            open_annotation(path)

    def test_values_do_not_lie_in_other_files(self, path):
        self.change(
            path, lambda p: p.create_dataset(self.BLOCK, (2, 3, 4, 1), "u1", external=[("../secret.h5", 0, 24)])
        )
        with pytest.raises(InputError, match=r"a.ilp has values that lie in other files"):
            open_annotation(path)

    def test_values_are_not_put_together_from_other_files(self, path):
        layout = h5py.VirtualLayout((2, 3, 4, 1), "u1")
        layout[...] = h5py.VirtualSource("../secret.h5", "labels", (2, 3, 4, 1))
        self.change(path, lambda project: project.create_virtual_dataset(self.BLOCK, layout))
        with pytest.raises(InputError, match=r"a.ilp has values that lie in other files"):
            open_annotation(path)

    @pytest.mark.parametrize("size", [10**4, 10**6])
    def test_claims_take_no_memory(self, path, size):
        def make(project):
            options = {"chunks": (1, 64, 64, 1), "compression": "gzip"}
            project.create_dataset(self.BLOCK, (1, size, size, 1), "u1", **options)[0, 0, 0, 0] = 1

        self.change(path, make)
        with h5py.File(path, "r+") as project:
            project[self.BLOCK].attrs["blockSlice"] = f"[0:1,0:{size},0:{size},0:1]"
        with little_memory(), pytest.raises(InputError, match=r"a.ilp claims more labels than it holds"):
            open_annotation(path)
