"""What a call gives by name beside tensors names nothing in a pattern: no tensor of that name could ever be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import spattn
from spattn.errors import SpattnError
from spattn.frontend.arithmetic import SYMBOLS
from spattn.frontend.atoms import ATOMS
from spattn.frontend.parser import parse
from spattn.frontend.prelude import words
from spattn.frontend.reserved import KEYWORDS
from spattn.pattern import Pattern

SURFACE = {
    "compile": spattn.compile,
    "attention": spattn.attention,
    "parse": spattn.parse,
    "Pattern.of": Pattern.of.__func__,  # type: ignore[attr-defined]
    "Attention": spattn.Attention.__call__,
    "explain": spattn.Attention.explain,
    "mask": Pattern.mask,
    "count": Pattern.count,
    "density": Pattern.density,
    "why": Pattern.why,
}
FIXED = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD
TEXTS = (
    "documents({})",
    "within({}, causal)",
    "valid({})",
    "blocks({}, 8)",
    "local({})",
    "last(4, dilation={})",
    "columns({})",
    "diagonals([1, {}])",
    "rows([{}:4])",
    "heads([{}])",
    "neighborhood([{}, 4], 3)",
    "vertical_slash({}, [0])",
    "where({}[k] > 0)",
)
IN_WHERE = ("where(q < {})", "where(q - k < 3 * {} or x[{}] == 1)")


def taken(function: Callable[..., Any]) -> set[str]:
    """Names that a keyword cannot have which the function does not know."""
    return {name for name, one in inspect.signature(function).parameters.items() if one.kind not in FIXED}


@pytest.mark.parametrize("name", SURFACE)
def test_every_keyword_of_the_surface_is_reserved(name: str) -> None:
    assert taken(SURFACE[name]) - KEYWORDS == set()


def test_the_keywords_of_a_module_are_reserved() -> None:
    nn = pytest.importorskip("spattn.nn")
    assert taken(nn.SparseAttention.__init__) | taken(nn.SparseAttention.forward) <= KEYWORDS


def test_the_keywords_of_a_decoder_are_reserved() -> None:
    serving = pytest.importorskip("spattn.serving")
    assert taken(serving.Decoder.__call__) <= KEYWORDS


@pytest.mark.parametrize("bindings", [None, 3])
@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_a_keyword_names_nothing(name: str, bindings: int | None) -> None:
    bound = {} if bindings is None else {name: bindings}
    for text in TEXTS + IN_WHERE * (name not in SYMBOLS):
        with pytest.raises(SpattnError) as caught:
            parse(text.format(*[name] * 2), bound)
        # symbols have a meaning, and an atom is no integer
        assert caught.value.code in {"E043"} | ({"E027", "E031"} if name in (*SYMBOLS, *ATOMS) else set())
        assert caught.value.span is not None
        at = caught.value.span
        assert caught.value.source is not None
        assert caught.value.source[at.start : at.stop] == name


@pytest.mark.parametrize("name", SYMBOLS)
def test_no_binding_hides_a_symbol(name: str) -> None:
    with pytest.raises(SpattnError, match="no name"):
        parse(f"where({name} < 3)", {name: 5})


def test_names_of_parameters_are_free() -> None:
    """What a word of the prelude calls its own arguments is no name of the pattern's."""
    inner = {parameter.name for word in words().values() for parameter in word.parameters}
    assert not inner & (KEYWORDS | set(SYMBOLS))
    assert str(parse("blocks(table=size, size=8)")) == "blocks(size, 8)"
