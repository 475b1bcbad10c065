"""The container of a TorchScript archive: which members it has, and their bytes, bounded and checked.

An archive is a zip file with one top folder: `data.pkl` (the module), `constants.pkl`, `code/**.py`, and tensors'
storages under `data/` and `constants/`. Storages lie uncompressed, so they are mapped, not read. Files of other kinds
that carry the same suffixes are refused here, each by what it is. What the pickles and the code mean is not known here.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from compiler.errors import CompilerError, error
from compiler.files import format_of

MOST_MEMBERS = 200_000
LARGEST_TEXT = 8 << 20
"""Bytes a pickle or a source file may take: their objects take a hundred times that."""

SPARE = 64 << 20
LARGEST_RATIO = 32
"""An archive may unpack to this many times its size, plus `SPARE` bytes."""

SAVE_AS_SCRIPT = (
    "save it with its code: torch.jit.save(torch.jit.trace(model.eval(), example), 'model.pt'), "
    "or torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"
)
DAMAGED = "copy or download the model again"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DOWN_TO_NAME = 30


@dataclass
class Archive:
    """An open archive. `members` are named without the top folder; `version` is that of the operators it was written
    for (0 where the file does not say).
    """

    file: str
    data: mmap.mmap | bytes = field(repr=False)
    zip: zipfile.ZipFile = field(repr=False)
    members: dict[str, zipfile.ZipInfo] = field(repr=False)
    version: int = 0
    _checked: dict[str, memoryview] = field(default_factory=dict, repr=False)

    def __contains__(self, member: str) -> bool:
        return member in self.members

    def read(self, member: str, limit: int = LARGEST_TEXT) -> bytes:
        """A pickle or source file. Raises CompilerError where it is too large, damaged or missing."""
        if member not in self.members:
            raise self.fault(f"has no {member!r}", "it is incomplete: save it again with torch.jit.save")
        if self.members[member].file_size > limit:
            raise self.fault(f"{member!r} takes {self.members[member].file_size} bytes", f"at most {limit} are read")
        return bytes(self.storage(member))

    def storage(self, member: str) -> memoryview:
        """The bytes of a member, mapped from the file where they are stored as they are; compared with their checksum
        when first asked for.
        """
        if member not in self._checked:
            info = self.members.get(member)
            if info is None:
                raise self.fault(f"has no {member!r}", "it is incomplete: save it again with torch.jit.save")
            view = self._stored(info) if info.compress_type == zipfile.ZIP_STORED else self._inflated(info)
            if zlib.crc32(view) != info.CRC:
                raise self.fault(f"{member!r} is damaged: its checksum differs", DAMAGED)
            self._checked[member] = view
        return self._checked[member]

    def _stored(self, info: zipfile.ZipInfo) -> memoryview:
        start = info.header_offset
        header = self.data[start : start + _DOWN_TO_NAME]
        if len(header) < _DOWN_TO_NAME or header[:4] != b"PK\x03\x04":
            raise self.fault(f"{info.filename!r} is not where the file's table says", DAMAGED)
        name_size, extra_size = _LOCAL_HEADER.unpack(header)[-2:]
        begin = start + _DOWN_TO_NAME + name_size + extra_size
        if info.compress_size != info.file_size or begin + info.file_size > len(self.data):
            raise self.fault(f"{info.filename!r} reaches past the end of the file", DAMAGED)
        return memoryview(self.data)[begin : begin + info.file_size]

    def _inflated(self, info: zipfile.ZipInfo) -> memoryview:
        try:
            with self.zip.open(info) as stream:
                content = stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as fault:
            raise self.fault(f"{info.filename!r} cannot be unpacked: {fault}", DAMAGED) from None
        if len(content) != info.file_size:
            raise self.fault(f"{info.filename!r} does not have the size the file's table says", DAMAGED)
        return memoryview(content)

    def fault(self, message: str, help: str = "") -> CompilerError:
        """A fault of this file."""
        return error("E201", message, where=self.file, help=help)


def open_archive(path: Path) -> Archive:
    """The archive at `path`. Raises CompilerError that says what the file is where it is not TorchScript."""
    return read_archive(map_file(path), path.name, path)


def map_file(path: Path) -> mmap.mmap | bytes:
    """The content of a file, mapped. Raises CompilerError where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as fault:
        raise error("E201", f"cannot read the file: {fault.strerror or fault}", where=str(path)) from None


def read_archive(data: mmap.mmap | bytes, file: str, path: Path | None = None) -> Archive:
    """The archive in `data`; `file` is its name in messages."""
    _refuse_other_formats(data[:1024], file)
    archive = read_container(data, file, path)
    _refuse_other_archives(archive)
    archive.version = _version(archive)
    return archive


def read_container(data: mmap.mmap | bytes, file: str, path: Path | None = None) -> Archive:
    """A zip file as PyTorch writes them, whatever it holds, its table checked."""
    try:
        zip = zipfile.ZipFile(path if path is not None else _Bytes(data))  # type: ignore[arg-type]
        infos = zip.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError, struct.error) as fault:
        raise error("E201", f"a damaged or truncated archive: {fault}", where=file, help=DAMAGED) from None
    _check_members(infos, len(data), file)
    return Archive(file, data, zip, _below_top_folder(infos, file))


class _Bytes:
    """The part of a binary file that `zipfile` needs, over bytes that are in memory already."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, len(self._data))[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        end = len(self._data) if count < 0 else self._at + count
        part = self._data[self._at : end]
        self._at += len(part)
        return bytes(part)


def _refuse_other_formats(head: bytes, file: str) -> None:
    if not head:
        raise error("E201", "the file is empty", where=file, help=DAMAGED)
    if head[:2] == b"PK":
        return
    if head[4:8] == b"PTMF":
        raise error(
            "E220", "is a mobile model in flatbuffer form: it carries compiled code only", where=file,
            help="save the scripted model with torch.jit.save, or _save_for_lite_interpreter without flatbuffers",
        )  # fmt: skip
    if head[4:6] == b"ET":
        raise error("E220", "is an ExecuTorch program: its code is compiled already", where=file, help=SAVE_AS_SCRIPT)
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        message = "is a file of torch.save in its old form: weights or a pickled Python object, without the code"
        raise error("E220", message, where=file, help=SAVE_AS_SCRIPT)
    known = format_of(head)
    if known is not None:
        raise error("E220", f"is {known.what}, not a model", where=file, help=known.remedy)
    raise error("E201", "is not a TorchScript archive, or a damaged one", where=file, help=DAMAGED)


def _check_members(infos: list[zipfile.ZipInfo], size: int, file: str) -> None:
    """Refuse tables that are too long, name a member twice or a place outside, or unpack to too much."""
    if len(infos) > MOST_MEMBERS:
        raise error("E201", f"has {len(infos)} members, more than {MOST_MEMBERS}", where=file)
    seen: set[str] = set()
    for info in infos:
        parts = info.filename.split("/")
        if info.filename in seen:
            raise error("E201", f"has two members named {info.filename!r}", where=file, help=DAMAGED)
        if info.filename.startswith("/") or "\\" in info.orig_filename or "\0" in info.orig_filename or ".." in parts:
            raise error("E201", f"member {info.orig_filename!r} names a place outside the archive", where=file)
        if info.flag_bits & 1:
            raise error("E201", f"member {info.filename!r} is encrypted", where=file, help="save it without a password")
        seen.add(info.filename)
    unpacked = sum(info.file_size for info in infos)
    if unpacked > LARGEST_RATIO * size + SPARE:
        message = f"would unpack to {unpacked} bytes from {size}, more than a model does"
        raise error("E201", message, where=file, help="save the model again with torch.jit.save")


def _below_top_folder(infos: list[zipfile.ZipInfo], file: str) -> dict[str, zipfile.ZipInfo]:
    tops = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
    if any(info.filename == "serialized_exported_program.json" for info in infos):  # torch.export before 2.8: no folder
        return {info.filename: info for info in infos}
    if len(tops) != 1:
        raise error("E220", "is a zip file, but not a TorchScript archive", where=file, help=SAVE_AS_SCRIPT)
    top = tops.pop() + "/"
    return {i.filename[len(top) :]: i for i in infos if i.filename.startswith(top) and not i.filename.endswith("/")}


def _refuse_other_archives(archive: Archive) -> None:
    """Zip files that PyTorch writes and that are no TorchScript, or hold none of its code."""
    names = archive.members
    if any(n in names for n in ("models/model.json", "serialized_exported_program.json", "archive_format")):
        raise error(
            "E220", "is an archive of torch.export", where=archive.file, help="give the file the suffix .pt2"
        )  # fmt: skip
    has_code = any(n.startswith("code/") and n.endswith(".py") for n in names)
    if has_code and "data.pkl" in names:
        return
    if "bytecode.pkl" in names:
        raise error(
            "E220", "is a mobile archive that carries bytecode only", where=archive.file,
            help="save the scripted model with torch.jit.save: it keeps the code that is read here",
        )  # fmt: skip
    if "data.pkl" in names and not has_code:
        message = "is a file of torch.save: weights (a state_dict) or a pickled module, without the network's code"
        raise error("E220", message, where=archive.file, help=SAVE_AS_SCRIPT)
    if "model.json" in names:
        message = "is a TorchScript archive of PyTorch 0.4 or 1.0, whose form is not read"
        raise error("E220", message, where=archive.file, help="load it with PyTorch 1.x and save it again")
    raise error("E220", "is a zip file, but not a TorchScript archive", where=archive.file, help=SAVE_AS_SCRIPT)


def _version(archive: Archive) -> int:
    for member in (".data/version", "version"):
        if member in archive:
            text = archive.read(member, 64).strip()
            if text.isdigit():
                return int(text)
            raise archive.fault(f"its version is {text!r}, not a number", DAMAGED)
    return 0
