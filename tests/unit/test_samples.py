"""Samples: how arrays and folders become batches of exactly the model's inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.preprocess import Preprocess
from compiler.samples import Input, Samples, load_npz, open_samples

F32 = np.dtype(np.float32)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def refused(path: Path, *inputs: Input) -> str:
    with pytest.raises(CompilerError) as fault:
        list(open_samples(path, inputs))
    return str(fault.value)


def test_the_first_axis_counts_samples(tmp_path):
    path = saved(tmp_path, x=np.arange(6.0).reshape(3, 2))
    samples = open_samples(path, [Input("x", (1, 2), F32)])
    assert [s["x"].tolist() for s in samples] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert all(s["x"].dtype == F32 for s in samples)


def test_the_last_batch_repeats_its_last_sample(tmp_path):
    path = saved(tmp_path, x=np.arange(5.0)[:, None])
    samples = open_samples(path, [Input("x", (2, 1), F32)])
    assert [s["x"][:, 0].tolist() for s in samples] == [[0, 1], [2, 3], [4, 4]]
    assert (len(samples), samples.rows, samples.total) == (3, 1, 5)


def test_whole_inputs_may_be_stacked(tmp_path):
    path = saved(tmp_path, x=np.zeros((4, 2, 3)))
    samples = open_samples(path, [Input("x", (2, 3), F32)])
    assert len(samples) == 4
    assert samples.total == 8


def test_one_array_of_any_name_serves_a_model_of_one_input(tmp_path):
    path = saved(tmp_path, anything=np.zeros((3, 2)))
    assert len(open_samples(path, [Input("x", (1, 2), F32)])) == 3


def test_an_input_given_once_serves_all_samples(tmp_path):
    path = saved(tmp_path, x=np.zeros((5, 4)), state=np.ones((2, 1, 8)))
    samples = open_samples(path, [Input("x", (1, 4), F32), Input("state", (2, 1, 8), F32)])
    assert [s["state"].shape for s in samples] == [(2, 1, 8)] * 5


def test_scalars_are_inputs_too(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 4)), rate=np.int32(16000))
    samples = open_samples(path, [Input("x", (1, 4), F32), Input("rate", (), np.dtype(np.int64))])
    assert [int(s["rate"]) for s in samples] == [16000] * 3


def test_integers_become_floats_but_not_the_reverse(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 4), np.uint8))
    assert next(iter(open_samples(path, [Input("x", (1, 4), F32)])))["x"].dtype == F32
    path = saved(tmp_path, x=np.zeros((3, 4), np.float32))
    assert "holds float32" in refused(path, Input("x", (1, 4), np.dtype(np.int32)))


def test_counts_that_differ_are_refused(tmp_path):
    path = saved(tmp_path, a=np.zeros((3, 4)), b=np.zeros((2, 4)))
    assert "different numbers of samples: a 3, b 2" in refused(path, Input("a", (1, 4), F32), Input("b", (1, 4), F32))


def test_every_array_that_does_not_fit_is_named(tmp_path):
    path = saved(tmp_path, a=np.zeros((3, 5)), b=np.zeros((2, 2, 4)))
    told = refused(path, Input("a", (1, 4), F32), Input("b", (1, 4), F32))
    assert "array 'a' has shape 3x5" in told and "array 'b' has shape 2x2x4" in told


def test_objects_are_never_loaded(tmp_path):
    path = saved(tmp_path, x=np.array([{}], dtype=object))
    with pytest.raises(CompilerError, match="E114"):
        load_npz(path)


def test_a_folder_serves_models_of_one_image_input_only(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert "one image input" in refused(tmp_path, Input("x", (1, 10), F32))


@pytest.mark.parametrize(("shape", "expected"), [((1, 3, 4, 4), (1, 3, 4, 4)), ((1, 4, 4, 3), (1, 4, 4, 3))])
def test_images_take_the_layout_of_the_input(tmp_path, shape, expected):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((4, 4, 3), 8, np.uint8)).save(tmp_path / "a.png")
    samples = open_samples(tmp_path, [Input("x", shape, F32)], Preprocess(scale=0.5))
    image = next(iter(samples))["x"]
    assert image.shape == expected
    assert np.all(image == 4.0)


def test_a_file_that_is_no_image_is_named(tmp_path):
    pytest.importorskip("PIL.Image")
    (tmp_path / "a.png").write_bytes(b"not an image")
    assert "a.png" in refused(tmp_path, Input("x", (1, 3, 4, 4), F32))


@given(rows=st.integers(1, 20), batch=st.integers(1, 6), limit=st.integers(0, 25))
def test_real_samples_are_counted_and_come_in_order(rows, batch, limit):
    from compiler.samples import _Rows

    samples = Samples([_Rows(Input("x", (batch, 1), F32), np.arange(float(rows))[:, None])], limit)
    wanted = min(rows, limit) if limit else rows
    assert samples.total == wanted
    joined = np.concatenate([s["x"] for s in samples])[: samples.total, 0]
    assert joined.tolist() == list(range(wanted))


# -- what is taken for granted is said -------------------------------------------------------------------------------
def test_an_only_array_of_another_name_is_taken_with_a_warning(tmp_path):
    path = saved(tmp_path, pictures=np.zeros((3, 2)))
    (warning,) = open_samples(path, [Input("x", (1, 2), F32)]).warnings
    assert "'pictures' is taken for input 'x'" in warning.message and warning.severity == "warning"


def test_an_array_saved_without_a_name_needs_no_warning(tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((3, 2)))
    assert not open_samples(tmp_path / "x.npz", [Input("x", (1, 2), F32)]).warnings


def test_arrays_that_nothing_takes_are_named(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 2)), labels=np.zeros(3))
    (warning,) = open_samples(path, [Input("x", (1, 2), F32)]).warnings
    assert warning.message == "no input takes array 'labels'"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_integers_for_an_input_of_reals_are_taken_as_they_are_with_a_warning(tmp_path, dtype):
    path = saved(tmp_path, x=np.array([[0, 120]], dtype))
    samples = open_samples(path, [Input("x", (1, 2), F32)])
    (warning,) = samples.warnings
    assert f"holds {np.dtype(dtype)}, from 0 to 120; the input takes float32" in warning.message
    assert next(iter(samples))["x"].tolist() == [[0.0, 120.0]]


def test_doubles_for_floats_and_integers_for_integers_need_no_warning(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 2)), n=np.zeros((3, 1), np.int32))
    assert not open_samples(path, [Input("x", (1, 2), F32), Input("n", (1, 1), np.dtype(np.int64))]).warnings


@pytest.mark.parametrize(
    ("wanted", "given", "axes"),
    [
        ((1, 3, 8, 9), (2, 8, 9, 3), "0, 3, 1, 2"), ((1, 8, 9, 3), (2, 3, 8, 9), "0, 2, 3, 1"),
        ((1, 3, 8, 9), (8, 9, 3), "2, 0, 1"),
    ],
)  # fmt: skip
def test_images_with_their_channels_elsewhere_are_told_how_to_turn_them(tmp_path: Path, wanted, given, axes) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(given, np.float32))
    with pytest.raises(CompilerError, match=rf"array\.transpose\({axes}\)"):
        open_samples(tmp_path / "x.npz", [Input("x", wanted, np.dtype(np.float32))])
