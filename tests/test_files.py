"""Files are written whole or not at all, and never over a bystander; contents are told apart."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from facesr_lib import files


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def interrupted(name: str) -> None:
        with files.replacing(tmp_path / name) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            interrupted(name)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_network_can_be_read_by_whoever_can_read_other_new_files(tmp_path):
    (tmp_path / "other").touch()
    with files.replacing(tmp_path / "network.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_disk_that_is_full_is_told_with_the_files_own_name(tmp_path):
    def full() -> None:
        with files.replacing(tmp_path / "result.csv") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the system says it of a file that is open

    with pytest.raises(OSError, match=r"No space left on device: '.*result\.csv'$"):
        full()
    assert list(tmp_path.iterdir()) == []


def test_safetensors_own_words_for_a_full_disk_become_the_systems(tmp_path):
    with (
        pytest.raises(OSError, match=r"a\.safetensors cannot be written \(I/O error.*\): make room"),
        files.replacing(tmp_path / "a.safetensors"),
    ):
        raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("path", [None, 3, b"a", ["a"], "~nobody-of-this-name/a"])
def test_what_is_no_path_is_told(path):
    with pytest.raises(ValueError, match=r"a path is a text or a pathlib\.Path, and ~ the home of a user; got"):
        files.expanded(path)


@pytest.mark.parametrize("address", ["https://host/a.png", "s3://host//a.png", "file:///a.png"])
def test_an_address_is_told_from_a_path(address):
    for path in (address, Path(address)):
        with pytest.raises(ValueError, match=r"a\.png is an address, not a file: download it") as told:
            files.expanded(path)
        assert str(path).partition(":")[0] + "://" in str(told.value)
    assert files.expanded("a:/b") == Path("a:/b")  # a drive


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for name, overwrite in {"file": False, "folder": False, "file/a": True}.items():
        with pytest.raises(FileExistsError, match=name.partition("/")[0]):
            files.check_writable(tmp_path / name, overwrite=overwrite)
    for path in (tmp_path / "folder", Path(os.devnull)):
        with pytest.raises(FileExistsError, match="it is a folder or a device, and no file"):
            files.check_writable(path, overwrite=True)
    files.check_writable(tmp_path / "file", overwrite=True)
    files.check_writable(tmp_path / "new" / "a", overwrite=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_name_that_is_taken_stops_before_the_work(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("a", "link"):
        with (
            pytest.raises(FileExistsError, match=rf"{name} exists: give another name"),
            files.replacing(tmp_path / name, overwrite=False),
        ):
            pytest.fail("the work began")
    with files.replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_of_many_writers_at_once_one_gets_the_name(tmp_path):
    together, done, refused = threading.Barrier(8), [], []

    def write(i: int) -> None:
        try:
            with files.replacing(tmp_path / "a", overwrite=False) as temporary:
                temporary.write_text(str(i))
                together.wait()
            done.append(str(i))
        except FileExistsError:
            refused.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert (tmp_path / "a").read_text() == done[0]
    assert os.listdir(tmp_path) == ["a"]


def test_a_long_name_is_no_trouble(tmp_path):
    with files.replacing(tmp_path / ("n" * 250)) as temporary:
        temporary.write_text("x")
    assert os.listdir(tmp_path) == ["n" * 250]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no does not exist: make it first"), files.replacing(tmp_path / "no/a"):
        pytest.fail("the work began")


def test_a_file_has_the_checksum_that_other_programs_print(tmp_path):
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_digest_tells_parts_kinds_of_numbers_and_orders_apart(tmp_path):
    (tmp_path / "a").write_text("ab")
    parts = [("ab", "c"), ("a", "bc"), ("c", "ab"), ("ab",), (torch.ones(2),), (torch.ones(2).bfloat16(),), ()]
    assert len({files.digest(*part) for part in parts}) == len(parts)
    assert files.digest("ab") == files.digest(b"ab") == files.digest(tmp_path / "a")
    w = torch.arange(6.0).view(2, 3)
    assert files.digest(w.t()) == files.digest(w.t().contiguous()) != files.digest(w)
    assert files.digest(torch.tensor(1.0)) == files.digest(torch.ones(1))
