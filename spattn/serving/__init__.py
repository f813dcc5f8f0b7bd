"""Serving: caches of keys and values, and decoders that read them.

`Dense`, `Paged` and `Ring` are views of tensors; `Attention.decoder` makes a `Decoder`, which computes the last rows of
many requests at once. `hf` and `vllm` are doors to engines, imported when one is asked for.
"""

from spattn.serving.conversion import from_flash_attention, from_flashinfer
from spattn.serving.decoder import Decoder
from spattn.serving.dense import Dense
from spattn.serving.paged import Paged
from spattn.serving.ring import Ring
from spattn.serving.settings import cache_window
from spattn.serving.storage import Storage

__all__ = [
    "Decoder",
    "Dense",
    "Paged",
    "Ring",
    "Storage",
    "cache_window",
    "from_flash_attention",
    "from_flashinfer",
]
