"""The container of TorchScript files: what is read from it, and what else is refused, by what it is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.frontend.load import load
from compiler.frontend.torchscript.archive import MOST_MEMBERS, open_archive, read_archive
from tests.torchscript_archives import forward, members, written, zipped

RELU = forward("return torch.relu(x)")


def files(**more: bytes) -> dict[str, bytes]:
    return members(RELU, {}) | {name.replace("__", "/"): data for name, data in more.items()}


def refused(data: bytes, message: str) -> str:
    with pytest.raises(CompilerError, match=message) as caught:
        read_archive(data, "net.pt")
    return str(caught.value)


def test_the_version_and_the_members_below_the_top_folder_are_read() -> None:
    archive = read_archive(zipped(members(RELU, {}, version=7), top="any name/"), "net.pt")
    assert archive.version == 7
    assert archive.read("code/__torch__.py").decode() == RELU


def test_storages_are_mapped_from_the_file_not_copied(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32)
    archive = open_archive(written(tmp_path, members(RELU, {"w": weights})))
    found = archive.storage("data/0")
    assert found.obj is archive.data and bytes(found) == weights.tobytes()


def test_compressed_storages_are_read_too() -> None:
    archive = read_archive(zipped(members(RELU, {"w": np.zeros(1000, np.float32)}), compress=True), "net.pt")
    assert len(archive.storage("data/0")) == 4000


def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(zipped(members(RELU, {"w": np.ones(64, np.float32)})))
    data[data.index(np.ones(64, np.float32).tobytes()) + 7] ^= 16
    with pytest.raises(CompilerError, match="'data/0' is damaged: its checksum differs"):
        read_archive(bytes(data), "net.pt").storage("data/0")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused(part: float) -> None:
    data = zipped(files())
    refused(data[: int(len(data) * part)], "damaged|truncated|empty")


def test_two_members_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a/data.pkl", b"1")
        file.writestr("a/data.pkl", b"2")
    refused(buffer.getvalue(), "two members named 'a/data.pkl'")


@pytest.mark.parametrize("name", ["archive/../../etc/passwd", "/etc/passwd", "archive/a\\..\\b"])
def test_members_that_name_places_outside_are_refused(name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, b"x")
    refused(buffer.getvalue(), "names a place outside the archive")


def test_a_zip_bomb_is_refused_by_what_it_says_it_unpacks_to() -> None:
    bomb = zipped(files() | {"data/0": bytes(300 << 20)}, compress=True)
    assert len(bomb) < 1 << 20
    refused(bomb, "would unpack to 3145[0-9]* bytes")


def test_a_zip_bomb_that_lies_about_its_size_unpacks_to_no_more_than_it_says() -> None:
    data = bytearray(zipped(files() | {"data/0": bytes(1 << 20)}, compress=True))
    for found, size_at in ((data.index(b"archive/data/0"), -30 + 22), (data.rindex(b"archive/data/0"), -46 + 24)):
        at = found + size_at
        assert data[at : at + 4] == (1 << 20).to_bytes(4, "little")
        data[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(CompilerError, match=r"cannot be unpacked|damaged|size"):
        read_archive(bytes(data), "net.pt").storage("data/0")


def test_a_huge_pickle_is_refused_before_it_is_read() -> None:
    archive = read_archive(zipped(files(data__1=bytes(9 << 20))), "net.pt")
    with pytest.raises(CompilerError, match="at most"):
        archive.read("data/1")


def test_a_table_of_too_many_members_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.frontend.torchscript.archive.MOST_MEMBERS", 3)
    assert MOST_MEMBERS > 100_000
    refused(zipped(files()), "more than 3")


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zipped(files()))
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    refused(bytes(data), "is encrypted")


def test_weights_without_code_are_told_from_networks(tmp_path: Path) -> None:
    found = {k: v for k, v in files().items() if not k.startswith("code/")}
    (tmp_path / "weights.pt").write_bytes(zipped(found))
    with pytest.raises(CompilerError, match=r"E220[\s\S]*state_dict[\s\S]*torch\.jit\.save"):
        load(tmp_path / "weights.pt")


def test_the_old_form_of_torch_save_is_refused() -> None:
    assert "torch.jit.save" in refused(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old form")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("storages"))
    refused(buffer.getvalue(), "old form")


def test_mobile_files_without_code_are_refused_with_the_reason() -> None:
    only = {k: v for k, v in files(bytecode_pkl=b"").items() if not k.startswith("code/")}
    refused(zipped(only | {"bytecode.pkl": b""}), "bytecode only")
    refused(b"\x18\0\0\0PTMF" + bytes(64), "flatbuffer")


def test_archives_of_torch_export_are_told_where_they_belong() -> None:
    assert ".pt2" in refused(zipped({"models/model.json": b"{}", "archive_format": b"pt2"}), "torch.export")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"<!DOCTYPE html>", "web page"),
     (b"\0" * 100, "not a TorchScript archive"), (zipped({"a": b""}, top=""), "not a TorchScript archive"),
     (zipped({"model.json": b"{}"}), "1.0")],
    ids=["empty", "pointer", "page", "zeros", "archive", "first-version"],  # zip archives hold the time of day
)  # fmt: skip
def test_other_files_are_refused_by_what_they_are(data: bytes, message: str) -> None:
    refused(data, message)


def test_an_archive_without_its_weights_says_what_is_missing() -> None:
    found = members(forward("return torch.mul(x, self.w)"), {"w": np.ones(2, np.float32)})
    del found["data/0"]
    from tests.torchscript_archives import load_bytes

    with pytest.raises(CompilerError, match="has no 'data/0'"):
        load_bytes(zipped(found), {"x": (2,)})
