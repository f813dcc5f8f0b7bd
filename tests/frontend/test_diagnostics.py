"""Each refusal word for word: the texts lie in golden/diagnostics and are renewed by --update-golden."""

from __future__ import annotations

import pytest

from spattn.errors import SpattnError
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse

BAD = {
    "empty": "",
    "spaces": "  \n ",
    "unclosed": "local(128",
    "unclosed_list": "global([0, 1)",
    "unclosed_second_line": "causal |\n  local(3",
    "unmatched": "local(128))",
    "missing_between": "local(128) | | causal",
    "missing_at_end": "local(128) |",
    "leading_operator": "| causal",
    "missing_operator": "local(128) causal",
    "unknown": "locl(128)",
    "unknown_case": "Local(128)",
    "unknown_without_neighbour": "xyzzy & causal",
    "double_bar": "local(128) || causal",
    "double_ampersand": "local(128) && causal",
    "bang": "!causal",
    "caret": "causal ^ local(3)",
    "comparison_outside": "q <= k",
    "plus": "causal + full",
    "decimal": "local(1.5)",
    "exponent": "local(1e3)",
    "underscore": "local(1_000)",
    "hexadecimal": "local(0x10)",
    "five_thousand_digits": f"local({'9' * 5000})",
    "too_large": "local(2147483648)",
    "full_width_digit": "local(９)",
    "cyrillic": "lоcal(9)",
    "zero_width_space": "local(9)\u200b",
    "no_break_space": "local(9)\u00a0| causal",
    "nul": "local(9)\0",
    "crlf_and_tabs": "local(9) |\r\n\tlocl(9)",
    "too_long": "full".ljust(20_000),
    "parentheses": "(" * 50_000,
    "tildes": "~" * 50_000,
    "comment": "local(121) # comment",
    "list_ends_in_comma": "global([0,)",
    "list_without_comma": "global([0 1])",
    "list_empty": "global([])",
    "multi_line": "local(128)\n| global([0])\n| locl(3)\n",
    "missing_argument": "local()",
    "missing_argument_bare": "last",
    "too_many_arguments": "local(1, 2, 3)",
    "unknown_keyword": "local(width=128)",
    "unknown_keyword_near": "random(3, sed=1)",
    "given_twice": "local(128, w=64)",
    "mixed_signatures": "local(w=1, left=2)",
    "negative": "local(-5)",
    "dilation_zero": "local(128, dilation=0)",
    "unbound": "local(w)",
    "unbound_in_slice": "columns([a:])",
    "step_zero": "columns([::0])",
    "step_negative": "columns([::-1])",
    "heads_by_tensor": "heads([i])",
    "too_many_terms": " | ".join(["causal"] * 10_000),
    "block_size_zero": "blocks(table, size=0)",
    "seed_too_large": f"random(3, seed={2**64})",
    "wrong_kind_pattern": "local(causal)",
    "wrong_kind_list": "local([1, 2])",
    "wrong_kind_set": "global(causal | full)",
    "wrong_kind_flag": "random(3, past=1)",
    "pattern_needed": "within(ids, 3)",
    "reserved_name": "documents(q)",
    "reserved_keyword": "local(128) | documents(scale)",
    "arithmetic_outside_where": "local(w - 1)",
    "list_as_pattern": "causal & [0]",
    "two_roles": "global(x) & documents(x)",
    "two_forms": "documents(cu) | documents(segments(cu))",
    "segments_of_a_list": "documents(segments([0, 4]))",
    "segments_as_blocks": "blocks(segments(t))",
    "random_within": "within(ids, local(3) | random(2))",
    "word_within": "within(ids, bigbird())",
    "within_within": "within(ids, within(ids, causal))",
    "documents_blockwise": "blockwise(64, documents(ids))",
    "grid_of_four": "neighborhood([2, 2, 2, 2], 3)",
    "kernel_of_other_rank": "neighborhood([8, 8], [3, 3, 3])",
    "where_chained": "where(0 <= q < k)",
    "where_symbols": "where(q < 3 | k < 3)",
    "where_slash": "where(q / 2 == k)",
    "where_divisor_zero": "where(q // 0 == k)",
    "where_divisor_symbol": "where(q % k == 0)",
    "where_truth_as_number": "where((q < k) + 1 == 2)",
    "where_unknown_function": "where(mx(q, k) > 3)",
    "where_huge": "where(q * 2147483647 * 2147483647 * 2147483647 > 0)",
    "hostile_jinja": "local(1)}}{% import os %}",
    "hostile_newline": "local(1)\nimport os; os.system('id')  #",
    "meanings_at_once": "locl(3) | where(q // 0 == k) | within(ids, random(2))",
    "three_at_once": "locl(3) | local(-1) & random(1.5)",
}  # fmt: skip


def _render(call):
    with pytest.raises(SpattnError) as caught:
        call()
    return str(caught.value) + "\n"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_text_is_explained(name, golden):
    golden(f"diagnostics/{name}.txt", _render(lambda: parse(BAD[name])))


@pytest.mark.parametrize(
    ("name", "bindings"),
    [
        ("bound_to_text", {"cls": "0; import os"}),
        ("bound_to_bool", {"cls": True}),
        ("bound_to_float", {"cls": 1.0}),
        ("bound_to_large", {"cls": 2**31}),
        ("bound_but_unused", {"cls": 0, "clss": 1}),
    ],
)
def test_a_bad_binding_is_explained(name, bindings, golden):
    golden(f"diagnostics/{name}.txt", _render(lambda: parse("global([cls])", bindings)))


def test_an_integer_bound_to_a_tensor_is_explained(golden):
    golden("diagnostics/bound_tensor.txt", _render(lambda: parse("documents(ids)", {"ids": 3})))


@pytest.mark.parametrize(
    ("name", "value"),
    [("null", None), ("true", True), ("number", 90), ("list", ["causal"]), ("mapping", {"a": 1}), ("bytes", b"full")],
)
def test_what_is_no_text_is_explained(name, value, golden):
    golden(f"diagnostics/not_text_{name}.txt", _render(lambda: parse(value)))


def test_layers_without_a_layer_and_from_the_end_are_explained(golden):
    golden("diagnostics/layers_without_layer.txt", _render(lambda: meaning(parse("layers([0])"))))
    golden("diagnostics/layers_from_the_end.txt", _render(lambda: parse("layers([-1])", layer=3)))
    golden("diagnostics/layer_negative.txt", _render(lambda: parse("layers([1])", layer=-1)))


def test_all_errors_of_a_text_are_told_at_once():
    with pytest.raises(SpattnError) as caught:
        parse(BAD["three_at_once"])
    assert [caught.value.code, *(error.code for error in caught.value.others)] == ["E012", "E026", "E020"]
