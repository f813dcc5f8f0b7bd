"""Which pairs a layer computes, told by values that name keys: those of transformers' masks, and of drawn patterns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spattn.attend import compile
from spattn.errors import UnsupportedError
from spattn.pattern import Pattern
from tests.hf.models import needs_transformers
from tests.strategies import patterns

pytestmark = needs_transformers


def pairs(mask: Any, q_len: int, num_keys: int, heads: int = 2, **config: Any) -> torch.Tensor:
    """`[2, heads, q_len, num_keys]`: of a layer of a batch of two, of equal scores, where each key's value names it."""
    from spattn.hf.call import attend

    config = {"num_hidden_layers": 2, "is_encoder_decoder": False} | config
    module = SimpleNamespace(config=SimpleNamespace(**config), layer_idx=1, is_causal=False)
    q, k = torch.zeros(2, heads, q_len, 16), torch.zeros(2, heads, num_keys, 16)
    values = torch.eye(num_keys).expand(2, heads, -1, -1)
    return attend(module, q, k, values, mask)[0].transpose(1, 2) > 0


@st.composite
def runs(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """First token and end of each of two rows; half of all masks are without padding."""
    if draw(st.booleans()):
        return [(0, length)] * 2
    ends = st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True).map(sorted)
    return [tuple(draw(ends)) for _ in range(2)]  # type: ignore[misc]


@given(st.data())
@settings(max_examples=60)
def test_masks_of_transformers(data: st.DataObject) -> None:
    """With padding, over full, sliding and static caches; rows of padding are not compared."""
    import transformers.masking_utils as hf

    from spattn.hf.mask import make

    new, past, size = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 12)), data.draw(st.sampled_from([1, 5]))
    begins = data.draw(runs(past + new))
    within = torch.arange(past + new)
    keep = torch.stack([(within >= start) & (within < stop) for start, stop in begins])
    starts = torch.tensor([start for start, _ in begins])
    cache = data.draw(st.sampled_from(["full", "sliding", "static"]))
    both_ways = [hf.bidirectional_mask_function, hf.sliding_window_bidirectional_mask_function(size)]
    windows = [hf.sliding_window_causal_mask_function(size), hf.chunked_causal_mask_function(size, starts)]
    kinds = {"full": [hf.causal_mask_function, *both_ways], "sliding": []}
    own = data.draw(st.sampled_from([*windows, *kinds.get(cache, kinds["full"])]))
    first = max(past - size + 1, 0) if cache == "sliding" else 0
    last = past + new + (4 if cache == "static" else 0)
    places = {"q_length": new, "kv_length": last - first, "kv_offset": first, "mask_function": own}
    padding = None if bool(keep.all()) and data.draw(st.booleans()) else keep
    if (
        padding is None and cache == "static"
    ):  # what is not there yet is left out by masks of padding, or by causal ones
        assume(own not in both_ways)
    offset: Any = torch.tensor(past) if cache == "static" else past
    mask = make(2, q_offset=offset, attention_mask=padding, **places)
    if cache == "static":
        offset.add_(new)  # as the cache does, before layers run
    whole = hf.prepare_padding_mask(keep, last - first, first)
    wanted = hf.sdpa_mask(2, q_offset=past, attention_mask=whole, allow_is_causal_skip=False, **places)
    found = pairs(mask, new, last - first)
    rows = keep[:, past:]
    assert torch.equal(found[:, 0][rows], wanted[:, 0][rows])


@given(pattern=patterns(guards=False).map(str), ends=runs(11))
@settings(max_examples=30)
def test_drawn_patterns_count_from_the_first_token_of_a_row(pattern: str, ends: list[tuple[int, int]]) -> None:
    import transformers.masking_utils as hf

    from spattn.hf.mask import make

    parsed = Pattern.of(pattern, layer=1)
    assume(not parsed.free_names)
    within = torch.arange(11)
    keep = torch.stack([(within >= start) & (within < stop) for start, stop in ends])
    mask = make(2, 11, 11, mask_function=hf.bidirectional_mask_function, attention_mask=keep)
    found = pairs(mask, 11, 11, spattn=pattern)
    for row, (start, stop) in enumerate(ends):
        length = stop - start
        wanted = parsed.mask(length, length, num_heads=2, batch_size=2).expand(2, 2, length, length)[row]
        assert torch.equal(found[row, :, start:stop, start:stop], wanted)
        assert not found[row, :, start:stop, :start].any()
        assert not found[row, :, start:stop, stop:].any()


@given(pattern=patterns(guards=False).map(str), cut=st.integers(1, 10))
@settings(max_examples=30)
def test_drawn_patterns_count_from_the_first_token_of_a_document(pattern: str, cut: int) -> None:
    import transformers.masking_utils as hf

    from spattn.hf.mask import make

    parsed = Pattern.of(pattern, layer=1)
    assume(not parsed.free_names and not compile(pattern, layer=1).reads_batch)
    positions = torch.cat([torch.arange(cut), torch.arange(11 - cut)])[None].expand(2, -1)
    inside = hf.remap_positions_for_packed_sequence(hf.bidirectional_mask_function, positions)
    documents = hf.packed_sequence_mask_function(hf.find_packed_sequence_indices(positions))
    mask = make(2, 11, 11, mask_function=hf.and_masks(inside, documents))
    found = pairs(mask, 11, 11, spattn=pattern)
    for start, stop in ((0, cut), (cut, 11)):
        length = stop - start
        wanted = parsed.mask(length, length, num_heads=2).expand(2, 2, length, length)
        assert torch.equal(found[:, :, start:stop, start:stop], wanted)
        assert found[:, :, start:stop].sum() == wanted.sum()


def test_a_mask_of_padding_that_ends_before_the_keys() -> None:
    from transformers.masking_utils import bidirectional_mask_function

    from spattn.hf.mask import make

    mask = make(2, 3, 9, mask_function=bidirectional_mask_function, attention_mask=torch.ones(2, 6, dtype=torch.bool))
    assert pairs(mask, 3, 9)[..., :6].all()
    assert not pairs(mask, 3, 9)[..., 6:].any()


def test_patterns_of_the_batch_are_refused_in_packed_rows() -> None:
    from spattn.hf.mask import Mask

    mask = Mask("full", 4, 4, documents=torch.tensor([0, 4, 8], dtype=torch.int32), longest=4)
    with pytest.raises(UnsupportedError, match="packed documents are no batch"):
        pairs(mask, 4, 4, spattn="batch([0])")
