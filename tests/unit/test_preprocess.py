"""Preprocessing as text, as data in a file, and on pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.preprocess import Preprocess

numbers = st.lists(st.floats(0.125, 300, width=32), min_size=3, max_size=3).map(tuple)


@given(st.integers(0, 512), st.integers(0, 512), numbers, numbers, st.sampled_from(("rgb", "bgr", "gray")))
def test_what_is_recorded_reads_back_equal(size: int, crop: int, mean: tuple, std: tuple, order: str) -> None:
    made = Preprocess(size=size, crop=crop, mean=mean, std=std, order=order)
    assert Preprocess.of(made.as_dict()) == made


def test_text_gives_every_field() -> None:
    made = Preprocess.parse("size=256,crop=224,scale=0.5,mean=[1,2,3],std=4:5:6,order=bgr")
    assert made == Preprocess(size=256, crop=224, scale=0.5, mean=(1, 2, 3), std=(4, 5, 6), order="bgr")


def test_every_fault_of_the_text_is_told_at_once() -> None:
    with pytest.raises(CompilerError) as fault:
        Preprocess.parse("sise=256,crop=x,order=bgra")
    text = str(fault.value)
    assert len(fault.value.diagnostics) == 3 and "'sise'" in text and "size" in text and "rgb, bgr or gray" in text


def test_pixels_are_scaled_then_normalised_per_channel() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    y = Preprocess(scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))(pixels)
    assert y.shape == (1, 3, 2, 2) and y.dtype == np.float32
    expected = (pixels * np.float32(0.5) - [1, 2, 3]) / [2, 4, 8]
    np.testing.assert_allclose(y[0].transpose(1, 2, 0), expected, rtol=1e-6)


def test_layout_and_order_of_channels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
    nhwc = Preprocess(order="bgr")(pixels, layout="NHWC")
    np.testing.assert_array_equal(nhwc[0], pixels[..., ::-1].astype(np.float32))
    np.testing.assert_array_equal(Preprocess()(pixels)[0].transpose(1, 2, 0), pixels.astype(np.float32))


def test_gray_takes_one_channel_of_gray_pixels_and_the_mean_of_colours() -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(Preprocess(order="gray")(gray)[0, 0], gray.astype(np.float32))
    assert Preprocess()(gray).shape == (1, 3, 2, 3)
    colour = np.stack([gray, gray, gray], axis=-1)
    np.testing.assert_array_equal(Preprocess(order="gray")(colour)[0, 0], gray.astype(np.float32))


@pytest.mark.parametrize(("height", "width", "top", "left"), [(6, 8, 1, 2), (4, 4, 0, 0), (5, 7, 0, 1)])
def test_the_crop_is_in_the_middle(height: int, width: int, top: int, left: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    found = Preprocess(crop=4)(pixels, layout="NHWC")[0]
    np.testing.assert_array_equal(found, pixels[top : top + 4, left : left + 4].astype(np.float32))


def test_an_image_file_is_resized_to_its_shorter_side_and_cropped(tmp_path: object) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    path = tmp_path / "a.png"  # type: ignore[operator]
    image.fromarray(pixels).save(path)
    assert Preprocess(size=10).read(path).shape == (1, 3, 10, 20)
    assert Preprocess(size=10, crop=8).read(path).shape == (1, 3, 8, 8)
    np.testing.assert_array_equal(Preprocess().read(path, "NHWC")[0], pixels.astype(np.float32))


def test_a_file_that_is_no_image_is_an_error_with_its_name(tmp_path: object) -> None:
    pytest.importorskip("PIL.Image")
    path = tmp_path / "b.png"  # type: ignore[operator]
    path.write_text("hello")
    with pytest.raises(CompilerError, match=r"(?s)E112.*b\.png"):
        Preprocess().read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale=0", "scale cannot be '0'"), ("scale=nan", "scale cannot be 'nan'"), ("size=1,size=2", "is said twice"),
        ("order=gray,mean=[1,2,3]", "gray has one channel"), ("std=1:2:3,order=gray", "gray has one channel"),
    ],
)  # fmt: skip
def test_what_makes_no_image_of_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        Preprocess.parse(text)
