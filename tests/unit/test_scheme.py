"""The scheme file: what is written reads back equal; what means nothing is an error, all at once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.ir.types import DType
from passes.quantization.scheme import LAYER_TYPES, Scheme, TensorScheme

HEAD = "version = 1\n"


def faults_of(text: str) -> list[str]:
    with pytest.raises(CompilerError) as raised:
        Scheme.parse(text)
    return [d.message for d in raised.value.diagnostics]


names = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)
absmaxes = st.floats(2.0**-60, 2.0**60, width=32)
entries = st.builds(
    lambda kind, absmax, part, method: TensorScheme.clipped(kind, absmax, absmax * part, method),
    st.sampled_from([DType.I8, DType.I16]),
    absmaxes,
    st.sampled_from([1.0, 0.5, 0.3]),
    names,
) | st.builds(
    lambda kind, absmax: TensorScheme(type=kind, absmax=absmax), st.sampled_from([DType.F16, DType.F32]), absmaxes
)
schemes = st.builds(
    Scheme,
    tensors=st.dictionaries(names, entries, max_size=4),
    layers=st.dictionaries(names, st.sampled_from(LAYER_TYPES), max_size=4),
    method=names,
    bits=st.sampled_from([8, 16]),
    weights=st.sampled_from(["per-channel", "per-tensor"]),
    pipeline=names,
    module=names,
)


@given(schemes)
def test_what_is_written_reads_back_equal(scheme):
    assert Scheme.parse(scheme.to_toml()) == scheme


@given(schemes)
def test_the_same_scheme_gives_the_same_text(scheme):
    assert Scheme.parse(scheme.to_toml()).to_toml() == scheme.to_toml()


def test_a_saved_file_loads(tmp_path):
    scheme = Scheme(tensors={"data": TensorScheme.clipped(DType.I8, 151.0, 151.0, "minmax")}, layers={"fc*": "i16"})
    scheme.save(tmp_path / "q.toml")
    assert Scheme.load(tmp_path / "q.toml") == scheme
    assert [p.name for p in tmp_path.iterdir()] == ["q.toml"]


def test_position_and_scale_are_the_chips_own():
    entry = TensorScheme.clipped(DType.I8, 151.0, 151.0, "minmax")
    assert entry.position == 1
    assert entry.scale == pytest.approx(1.682119, abs=1e-6)


def test_an_entry_may_be_given_by_absmax_alone():
    scheme = Scheme.parse(HEAD + '[tensors]\n"x" = { type = "i8", absmax = 2.0 }\n')
    assert scheme.tensors["x"] == TensorScheme.clipped(DType.I8, 2.0, 2.0, "given")


def test_an_entry_may_be_given_by_position_and_scale_alone():
    scheme = Scheme.parse(HEAD + '[tensors]\n"x" = { type = "i8", position = -6, scale = 1.0 }\n')
    assert scheme.tensors["x"].absmax == 127 / 64


def test_another_width_than_the_entrys_takes_the_whole_range():
    entry = TensorScheme.clipped(DType.I8, 8.0, 2.0, "mse")
    assert entry.quant().real_step == pytest.approx(2.0 / 127)
    assert entry.quant(DType.I16).real_step == pytest.approx(8.0 / 32767)


def test_every_fault_is_named_at_once():
    text = HEAD + 'metod = "mse"\nbits = 9\n[layers]\n"conv1" = "i4"\n[tensors]\n"x" = { type = "i8", absmax = -1 }\n'
    assert faults_of(text) == [
        "scheme has no key 'metod'",
        "scheme: bits = 9 is not known",
        "layer 'conv1': conv1 = 'i4' is not known",
        "tensor 'x': absmax must be a positive number, not -1",
    ]


def test_a_misspelt_key_is_an_error_with_the_right_word():
    with pytest.raises(CompilerError, match="did you mean 'method'"):
        Scheme.parse(HEAD + 'metod = "mse"\n')


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('"i8"', "must be a table"),
        ("{ }", "needs absmax, or position and scale"),
        ('{ type = "i8", position = -6 }', "has position alone"),
        ('{ type = "i8", position = 1.5, scale = 1.0 }', "position must be an integer"),
        ('{ type = "i8", position = -6, scale = nan }', "scale must be a positive number"),
        ('{ type = "i8", absmax = true }', "absmax must be a positive number"),
        ('{ type = "f16", position = -6, scale = 1.0 }', "takes neither position nor scale"),
        ('{ type = "i16", position = -6, scale = 1.0, absmax = 2.0 }', "position and scale reach 511.984"),
        ('{ type = "i8", absmax = 1.0, zero_point = 3 }', "has no key 'zero_point'"),
    ],
)
def test_an_entry_that_means_nothing_is_an_error(entry, message):
    assert message in faults_of(HEAD + f'[tensors]\n"x" = {entry}\n')[0]


def test_text_that_is_not_toml_is_an_error():
    assert "not TOML" in faults_of("version = = 1")[0]


def test_an_unknown_version_is_an_error():
    assert "version 2 is not known" in faults_of("version = 2\n")[0]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CompilerError, match="E521"):
        Scheme.load(tmp_path / "none.toml")


def test_an_exact_name_wins_over_patterns_and_a_later_pattern_over_an_earlier():
    scheme = Scheme(layers={"conv1": "float", "conv*": "i16", "conv?2": "i16xi8"})
    assert scheme.layer_type(["conv1", "w"]) == "float"
    assert scheme.layer_type(["conv7"]) == "i16"
    assert scheme.layer_type(["conv12"]) == "i16xi8"
    assert scheme.layer_type(["fc"]) is None


def test_a_name_with_brackets_means_itself():
    scheme = Scheme(layers={"block[0]/conv": "i16"})
    assert scheme.layer_type(["block[0]/conv"]) == "i16"


def test_scales_are_written_as_short_as_fp32_allows():
    scheme = Scheme(tensors={"x": TensorScheme.clipped(DType.I8, 1.1797, 1.1797, "minmax")})
    line = next(line for line in scheme.to_toml().splitlines() if line.startswith('"x"'))
    assert line == '"x" = { type = "i8", position = -6, scale = 1.6821014, absmax = 1.1797, method = "minmax" }'
    assert math.isclose(Scheme.parse(scheme.to_toml()).tensors["x"].scale, 1.6821014, rel_tol=1e-7)
