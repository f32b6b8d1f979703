"""Many volumes, levels of resolution, series and addresses: what `train` and `evaluate` read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from command_line import SMALL, make_volume, paint, write_tiff
from scipy import ndimage

from napari_sparseseg.cli._images import Image
from napari_sparseseg.cli._pairs import read_pairs
from napari_sparseseg.errors import InputError
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.ome import write_image
from servers import web_server


class TestPairs:
    def touch(self, folder, *names):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"x")
        return str(folder)

    def test_are_given_in_turn(self):
        assert read_pairs(["a", "b", "c", "d"]) == [("a", "b"), ("c", "d")]

    def test_are_files_of_the_same_name_in_two_folders(self, tmp_path):
        images = self.touch(tmp_path / "i", "a.ome.tif", "b.nii.gz", "c.tif", "notes.txt", ".hidden.tif")
        painted = self.touch(tmp_path / "p", "b.tif", "a.npy")
        assert read_pairs([images, painted]) == [
            (f"{images}/a.ome.tif", f"{painted}/a.npy"),
            (f"{images}/b.nii.gz", f"{painted}/b.tif"),
        ]

    def test_paint_without_an_image_is_told(self, tmp_path):
        images, painted = self.touch(tmp_path / "i", "a.tif"), self.touch(tmp_path / "p", "a.tif", "b.tif")
        with pytest.raises(InputError, match=r"p/b.tif has no image in .*/i; .* such as b.tif"):
            read_pairs([images, painted])

    def test_names_must_be_clear(self, tmp_path):
        images, painted = self.touch(tmp_path / "i", "a.tif", "a.npy"), self.touch(tmp_path / "p", "a.tif")
        with pytest.raises(InputError, match=r"have the same name up to their endings"):
            read_pairs([images, painted])
        with pytest.raises(InputError, match=r"q holds no annotation; its files must end with one of"):
            read_pairs([self.touch(tmp_path / "j", "a.tif"), self.touch(tmp_path / "q")])

    def test_are_lines_of_a_table(self, tmp_path):
        table = tmp_path / "pairs.csv"
        table.write_text("image,annotation,note\na.tif,/x/a.tif,\nhttps://host/b.zarr,b.tif,dim\n", "utf-8-sig")
        assert read_pairs([str(table)]) == [
            (f"{tmp_path}/a.tif", "/x/a.tif"),
            ("https://host/b.zarr", f"{tmp_path}/b.tif"),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "holds no pairs; its first line must be image,annotation"),
            (b"image,annotation\n", "holds no pairs"),
            (b"image,paint\na,b\n", "line 2 of .* does not name an image and its annotation"),
            (b"image,annotation\na,b\nc\n", "line 3 of"),
            (b"\xff\xfe\x00", "is no table of text"),
        ],
    )
    def test_tables_that_say_something_else_are_refused(self, tmp_path, content, message):
        table = tmp_path / "pairs.csv"
        table.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_pairs([str(table)])

    def test_a_table_that_is_missing_is_told(self):
        with pytest.raises(InputError, match=r"none.csv does not exist"):
            read_pairs(["none.csv"])


def test_a_model_learns_from_a_folder_of_pairs(invoke, tmp_path):
    for folder in ("images", "painted"):
        (tmp_path / folder).mkdir()
    for seed, name in enumerate(["a.tif", "b.tif"]):
        image, truth = make_volume(seed=seed)
        write_tiff(tmp_path / "images" / name, image)
        write_tiff(tmp_path / "painted" / name, paint(truth))
    done = invoke("train", tmp_path / "images", tmp_path / "painted", "-o", tmp_path / "m.safetensors", *SMALL)
    assert done.exit_code == 0, done.output
    assert SparseSegmenter.load(tmp_path / "m.safetensors").classes_.tolist() == [1, 2]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """An image with two levels, paint and truth on the finest; the blobs are large enough for either."""
    folder = tmp_path_factory.mktemp("pyramid")
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((4, 48, 600)), (1, 8, 8))
    truth = (1 + (smooth > smooth.mean())).astype(np.uint8)
    image = (1000.0 * truth + rng.normal(0, 100, truth.shape)).astype(np.uint16)
    write_image(folder / "image.ome.zarr", image, spacing=(2.0, 0.5, 0.5))
    write_tiff(folder / "truth.tif", truth, spacing=(2.0, 0.5, 0.5))
    write_tiff(folder / "paint.tif", paint(truth), spacing=(2.0, 0.5, 0.5))
    return folder


class TestLevels:
    def test_an_image_has_size_and_place_of_its_level(self, pyramid):
        half = Image.open(pyramid / "image.ome.zarr", level=1)
        assert half.shape[1:] == (24, 300)
        assert half.spacing[1:] == (1.0, 1.0)
        assert half.offset[1:] == (0.25, 0.25)  # centres of means of two voxels

    def test_a_given_voxel_size_is_that_of_the_finest_level(self, pyramid):
        half = Image.open(pyramid / "image.ome.zarr", spacing=(2.0, 0.1, 0.1), level=1)
        assert half.spacing[1:] == pytest.approx((0.2, 0.2))
        assert half.offset[1:] == pytest.approx((0.05, 0.05))

    def test_paint_of_the_finest_level_teaches_a_coarser_one(self, invoke, pyramid, tmp_path):
        model = tmp_path / "m.safetensors"
        done = invoke("train", pyramid / "image.ome.zarr", pyramid / "paint.tif", "-o", model, "--level", 1, *SMALL)
        assert done.exit_code == 0, done.output
        assert "1 x 1 µm" in done.output
        scored = invoke("evaluate", model, pyramid / "image.ome.zarr", pyramid / "truth.tif", "--level", "auto")
        assert scored.exit_code == 0, scored.output
        dice = float(scored.output.splitlines()[2].split()[1])
        assert dice > 0.9

    def test_auto_stays_at_the_finest_level_of_small_images(self, invoke, pyramid, tmp_path):
        model = tmp_path / "m.safetensors"
        done = invoke(
            "train", pyramid / "image.ome.zarr", pyramid / "paint.tif", "-o", model, "--level", "auto", *SMALL
        )
        assert done.exit_code == 0, done.output
        assert "0.5 x 0.5 µm" in done.output

    def test_a_level_that_is_none_is_refused(self, invoke, pyramid, tmp_path):
        arguments = ["train", pyramid / "image.ome.zarr", pyramid / "paint.tif", "-o", tmp_path / "m", "--level"]
        assert "is no level of resolution" in invoke(*arguments, "fine").output.replace("\n", " ")
        assert "has no level 7" in invoke(*arguments, "7").output

    def test_paint_of_another_shape_is_refused(self, invoke, pyramid, tmp_path):
        write_tiff(tmp_path / "ink.tif", np.ones((4, 40, 600), np.uint8))
        done = invoke("train", pyramid / "image.ome.zarr", tmp_path / "ink.tif", "-o", tmp_path / "m", "--level", 1)
        assert done.exit_code == 1
        assert "has shape (4, 40, 600), but" in done.output


def test_an_image_on_a_server_is_learnt_from(invoke, pyramid, tmp_path):
    shutil.copytree(pyramid / "image.ome.zarr", tmp_path / "www" / "image.ome.zarr")
    with web_server(tmp_path / "www") as server:
        url = f"http://127.0.0.1:{server.server_port}/image.ome.zarr"
        done = invoke("train", url, pyramid / "paint.tif", "-o", tmp_path / "m.safetensors", "--level", 1, *SMALL)
    assert done.exit_code == 0, done.output
    assert SparseSegmenter.load(tmp_path / "m.safetensors").spacing[1:] == [1.0, 1.0]


def test_time_points_with_channels_in_any_order_are_learnt(invoke, tmp_path):
    volumes = [make_volume(seed=seed) for seed in range(2)]
    image = np.stack([np.stack([image, image // 2]) for image, _ in volumes])  # T, C, Z, Y, X
    ink = np.stack([paint(truth) for _, truth in volumes])
    np.save(tmp_path / "image.npy", image.transpose(2, 1, 0, 3, 4))
    tifffile.imwrite(tmp_path / "ink.tif", ink, ome=True, metadata={"axes": "TZYX"})
    model = tmp_path / "m.safetensors"
    done = invoke("train", tmp_path / "image.npy", tmp_path / "ink.tif", "-o", model, "--axes", "ZCTYX", *SMALL)
    assert done.exit_code == 0, done.output
