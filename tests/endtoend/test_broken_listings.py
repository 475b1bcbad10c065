"""A compiled network broken in its listing: `asm` writes it with right checksums, and it is refused with the
instruction named.

The kinds of fault are those of the proof; `test_broken_programs.py` has them instruction by instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.cli.main import main
from compiler.errors import CompilerError
from runtime.session import Session
from tests.journeys import journey
from tests.networks import Network


def first(pattern: str, replacement: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)


ENDLESS = (
    r"\1      pool dst=0x400 src=0x0 c=1 h=65535 w=65535 kh=4095 kw=4095 stride_y=500 stride_x=500 "
    r"src_row_pitch=0 src_pixel_pitch=0 dst_row_pitch=512 dst_pixel_pitch=4 dtype=F32 function=SUM\n"
)

FAULTS = {
    "address out of memory": (first(r"(unary dst=)0x[0-9a-f]+", r"\g<1>0x7ffff0"), "E712", "unary"),
    "address beyond an input": (first(r"(copy dst=nram\S+ src=input0\+)0x[0-9a-f]+", r"\g<1>0x7fff00"), "E712", "copy"),
    "missing wait": (first(r"^ +wait queue=MATRIX .*\n", ""), "E71[67]", "conv"),
    "read before written": (first(r"^ +copy dst=nram\S+ src=input0.*\n", ""), "E717", ""),
    "zero stride": (first(r"(pool .*)stride_y=2", r"\1stride_y=0"), "E711", "pool"),
    "kernel larger than its input": (first(r"(conv .*)kh=3", r"\1kh=99"), "E711", "conv"),
    "endless work": (first(r"^( +op .*\n)(?= +copy)", ENDLESS), "E713", "pool"),
    "a signal too few": (first(r"^ +signal .*\n", ""), "E71[45]", ""),
}


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = Network((1, 4, 9, 7))
    x = net.relu(net.conv(net.x, 8, "a", kernel=3), "r")
    pooled = net.op("nn.max_pool2d", x, name="p", kernel=(2, 2), strides=(2, 2))
    folder = tmp_path_factory.mktemp("listing")
    journey(net.done(net.conv(pooled, 6, "b")), cores=2).model.save(folder / "m.cambricon")
    assert main(["disasm", str(folder / "m.cambricon"), "-o", str(folder / "m.asm")]) == 0
    return folder / "m.asm"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_listing_assembles_and_is_refused(fault: str, listing: Path, tmp_path: Path) -> None:
    edit, code, instruction = FAULTS[fault]
    text = listing.read_text()
    broken = edit(text)
    assert broken != text
    (tmp_path / "b.asm").write_text(broken)
    side = listing.with_name("m.asm.safetensors")
    if side.exists():
        (tmp_path / "b.asm.safetensors").write_bytes(side.read_bytes())
    assert main(["asm", str(tmp_path / "b.asm"), "-o", str(tmp_path / "b.cambricon")]) == 0
    with pytest.raises(CompilerError) as refused:
        Session(tmp_path / "b.cambricon")
    told = str(refused.value)
    assert re.search(rf"error\[{code}\]", told), told
    assert re.search(r"subnet0: core \d, row \d+", told) and instruction in told, told
