"""Zarrs on a web server and in an object store, both real ones on this machine, and what is said where they are not."""

from __future__ import annotations

import pickle
import socket
import sys

import numpy as np
import pytest
import zarr
from image_files import make_image, write_ome_zarr_04, write_ome_zarr_05

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import _remote as remote
from napari_sparseseg.storage.formats import open_annotation, open_image
from napari_sparseseg.storage.ome import write_labels
from napari_sparseseg.storage.volume import ArrayVolume
from servers import BUCKET, KEY, object_store, web_server

SPACING = (2.0, 0.5, 0.25)
IMAGE = make_image()

pytestmark = pytest.mark.filterwarnings("ignore:.*ObjectStore is experimental")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One zarr of each kind."""
    place = tmp_path_factory.mktemp("zarrs")
    write_ome_zarr_05(place / "five.zarr", IMAGE, SPACING)
    write_ome_zarr_04(place / "four.zarr", IMAGE, SPACING)
    zarr.create_array(place / "plain.zarr", data=IMAGE, chunks=(1, 12, 18))
    zarr.create_group(place / "group.zarr").create_array("raw", data=IMAGE)
    write_labels(place / "labels.zarr", (IMAGE % 3).astype(np.uint8), spacing=SPACING)
    zarr.create_array(place / "torn.zarr", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="uint8")[:3] = 7
    (place / "torn.zarr" / "c" / "1" / "0" / "0").rename(place / "torn.zarr" / "c" / "gone")
    return place


@pytest.fixture(scope="module")
def web(folder):
    with web_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def s3(folder):
    with object_store(folder, public="five.zarr") as address:
        yield address


@pytest.fixture
def keyless(s3, monkeypatch):
    """The store for somebody without a key."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)


@pytest.fixture
def keyed(keyless, monkeypatch):
    """The store for somebody who may read it."""
    for name, value in KEY.items():
        monkeypatch.setenv(name.upper(), value)


@pytest.fixture(params=["http", "s3"])
def base(request):
    """Address of the folder on either server."""
    if request.param == "http":
        return f"http://127.0.0.1:{request.getfixturevalue('web').server_port}"
    request.getfixturevalue("keyed")
    return f"s3://{BUCKET}"


@pytest.mark.parametrize("name", ["five.zarr", "four.zarr", "plain.zarr", "five.zarr/", "group.zarr/raw"])
def test_images_are_read_as_from_a_disk(base, name):
    found = open_image(f"{base}/{name}")
    np.testing.assert_array_equal(found.array[...], IMAGE, strict=True)
    np.testing.assert_array_equal(found.array[1:3, 2:7, 5], IMAGE[1:3, 2:7, 5], strict=True)
    is_ome = name.startswith("f")
    assert found.spacing == (SPACING if is_ome else None)
    assert found.unit == ("micrometer" if is_ome else None)


def test_labels_are_read(base):
    np.testing.assert_array_equal(open_annotation(f"{base}/labels.zarr").array[...], IMAGE % 3)


def test_another_process_opens_the_same(base):
    array = pickle.loads(pickle.dumps(open_image(f"{base}/five.zarr").array))
    np.testing.assert_array_equal(array[...], IMAGE)


def test_what_is_missing_is_told(base):
    with pytest.raises(InputError, match=r"none.zarr is no zarr, or does not exist; check the address"):
        open_image(f"{base}/none.zarr")
    with pytest.raises(InputError, match=r"group.zarr is a zarr group without the metadata of an OME-Zarr image"):
        open_image(f"{base}/group.zarr")


def test_the_arrays_of_a_bucket_are_listed(keyed):
    with pytest.raises(InputError, match=r"give the path of one of its arrays: s3://volumes/group.zarr/raw"):
        open_image(f"s3://{BUCKET}/group.zarr")


def test_a_chunk_that_is_not_there_holds_the_fill_value(base):
    block = open_image(f"{base}/torn.zarr").array[:, 0, 0]
    assert block.tolist() == [7, 0, 7, 0]


def test_only_the_chunks_of_a_box_are_fetched(web):
    volume = ArrayVolume(open_image(f"http://127.0.0.1:{web.server_port}/plain.zarr").array)
    web.asked.clear()
    block = volume.read(Box((1, 0, 0), (3, 5, 5)))
    np.testing.assert_array_equal(block[0], IMAGE[1:3, :5, :5])
    assert sorted(web.asked) == ["/plain.zarr/c/1/0/0", "/plain.zarr/c/2/0/0"]


def test_what_is_forbidden_is_told(web):
    with pytest.raises(InputError, match=r"forbidden.zarr is forbidden by its server, .* AWS_ACCESS_KEY_ID"):
        open_image(f"http://127.0.0.1:{web.server_port}/forbidden.zarr")


def test_open_data_need_no_key_and_others_do(keyless):
    np.testing.assert_array_equal(open_image(f"s3://{BUCKET}/five.zarr").array[...], IMAGE)
    with pytest.raises(InputError, match=r"plain.zarr is forbidden by its server, .* AWS_ACCESS_KEY_ID"):
        open_image(f"s3://{BUCKET}/plain.zarr")


def test_voxels_that_become_forbidden_are_an_error(web, monkeypatch):
    found = open_image(f"http://127.0.0.1:{web.server_port}/plain.zarr")
    monkeypatch.setattr("servers.Handler.send_head", lambda self: self.send_error(403))
    with pytest.raises(InputError, match=r"plain.zarr is forbidden by its server"):
        found.array[0]


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_a_server_that_does_not_answer_is_told(monkeypatch, scheme):
    monkeypatch.setitem(remote._WAITING["retry_config"], "max_retries", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    url = f"{address if scheme == 'http' else 's3://volumes'}/a.zarr"
    with pytest.raises(InputError, match=r"a.zarr cannot be reached \(.*\); check the address and the network"):
        open_image(url)


def test_a_server_that_fails_is_told(monkeypatch, web):
    monkeypatch.setitem(remote._WAITING["retry_config"], "max_retries", 0)
    with pytest.raises(InputError, match=r"broken.zarr cannot be reached \(.*\); check the address"):
        open_image(f"http://127.0.0.1:{web.server_port}/broken.zarr")


def test_a_bucket_that_is_not_there_is_told(keyed):
    with pytest.raises(InputError, match=r"s3://nowhere/five.zarr is no zarr, or does not exist"):
        open_image("s3://nowhere/five.zarr")


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InputError, match=r'pip install "napari-sparseseg\[remote\]"'):
        open_image("https://127.0.0.1/a.zarr")


@pytest.mark.parametrize("given", [True, False])
def test_requests_are_signed_only_with_a_key(monkeypatch, given):
    if given:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store = remote._store("s3://volumes/a.zarr", "S3Store")
    assert bool(store.store.config.get("skip_signature")) is not given
