"""`AttentionConfig`: the attention of a model's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from spattn.attend import Attention, compile
from spattn.backends.registry import require
from spattn.config.document import Document
from spattn.config.errors import wrong
from spattn.config.layers import by_layer
from spattn.config.reading import SCHEMA, names_in, parts
from spattn.errors import SpattnError
from spattn.pattern import Pattern
from spattn.scores.parser import names_of
from spattn.scores.parser import parse as parse_score


@dataclass(frozen=True)
class AttentionConfig:
    """What each layer of a model attends.

    Groups of heads are the language's own: `heads([0:8]) & local(128) | heads([8:]) & causal`.

    Attributes:
        pattern: Of all layers that have none of their own.
        layers: (number or range, pattern) of those that do: "0", "-1", "0:4". A number stands before a range.
        bind: (name, number) for names in patterns, which are integers, and in the score.
        score: What becomes of scale * (q . k) before the mask; None for nothing.
        backend: "auto", or a backend's name.
        tf32: May float32 products use TF32?
        num_layers: Layers of the model, if that is known.
    """

    pattern: str
    layers: tuple[tuple[str, str], ...] = ()
    bind: tuple[tuple[str, float], ...] = ()
    score: str | None = None
    backend: str = "auto"
    tf32: bool = False
    num_layers: int | None = None

    @classmethod
    def of(cls, value: Any, num_layers: int | None = None) -> AttentionConfig:
        """From what a config holds.

        Args:
            value: A pattern or its text, for all layers; the attributes by name, as a mapping or whatever has
                `model_dump` or `to_dict` (OmegaConf, Hydra, pydantic, transformers); or a model's config that has
                either under `spattn`.
            num_layers: Layers of the model.

        Raises:
            ConfigError: A key is unknown (E070), no text where a text is needed (E071), layers do not fit (E072).
        """
        if isinstance(value, cls):
            return value if num_layers is None else value.of_layers(num_layers)
        return cls(**parts(value, num_layers))

    @classmethod
    def from_text(cls, text: str, form: str = "yaml", num_layers: int | None = None) -> AttentionConfig:
        """From the text of a file of the form "yaml", "toml" or "json".

        Raises:
            ConfigError: E070, it is no such text; else as `of`.
            MissingDependencyError: E050, YAML needs PyYAML.
        """
        return cls.of(Document(text, form).value, num_layers)

    @classmethod
    def from_file(cls, path: str | Path, num_layers: int | None = None) -> AttentionConfig:
        """From a file, whose suffix says its form.

        Raises:
            OSError: It cannot be read.
            ConfigError: As `from_text`.
            MissingDependencyError: E050, YAML needs PyYAML.
        """
        return cls.of(Document.read(Path(path)).value, num_layers)

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON data, which `of` reads; what is as by default is left out."""
        found: dict[str, Any] = {"spattn": SCHEMA, "pattern": self.pattern}
        if self.layers:
            found["layers"] = dict(self.layers)
        if self.bind:
            found["bind"] = dict(self.bind)
        default = type(self)(self.pattern)
        for name in ("score", "backend", "tf32", "num_layers"):
            if getattr(self, name) != getattr(default, name):
                found[name] = getattr(self, name)
        return found

    def of_layers(self, num_layers: int) -> AttentionConfig:
        """The same of a model of so many layers.

        Raises:
            ConfigError: E072, it is of another number, or names layers that are not there.
        """
        if num_layers == self.num_layers:
            return self
        if self.num_layers is not None:
            message = f"the config is of {self.num_layers} layers, and the model has {num_layers}"
            raise wrong(("num_layers",), message, code="E072")
        by_layer((one for one, _ in self.layers), num_layers)
        return replace(self, num_layers=num_layers)

    def texts(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Path and text of each pattern."""
        yield ("pattern",), self.pattern
        for one, text in self.layers:
            yield ("layers", one), text

    def text_of(self, layer: int) -> str:
        """The pattern of a layer, as it is written.

        Raises:
            ConfigError: E072, the model has no such layer, or which one is meant depends on how many it has.
        """
        total = self.num_layers
        if layer < 0 or total is not None and layer >= total:
            known = "layers are counted from 0" if total is None else f"the model has layers 0 .. {total - 1}"
            raise wrong(("layers",), f"there is no layer {layer}: {known}", code="E072")
        own = dict(self.layers)
        if total is None:
            if any(":" in one or one.startswith("-") for one in own) and str(layer) not in own:
                message = "layers from -1 backwards, and ranges of layers, need the number of layers"
                raise wrong(("layers",), message, "AttentionConfig.of(.., num_layers=32)", "E072")
            return own.get(str(layer), self.pattern)
        named = by_layer(own, total).get(layer)
        return self.pattern if named is None else own[named]

    def bound(self, text: str, layer: int | None = None) -> Pattern:
        """A pattern of the config, its names bound.

        Raises:
            PatternError: The text is no pattern.
            BindError: A number does not fit its name.
        """
        names = names_in(text)
        integers: dict[str, Any] = {name: value for name, value in self.bind if name in names}
        return Pattern.of(text, layer, **integers)

    def attention(self, layer: int = 0, score: str | None = None) -> Attention:
        """What a layer computes; the same object for all layers that compute the same.

        Args:
            layer: Which, from 0.
            score: What becomes of its scores, in the place of the config's own.

        Raises:
            PatternError: A text is no pattern or no score.
            BindError: A number does not fit its name.
            ConfigError: As `text_of`.
            UnsupportedError: There is no such backend.
        """
        return _attention(self, layer, self.score if score is None else score)

    def problems(self) -> Iterator[tuple[tuple[str, ...], SpattnError]]:
        """Everything that `attention` would refuse, of all layers: the path of each, and the error."""
        for path, text in self.texts():
            try:
                self.bound(text, layer=0)
            except SpattnError as error:
                yield path, error
        if self.score is not None:
            names = names_of(self.score)
            try:
                parse_score(self.score, {name: value for name, value in self.bind if name in names})
            except SpattnError as error:
                yield ("score",), error
        try:
            require(self.backend)
        except SpattnError as error:
            yield ("backend",), error


@lru_cache(maxsize=1024)
def _attention(config: AttentionConfig, layer: int, score: str | None) -> Attention:
    pattern = config.bound(config.text_of(layer), layer)
    names = names_of(score)
    numbers = tuple((name, value) for name, value in config.bind if name in names)
    return _compiled(str(pattern), score, numbers, config.backend, config.tf32)


@lru_cache(maxsize=1024)
def _compiled(
    pattern: str, score: str | None, numbers: tuple[tuple[str, float], ...], backend: str, tf32: bool
) -> Attention:
    bindings: dict[str, Any] = dict(numbers)
    return compile(pattern, backend=backend, score=score, tf32=tf32, **bindings)
