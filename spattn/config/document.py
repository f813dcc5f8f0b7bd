"""Files of configs: YAML, TOML and JSON as data that know where they stand."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from spattn.config import json_places, toml_places, yaml_places
from spattn.config.scalars import place_in_scalar
from spattn.errors import ConfigError, MissingDependencyError

FORMS = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
"""Form by suffix."""
MAX_CHARACTERS = 1 << 20
MEANT = 'quote texts of patterns, as in pattern: "last(8, dilation=2)"; their arguments are given by ='


class Document:
    """A text of a form.

    Attributes:
        text: Whole.
        form: "yaml", "toml" or "json".
        value: Its data.

    Raises:
        ConfigError: E070, it is no such text, or longer than a config may be.
        MissingDependencyError: E050, YAML needs PyYAML.
    """

    def __init__(self, text: str, form: str) -> None:
        if form not in FORMS.values():
            raise ConfigError("E070", f"no form of configs is called {form!r}", hint="yaml, toml, json")
        if len(text) > MAX_CHARACTERS:
            raise ConfigError("E070", f"the config has more than {MAX_CHARACTERS} characters, which is the limit")
        self.text, self.form = text.removeprefix("\ufeff"), form
        try:
            self.value: Any = _READERS[form](self.text)
        except RecursionError as error:
            raise ConfigError("E070", "the config is nested too deeply") from error

    @classmethod
    def read(cls, path: Path) -> Document:
        """A file, whose suffix says its form.

        Raises:
            OSError: It cannot be read.
        """
        form = FORMS.get(path.suffix.lower())
        if form is None:
            raise ConfigError("E070", f"{path.name} is no config", hint=f"suffixes are {', '.join(FORMS)}")
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return cls(file.read(MAX_CHARACTERS + 1), form)

    def place(self, path: Sequence[str], value: str | None = None, position: int = 0) -> tuple[int, int]:
        """Line and column, from 1, of what stands at a path; of the nearest above it, if nothing does.

        Args:
            path: Keys.
            value: The text that stands there, if the place is one inside of it.
            position: Of the character in that text.
        """
        begin = _FINDERS[self.form](self.text, path)
        if value is not None:
            begin = place_in_scalar(self.text, begin, value, position)
        line = self.text.count("\n", 0, begin)
        return line + 1, begin - (self.text.rfind("\n", 0, begin) + 1) + 1


def yaml() -> ModuleType:
    """PyYAML.

    Raises:
        MissingDependencyError: E050, it is not installed.
    """
    try:
        return import_module("yaml")
    except ImportError as error:
        raise MissingDependencyError("E050", "YAML needs PyYAML", hint="pip install pyyaml") from error


def _yaml(text: str) -> Any:
    library = yaml()
    try:
        return library.safe_load(text)
    except (library.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        problem = getattr(error, "problem", None) or error
        raise ConfigError("E070", f"this is no YAML: {problem}", hint=MEANT, line=line, column=column) from error


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        place = re.search(r" \(at line ([0-9]+), column ([0-9]+)\)", str(error))
        line, column = (None, None) if place is None else (int(place[1]), int(place[2]))
        problem = str(error).partition(" (at ")[0]
        raise ConfigError("E070", f"this is no TOML: {problem}", line=line, column=column) from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        message = f"this is no JSON: {getattr(error, 'msg', error)}"
        line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
        raise ConfigError("E070", message, line=line, column=column) from error


_READERS: dict[str, Callable[[str], Any]] = {"yaml": _yaml, "toml": _toml, "json": _json}
_FINDERS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "yaml": yaml_places.find,
    "toml": toml_places.find,
    "json": json_places.find,
}
