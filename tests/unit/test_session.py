"""What `Session` takes, gives and refuses: shapes, types, names, layouts, batches, state, host functions, bad files."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from compiler.errors import CompilerError
from runtime import Session
from runtime.session import _copy
from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, HostFunction, IORecord, OfflineModel, Step
from targets.mlu220.container_records import OPEN
from tests.isa_strategies import random_function, random_inputs

EMPTY = np.zeros((0, isa.ROW_WORDS), np.int32)
# a host function computes in the records' order of device axes
HOST_TEXT = """// mluc ir 1
func @host0(%a: tensor<2x4x5x3xf32>) -> (tensor<2x4x5x3xf32>) {
  %b = math.neg %a : tensor<2x4x5x3xf32>
  return %b
}
"""
SHAPE, DEVICE_SHAPE, NHWC = (2, 3, 4, 5), (2, 4, 5, 3), (0, 2, 3, 1)


def image_record(name: str, shape: tuple[int, ...] = SHAPE) -> IORecord:
    """A model in NCHW whose device tensors are NHWC."""
    device = tuple(shape[axis] for axis in NHWC)
    return IORecord(name=name, shape=shape, dtype="f32", device_shape=device, permutation=NHWC, layout="NCHW")


def affine(name: str, scale: float = 2.0, inputs: int = 1, shape: tuple[int, ...] = SHAPE) -> DeviceFunction:
    """y = scale * (sum of the inputs), element by element, on one core."""
    size = int(np.prod(shape)) * 4
    loads = [isa.Copy(dst=(isa.NRAM, k * size), src=(isa.INPUT + k, 0), run=size) for k in range(inputs)]
    adds = [isa.Binary(dst=0, a=0, b=k * size, count=size // 4, dtype="F32", function="ADD") for k in range(1, inputs)]
    program = [
        *loads, isa.Signal(queue=0, counter=0), isa.Wait(queue=2, counter=0, value=1), *adds,
        isa.Binary(dst=0, a=0, count=size // 4, dtype="F32", function="MUL", mode="CONST", constant=scale),
        isa.Signal(queue=2, counter=1), isa.Wait(queue=0, counter=1, value=1),
        isa.Copy(dst=(isa.OUTPUT, 0), src=(isa.NRAM, 0), run=size),
    ]  # fmt: skip
    return DeviceFunction(
        name=name, inputs=[image_record(f"{name}.in{k}", shape) for k in range(inputs)],
        outputs=[image_record(f"{name}.out", shape)], programs=[isa.encode_program(program), EMPTY], cores=1,
    )  # fmt: skip


def model(inputs: int = 1, shape: tuple[int, ...] = SHAPE) -> OfflineModel:
    names = tuple("xyz"[:inputs])
    function = affine("subnet0", 2.0, inputs, shape)
    return OfflineModel(
        board="m2", cores=1, steps=[Step("subnet0", names, ("out",))], functions=[function],
        inputs=[image_record(n, shape) for n in names], outputs=[image_record("out", shape)],
    )  # fmt: skip


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(params=["simulator", "oracle"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- giving and taking ------------------------------------------------------------------------------------------------
def test_arrays_go_in_and_come_out_in_the_models_own_layout(engine: str) -> None:
    x = image()
    result = Session(model(), engine=engine).run(x)
    assert isinstance(result, np.ndarray) and result.flags.c_contiguous
    assert (result == x * 2).all()


def test_arrays_that_are_views_are_taken_as_they_are() -> None:
    wide = image(shape=(2, 6, 4, 5))
    assert (Session(model()).run(wide[:, ::2]) == wide[:, ::2] * 2).all()


def test_inputs_by_name_give_outputs_by_name(engine: str) -> None:
    session = Session(model(2), engine=engine)
    a, b = image(1), image(2)
    for result in (session.run({"x": a, "y": b}), session.run(y=b, x=a)):
        assert isinstance(result, dict) and list(result) == ["out"]
        assert (result["out"] == (a + b) * 2).all()
    assert (session.run(a, b) == (a + b) * 2).all()


def test_an_input_given_twice_is_refused() -> None:
    with pytest.raises(CompilerError, match="'x' is given twice"):
        Session(model()).run({"x": image()}, x=image(1))


def test_several_outputs_give_a_list_in_the_models_order(engine: str) -> None:
    twice = model()
    twice.functions.append(affine("subnet1", -1.0))
    twice.steps.append(Step("subnet1", ("out",), ("negative",)))
    twice.outputs.append(image_record("negative"))
    x = image()
    results = Session(twice, engine=engine).run(x)
    assert isinstance(results, list)
    assert (results[0] == x * 2).all() and (results[1] == x * -2).all()


def test_results_stay_when_the_session_runs_again() -> None:
    session = Session(model())
    first = session.run(image(1))
    assert isinstance(first, np.ndarray)
    kept = first.copy()
    session.run(image(2))
    assert (first == kept).all()


def test_records_of_inputs_and_outputs_are_the_models() -> None:
    session = Session(model(2))
    assert [r.name for r in session.inputs] == ["x", "y"]
    assert [r.shape for r in session.outputs] == [SHAPE]


@pytest.mark.parametrize(
    "arrays,message",
    [
        ((image().astype(np.float64),), "x: element type float64.*f32.*2, 3, 4, 5"),
        ((image().transpose(NHWC),), r"x: shape \[2, 4, 5, 3\].*f32\[2, 3, 4, 5\]"),
        ((image()[0],), r"x: shape \[3, 4, 5\]"),
        ((), "x f32.*is missing"),
        ((image(), image()), "takes 1 inputs, 2 were given"),
        (({"X": image()},), "no input 'X'"),
        (({"x": image(), "noise": image()},), "no input 'noise'"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_what_is_expected(arrays: tuple, message: str) -> None:
    session = Session(model())
    with pytest.raises(CompilerError, match=f"(?s){message}"):
        session.run(*arrays)


# -- many samples -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_run_many_pads_the_last_batch_and_gives_every_sample_once(samples: int, engine: str) -> None:
    x = image(3, (samples, *SHAPE[1:]))
    session = Session(model(), engine=engine)
    assert (session.run_many(x) == x * 2).all()
    assert (session.run_many(list(x)) == x * 2).all()
    named = session.run_many({"x": x})
    assert isinstance(named, dict) and (named["out"] == x * 2).all()


def test_run_many_takes_a_list_of_whole_batches() -> None:
    batches = [image(k) for k in range(3)]
    assert (Session(model()).run_many(batches) == np.concatenate(batches) * 2).all()


def test_run_many_wants_as_many_samples_of_every_input() -> None:
    with pytest.raises(CompilerError, match="one number of samples"):
        Session(model(2)).run_many({"x": image(), "y": image(shape=(4, *SHAPE[1:]))})
    with pytest.raises(CompilerError, match="dictionary"):
        Session(model(2)).run_many(image())


def test_samples_of_several_shapes_are_told() -> None:
    small = image(shape=(2, 3, 4, 4))
    for samples in ([image(), small], [image()[0], small[0]]):
        with pytest.raises(CompilerError, match=r"x: samples of shapes .*4, 4\].*4, 5\]"):
            Session(model()).run_many(samples)


def test_run_many_refuses_outputs_that_are_of_another_size_every_time() -> None:
    made = passing_on()
    made.outputs[0] = IORecord.dense("y", (OPEN,), "f32")
    with pytest.raises(CompilerError, match="another shape for every batch"):
        Session(made).run_many({"x": np.ones((4, 3), np.float32), "s": np.ones((4, 3), np.float32)})


# -- state ------------------------------------------------------------------------------------------------------------
def test_state_loops_an_output_into_an_input_until_reset(engine: str) -> None:
    session = Session(model(2), engine=engine, state={"out": "y"})
    assert [r.name for r in session.inputs] == ["x"] and session.outputs == []
    x = np.ones(SHAPE, np.float32)
    for expected in (2, 6, 14):  # out = 2 * (x + out)
        session.run(x)
        assert (session._kept["y"] == expected).all()
    session.reset()
    session.run(x)
    assert (session._kept["y"] == 2).all()


def test_state_must_name_an_output_and_an_input_that_fit() -> None:
    with pytest.raises(CompilerError, match=r"(?s)output 'outt'.*did you mean 'out'") as caught:
        Session(model(2), state={"outt": "q"})
    assert len(caught.value.diagnostics) == 2


# -- host functions ---------------------------------------------------------------------------------------------------
def test_host_functions_run_between_device_functions(engine: str) -> None:
    mixed = model()
    host = HostFunction(name="host0", text=HOST_TEXT, inputs=[image_record("a")], outputs=[image_record("b")])
    mixed.functions += [host, affine("subnet1", 5.0)]
    mixed.steps = [Step("subnet0", ("x",), ("t",)), Step("host0", ("t",), ("u",)), Step("subnet1", ("u",), ("out",))]
    x = image()
    assert (Session(mixed, engine=engine).run(x) == x * 2 * -1 * 5).all()


ALL_SAME = """// mluc ir 1
func @host0(%a: tensor<3xf32>, %s: tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>) {
  return %s, %a
}
"""


def passing_on() -> OfflineModel:
    """One host function: y = s, t = x. The input x is an output too."""
    records = {name: IORecord.dense(name, (3,), "f32") for name in "xsyt"}
    host = HostFunction(
        name="host0", text=ALL_SAME, inputs=[records["x"], records["s"]], outputs=[records["y"], records["t"]]
    )
    return OfflineModel(
        board="m2", cores=1, steps=[Step("host0", ("x", "s"), ("y", "t"))], functions=[host],
        inputs=[records["x"], records["s"]], outputs=[records["y"], records["t"], records["x"]],
    )  # fmt: skip


def test_results_are_the_callers_own_where_a_model_passes_its_inputs_on() -> None:
    x, s = np.ones(3, np.float32), np.zeros(3, np.float32)
    results = Session(passing_on()).run(x, s)
    assert isinstance(results, list) and len(results) == 3
    assert not any(np.shares_memory(given, result) for given in (x, s) for result in results)


def test_state_is_not_the_callers_array() -> None:
    session = Session(passing_on(), state={"t": "s"})
    x = np.ones(3, np.float32)
    session.run(x)
    x[:] = 99
    y, passed = session.run(x)
    assert y.tolist() == [1, 1, 1] and passed.tolist() == [99, 99, 99]


def test_a_broken_host_function_is_a_diagnostic() -> None:
    broken = model()
    text = HOST_TEXT.replace("math.neg", "math.nag")
    broken.functions.append(
        HostFunction(name="host0", text=text, inputs=[image_record("a")], outputs=[image_record("b")])
    )
    broken.steps.append(Step("host0", ("out",), ("b",)))
    with pytest.raises(CompilerError, match=r"math\.nag"):
        Session(broken).run(image())


# -- files and programs that are refused ------------------------------------------------------------------------------
def test_a_saved_model_gives_the_same_bytes(tmp_path) -> None:
    path = tmp_path / "m.cambricon"
    model().save(path)
    assert (Session(path).run(image()) == Session(model()).run(image())).all()


def test_a_damaged_file_is_refused(tmp_path) -> None:
    path = tmp_path / "m.cambricon"
    model().save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(CompilerError):
        Session(path)


def test_every_unsafe_instruction_is_named_before_anything_runs() -> None:
    unsafe = model()
    function = unsafe.device_functions[0]
    rows = function.programs[0].copy()
    copies = np.flatnonzero(rows[:, 0] == isa.Copy.opcode)
    rows[copies, isa.Copy.column("run")] += 4
    function.programs[0] = rows
    with pytest.raises(CompilerError) as caught:
        Session(unsafe)
    assert len(caught.value.diagnostics) == 2
    assert "row 0" in str(caught.value) and "input0" in str(caught.value)


@pytest.mark.parametrize("options", [{"engine": "card"}, {"threads": 0}, {"translate": {"fsue": True}}])
def test_options_that_do_not_exist_are_errors(options: dict) -> None:
    with pytest.raises(CompilerError):
        Session(model(), **options)


# -- sharing ----------------------------------------------------------------------------------------------------------
def test_a_session_may_be_shared_by_python_threads() -> None:
    session = Session(model(), threads=2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for k in range(20):
            x = image(100 * seed + k)
            if not (session.run(x) == x * 2).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_sessions_memory_goes_with_its_last_reference(engine: str) -> None:
    """Nothing refers in a circle: a sweep over many models does not wait for Python's collector."""
    session = Session(model(), engine=engine)
    session.run(image())
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None
    finally:
        gc.enable()


def test_a_result_never_depends_on_the_call_before() -> None:
    function = random_function(7, cores=2, length=10)
    inner = function.function
    names = tuple(r.name for r in inner.inputs), tuple(r.name for r in inner.outputs)
    made = OfflineModel(
        board="m2", cores=2, steps=[Step(inner.name, *names)], functions=[inner], inputs=inner.inputs,
        outputs=inner.outputs, constants=function.constants,
    )  # fmt: skip
    first, other = ({r.name: x for r, x in zip(inner.inputs, random_inputs(s), strict=True)} for s in (1, 2))
    session = Session(made)
    before, _, after = session.run(first), session.run(other), session.run(first)
    assert isinstance(before, dict) and isinstance(after, dict)
    assert all(np.array_equal(before[n], after[n], equal_nan=before[n].dtype.kind == "f") for n in before)


def test_importing_the_package_loads_no_numba() -> None:
    import subprocess
    import sys

    code = "import sys, runtime; from runtime import session; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("channels", [1, 3, 8, 9])
@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 1, 2, 3), (3, 1, 0, 2)])
def test_arrays_are_copied_whole_however_many_channels_they_have(channels: int, order: tuple[int, ...]) -> None:
    source = np.arange(2 * channels * 5 * 3, dtype=np.float32).reshape(2, channels, 5, 3).transpose(order)
    target = np.zeros(source.shape, np.float32)
    _copy(target, source)
    assert (target == source).all()
