"""A pass of one's own, in one file: replace relu6, which is `clip(x, 0, 6)`, by relu.

    mluc opt model.onnx -p simplify,relu6-to-relu --load-pass examples/my_pass.py --pass-stats
    mluc compile model.onnx -o model.cambricon --calibrate images.npz -p relu6-to-relu --load-pass examples/my_pass.py

Relu6 costs the chip two vector instructions, relu one. The two differ only above the bound; if the network seldom goes
there (`mluc compare` tells what the change costs), the second is as good.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ops.activation import Relu
from compiler.pass_manager import Pass, PassContext
from compiler.rewrite import Declined, pattern


@dataclass(frozen=True, kw_only=True)
class Relu6ToRelu(Pass):
    """Replace a clip from 0 to a bound by relu, where the bound is at least `least-bound`."""

    name = "relu6-to-relu"
    least_bound: float = 6.0  # in a pipeline: relu6-to-relu{least-bound=1}

    def run(self, module, ctx: PassContext) -> None:
        ctx.rewrite(module, pattern("math.clip", where=lambda clip: clip.low == 0.0), self.replace)

    def replace(self, match, rewriter):
        if match.root.high < self.least_bound:
            return Declined("the bound is too small")  # counted with its reason: mluc opt --pass-stats
        return rewriter.replace(match.root, rewriter.create(Relu, match.root.x).result)
