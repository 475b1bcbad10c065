"""Laws of the text form: what prints parses back to an equal module, and no text makes the parser fail otherwise."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import arrays, modules, tensor_types

from compiler.errors import CompilerError
from compiler.ir.constants import blobs_of, read_module, write_module
from compiler.ir.core import Module, hash_of_array
from compiler.ir.equality import first_difference, modules_equal
from compiler.ir.literals import read_type
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module, type_text
from compiler.ir.types import TensorType
from compiler.ir.verifier import verify

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(modules())
def test_random_modules_are_valid(module: Module) -> None:
    verify(module)


@SETTINGS
@given(modules(), st.booleans())
def test_text_parses_back_to_an_equal_module(module: Module, inline: bool) -> None:
    text = print_module(module, inline_constants=inline)
    again = parse_module(text, blobs=None if inline else blobs_of(module))
    assert first_difference(module, again, names=False) is None
    assert print_module(again, inline_constants=inline) == text
    verify(again)


@SETTINGS
@given(modules())
def test_names_that_are_unique_already_are_kept(module: Module) -> None:
    once = parse_module(print_module(module), blobs=blobs_of(module))
    twice = parse_module(print_module(once), blobs=blobs_of(once))
    assert first_difference(once, twice) is None


@SETTINGS
@given(modules())
def test_a_clone_is_equal_and_prints_the_same_bytes(module: Module) -> None:
    clone = module.clone()
    assert modules_equal(module, clone)
    assert print_module(clone) == print_module(module)


@SETTINGS
@given(modules(), st.booleans())
def test_files_read_back_to_an_equal_module(module: Module, inline: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.mlu"
        write_module(module, path, inline=inline)
        assert first_difference(module, read_module(path), names=False) is None


@SETTINGS
@given(arrays())
def test_constants_keep_every_bit_of_their_data(array: np.ndarray) -> None:
    module = Module()
    module.add_constant("c", array)
    for inline in (True, False):
        again = parse_module(print_module(module, inline_constants=inline), blobs=blobs_of(module))
        assert hash_of_array(again.constant_named("c")) == hash_of_array(array)


@SETTINGS
@given(tensor_types())
def test_a_type_reads_back_from_its_text(type: TensorType) -> None:
    assert read_type(type_text(type), {}) == type


@SETTINGS
@given(modules(), st.data())
def test_damaged_text_is_parsed_or_refused_with_diagnostics(module: Module, data: st.DataObject) -> None:
    text = print_module(module, inline_constants=True)
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    marks = st.sampled_from(["{", "}", '"', "%", "\n", "//", "loc("])
    noise = data.draw(st.one_of(st.just(""), st.text(max_size=3), marks))
    with contextlib.suppress(CompilerError):
        parse_module(text[:begin] + noise + text[end:])


@SETTINGS
@given(st.text(max_size=40))
def test_arbitrary_text_is_parsed_or_refused_with_diagnostics(text: str) -> None:
    with contextlib.suppress(CompilerError):
        parse_module(text)
