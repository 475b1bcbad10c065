"""What moves or computes few elements at a time does many at once: the same bytes, in less time."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.core import Module
from targets.mlu220 import isa
from tests.journeys import Journey, assert_one_meaning, journey, random_inputs
from tests.networks import Network


def field(made: Journey, spec: type[isa.Instruction], name: str) -> set[int]:
    """The values a field has in the instructions of one kind."""
    rows = np.concatenate(made.device.programs)
    return set(rows[rows[:, 0] == spec.opcode, spec.column(name)].tolist())


def depthwise(channels: int, height: int, width: int, kernel: int = 3, batch: int = 1, **attributes: object) -> Module:
    net = Network((batch, channels, height, width))
    y = net.conv(net.x, channels, "y", kernel=kernel, groups=channels, **attributes)
    return net.done(net.relu(y, "z"))


def same_everywhere(module: Module, **options: object) -> Journey:
    made = journey(module, **options)  # type: ignore[arg-type]
    assert_one_meaning(made, random_inputs(made.prepared, 3))
    return made


@pytest.mark.parametrize(
    ("channels", "width", "side_by_side"),
    [(32, 16, 2), (16, 12, 4), (24, 16, 8), (144, 16, 4), (64, 16, 1), (3, 4, 4)],
)
def test_windows_of_few_channels_are_computed_side_by_side(channels: int, width: int, side_by_side: int) -> None:
    made = same_everywhere(depthwise(channels, 6, width), schedule="schedule{split=rows}")
    assert field(made, isa.Depthwise, "c") == {channels * side_by_side}
    assert field(made, isa.Depthwise, "stride_x") == {side_by_side}


@pytest.mark.parametrize("width", [1, 2, 7, 9, 13, 29])
def test_a_row_that_does_not_divide_ends_with_windows_computed_twice(width: int) -> None:
    same_everywhere(depthwise(32, 5, width, batch=2), cores=2)


def test_windows_further_apart_are_computed_one_by_one() -> None:
    made = same_everywhere(depthwise(32, 9, 16, strides=(1, 2)), cores=1)
    assert field(made, isa.Depthwise, "c") == {32}
    assert field(same_everywhere(depthwise(32, 9, 16, strides=(2, 1)), cores=1), isa.Depthwise, "c") == {64}


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_taps_may_lie_apart_and_be_many(kernel: int) -> None:
    net = Network((1, 16, 12, 15))
    w, bias = net.constant("w", 16, 1, kernel, kernel, scale=0.3), net.constant("b", 16)
    pads = (kernel - 1,) * 4
    same_everywhere(net.done(net.op("nn.conv2d", net.x, w, bias, name="y", groups=16, dilations=(2, 2), pads=pads)))


@pytest.mark.parametrize("schedule", ["schedule{split=rows}", "schedule{max-rows=1}", "schedule{buffers=1}"])
@pytest.mark.parametrize("cores", [1, 4])
def test_narrow_windows_inside_a_chain_are_the_same_in_every_tile(schedule: str, cores: int) -> None:
    net = Network((1, 8, 10, 27))
    x = net.relu(net.conv(net.x, 24, "a", kernel=3), "b")
    x = net.relu(net.conv(x, 24, "c", kernel=3, groups=24), "d")
    x = net.relu(net.conv(net.conv(x, 16, "e"), 40, "f"), "g")
    y = net.conv(net.conv(x, 40, "h", kernel=3, groups=40, strides=(2, 2)), 8, "i")
    same_everywhere(net.done(y), cores=cores, schedule=schedule, chain="chain-kernels{gain=-99.0}")


# -- convolutions ----------------------------------------------------------------------------------------------------
def convolution(ci: int, co: int, height: int, width: int, kernel: int, batch: int = 1, **attributes: object) -> Module:
    net = Network((batch, ci, height, width))
    return net.done(net.relu(net.conv(net.x, co, "y", kernel=kernel, **attributes), "z"))


@pytest.mark.parametrize(
    ("ci", "co", "kernel", "stride", "side_by_side"),
    [(16, 16, 3, 1, 4), (3, 32, 3, 2, 2), (3, 8, 5, 1, 6), (64, 16, 1, 1, 1), (16, 48, 3, 1, 1), (8, 16, 1, 1, 4)],
)
def test_pixels_of_few_channels_share_the_lanes_of_the_matrix_unit(
    ci: int, co: int, kernel: int, stride: int, side_by_side: int
) -> None:
    made = same_everywhere(convolution(ci, co, 36, 48 * stride, kernel, strides=(1, stride)))
    assert field(made, isa.Conv, "co") == {co * side_by_side}
    assert field(made, isa.Conv, "kw") == {kernel + (side_by_side - 1) * stride}


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 13, 30])
@pytest.mark.parametrize("cores", [1, 4])
def test_a_row_of_any_length_is_convolved(width: int, cores: int) -> None:
    same_everywhere(convolution(12, 16, 7, width, 3, batch=2), cores=cores)


def test_tiles_with_fewer_columns_than_pixels_go_one_by_one() -> None:
    made = same_everywhere(convolution(16, 8, 1, 9, 3))
    assert field(made, isa.Conv, "co") == {8}, "columns are cut over the cores: two or three each"


def test_one_filter_in_two_forms_is_stored_in_both() -> None:
    net = Network((1, 8, 12, 16), (1, 8, 12, 3))
    w = net.constant("w", 8, 8, 3, 3, scale=0.2)
    y, z = (net.op("nn.conv2d", x, w, name=name, pads=(1, 1, 1, 1)) for x, name in zip(net.inputs, "yz", strict=True))
    assert len(field(same_everywhere(net.done(y, z)), isa.Conv, "co")) == 2


@pytest.mark.parametrize("quantize", ["quantize{i16=*}", "quantize{i16=y}"])
def test_wide_integers_share_lanes_too(quantize: str) -> None:
    same_everywhere(convolution(5, 8, 6, 19, 3), quantize=quantize)


# -- transpositions --------------------------------------------------------------------------------------------------
TRANSPOSED = {
    "channels last": ((1, 9, 6, 40), (0, 3, 1, 2)), "channels first": ((1, 40, 9, 6), (0, 2, 3, 1)),
    "a shuffle": ((1, 5, 6, 4, 12), (0, 1, 2, 4, 3)), "rows and columns of a batch": ((3, 17, 33), (0, 2, 1)),
    "outer axes": ((8, 6, 64), (1, 0, 2)), "all reversed": ((4, 9, 5, 16), (3, 2, 1, 0)),
    "few": ((7, 5, 2, 3), (0, 1, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("schedule", ["schedule", "schedule{buffers=1,max-rows=2}"])
def test_single_elements_change_places_in_the_vector_unit(case: str, schedule: str) -> None:
    shape, perm = TRANSPOSED[case]
    net = Network(shape)
    y = net.op("tensor.transpose", net.relu(net.x, "a"), name="y", perm=perm)
    made = same_everywhere(net.done(net.relu(y, "z")), schedule=schedule)
    assert bool(field(made, isa.Transpose, "rows")) == (case not in ("outer axes", "few"))
