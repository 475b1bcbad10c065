"""Files that are given by name: which of them cannot be what is asked for, and what to do instead; and how files are
written.

A file that is missing is told with its neighbours of similar names; one of another kind, by its first bytes or else by
its suffix, with what that kind is good for. Readers say what is wrong inside of a file of the right kind.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from compiler.errors import CompilerError, Diagnostic, error, nearest

HEAD = 512
"""Bytes at the beginning of a file that tell its format."""
MOST_NEIGHBOURS = 1000
"""Files of a folder that are looked at for a similar name."""


@dataclass(frozen=True)
class Format:
    """A format of files: `what` it is, `remedy`: what to do with one where something else is asked for. `magic` are
    (offset, bytes) of which one must be found."""

    what: str
    remedy: str
    suffixes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What is asked for: `what`, the suffixes it has, and the codes of faults: a file that cannot be read, and one that
    is something else (`code` too, if empty). `folder`: a folder will do; `any_suffix`: its name may end in anything."""

    what: str
    code: str
    suffixes: tuple[str, ...]
    other_code: str = ""
    folder: bool = False
    any_suffix: bool = False


MODEL_SUFFIXES = (".onnx", ".mlu", ".pt", ".pth", ".ptl", ".jit", ".torchscript", ".pt2")
"""Of what is compiled."""
MODEL = Wanted("a model", "E201", MODEL_SUFFIXES, "E220")
IR = Wanted("IR text", "E322", (".mlu",), any_suffix=True)
OFFLINE = Wanted("an offline model", "E700", (".cambricon",), any_suffix=True)
LISTING = Wanted("a listing", "E700", (".asm",), any_suffix=True)
DATA = Wanted("a folder of images or a file of arrays", "E114", (".npz", ".npy"), folder=True, any_suffix=True)
SCHEME = Wanted("a scheme", "E521", (".toml",), any_suffix=True)
BOARD = Wanted("a board", "E691", (".toml",))
PASS_FILE = Wanted("a file of passes", "E406", (".py",))

_TO_ONNX = "convert it to ONNX: "
_DOWNLOADED = "the download gave a page in place of the file: open its address in a browser, then fetch the file itself"

FORMATS = (
    Format("a Git LFS pointer", "fetch the file itself: git lfs pull", magic=((0, b"version https://git-lfs"),)),
    Format("a web page", _DOWNLOADED, (".html", ".htm"), ((0, b"<!DOCTYPE"), (0, b"<!doctype"), (0, b"<html"))),
    Format("an image", "images are given as a folder, to --calibrate, --inputs or --data",
           (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"),
           ((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n"), (0, b"GIF8"), (8, b"WEBP"))),
    Format("an offline model, compiled already",
           "run, profile, inspect, disasm and compare take it; where a model is asked for, give the one it was made of",
           (".cambricon",), ((0, b"\x89MLUC\r\n"),)),
    Format("a TensorFlow Lite model", _TO_ONNX + "python -m tf2onnx.convert --tflite FILE --output model.onnx",
           (".tflite",), ((4, b"TFL3"),)),
    Format("a Keras model or another HDF5 file",
           _TO_ONNX + "model.export('folder') in Keras, then python -m tf2onnx.convert --saved-model folder --output "
           "model.onnx",
           (".h5", ".hdf5", ".keras"), ((0, b"\x89HDF\r\n"),)),
    Format("a TensorFlow graph",
           _TO_ONNX + "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx, with the folder it is in",
           (".pb",)),
    Format("a file of weights, without the network",
           "export the network with its weights: torch.onnx.export(model.eval(), example, 'model.onnx')",
           (".safetensors", ".ckpt", ".bin", ".pkl")),
    Format("a model of another framework", _TO_ONNX + "its own tools say how",
           (".caffemodel", ".prototxt", ".param", ".params", ".mlmodel", ".xml", ".pdmodel", ".weights", ".cfg")),
    Format("a model compiled for another device", "give the model it was made of",
           (".engine", ".plan", ".trt", ".rknn", ".om", ".blob", ".kmodel", ".hef")),
    Format("a packed file", "unpack it first", (".gz", ".tgz", ".tar", ".xz", ".7z", ".zip", ".bz2"),
           ((0, b"\x1f\x8b"), (0, b"\xfd7zXZ"), (0, b"7z\xbc\xaf"), (0, b"BZh"))),
    Format("a PDF document", "give the file itself", (".pdf",), ((0, b"%PDF"),)),
    Format("a file of arrays", "arrays are given to --calibrate, --inputs or --data", (".npz", ".npy"),
           ((0, b"\x93NUMPY"),)),
    Format("a scheme or a board", "--scheme and --board take it", (".toml",)),
    Format("Python code", "--load-pass takes it, if it defines passes", (".py",)),
    Format("a listing", "mluc asm takes it", (".asm",)),
    Format("a model to be compiled", "mluc compile takes it", MODEL_SUFFIXES),
)  # fmt: skip
"""The first that fits counts."""


# -- writing ---------------------------------------------------------------------------------------------------------
@contextmanager
def written_whole(path: Path, code: str = "E101") -> Iterator[BinaryIO]:
    """A file to write beside `path`, which takes its place once it is whole and on the disk. Raises CompilerError where
    that fails, and leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as fault:
        raise error(code, f"cannot write the file: {fault.strerror or fault}", where=str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


# -- reading ---------------------------------------------------------------------------------------------------------
def format_of(head: bytes) -> Format | None:
    """The format that a file's first bytes are known for."""
    head = head.lstrip() if head.lstrip()[:1] == b"<" else head  # pages may begin with empty lines
    for found in FORMATS:
        if any(head[at : at + len(magic)] == magic for at, magic in found.magic):
            return found
    return None


def fault_of(path: str | Path, wanted: Wanted) -> Diagnostic | None:
    """What keeps a file from being what is wanted, as far as its name and its first bytes tell; None for nothing."""
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, false for names that no file can have
        return None if wanted.folder else _folder(path, wanted)
    if os.path.exists(path) and not os.path.isfile(path):
        return None  # a pipe: what is looked at is gone
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except (OSError, ValueError) as fault:
        return unreadable(path, wanted, fault)
    if not head:
        return _fault(path, wanted, "the file is empty", "copy, download or make it again")
    found = format_of(head)
    if found is not None and set(found.suffixes) & set(wanted.suffixes):
        return None
    named = path.suffix.lower() in wanted.suffixes
    if found is None and not named:
        found = next((f for f in FORMATS if path.suffix.lower() in f.suffixes), None)
    if found is not None:
        return _other(path, wanted, f"is {found.what}, not {wanted.what}", found.remedy)
    return None if named or wanted.any_suffix else _unknown(path, wanted)


def check_file(path: str | Path, wanted: Wanted) -> None:
    """Raise CompilerError where `fault_of` finds something."""
    fault = fault_of(path, wanted)
    if fault is not None:
        raise CompilerError([fault])


def unreadable(path: str | Path, wanted: Wanted, fault: Exception) -> Diagnostic:
    """A file that cannot be opened, and for one that is missing, what may have been meant."""
    path = Path(path)
    if not isinstance(fault, FileNotFoundError | NotADirectoryError):
        reason = getattr(fault, "strerror", None) or str(fault)
        return _fault(path, wanted, f"cannot be read: {reason[:1].lower()}{reason[1:]}")
    if not os.path.isdir(path.parent):
        return _fault(path, wanted, f"no such file: there is no folder {str(path.parent)!r}")
    return _fault(path, wanted, "no such file", _meant(path, wanted))


def _meant(path: Path, wanted: Wanted) -> str:
    """Neighbours with a similar name: those that can be what is wanted, else others."""
    fitting = _suitable(path.parent, wanted)
    close = _similar(path, fitting, 0.6) or _similar(path, _names_in(path.parent), 0.8)
    if close:
        return "did you mean " + " or ".join(repr(str(path.with_name(name))) for name in close) + "?"
    return f"the folder holds {', '.join(fitting)}" if 0 < len(fitting) <= 3 else ""


def _similar(path: Path, names: Sequence[str], cutoff: float) -> list[str]:
    """At most three of `names` that are like the path's but for the suffix, best first, its own suffix first."""
    stems = nearest(path.stem, [Path(name).stem for name in names], cutoff=cutoff)
    close = [name for stem in stems for name in names if Path(name).stem == stem]
    return sorted(close, key=lambda name: Path(name).suffix != path.suffix)[:3]


def _folder(path: Path, wanted: Wanted) -> Diagnostic:
    if (path / "saved_model.pb").exists():
        help = _TO_ONNX + f"python -m tf2onnx.convert --saved-model {path} --output model.onnx"
        return _other(path, wanted, f"is a TensorFlow SavedModel, not {wanted.what}", help)
    inside = _suitable(path, wanted)[:3]
    help = "give a file of it: " + ", ".join(str(path / name) for name in inside) if inside else "give a file"
    return _fault(path, wanted, f"is a folder, not {wanted.what}", help)


def _unknown(path: Path, wanted: Wanted) -> Diagnostic:
    named = f"is named {path.suffix}" if path.suffix else "has no suffix"
    return _other(path, wanted, f"{named}, which {wanted.what} is not", "known: " + ", ".join(wanted.suffixes))


def _names_in(folder: Path) -> list[str]:
    """Some names in a folder, in order; none where it cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry, _ in zip(entries, range(MOST_NEIGHBOURS), strict=False))
    except OSError:
        return []


def _suitable(folder: Path, wanted: Wanted) -> Sequence[str]:
    return [name for name in _names_in(folder) if Path(name).suffix.lower() in wanted.suffixes]


def _fault(path: Path, wanted: Wanted, message: str, help: str = "") -> Diagnostic:
    return Diagnostic(code=wanted.code, message=message, where=str(path), help=help)


def _other(path: Path, wanted: Wanted, message: str, help: str) -> Diagnostic:
    return Diagnostic(code=wanted.other_code or wanted.code, message=message, where=str(path), help=help)
