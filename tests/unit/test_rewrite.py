"""Patterns, the greedy rewriter, its counter, names and locations."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.core import Module, Op
from compiler.ir.location import Location
from compiler.ir.parser import parse_module
from compiler.ir.verifier import verify
from compiler.ops.activation import Relu, Sigmoid
from compiler.ops.math import Add, Exp, Mul, Neg
from compiler.rewrite import (
    Declined,
    Match,
    NotConverging,
    RewriteCounter,
    Rewriter,
    Rule,
    absent,
    anything,
    apply_rules,
    constant,
    erase_dead,
    find_match,
    inherit_names,
    pattern,
    shared,
)

HEADER = "// mluc ir 1\n"
TYPE = "tensor<2xf32>"


def module_of(body: str, *, arguments: str = "%x", constants: str = "", outputs: int = 1) -> Module:
    """A module of one function; `body` leaves the types out, and writes locations as ` @@node`."""
    typed = []
    for line in body.strip().splitlines():
        text, _, node = line.strip().partition(" @@")
        location = f'  loc("{node}")' if node else ""
        typed.append(text if text.startswith("return") else f"{text} : {TYPE}{location}")
    inputs = ", ".join(f"{a}: {TYPE}" for a in arguments.split(", "))
    results = ", ".join([TYPE] * outputs)
    text = f"{HEADER}{constants}func @main({inputs}) -> ({results}) {{\n" + "\n".join(typed) + "\n}\n"
    return parse_module(text)


def op(module: Module, name: str) -> Op:
    return next(o for o in module.main.body if o.results and o.results[0].name == name)


def names(module: Module) -> list[str]:
    return [f"{o.results[0].name} = {o.op_name}" for o in module.main.body if o.results]


def to_exp(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, rewriter.create(Exp, match.root.operands[0]).result)


CONSTANT = f"const @c : {TYPE} = dense<[1.0, 2.0]>\n"


# -- patterns --------------------------------------------------------------------------------------------------------
def test_pattern_binds_ops_and_values():
    module = module_of("%a = nn.relu %x\n%b = math.add %a, @c\nreturn %b", constants=CONSTANT)
    wanted = pattern(Add, a=pattern(Relu, bind="relu", x=anything("input")), b=constant("c"), bind="add")
    match = find_match(wanted, op(module, "b"))
    assert isinstance(match, Match)
    assert match.relu is op(module, "a") and match.add is op(module, "b")
    assert match.input is module.main.arguments[0] and match.c is module.constants["c"]
    assert match.ops == (op(module, "b"), op(module, "a"))


def test_unbound_name_of_a_match_is_an_attribute_error():
    module = module_of("%a = nn.relu %x\nreturn %a")
    match = find_match(pattern(Relu), op(module, "a"))
    with pytest.raises(AttributeError, match="binds no 'conv'"):
        _ = match.conv


def test_commutative_ops_match_in_either_order_and_others_do_not():
    wanted = {"math.add": True, "math.sub": False}
    for kind, fits in wanted.items():
        module = module_of(f"%a = {kind} @c, %x\nreturn %a", constants=CONSTANT)
        match = find_match(pattern(kind, a=anything("x"), b=constant()), op(module, "a"))
        assert isinstance(match, Match) is fits


def test_same_name_twice_means_the_same_value():
    body = "%a = math.mul %x, %x\n%b = math.mul %x, %y\n%c = math.add %a, %b\nreturn %c"
    module = module_of(body, arguments="%x, %y")
    square = pattern(Mul, a=anything("v"), b=anything("v"))
    assert isinstance(find_match(square, op(module, "a")), Match)
    assert find_match(square, op(module, "b")) is None


def test_commutative_match_backtracks_over_names():
    module = module_of("%r = nn.relu %y\n%a = math.add %x, %r\n%b = math.mul %a, %y\nreturn %b", arguments="%x, %y")
    wanted = pattern(Mul, a=pattern(Add, a=anything("p"), b=pattern(Relu, x=anything("q"))), b=anything("q"))
    match = find_match(wanted, op(module, "b"))
    assert isinstance(match, Match) and match.q is module.main.arguments[1]


def test_value_with_another_user_is_in_the_way_unless_shared():
    module = module_of("%a = nn.relu %x\n%b = math.exp %a\n%c = math.add %a, %b\nreturn %c")
    declined = find_match(pattern(Exp, x=pattern(Relu)), op(module, "b"))
    assert isinstance(declined, Declined) and declined.reason == "shared"
    assert isinstance(find_match(pattern(Exp, x=shared(pattern(Relu))), op(module, "b")), Match)


def test_shared_is_no_reason_where_the_rest_does_not_fit():
    module = module_of("%a = nn.relu %x\n%b = math.add %a, %x\n%c = math.add %a, %b\nreturn %c")
    assert find_match(pattern(Add, a=pattern(Relu), b=constant()), op(module, "b")) is None


def test_returned_value_counts_as_used():
    module = module_of("%a = nn.relu %x\n%b = math.exp %a\nreturn %b, %a", outputs=2)
    assert isinstance(find_match(pattern(Exp, x=pattern(Relu)), op(module, "b")), Declined)


def test_where_and_absent_restrict_a_match():
    text = f"""{HEADER}const @w : tensor<1x1x1x1xf32> = dense<[1.0]>
    func @main(%x: tensor<1x1x2x2xf32>) -> (tensor<1x1x2x2xf32>) {{
      %c = nn.conv2d %x, @w : tensor<1x1x2x2xf32>
      return %c
    }}"""
    conv = op(parse_module(text), "c")
    assert isinstance(find_match(pattern("nn.conv2d", bias=absent()), conv), Match)
    assert find_match(pattern("nn.conv2d", bias=anything()), conv) is None
    assert find_match(pattern("nn.conv2d", where=lambda o: o.groups > 1), conv) is None


def test_pattern_with_a_wrong_operand_name_is_a_mistake():
    module = module_of("%a = nn.relu %x\nreturn %a")
    with pytest.raises(ValueError, match="names operand 'input'"):
        find_match(pattern(Relu, input=anything()), op(module, "a"))


# -- rewriting -------------------------------------------------------------------------------------------------------
def test_rewrite_keeps_names_unites_locations_and_counts():
    module = module_of("%a = math.neg %x @@n0\n%b = math.neg %a @@n1\n%c = nn.relu %b @@n2\nreturn %c")
    rule = Rule(pattern(Relu, x=pattern(Neg, x=pattern(Neg, bind="first"))), lambda m, r: r.replace(
        m.root, r.create(Sigmoid, m.first.x).result), name="to_sigmoid")  # fmt: skip
    result = apply_rules(module, [rule])
    assert names(module) == ["c = nn.sigmoid"]
    assert op(module, "c").location == Location((("", "n0"), ("", "n1"), ("", "n2")))
    assert result.applied == {"to_sigmoid": 1} and result.changed
    verify(module)


def test_rewriting_reaches_what_a_rewrite_made_possible():
    module = module_of("%a = nn.relu %x\n%b = nn.relu %a\n%c = nn.relu %b\n%d = nn.relu %c\nreturn %d")
    rule = Rule(pattern(Relu, x=pattern(Relu, bind="inner")), lambda m, r: r.replace(m.root, m.inner.result))
    assert apply_rules(module, [rule]).applied.total() == 3
    assert names(module) == ["a = nn.relu"]


def test_earlier_rules_win():
    module = module_of("%a = nn.relu %x\nreturn %a")
    rules = [Rule(pattern(Relu), to_exp), Rule(pattern(Relu), lambda m, r: pytest.fail("must not run"))]
    apply_rules(module, rules)
    assert names(module) == ["a = math.exp"]


def test_changes_without_the_rewriter_are_observed():
    module = module_of("%a = nn.relu %x\n%b = nn.relu %a\nreturn %b")

    def drop(match: Match, rewriter: Rewriter) -> None:
        match.root.replace_with(match.root.operands[0])

    assert apply_rules(module, [Rule(pattern(Relu), drop)]).applied == {"drop": 2}
    assert names(module) == []


def test_declines_are_counted_once_per_op_and_reason():
    module = module_of("%a = nn.relu %x\n%b = nn.relu %a\n%c = math.exp %b\nreturn %c")

    def decline(match: Match, rewriter: Rewriter) -> Declined:
        if match.root.name == "a":
            raise Declined("too early")
        return Declined("too late")

    result = apply_rules(module, [Rule(pattern(Relu), decline)])
    assert result.declined == {"decline: too early": 1, "decline: too late": 1}
    assert not result.changed


def test_decline_of_an_op_rewritten_later_is_forgotten():
    module = module_of("%a = nn.relu %x\n%b = math.exp %a\nreturn %b")
    seen = []

    def second_time(match: Match, rewriter: Rewriter) -> object:
        seen.append(match.root)
        return Declined("not yet") if len(seen) == 1 else to_exp(match, rewriter)

    other = Rule(pattern(Exp, where=lambda o: o.operands[0].name == "a"), lambda m, r: r.replace(
        m.root, r.create(Neg, m.root.operands[0]).result))  # fmt: skip
    assert apply_rules(module, [Rule(pattern(Relu), second_time), other]).declined == {}


def test_decline_of_what_came_apart_later_is_forgotten():
    module = module_of("%n = math.neg %x\n%a = nn.relu %n\n%b = math.exp %a\nreturn %b")
    decline = Rule(pattern(Relu, x=pattern(Neg)), lambda match, rewriter: Declined("no"))

    def take_apart(match: Match, rewriter: Rewriter) -> None:
        neg = op(module, "n")
        rewriter.replace(neg, rewriter.create(Exp, neg.operands[0], before=neg).result)

    other = Rule(pattern(Exp, where=lambda o: o.name == "b" and op(module, "n").op_name == "math.neg"), take_apart)
    assert apply_rules(module, [decline, other]).declined == {}


def test_change_and_decline_together_are_a_mistake():
    module = module_of("%a = nn.relu %x\nreturn %a")

    def both(match: Match, rewriter: Rewriter) -> Declined:
        rewriter.create(Exp, match.root.operands[0])
        return Declined("oops")

    with pytest.raises(ValueError, match="changed the module and then declined"):
        apply_rules(module, [Rule(pattern(Relu), both)])


def test_rules_that_undo_each_other_are_caught():
    module = module_of("%a = nn.relu %x\nreturn %a")
    there = Rule(pattern(Relu), to_exp)
    back = Rule(pattern(Exp), lambda m, r: r.replace(m.root, r.create(Relu, m.root.operands[0]).result), name="back")
    with pytest.raises(NotConverging, match="do not end"):
        apply_rules(module, [there, back])


def test_limit_stops_after_that_many_rewrites_and_says_which_was_last():
    body = "%a = nn.relu %x\n%b = nn.relu %a\n%c = nn.relu %b\nreturn %c"
    for limit in range(4):
        module, counter = module_of(body), RewriteCounter(limit=limit)
        apply_rules(module, [Rule(pattern(Relu), to_exp)], counter)
        assert [n.split(".")[1] for n in names(module)].count("exp") == counter.count == limit
    assert counter.last == "to_exp at c"
    assert not counter.take("one more")


def test_ops_only_the_match_needed_go_and_others_stay():
    module = module_of("%a = math.neg %x\n%b = nn.relu %a\n%c = math.exp %b\n%d = math.add %c, %a\nreturn %d")

    def of_input(match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, rewriter.create(Sigmoid, module.main.arguments[0]).result)

    apply_rules(module, [Rule(pattern(Exp, x=pattern(Relu)), of_input)])
    assert names(module) == ["a = math.neg", "c = nn.sigmoid", "d = math.add"]


def test_output_name_is_kept_when_the_value_is_replaced():
    module = module_of("%a = nn.relu %x\n%out = nn.relu %a\nreturn %out")
    rule = Rule(pattern(Relu, x=pattern(Relu, bind="inner")), lambda m, r: r.replace(m.root, m.inner.result))
    apply_rules(module, [rule])
    assert module.main.output_names == ("out",)
    assert module.main.outputs[0].name == "a"


def test_derived_constant_takes_the_name_and_place_of_the_old_one():
    constants = CONSTANT + f"const @d : {TYPE} = dense<[0.0, 0.0]>\n"
    module = module_of("%a = math.mul %x, @c\n%b = math.add %a, @d\nreturn %b", constants=constants)

    def double(match: Match, rewriter: Rewriter) -> None:
        twice = rewriter.derive(match.c, match.c.data * 2)
        rewriter.replace(match.root, rewriter.create(Add, match.root.a, twice).result)

    apply_rules(module, [Rule(pattern(Mul, b=constant("c")), double)])
    assert list(module.constants) == ["c", "d"]
    assert module.constants["c"].data.tolist() == [2.0, 4.0]
    verify(module)


def test_derived_constant_of_one_still_in_use_gets_a_name_of_its_own():
    module = module_of("%a = math.mul %x, @c\n%b = math.add %a, @c\nreturn %b", constants=CONSTANT)
    old = module.constants["c"]
    new = module.add_constant("c", np.zeros(2, np.float32))
    inherit_names(module, [(old, new)])
    assert new.name == "c.1" and module.constants == {"c": old, "c.1": new}


def test_rewriting_goes_into_kernels():
    module = parse_module(f"""{HEADER}func @main(%x: {TYPE}) -> ({TYPE}) {{
      %r = graph.kernel %x {{
        (%i: {TYPE}):
        %a = nn.relu %i : {TYPE}
        yield %a
      }} : {TYPE}
      return %r
    }}""")
    assert apply_rules(module, [Rule(pattern(Relu), to_exp)]).applied == {"to_exp": 1}


def test_scope_can_be_one_function():
    text = f"{HEADER}func @main(%x: {TYPE}) -> ({TYPE}) {{\n%a = nn.relu %x : {TYPE}\nreturn %a\n}}\n"
    module = parse_module(text + text.removeprefix(HEADER).replace("@main", "@other"))
    apply_rules(module.functions["other"], [Rule(pattern(Relu), to_exp)])
    assert [o.op_name for o in module.ops()] == ["nn.relu", "graph.return", "math.exp", "graph.return"]


def test_erase_dead_follows_operands_and_reports_survivors():
    module = module_of("%a = nn.relu %x\n%b = math.exp %a\n%c = math.neg %b\n%d = math.exp %a\nreturn %d")
    freed: list[Op] = []
    assert erase_dead(op(module, "c"), freed) == 2
    assert names(module) == ["a = nn.relu", "d = math.exp"] and freed == [op(module, "a")]


def test_work_is_about_linear_in_the_ops():
    visits = 0

    def counted(op: Op) -> bool:
        nonlocal visits
        visits += 1
        return True

    length = 400
    body = "\n".join(f"%v{i + 1} = nn.relu %{f'v{i}' if i else 'x'}" for i in range(length))
    module = module_of(f"{body}\nreturn %v{length}")
    apply_rules(module, [Rule(pattern(Relu, where=counted), to_exp)])
    assert visits < 10 * length
