"""The generated module of a layout: a head that says what it computes, the functions it calls, a kernel a pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spattn._version import __version__
from spattn.codegen.environment import comment, environment
from spattn.codegen.kernel import KernelText, kernel_text
from spattn.codegen.parameters import Role
from spattn.expressions.text import text
from spattn.layout.describe import describe
from spattn.layout.ir import Layout

PREAMBLE = re.compile(r'\{% if "(\w+)" in needed %\}')


@dataclass(frozen=True)
class PassSource:
    """What a launcher must know of one kernel: its name, its tensors in order, and how its results are kept."""

    name: str
    roles: tuple[Role, ...]
    final: bool
    resume: bool


@dataclass(frozen=True)
class ModuleSource:
    """Generated text and its kernels; the same layout gives the same bytes."""

    text: str
    passes: tuple[PassSource, ...]


def module_source(layout: Layout, pattern: str, language: str = "triton") -> ModuleSource:
    """The kernels of `layout`, forward. `pattern` stands in the head, escaped."""
    kernels = [kernel_text(layout, i) for i in range(len(layout.passes))]
    body = "".join(_render(f"{language}/forward.py.jinja", kernel=kernel) for kernel in kernels)
    head = _render(
        f"{language}/_head.py.jinja",
        version=comment(__version__),
        pattern=comment(pattern),
        condition=comment(text(layout.condition)),
        layout=[comment(line) for line in describe(layout)],
    )
    preamble = _render(f"{language}/_preamble.py.jinja", needed=_needed(body, language))
    return ModuleSource(_tidied(head + preamble + body), tuple(map(_pass_source, kernels)))


def _pass_source(kernel: KernelText) -> PassSource:
    return PassSource(str(kernel.name), tuple(kernel.parameters.roles), kernel.final, kernel.resume)


def _render(name: str, **values: object) -> str:
    return environment().get_template(name).render(**values)


def _needed(body: str, language: str) -> frozenset[str]:
    """Functions of the preamble that the kernels call."""
    loader = environment().loader
    assert loader is not None
    source, _, _ = loader.get_source(environment(), f"{language}/_preamble.py.jinja")
    return frozenset(name for name in PREAMBLE.findall(source) if f"{name}(" in body)


def _tidied(source: str) -> str:
    """No trailing spaces, no more than two empty lines."""
    source = "\n".join(line.rstrip() for line in source.splitlines()) + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", source)
