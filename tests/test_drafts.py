"""Files appear whole or not at all, whoever else writes and whenever the process ends."""

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from random import Random
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest
import torch
from torch import nn

from lightning_compress import drafts, export, load_archive
from lightning_compress.archive import save_archive
from lightning_compress.drafts import draft_of


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_after_an_error_the_earlier_file_stays_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("earlier")

    def write():
        with draft_of(path) as draft:
            draft.write_text("half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write()
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    file, link = tmp_path / "store" / "v1.txt", tmp_path / "a.txt"
    file.write_text("earlier")
    file.chmod(0o640)
    link.symlink_to(file)
    with draft_of(link) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert (names(tmp_path), names(tmp_path / "store")) == (["a.txt", "store"], ["v1.txt"])


def test_a_link_where_a_draft_could_be_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for suffix in (".partial", ".tmp"):
        (tmp_path / f"m.lcz{suffix}").symlink_to(victim)
    save_archive({"w": torch.ones(3)}, tmp_path / "m.lcz")
    assert victim.read_text() == "mine"


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "a.txt" / "mine").touch()
    with pytest.raises(IsADirectoryError), draft_of(tmp_path / "a.txt") as draft:
        draft.write_text("new")
    assert names(tmp_path / "a.txt") == ["mine"]


def test_a_folder_replaces_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "earlier").touch()
    with draft_of(tmp_path / "a") as draft:
        draft.mkdir()
        (draft / "new").touch()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["new"])


def _killed_exchange(path, moment):
    """Replace a folder, and die after the first rename, or before the earlier folder is deleted."""

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def rename_and_die(old, new, rename=os.replace):
        rename(old, new)
        die()

    if moment == "first rename":
        os.replace = rename_and_die
    else:
        TemporaryDirectory.cleanup = die
        shutil.rmtree = die
    with draft_of(path) as draft:
        draft.mkdir()
        (draft / "file").write_text("new")


@pytest.mark.parametrize("moment", ["first rename", "deletion"])
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two(moment, tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "file").write_text("earlier")
    process = multiprocessing.get_context("fork").Process(target=_killed_exchange, args=(path, moment))
    process.start()
    process.join()
    assert (path / "file").read_text() in ("earlier", "new")
    with draft_of(path) as draft:
        draft.mkdir()
    assert names(tmp_path) == ["a"]


def test_without_an_exchange_an_error_between_two_renames_keeps_the_earlier_folder(tmp_path, monkeypatch):
    path, replace = tmp_path / "a", os.replace
    path.mkdir()
    (path / "file").write_text("earlier")

    def replaced(old, new):
        if (old / "new").exists():
            raise OSError("input/output error")
        replace(old, new)

    monkeypatch.setattr(drafts, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "replace", replaced)

    def write():
        with draft_of(path) as draft:
            draft.mkdir()
            (draft / "new").touch()

    with pytest.raises(OSError, match="input/output"):
        write()
    assert (path / "file").read_text() == "earlier"
    monkeypatch.setattr(os, "replace", replace)
    write()
    assert (names(tmp_path), names(path)) == (["a"], ["new"])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"need a path in a folder that exists, got '.*none/m.lcz': make"):
        export(nn.Linear(2, 2), tmp_path / "none" / "m.lcz")


def test_the_disk_holds_the_file_before_its_name_and_then_the_name(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace

    def synced(handle):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    def replaced(old, new):
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    export(nn.Linear(2, 2), tmp_path / "m.lcz")
    assert calls[-3:] == ["m.lcz", "rename", tmp_path.name]


@pytest.mark.parametrize("write", [save_archive, lambda tensors, path: export(module_of(tensors), path)])
def test_eight_writers_of_one_path_all_succeed(write, tmp_path):
    path, barrier = tmp_path / "m.lcz", Barrier(8)

    def one(number):
        barrier.wait()
        for _ in range(5):
            write({"w": torch.full((1000,), float(number))}, path)
            assert len(load_archive(path)["w"].unique()) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert names(tmp_path) == ["m.lcz"]


def module_of(tensors):
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    return module


def _killed_export(path, moment):
    """Export, and die as the file is checked, or just before it takes its place."""
    torch.set_num_threads(1)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "rename":
        os.replace = die
    else:
        os.fsync = die
    torch.manual_seed(1)
    export(nn.Linear(4, 2), path, torch.zeros(1, 4))


@pytest.mark.parametrize("moment", ["flush", "rename"])
@pytest.mark.parametrize("suffix", [".lcz", ".onnx", ".pt2"])
def test_a_kill_leaves_the_earlier_file(suffix, moment, tmp_path):
    path = export(nn.Linear(4, 2), tmp_path / f"m{suffix}", torch.zeros(1, 4))
    earlier = path.read_bytes()
    process = multiprocessing.get_context("fork").Process(target=_killed_export, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == earlier
    assert [file.name for file in tmp_path.glob("[!.]*")] == [path.name]
    export(nn.Linear(4, 2), path, torch.zeros(1, 4))
    assert names(tmp_path) == [path.name]


def _slow_writer(path, begun, go_on):
    with draft_of(path) as draft:
        draft.write_text("slow")
        begun.set()
        go_on.wait(30)


def test_the_draft_of_a_writer_that_lives_stays(tmp_path):
    context, path = multiprocessing.get_context("fork"), tmp_path / "a.txt"
    begun, go_on = context.Event(), context.Event()
    process = context.Process(target=_slow_writer, args=(path, begun, go_on))
    process.start()
    assert begun.wait(30)
    with draft_of(path) as draft:
        draft.write_text("fast")
    (hidden, _) = names(tmp_path)
    assert path.read_text() == "fast"
    assert names(tmp_path / hidden) == ["a.txt"]
    go_on.set()
    process.join()
    assert process.exitcode == 0
    assert path.read_text() == "slow"
    assert names(tmp_path) == ["a.txt"]


def test_another_files_draft_and_a_link_stay(tmp_path):
    path = tmp_path / "a.txt"
    with draft_of(path) as draft:
        name = draft.parent.name
        draft.touch()
    (tmp_path / f"b{name}").mkdir()
    (tmp_path / name.replace(".a.txt.", ".a.txt.other.", 1)).mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / name).symlink_to(tmp_path / "mine")
    with draft_of(path) as draft:
        draft.touch()
    assert len(names(tmp_path)) == 5
    assert names(tmp_path / "mine") == ["file"]


def _kill_oneself(path, seed):
    generator = Random(seed)
    while True:
        with draft_of(path) as draft:
            draft.write_text("x" * 1000)
            if generator.random() < 0.3:
                os.kill(os.getpid(), signal.SIGKILL)


def test_writers_that_are_killed_and_writers_that_live_share_a_path(tmp_path):
    context, path = multiprocessing.get_context("fork"), tmp_path / "a.txt"
    killed = [context.Process(target=_kill_oneself, args=(path, seed)) for seed in range(8)]
    for process in killed:
        process.start()
    for _ in range(50):
        with draft_of(path) as draft:
            draft.write_text("y" * 1000)
    for process in killed:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    with draft_of(path) as draft:
        draft.write_text("z")
    assert names(tmp_path) == ["a.txt"]
