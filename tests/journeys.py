"""Compilation in the steps tests want to look at: calibrated on random data, stopped after legalize and after plan-
memory, and the one law that binds them: legalised module, placed module, oracle and simulator give the same bytes.
Not tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler import driver
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.pass_manager import PIPELINES, parse_pipeline, run_pipeline
from compiler.target import load_target
from runtime.session import Session
from targets.mlu220.container import DeviceFunction, OfflineModel

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Journey:
    """A module before quantisation, after legalize and after plan-memory, and the offline model."""

    prepared: Module
    legal: Module
    placed: Module
    model: OfflineModel

    @property
    def device(self) -> DeviceFunction:
        """The only device function."""
        (only,) = self.model.device_functions
        return only


def random_inputs(module: Module, seed: int = 1, scale: float = 1.0) -> Arrays:
    random = np.random.default_rng(seed)
    shapes = [a.type.static_shape for a in module.main.arguments]
    return [(random.normal(size=shape) * scale).astype(np.float32) for shape in shapes]


def legalised(
    module: Module, inputs: Sequence[Arrays] = (), *, quantize: str = "quantize", legalize: str = "legalize",
    scheme: Any = None, cores: int = 4, **calibration: Any,
) -> tuple[Module, Module]:  # fmt: skip
    """The prepared module and the legalised one, calibrated on `inputs` (random where there are none)."""
    prepared = run_pipeline(module, "prepare", crash_directory=None)
    if scheme is None:
        batches = list(inputs) or [random_inputs(prepared, seed) for seed in (7, 8)]
        scheme = driver.calibrate(prepared, batches, calibration.pop("method", "minmax"), **calibration)
    target = load_target("mlu220", cores=cores)
    text = f"{quantize},convert-layout,partition,{legalize}"
    return prepared, run_pipeline(prepared, text, target=target, options={"scheme": scheme}, crash_directory=None)


def placed(
    legal: Module, schedule: str = "schedule", fuse: str = "fuse-layers", cores: int = 4, chain: str = "chain-kernels",
    keep: str = "keep-on-chip",
) -> Module:  # fmt: skip
    """The legalised module after the rest of the target's pipeline, four of its passes given as text (or left out)."""
    target = load_target("mlu220", cores=cores)
    given = {"fuse-layers": fuse, "chain-kernels": chain, "keep-on-chip": keep, "schedule": schedule}
    names = [p.name for p in parse_pipeline(PIPELINES["mlu220"])]
    rest = names[names.index("legalize") + 1 :]
    text = ",".join(filter(None, (given.get(name, name) for name in rest)))
    return run_pipeline(legal, text, target=target, crash_directory=None)


def emitted(module: Module, cores: int = 4) -> OfflineModel:
    model = load_target("mlu220", cores=cores).emit(module)
    assert isinstance(model, OfflineModel)
    return model


def journey(
    module: Module, inputs: Sequence[Arrays] = (), *, cores: int = 4, schedule: str = "schedule",
    fuse: str = "fuse-layers", chain: str = "chain-kernels", keep: str = "keep-on-chip", **options: Any,
) -> Journey:  # fmt: skip
    """All the way; `schedule`, `fuse`, `chain` and `keep` are pipeline text, `options` those of `legalised`."""
    prepared, legal = legalised(module, inputs, cores=cores, **options)
    final = placed(legal, schedule, fuse, cores, chain, keep)
    return Journey(prepared, legal, final, emitted(final, cores))


# -- the law ---------------------------------------------------------------------------------------------------------
def listed(outputs: Any) -> Arrays:
    return list(outputs) if isinstance(outputs, list) else [outputs]


def run_oracle(model: OfflineModel, inputs: Arrays) -> Arrays:
    return listed(Session(model, engine="oracle").run(*inputs))


def run_simulator(model: OfflineModel, inputs: Arrays, threads: int = 1, translate: Any = None) -> Arrays:
    return listed(Session(model, threads=threads, translate=translate).run(*inputs))


def assert_same_bytes(found: Arrays, wanted: Arrays, what: str) -> None:
    """Equal element types, shapes and values, NaN as NaN; zeros of either sign are the same value but not the same
    bytes.
    """
    assert len(found) == len(wanted), what
    for index, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape, (
            f"{what}: output {index} is {a.dtype}{a.shape}, not {b.dtype}{b.shape}"
        )
        same = (a == b) & (np.signbit(a) == np.signbit(b)) if a.dtype.kind == "f" else a == b
        if a.dtype.kind == "f":
            same |= np.isnan(a) & np.isnan(b)
        bad = np.argwhere(~same)
        assert not len(bad), (
            f"{what}: output {index} differs in {len(bad)} of {a.size} elements, first at {bad[0].tolist()}"
        )


def assert_one_meaning(made: Journey, inputs: Arrays, oracle: bool = True, threads: Sequence[int] = (1,)) -> Arrays:
    """Legalised module = placed module = oracle = simulator; returns what they all give."""
    wanted = Interpreter(made.legal).run(inputs)
    assert_same_bytes(Interpreter(made.placed).run(inputs), wanted, "after plan-memory")
    if oracle:
        assert_same_bytes(run_oracle(made.model, inputs), wanted, "oracle")
    for number in threads:
        assert_same_bytes(run_simulator(made.model, inputs, number), wanted, f"simulator, {number} threads")
    return wanted
