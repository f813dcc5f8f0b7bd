"""The sizes of a call, as far as they decide how fast a pass runs."""

from __future__ import annotations

from dataclasses import replace

from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Tokens

LONG_WALK = 2048  # keys that a row is taken to see where only data says how many
DOCUMENT = 4096  # tokens of the document that a token is in: 2048 in the mean, and longer ones hold more tokens
TOKENS = 64  # of a list whose length is not known


def power_of_two(n: int) -> int:
    """The least power of two that is at least n; 0 and 1 stay."""
    return n if n < 2 else 1 << (n - 1).bit_length()


@frozen
class Sizes:
    """One launch for some (batch, head) pairs.

    Attributes:
        q_len, kv_len: Queries and keys, in tokens.
        first: Position of the first query among the keys.
        count: (batch, head) pairs.
        group: Query heads of a key head.
        head_dim: The wider of the two head dimensions.
        itemsize: Bytes of an element of q, k and v.
        tokens: Lengths of the token lists that are known.
        document: Tokens of the document that a token is in, in the mean over tokens.
        listed: Keys that a table of blocks gives to a row, in the mean.
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

    def bucketed(self) -> Sizes:
        """The same for all lengths up to the next power of two: a decision is made once, not for each length."""
        q_len, stop = power_of_two(self.q_len), power_of_two(max(self.first + self.q_len, 0))
        tokens = tuple((tokens, power_of_two(n)) for tokens, n in self.tokens)
        return replace(self, q_len=q_len, kv_len=power_of_two(self.kv_len), first=stop - q_len, tokens=tokens)

    def length(self, tokens: Tokens) -> int:
        """How many tokens a list has, perhaps some of them twice."""
        known = dict(self.tokens).get(tokens)
        if known is not None:
            return known
        return len(tokens.values) if not tokens.tensors else max(TOKENS, len(tokens.values))
