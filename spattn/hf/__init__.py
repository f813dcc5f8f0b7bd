"""Hugging Face models in one line: `import spattn.hf` gives transformers an attention by the name "spattn".

`AutoModel.from_pretrained(.., attn_implementation="spattn")` then runs a model's own mask; with a pattern in
`config.spattn`, or by `apply`, that of the pattern. What cannot be exact is refused by name.
"""

from spattn.hf.interfaces import NAME, register
from spattn.hf.model import apply, table

__all__ = ["NAME", "apply", "register", "table"]

register()
