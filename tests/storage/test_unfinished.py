"""A prediction under way, as it lies on disk."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from napari_sparseseg import InputError, InputWarning
from napari_sparseseg.storage.atomic import written_whole
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.sharded import ShardedImage, shard_for
from napari_sparseseg.storage.unfinished import HeldFolder, Manifest, Unfinished

MANIFEST = Manifest(
    fingerprint={"model": "a", "image": "b", "settings": "c"},
    shape=(5, 6, 7),
    axes="zyx",
    shard=(64, 64, 64),
    tile=(32, 64, 64),
    spacing=(1.0, 0.1, 0.3),
    offset=(0.0, 0.0, 0.5),
    unit="micrometer",
    probabilities=False,
    intensity_offset=(0.1, 3.0),
    intensity_scale=(1 / 3, 2.0),
)


@pytest.fixture
def unfinished(tmp_path):
    found = Unfinished(tmp_path / "a.zarr")
    yield found
    found.close()


def test_manifest_comes_back_to_the_last_bit(unfinished):
    assert unfinished.manifest() is None
    unfinished.begin(MANIFEST)
    assert unfinished.manifest() == MANIFEST


def test_arrays_have_a_name_of_their_own_each_time_something_is_begun(unfinished, tmp_path):
    assert unfinished.labels.name == "labels.zarr"  # as older programs call it
    unfinished.labels.mkdir()
    unfinished.clear()
    first = unfinished.labels
    first.mkdir()
    unfinished.begin(MANIFEST)
    unfinished.close()
    again = Unfinished(tmp_path / "a.zarr")
    assert again.labels == first
    again.clear()
    assert again.labels != first
    assert [path.name for path in again.folder.iterdir()] == ["lock"]
    again.close()


def test_no_manifest_leads_out_of_its_folder(unfinished):
    text = MANIFEST.model_dump_json().replace('"run":""', '"run":"/../../b"')
    (unfinished.folder / "manifest.json").write_text(text)
    assert unfinished.manifest() is None


def test_finished_shards_come_back_whatever_was_cut_short(unfinished):
    unfinished.finish((0, 0, 64, 0), {1: 5, 7: 2})
    path = unfinished.folder / "finished.jsonl"
    with path.open("ab") as file:
        file.write(b'[[0, 0, 0, 64], {"1": 1')
    unfinished.finish((1, 0, 0, 0), {})
    assert unfinished.finished() == {(0, 0, 64, 0): {1: 5, 7: 2}, (1, 0, 0, 0): {}}
    path.write_bytes(path.read_bytes()[:-1])
    assert (1, 0, 0, 0) not in unfinished.finished()


def test_a_reopened_shard_is_not_finished(unfinished, tmp_path):
    assert Unfinished.share_of(tmp_path / "a.zarr") is None
    unfinished.begin(MANIFEST)
    assert Unfinished.share_of(tmp_path / "a.zarr") == 0
    unfinished.finish((0, 0, 0, 0), {1: 5})
    assert Unfinished.share_of(tmp_path / "a.zarr") == 1
    unfinished.reopen((0, 0, 0, 0))
    assert unfinished.finished() == {}
    unfinished.finish((0, 0, 0, 0), {1: 4})
    assert unfinished.finished() == {(0, 0, 0, 0): {1: 4}}


@pytest.mark.parametrize("line", ["5", "[[0, 0, 0, 0], [1]]", "[[0, 0], {}]", '[[0, 0, 0, 0], {"a": 1}]', "{", "null"])
def test_what_makes_no_sense_does_not_count(unfinished, line):
    (unfinished.folder / "finished.jsonl").write_text(line + "\n")
    assert unfinished.finished() == {}


@pytest.mark.parametrize("shard", [(0, 64, 64), (-64, 64, 64)])
def test_no_manifest_has_empty_shards(unfinished, shard):
    text = MANIFEST.model_dump_json().replace("[64,64,64]", str(list(shard)))
    (unfinished.folder / "manifest.json").write_text(text)
    assert unfinished.manifest() is None


def test_one_holds_it(unfinished, tmp_path):
    with pytest.raises(InputError, match="being predicted by another process"):
        Unfinished(tmp_path / "a.zarr")
    unfinished.close()
    Unfinished(tmp_path / "a.zarr").close()


def test_a_folder_that_its_holder_has_just_removed_is_made_again(tmp_path, monkeypatch):
    make, made = Path.mkdir, []

    def make_and_lose_it(path, *args, **options):
        make(path, *args, **options)
        made.append(path)
        if len(made) == 1:
            path.rmdir()
        if len(made) == 2:
            path.rmdir()
            raise FileExistsError(errno.EEXIST, "File exists", str(path))  # it was there when it was to be made

    monkeypatch.setattr(Path, "mkdir", make_and_lose_it)
    Unfinished(tmp_path / "a.zarr").close()
    assert len(made) > 2


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no lock that is held")
def test_nobody_takes_a_lock_that_is_about_to_be_removed(unfinished, tmp_path, monkeypatch):
    refused, remove = [], RealDisk.remove

    def remove_while_another_tries(disk, path):
        if path.name == "lock":
            with pytest.raises(InputError, match="being predicted by another process"):
                Unfinished(tmp_path / "a.zarr")
            refused.append(path)
        remove(disk, path)

    monkeypatch.setattr(RealDisk, "remove", remove_while_another_tries)
    unfinished.leave()
    assert refused
    assert not unfinished.folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no lock that is held")
def test_nobody_holds_a_lock_that_was_removed_while_it_was_taken(tmp_path, monkeypatch):
    import fcntl

    lock, removed = fcntl.flock, []

    def lock_what_was_removed(handle, flags):
        if not removed:
            removed.append(tmp_path / "a.zarr.unfinished" / "lock")
            removed[0].unlink()
        lock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", lock_what_was_removed)
    with pytest.raises(InputError, match="being predicted by another process"):
        Unfinished(tmp_path / "a.zarr")
    assert removed
    Unfinished(tmp_path / "a.zarr").close()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no lock that is held")
def test_who_lets_the_folder_go_takes_no_lock_from_the_next_one(unfinished, tmp_path, monkeypatch):
    held, remove = [], RealDisk.remove

    def remove_and_let_another_in(disk, path):
        remove(disk, path)
        if path.name == "lock" and not held:
            held.append(Unfinished(tmp_path / "a.zarr"))

    monkeypatch.setattr(RealDisk, "remove", remove_and_let_another_in)
    unfinished.close()
    with pytest.raises(InputError, match="being predicted by another process"):
        Unfinished(tmp_path / "a.zarr")
    held[0].close()


def test_nothing_is_left_where_nothing_was_begun(unfinished):
    unfinished.close()
    assert not unfinished.folder.exists()


def test_clearing_leaves_what_is_not_ours(unfinished):
    unfinished.begin(MANIFEST)
    unfinished.finish((0, 0, 0, 0), {})
    (unfinished.folder / "mine.txt").touch()
    unfinished.clear()
    assert unfinished.manifest() is None
    assert not unfinished.finished()
    assert (unfinished.folder / "mine.txt").exists()


def test_results_take_their_places(unfinished, tmp_path):
    for source in (unfinished.labels, unfinished.probabilities):
        source.mkdir()
        (source / "zarr.json").write_text(source.name)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "old").touch()
    unfinished.publish(tmp_path / "p.zarr", tmp_path / "a.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "p.zarr"]
    assert (tmp_path / "a.zarr" / "zarr.json").read_text() == "labels.zarr"
    assert (tmp_path / "p.zarr" / "zarr.json").read_text() == "probabilities.zarr"
    assert not (tmp_path / "a.zarr" / "old").exists()


def test_all_that_lies_in_the_folder_goes_with_it_once_the_result_is_complete(unfinished, tmp_path):
    make_result(unfinished.labels, "labels")
    unfinished.begin(MANIFEST)
    make_result(unfinished.folder / "0.ome.zarr", "of a time point")
    for name in ("1.ome.zarr.dropped", "2.ome.zarr.unfinished", "probabilities-0f.zarr", "labels.zarr.dropped"):
        make_result(unfinished.folder / name, "half removed")
    make_result(unfinished.folder / ".0.ome.zarr.old", "replaced")
    for name in (".model.safetensors.0123.part", "manifest.json.partial", "image.partial.npy", ".DS_Store"):
        (unfinished.folder / name).touch()
    unfinished.publish(None, tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_what_a_user_has_put_into_the_folder_stays(unfinished, tmp_path):
    mine = ["mine.ome.zarr", "2024 mine.ome.zarr", "labels of mine.zarr", "a.partial", ".notes", "notes.txt"]
    for name in mine:
        (unfinished.folder / name).touch()
    unfinished.clear()
    make_result(unfinished.labels, "labels")
    unfinished.begin(MANIFEST)
    unfinished.publish(None, tmp_path / "a.zarr")
    assert {path.name for path in unfinished.folder.iterdir()} == set(mine)


def test_what_cannot_be_removed_once_the_result_is_complete_is_told(unfinished, tmp_path, monkeypatch):
    remove = RealDisk.remove

    def refuse_some(disk, path):
        if path.name in ("manifest.json", ".a.zarr.old"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(disk, path)

    make_result(tmp_path / "a.zarr", "old")
    make_result(unfinished.labels, "labels")
    unfinished.begin(MANIFEST)
    put = Unfinished._put

    def put_and_refuse(self, new, target):
        put(self, new, target)
        make_result(tmp_path / ".a.zarr.old", "old")
        monkeypatch.setattr(RealDisk, "remove", refuse_some)

    monkeypatch.setattr(Unfinished, "_put", put_and_refuse)
    with pytest.warns(InputWarning, match="is no longer needed, but cannot be removed") as warned:
        unfinished.publish(None, tmp_path / "a.zarr")
    assert len(warned) == 2
    assert (tmp_path / "a.zarr" / "zarr.json").read_text() == "labels"
    assert [path.name for path in unfinished.folder.iterdir()] == ["manifest.json"]


@pytest.fixture
def other_disk(tmp_path, monkeypatch):
    """A folder that nothing can be renamed into."""
    rename, folder = os.rename, tmp_path / "other"

    def rename_on_one_disk(old, new):
        if (folder in Path(new).parents) != (folder in Path(old).parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(old, new)

    folder.mkdir()
    monkeypatch.setattr(os, "rename", rename_on_one_disk)
    return folder


def make_result(path, text):
    (path / "0" / "c").mkdir(parents=True)
    (path / "zarr.json").write_text(text)
    (path / "0" / "c" / "0").write_text(text)


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_killed_while_a_result_is_copied_to_another_disk_the_older_one_stays(unfinished, tmp_path, other_disk):
    def copy_a_part(source, target):
        target.mkdir()
        (target / "zarr.json").write_bytes((source / "zarr.json").read_bytes())
        raise KeyboardInterrupt

    make_result(other_disk / "p.zarr", "old")
    make_result(unfinished.labels, "labels")
    make_result(unfinished.probabilities, "new")
    before, begun = files_in(other_disk / "p.zarr"), files_in(unfinished.probabilities)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shutil, "copytree", copy_a_part)
        with pytest.raises(KeyboardInterrupt):
            unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert files_in(other_disk / "p.zarr") == before
    assert files_in(unfinished.probabilities) == begun
    unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert files_in(other_disk / "p.zarr") == begun
    assert sorted(path.name for path in tmp_path.rglob("*.zarr*")) == ["a.zarr", "p.zarr"]


def test_what_was_copied_to_another_disk_by_half_does_not_outlast_another_run(unfinished, tmp_path, other_disk):
    make_result(unfinished.labels, "labels")
    make_result(unfinished.probabilities, "new")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("napari_sparseseg.storage.unfinished.sync_all", Mock(side_effect=KeyboardInterrupt))
        patched.setattr(RealDisk, "remove", Mock())  # killed, it removes nothing
        with pytest.raises(KeyboardInterrupt):
            unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert list(other_disk.iterdir())
    unfinished.clear()  # something else is predicted
    make_result(unfinished.labels, "labels")
    make_result(unfinished.probabilities, "newer")
    unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert [path.name for path in other_disk.iterdir()] == ["p.zarr"]
    assert (other_disk / "p.zarr" / "zarr.json").read_text() == "newer"


def test_killed_while_what_was_copied_to_another_disk_is_removed_the_copy_stays(unfinished, tmp_path, other_disk):
    def remove_a_part(path):
        (path / "0" / "c" / "0").unlink()
        raise KeyboardInterrupt

    make_result(unfinished.labels, "labels")
    make_result(unfinished.probabilities, "new")
    begun = files_in(unfinished.probabilities)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove_a_part)
        with pytest.raises(KeyboardInterrupt):
            unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert files_in(other_disk / "p.zarr") == begun
    unfinished.publish(other_disk / "p.zarr", tmp_path / "a.zarr")
    assert files_in(other_disk / "p.zarr") == begun
    assert sorted(path.name for path in tmp_path.rglob("*.zarr*")) == ["a.zarr", "p.zarr"]


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json", "1/zarr.json"])
@pytest.mark.parametrize("is_removed", [True, False])
def test_an_array_without_its_metadata_is_not_gone_on_with(unfinished, name, is_removed):
    shape = (5, 600, 700)
    manifest = MANIFEST.model_copy(update={"shape": shape, "shard": shard_for(shape, 1)})
    ShardedImage.create_labels(unfinished.labels, manifest.frame, "uint8", name="a")
    unfinished.begin(manifest)
    assert unfinished.holds_arrays_of(manifest)
    metadata = unfinished.labels / name
    if is_removed:
        metadata.unlink()
    else:
        metadata.write_text("")  # as a power failure may leave it
    assert not unfinished.holds_arrays_of(manifest)


def test_metadata_lasts_before_it_is_relied_upon(unfinished, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(RealDisk, "sync", lambda _, path: synced.append(path))
    arrays = [unfinished.labels / "zarr.json", unfinished.labels / "0" / "zarr.json"]
    for file in arrays:
        file.parent.mkdir()
        file.touch()
    unfinished.begin(MANIFEST)
    assert set(arrays) <= set(synced)
    synced.clear()
    unfinished.publish(None, tmp_path / "a.zarr")
    assert set(arrays) <= set(synced)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "a.zarr.unfinished").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        Unfinished(tmp_path / "a.zarr")


def test_what_cannot_be_written_is_told_by_the_name_that_it_was_to_have(tmp_path):
    target = tmp_path / "labels.tif"

    def write(held):
        with (
            held.written(target) as path,
            written_whole(path, overwrite=False, is_kind=Path.is_file, kind="TIFF"),
        ):
            raise OSError(errno.ENOSPC, "No space left on device")

    with closing(HeldFolder(target)) as held:
        with pytest.raises(InputError) as told:
            write(held)
        held.empty()
    assert str(told.value).startswith(f"{target} could not be written (No space left on device)")
