"""Sources of inputs for calibration, `run` and `compare`: a folder of images, or a `.npz` file of arrays.

Whatever the source, what comes out are the model's inputs, exactly of the shapes and types it states. Arrays are never
read as pickled objects.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.files import DATA, unreadable
from compiler.preprocess import Preprocess

if TYPE_CHECKING:
    from compiler.ir.core import Module

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Input:
    """What a model takes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def batch(self) -> int:
        """Samples that one run takes, where the first axis counts samples."""
        return self.shape[0] if self.shape else 1

    def __str__(self) -> str:
        return f"{_text(self.shape)} {self.dtype}"


class Samples:
    """Batches of inputs: `for batch in samples`, each a dictionary of arrays by input name.

    `rows`: samples of the last batch that are real; the others repeat its last one, because the batch is fixed.
    `warnings`: what was taken for granted about them.
    """

    def __init__(self, columns: Sequence[_Column], limit: int = 0, warnings: Sequence[Diagnostic] = ()) -> None:
        self.warnings = list(warnings)
        counts = {c.input.name: c.batches for c in columns}
        wanted = max(counts.values(), default=0)
        odd = {n: k for n, k in counts.items() if k not in (1, wanted)}
        if odd:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise error("E113", f"the inputs have different numbers of samples: {told}", help="one for all is fine too")
        self._columns = columns
        batch = next((c.input.batch for c in columns if c.batches == wanted), 1)
        self._count = min(wanted, -(-limit // batch)) if limit else wanted
        short = [c.rows % c.input.batch for c in columns if c.rows % c.input.batch] if self._count == wanted else []
        self.rows = min(short, default=batch)
        self.batch = batch
        if limit and self._count * batch > limit:
            self.rows = min(self.rows, limit - (self._count - 1) * batch)

    def __len__(self) -> int:
        return self._count

    @property
    def total(self) -> int:
        """Real samples in all batches."""
        return max(self._count - 1, 0) * self.batch + (self.rows if self._count else 0)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for index in range(self._count):
            yield {c.input.name: c.get(min(index, c.batches - 1)) for c in self._columns}


def open_samples(
    source: str | Path, inputs: Sequence[Input], preprocess: Preprocess | None = None, limit: int = 0
) -> Samples:
    """The samples of a folder of images or a `.npz` file; at most `limit` of them, 0 for all.

    A `.npz` file holds one array per input under its name (for a model of one input, any single name will do): the
    first axis counts samples, or whole inputs are stacked, or it is one whole input, which then serves all samples.
    Raises CompilerError E113 where nothing fits.
    """
    path = Path(source)
    if path.is_dir():
        return Samples([_images(path, inputs, preprocess or Preprocess())], limit)
    arrays = load_npz(path)
    warnings: list[Diagnostic] = []
    if len(inputs) == 1 and len(arrays) == 1:
        ((given, array),) = arrays.items()
        if given not in (inputs[0].name, *UNNAMED):
            message = f"array {given!r} is taken for input {inputs[0].name!r}, being the only one"
            warnings.append(_warning(message, path))
        arrays = {inputs[0].name: array}
    unused = [name for name in arrays if name not in {i.name for i in inputs}]
    if unused:
        warnings.append(_warning(f"no input takes array {_names(unused)}", path))
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        known = f"the file holds {_names(arrays)}; the model takes {_names(i.name for i in inputs)}"
        raise error("E113", f"no array for input {_names(missing)}", where=str(path), help=known)
    faults: list[Diagnostic] = []
    columns = []
    for entry in inputs:
        try:
            columns.append(_arrays(entry, arrays[entry.name]))
        except CompilerError as fault:
            faults += [d.at(str(path)) for d in fault.diagnostics]
        warnings += _integers_as_reals(entry, arrays[entry.name], path)
    if faults:
        raise CompilerError(faults)
    return Samples(columns, limit, warnings)


class Calls:
    """Samples as calls in a row of a network that remembers something: `samples` gives its other inputs, and what it
    remembers comes from evaluating `module`, beginning with the first values it states.
    """

    def __init__(self, module: Module, samples: Samples) -> None:
        self._module = module
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        from compiler.evaluate.interpreter import Interpreter

        main, interpreter = self._module.main, Interpreter(self._module)
        kept = first_state(self._module)
        for sample in self._samples:
            feed = {**kept, **sample}
            yield feed
            results = dict(zip(main.output_names, interpreter.run([feed[a.name] for a in main.arguments]), strict=True))
            kept = {name: results[output] for output, name in self._module.attributes["state"].items()}


def first_state(module: Module) -> dict[str, np.ndarray]:
    """What each input that the network feeds itself is at first."""
    types = {a.name: a.type for a in module.main.arguments}
    found = {}
    for name in module.attributes.get("state", {}).values():
        array = np.asarray(module.attributes.get("first_state", {}).get(name, 0.0))
        shape = types[name].static_shape
        found[name] = (array.reshape(shape) if array.ndim else np.full(shape, array)).astype(types[name].dtype.numpy)
    return found


UNNAMED = ("input", "arr_0")
"""Names that an array has which was saved without one."""


def _warning(message: str, path: Path, help: str = "") -> Diagnostic:
    return Diagnostic(code="E117", severity="warning", message=message, where=str(path), help=help)


def _integers_as_reals(entry: Input, array: np.ndarray, path: Path) -> list[Diagnostic]:
    """Integers for an input of reals are most often pixels that nobody has normalised; flags and masks are not."""
    if not np.issubdtype(entry.dtype, np.floating) or not np.issubdtype(array.dtype, np.integer) or not array.size:
        return []
    low, high = int(array.min()), int(array.max())
    if low >= -1 and high <= 1:
        return []
    message = f"array {entry.name!r} holds {array.dtype}, from {low} to {high}; the input takes {entry.dtype}"
    help = "the numbers are taken as they are: scale and normalise them first, if the network was trained so"
    return [_warning(message, path, help)]


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` or `.npy` file, never pickled objects. Raises CompilerError E114."""
    try:
        loaded = np.load(path, allow_pickle=False)
        return {"input": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except OSError as fault:
        raise CompilerError([unreadable(path, DATA, fault)]) from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        help = "give a folder of images, or a file that numpy.savez wrote"
        raise error("E114", "is not a file of arrays, or it holds objects", where=str(path), help=help) from None


class _Column(ABC):
    """The samples of one input, of which there are `rows` before padding: `get(index)` is a whole batch."""

    def __init__(self, entry: Input, rows: int) -> None:
        self.input = entry
        self.rows = rows

    @property
    def batches(self) -> int:
        return -(-self.rows // self.input.batch)

    @abstractmethod
    def get(self, index: int) -> np.ndarray: ...


class _Stack(_Column):
    """Whole inputs, stacked."""

    def __init__(self, entry: Input, array: np.ndarray) -> None:
        super().__init__(entry, len(array) * entry.batch)
        self.array = array

    @property
    def batches(self) -> int:
        return len(self.array)

    def get(self, index: int) -> np.ndarray:
        return np.asarray(self.array[index], self.input.dtype, order="C")


class _Single(_Column):
    """Samples that come one by one, put together to batches; the last one fills up the last batch."""

    def get(self, index: int) -> np.ndarray:
        start, batch = index * self.input.batch, self.input.batch
        rows = [self.row(i) for i in range(start, min(start + batch, self.rows))]
        return np.concatenate(rows + rows[-1:] * (batch - len(rows)))

    @abstractmethod
    def row(self, index: int) -> np.ndarray:
        """One sample, with an axis of size 1 in front."""


class _Rows(_Single):
    """Rows of an array."""

    def __init__(self, entry: Input, array: np.ndarray) -> None:
        super().__init__(entry, len(array))
        self.array = array

    def row(self, index: int) -> np.ndarray:
        return np.asarray(self.array[index : index + 1], self.input.dtype)


class _Files(_Single):
    """Image files, read when they are asked for."""

    def __init__(self, entry: Input, files: Sequence[Path], preprocess: Preprocess) -> None:
        super().__init__(entry, len(files))
        self.files = files
        self.preprocess = preprocess
        self.layout = "NHWC" if entry.shape[1] not in (1, 3) and entry.shape[3] in (1, 3) else "NCHW"

    def row(self, index: int) -> np.ndarray:
        tensor = self.preprocess.read(self.files[index], self.layout)
        if tensor.shape[1:] != self.input.shape[1:]:
            raise error(
                "E113", f"the image becomes {_text(tensor.shape)}, input {self.input.name!r} takes {self.input}",
                where=str(self.files[index]), help="say how images become inputs: --preprocess size=256,crop=224",
            )  # fmt: skip
        if np.issubdtype(self.input.dtype, np.integer):  # a network that takes pixels; grey ones are means
            tensor = np.rint(tensor)
        return tensor.astype(self.input.dtype, copy=False)


def _images(folder: Path, inputs: Sequence[Input], preprocess: Preprocess) -> _Column:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        help = "known: " + ", ".join(IMAGE_SUFFIXES)
        raise error("E113", "the folder holds no images", where=str(folder), help=help)
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        told = ", ".join(f"{i.name} {i}" for i in inputs)
        message = f"a folder of images serves models of one image input, this one takes {told}"
        raise error("E113", message, where=str(folder), help="give a .npz file, one array per input")
    return _Files(inputs[0], files, preprocess)


def _arrays(entry: Input, array: np.ndarray) -> _Column:
    """The samples that an array holds of an input."""
    number = np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
    if not number or not np.can_cast(array.dtype, entry.dtype, "same_kind"):
        help = "give whole numbers, such as the bytes of an image, 0 to 255" if number else ""
        raise error("E113", f"array {entry.name!r} holds {array.dtype}, the input takes {entry}", help=help)
    if array.shape == entry.shape:
        return _Stack(entry, array[None])
    if array.shape[1:] == entry.shape and array.ndim:
        return _Stack(entry, array)
    if entry.shape and array.ndim == len(entry.shape) and array.shape[1:] == entry.shape[1:]:
        return _Rows(entry, array)
    if entry.batch == 1 and array.shape == entry.shape[1:]:
        return _Rows(entry, array[None])
    help = _turned(entry, array.shape) or "the first axis counts samples, the others are the model's"
    raise error("E113", f"array {entry.name!r} has shape {_text(array.shape)}, the input takes {entry}", help=help)


def _turned(entry: Input, shape: tuple[int, ...]) -> str:
    """What to do with images whose channels stand last where they come first, or the other way round."""
    if len(entry.shape) != 4 or len(shape) not in (3, 4):
        return ""
    lead = len(shape) - 3
    for order in ((2, 0, 1), (1, 2, 0)):
        if tuple(shape[lead + axis] for axis in order) == entry.shape[1:]:
            told = ", ".join(str(axis) for axis in (*range(lead), *(lead + axis for axis in order)))
            return f"its channels stand elsewhere, turn it: array.transpose({told})"
    return ""


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
