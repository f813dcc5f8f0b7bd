"""Where the grammar and the templates lie: inside the package once installed, at the repository's top in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


GRAMMAR_DIR = _folder("grammar")
TEMPLATE_DIR = _folder("codegen_templates")
