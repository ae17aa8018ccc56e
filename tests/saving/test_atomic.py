import os

import pytest
import torch

from lognet.saving import write_atomically


@pytest.mark.parametrize(
    "data", [b"a\r\nb", "a\r\nb", lambda file: file.write(b"a\r\nb")], ids=["bytes", "text", "call"]
)
def test_a_file_is_made_and_replaced(tmp_path, data):
    path = tmp_path / "a"
    write_atomically(path, "old")
    write_atomically(str(path), data)
    assert path.read_bytes() == b"a\r\nb"
    assert os.listdir(tmp_path) == ["a"]


def test_text_is_utf_8(tmp_path):
    write_atomically(tmp_path / "a", "±")
    assert (tmp_path / "a").read_bytes() == "±".encode()


def test_what_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def half(file):
        file.write(b"ne")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_atomically(path, half)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_new_file_is_whole_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    path, order = tmp_path / "a", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("replace"), replace(old, new)))
    write_atomically(path, lambda file: torch.save({"x": torch.ones(2)}, file))
    assert order[0].endswith(".tmp")
    assert order[1:] == ["replace", str(tmp_path)]


def test_a_folder_that_cannot_be_synced_does_no_harm(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *args, **kw: (
            (_ for _ in ()).throw(PermissionError) if os.path.isdir(path) else real(path, *args, **kw)
        ),
    )
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; create it first"):
        write_atomically(tmp_path / "nowhere" / "a", "")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/a")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "a").read_text() == "new"


def test_a_folder_in_place_of_the_file_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder: it is a folder; add the name of a file"):
        write_atomically(tmp_path / "folder", lambda file: pytest.fail("the content was written"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
