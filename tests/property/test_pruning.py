"""The law of structured pruning: the pruned network computes what the whole one does with the removed channels ignored.

Ignored means that every layer that sums over them has zeros there. Checked on random networks of residual sums,
concatenations, depthwise convolutions, shortcuts by padding, squeeze-and-excite blocks, batch-norms and flattening.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.core import Module, Value
from compiler.ir.verifier import verify
from compiler.pass_context import PassContext
from passes.pruning.channels import PruneChannels, kept_channels, small_multiple
from passes.pruning.flow import dependencies
from tests.networks import Network, run

Layer = Callable[[Network, Value, str], Value]


def plain(net: Network, x: Value, name: str) -> Value:
    return net.relu(net.conv(x, 6, name, kernel=3), f"{name}.r")


def residual(net: Network, x: Value, name: str) -> Value:
    inner = net.op("nn.sigmoid", net.conv(x, 4, f"{name}.a"), name=f"{name}.s")
    return net.add(net.conv(inner, x.type.static_shape[1], f"{name}.b", kernel=3), x, f"{name}.sum")


def concatenation(net: Network, x: Value, name: str) -> Value:
    parts = [net.conv(x, 3, f"{name}.a"), x, net.op("nn.leaky_relu", net.conv(x, 2, f"{name}.b"), name=f"{name}.l")]
    return net.op("tensor.concat", *parts, name=name, axis=1)


def depthwise(net: Network, x: Value, name: str) -> Value:
    channels = x.type.static_shape[1]
    return net.conv(x, 2 * channels, name, kernel=3, groups=channels)


def shortcut(net: Network, x: Value, name: str) -> Value:
    c = x.type.static_shape[1]
    block = net.conv(x, c + 3, f"{name}.c", kernel=3)
    padded = net.op("tensor.pad", x, name=f"{name}.p", pads=(0, 1, 0, 0, 0, 2, 0, 0), value=0.5)
    return net.add(block, padded, name)


def excite(net: Network, x: Value, name: str) -> Value:
    c = x.type.static_shape[1]
    mean = net.op("nn.global_avg_pool", x, name=f"{name}.g")
    gate = net.op("nn.hard_sigmoid", net.conv(net.conv(mean, 2, f"{name}.a"), c, f"{name}.b"), name=f"{name}.h")
    return net.op("math.mul", gate, x, name=name)


def norm(net: Network, x: Value, name: str) -> Value:
    c = x.type.static_shape[1]
    var = net.module.add_constant(f"{name}.v", net.random.uniform(0.5, 2, c).astype(np.float32))
    vectors = [net.constant(f"{name}.{k}", c) for k in "sbm"]
    return net.op("nn.batch_norm", x, *vectors, var, name=name)


def prelu(net: Network, x: Value, name: str) -> Value:
    c = x.type.static_shape[1]
    scaled = net.op("math.mul", x, net.constant(f"{name}.k", 1, c, 1, 1), name=f"{name}.m")
    return net.op("nn.prelu", scaled, net.constant(f"{name}.w", c, 1, 1), name=name)


def halves(net: Network, x: Value, name: str) -> Value:
    """The two halves of the channels, exchanged; an odd one in the middle stays out."""
    n, c, h, w = x.type.static_shape
    half = c // 2
    parts = [
        net.op("tensor.slice", x, name=f"{name}.{start}", starts=(0, start, 0, 0), sizes=(n, half, h, w))
        for start in (c - half, 0)
    ]
    return net.op("tensor.concat", *parts, name=name, axis=1)


def there_and_back(net: Network, x: Value, name: str) -> Value:
    moved = net.op("tensor.transpose", x, name=f"{name}.t", perm=(0, 2, 3, 1))
    return net.op("tensor.transpose", net.op("math.abs", moved, name=f"{name}.a"), name=name, perm=(0, 3, 1, 2))


def resample(net: Network, x: Value, name: str) -> Value:
    pooled = net.op("nn.max_pool2d", x, name=f"{name}.p", kernel=(2, 2), strides=(2, 2))
    return net.op("nn.resize", pooled, name=name, sizes=x.type.static_shape, mode="linear")


def transposed(net: Network, x: Value, name: str) -> Value:
    w = net.constant(f"{name}.w", x.type.static_shape[1], 5, 3, 3, scale=0.3)
    return net.op("nn.conv_transpose2d", x, w, net.constant(f"{name}.b", 5), name=name, pads=(1, 1, 1, 1))


def normalise(net: Network, x: Value, name: str) -> Value:
    """An op that mixes channels: nothing before it may go."""
    return net.op("nn.softmax", x, name=name, axis=1)


LAYERS: list[Layer] = [plain, residual, concatenation, depthwise, shortcut, excite, norm, prelu]
LAYERS += [halves, there_and_back, resample, transposed, normalise]


def build(layers: list[Layer], flatten: bool, seed: int) -> Network:
    net = Network((1, 3, 4, 4), seed=seed)
    x = plain(net, net.x, "stem")
    for index, layer in enumerate(layers):
        x = layer(net, x, f"l{index}")
    if flatten:
        net.done(net.matmul(net.matmul(net.flatten(x, "flat"), 8, "fc"), 4, "head"))
    else:
        net.done(net.conv(x, 4, "head"))
    return net


networks = st.builds(build, st.lists(st.sampled_from(LAYERS), max_size=6), st.booleans(), st.integers(0, 5))


def some_channels(module: Module, choose: Callable[[int], int]) -> list[int]:
    """Atoms of some of the components that may go, never all of a group."""
    dead: list[int] = []
    for group in dependencies(module.main).groups():
        if not group.pinned:
            count = choose(len(group.components))
            dead += [atom for component in group.components[:count] for atom in component.atoms.tolist()]
    return dead


def ignoring(module: Module, dead: list[int]) -> Module:
    """The same network with zeros wherever a layer sums over one of the channels."""
    copy = module.clone()
    for place in dependencies(copy.main).slices:
        if place.contracted:
            constant = place.op.operands[place.operand]
            data = constant.data.copy()
            np.moveaxis(data, place.axis, 0)[np.isin(place.atoms, dead)] = 0
            place.op.set_operand(place.operand, copy.add_constant(constant.name, data))
    return copy


@settings(deadline=None, max_examples=60)
@given(networks, st.data())
def test_the_pruned_network_is_the_whole_one_with_channels_ignored(net, data):
    module, image = net.module, net.image()
    dead = some_channels(module, lambda size: data.draw(st.integers(0, size - 1)))
    pruned = module.clone()
    dependencies(pruned.main).remove(pruned, pruned.main, dead)
    pruned.drop_unused_constants()
    verify(pruned)
    (wanted,), (found,) = run(ignoring(module, dead), image), run(pruned, image)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


@settings(deadline=None, max_examples=30)
@given(networks, st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.sampled_from([1, 2, 4]))
def test_the_pass_keeps_inputs_and_outputs_and_never_adds_parameters(net, ratio, multiple):
    module, ctx = net.module, PassContext()
    before = [v.type for v in (*module.main.arguments, *module.main.outputs)]
    PruneChannels(ratio=ratio, multiple=multiple).run(module, ctx)
    verify(module)
    assert [v.type for v in (*module.main.arguments, *module.main.outputs)] == before
    counts = ctx.statistics.of("")
    assert counts["parameters after"] <= counts["parameters before"]
    assert np.isfinite(run(module, net.image())[0]).all()


@given(networks)
def test_every_atom_is_in_exactly_one_component(net):
    found = dependencies(net.module.main)
    atoms = [a for group in found.groups() for component in group.components for a in component.atoms.tolist()]
    assert sorted(atoms) == list(range(found.atoms))


@given(st.integers(1, 2000), st.floats(0, 0.99), st.integers(1, 128), st.integers(1, 16))
def test_what_is_kept_is_a_multiple_or_everything(total, ratio, multiple, least):
    kept = kept_channels(total, ratio, multiple, least)
    assert 1 <= kept <= total
    assert kept >= min(least, total)
    assert kept % multiple == 0 or kept in (least, total)


@given(st.integers(1, 64))
def test_small_groups_round_to_a_power_of_two_of_at_most_a_quarter(total):
    multiple = small_multiple(total, 64)
    assert multiple & (multiple - 1) == 0
    assert multiple == 1 or multiple <= total / 4
