"""The `_twins` text has the vendor's shape, character by character."""

from __future__ import annotations

import re

import numpy as np
import pytest

from targets.mlu220.container import DeviceFunction, HostFunction, IORecord, OfflineModel
from targets.mlu220.twins import dim_order, four_axes, twins_text

EXPECTED = """\
This is the Twins File of "det3.cambricon".
Function number: 1
---------------kernel graph--------------------

Function #0 {
Kernel num:1 
Cache mode:0 
Name: subnet0
Input number: 1
    Input #0.
        Mask: 338036233
        Shape(dim): 1 48 48 3 
        Name: data
        Id: 0
        Data type: CNRT_FLOAT32        Dim Order: CNRT_NHWC
        Quantize position: -7
        Quantize scale: 0.996078
Output number: 1
    Output #0.
        Mask: 338036233
        Shape(dim): 1 1 1 10 
        Name: prob
        Id: 1
        Data type: CNRT_FLOAT16        Dim Order: CNRT_NHWC
        Quantize position: 0
        Quantize scale: 0.000000
Kernel header #0:
    Name: subnet07
    Core version: 
    Model Parallelism: 1
    Core limit: 1
    Inst data split: true
}
"""


def function(name: str) -> DeviceFunction:
    data = IORecord(
        name="data", shape=(1, 3, 48, 48), dtype="f32", device_shape=(1, 48, 48, 3), permutation=(0, 2, 3, 1),
        layout="NCHW", position=-7, scale=0.9960781,
    )  # fmt: skip
    programs = [np.zeros((5, 32), np.int32), np.zeros((2, 32), np.int32)]
    return DeviceFunction(
        name=name, inputs=[data], outputs=[IORecord.dense("prob", (1, 10), "f16")], programs=programs, cores=1
    )


def test_one_subnet_prints_as_the_vendors_file_does():
    assert twins_text(OfflineModel(board="m2", cores=1, functions=[function("subnet0")]), "det3.cambricon") == EXPECTED


def test_every_subnet_has_a_block_and_host_functions_have_none():
    host = HostFunction(name="host0", text="", inputs=[], outputs=[])
    model = OfflineModel(board="m2", cores=1, functions=[function("subnet0"), host, function("subnet1")])
    text = twins_text(model, "x.cambricon")
    assert "Function number: 2\n" in text
    assert "Function #1 {\nKernel num:1 \nCache mode:0 \nName: subnet1\n" in text
    assert "host0" not in text


@pytest.mark.parametrize(
    ("shape", "printed"),
    [((), (1, 1, 1, 1)), ((7,), (1, 1, 1, 7)), ((2, 7), (2, 1, 1, 7)), ((2, 5, 7), (2, 1, 5, 7)),
     ((1, 2, 3, 4), (1, 2, 3, 4)), ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5))],
)  # fmt: skip
def test_shapes_are_printed_with_four_axes(shape, printed):
    assert four_axes(shape) == printed


@pytest.mark.parametrize(
    ("layout", "permutation", "order"),
    [("NCHW", (0, 2, 3, 1), "CNRT_NHWC"), ("NCHW", (0, 1, 2, 3), "CNRT_NCHW"), ("NHWC", (0, 1, 2, 3), "CNRT_NHWC"),
     ("NHWC", (0, 3, 1, 2), "CNRT_NCHW"), ("ARRAY", (0, 1, 2, 3), "CNRT_NHWC")],
)  # fmt: skip
def test_the_order_of_axes_is_the_devices_not_the_models(layout, permutation, order):
    shape = (1, 5, 6, 7)
    device = tuple(shape[i] for i in permutation)
    record = IORecord(
        name="x", shape=shape, dtype="f32", device_shape=device, permutation=permutation, layout=layout
    )  # fmt: skip
    assert dim_order(record) == order


def test_the_twins_of_a_compiled_network_have_the_vendors_lines_and_no_others(offline):
    text = offline.with_name(offline.name + "_twins").read_text()
    assert shape_of(text) == shape_of(EXPECTED)
    assert "Shape(dim): 1 8 8 3 \n" in text and "CNRT_NCHW" not in text


def shape_of(text: str) -> str:
    """A twins text without the names and numbers of its model."""
    return re.sub(r"(File of|Name:|Shape\(dim\):|Id:|type:|position:|scale:|Parallelism:|limit:).*", r"\1", text)
