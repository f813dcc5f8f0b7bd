"""A second kernel language, that only these tests know: what a language is added by, and that it may refuse a pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import spattn
from spattn.backends import registry
from spattn.backends.gpu import unwritten
from spattn.codegen import languages
from spattn.codegen.languages.triton import Triton
from spattn.codegen.tile import Tile
from spattn.compiler import compile_pattern
from spattn.cost import rates
from spattn.cost.choice import choose, ranked
from spattn.cost.rates.table import Rates, RateTable
from spattn.cost.sizes import Sizes
from spattn.layout.ir import Listed, Pass
from spattn.machine.device import H200

SIZES = Sizes(4096, 4096, 0, 16, 1, 64, 2)
BOTH = ("triton", "unlisted")
QUICK = Tile(64, 64, 4, 3, language="unlisted")


class Unlisted(Triton):
    """Triton by another name, which walks no lists of tokens."""

    name = "unlisted"

    def refusal(self, one: Pass, kernel: str) -> str | None:
        listed = any(isinstance(x, Listed) for x in (one.rows, *(walk.keys for walk in one.walks)))
        return "it walks no lists of tokens" if listed else None


@pytest.fixture(autouse=True)
def unlisted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One row of languages and one of rates; it is said to be quick."""
    table = rates.TABLES["triton"]
    tiles = {key: {QUICK: Rates(0.01, 0.01, 0.01, 96)} for key in table.forward}
    quick = RateTable(tiles, table.backward, table.others)
    monkeypatch.setitem(languages.LANGUAGES, "unlisted", Unlisted())
    monkeypatch.setitem(rates.TABLES, "unlisted", quick)
    for cached in (ranked, rates.rates_of, unwritten, registry.backends):
        cached.cache_clear()
    yield
    for cached in (ranked, rates.rates_of, unwritten, registry.backends):
        cached.cache_clear()


def test_the_quicker_language_writes_a_pass() -> None:
    [one] = compile_pattern("causal").layout().passes
    assert choose(one, SIZES, H200, BOTH).language == "unlisted"
    assert choose(one, SIZES, H200, ("triton",)).language == "triton"


def test_a_pass_that_a_language_refuses_is_written_in_another() -> None:
    compiled = compile_pattern("local(64) | global([0, 700])")
    chosen = [choose(one, SIZES, H200, BOTH).language for one in compiled.layout().passes]
    refused = [Unlisted().refusal(one, "forward") is not None for one in compiled.layout().passes]
    assert chosen == ["triton" if no else "unlisted" for no in refused]
    assert set(chosen) == {"triton", "unlisted"} or all(refused)
    source = compiled.source(language="unlisted")
    assert [one.number for one in source.passes] == [i for i, no in enumerate(refused) if not no]


def test_a_backend_s_name_allows_languages_and_a_refusal_says_the_pass() -> None:
    assert languages.languages_of("auto") == BOTH
    assert languages.languages_of("unlisted") == ("unlisted",)
    layout = compile_pattern("local(64) | global([0, 700])").layout()
    assert unwritten(layout, BOTH) is None
    why = unwritten(layout, ("unlisted",))
    assert why is not None
    assert "it walks no lists of tokens" in why
    q = torch.randn(1, 1, 8, 16)
    with pytest.raises(spattn.UnsupportedError, match="backend 'unlisted'"):
        spattn.compile("causal", backend="unlisted")(q, q, q)
