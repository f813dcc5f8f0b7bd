"""The sizes of a call, as far as they decide how fast a pass runs."""

from __future__ import annotations

from dataclasses import replace

from spattn.call.rounding import power_of_two, rounded
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Tokens

LONG_WALK = 2048  # keys that a row is taken to see where only data says how many
DOCUMENT = 4096  # tokens of the document that a token is in: 2048 in the mean, and longer ones hold more tokens
TOKENS = 64  # of a list whose length is not known


@frozen
class Sizes:
    """One launch for some (batch, head) pairs.

    Attributes:
        q_len: Queries, in tokens.
        kv_len: Keys of the whole, in tokens.
        first: Position of the first query among the keys.
        count: (batch, head) pairs.
        group: Query heads of a key head.
        head_dim: The wider of the two head dimensions.
        itemsize: Bytes of an element of q, k and v.
        tokens: Lengths of the token lists that are known.
        document: Tokens of the document that a token is in, in the mean over tokens.
        listed: Keys of the whole that a table of blocks gives to a row, in the mean.
        given: Positions of the keys that are given, half-open, where these are not all.
    """

    q_len: int
    kv_len: int
    first: int
    count: int
    group: int
    head_dim: int
    itemsize: int
    tokens: tuple[tuple[Tokens, int], ...] = ()
    document: int = DOCUMENT
    listed: int = LONG_WALK
    given: tuple[int, int] | None = None

    @property
    def rows(self) -> tuple[int, int]:
        """Positions of the queries, half-open."""
        return self.first, self.first + self.q_len

    @property
    def keys(self) -> tuple[int, int]:
        """Positions of the keys that are given, half-open."""
        return self.given or (0, self.kv_len)

    @property
    def num_keys(self) -> int:
        """How many keys are given."""
        first, stop = self.keys
        return stop - first

    def share(self, keys: int) -> int:
        """How many of so many keys of the whole are given, where they lie evenly."""
        return keys if self.given is None else keys * self.num_keys // max(self.kv_len, 1)

    def bucketed(self) -> Sizes:
        """The same for all lengths up to the next power of two: a decision is made once, not for each length."""
        tokens = tuple((tokens, power_of_two(n)) for tokens, n in self.tokens)
        (first, stop), keys, kv_len = rounded(self.rows, self.keys, self.kv_len)
        given = None if keys == (0, kv_len) else keys
        return replace(self, q_len=stop - first, kv_len=kv_len, first=first, tokens=tokens, given=given)

    def length(self, tokens: Tokens) -> int:
        """How many tokens a list has, perhaps some of them twice."""
        known = dict(self.tokens).get(tokens)
        if known is not None:
            return known
        return len(tokens.values) if not tokens.tensors else max(TOKENS, len(tokens.values))
