"""The generated module of a layout: a head that says what it computes, the functions it calls, a kernel a pass."""

from __future__ import annotations

import re

from spattn._version import __version__
from spattn.codegen.environment import code, comment, environment
from spattn.codegen.kernel import kernel_text
from spattn.codegen.parameters import Role
from spattn.codegen.parts import SCANNED, KernelText, WalkText
from spattn.codegen.pruning import pruned
from spattn.codegen.wrapping import wrapped
from spattn.expressions.frozen import frozen
from spattn.expressions.text import text
from spattn.layout.describe import describe
from spattn.layout.ir import Layout

PREAMBLE = re.compile(r'\{% if "(\w+)" in needed %\}')


@frozen
class PassSource:
    """What a launcher must know of one kernel: its name, its tensors in order, and how its results are kept."""

    name: str
    roles: tuple[Role, ...]
    final: bool
    resume: bool
    leaky: bool


@frozen
class ModuleSource:
    """Generated text and its kernels; the same layout gives the same bytes."""

    text: str
    passes: tuple[PassSource, ...]


def module_source(layout: Layout, pattern: str, language: str = "triton") -> ModuleSource:
    """The kernels of `layout`, forward. `pattern` stands in the head, escaped."""
    kernels = [kernel_text(layout, i) for i in range(len(layout.passes))]
    body = pruned("".join(_kernel(kernel, language) for kernel in kernels))
    head = _render(
        f"{language}/_head.py.jinja",
        version=comment(__version__),
        pattern=comment(pattern),
        condition=comment(text(layout.condition)),
        layout=[comment(line) for line in describe(layout)],
    )
    preamble = _render(f"{language}/_preamble.py.jinja", needed=_needed(body, language), scanned=SCANNED)
    return ModuleSource(_tidied(head + preamble + body), tuple(map(_pass_source, kernels)))


@frozen
class WalkFunction:
    """A walk as a function: `names` are the kernel's variables that its body speaks of, each with a comma."""

    name: str
    title: str
    names: str
    body: str


def _kernel(kernel: KernelText, language: str) -> str:
    walks = [_walk_function(kernel, walk, language) for walk in kernel.walks]
    return _render(f"{language}/forward.py.jinja", kernel=kernel, walks=walks)


def _walk_function(kernel: KernelText, walk: WalkText, language: str) -> WalkFunction:
    body = _render(f"{language}/_walk.py.jinja", walk=walk).rstrip("\n")
    spoken = set(re.findall(r"[a-zA-Z_]\w*", body))
    names = code(" ".join(f"{name}," for name in kernel.variables if name in spoken))
    return WalkFunction(code(f"{kernel.name}_walk_{walk.number}"), walk.title, names, code(body))


def _pass_source(kernel: KernelText) -> PassSource:
    return PassSource(str(kernel.name), tuple(kernel.parameters.roles), kernel.final, kernel.resume, kernel.leaky)


def _render(name: str, **values: object) -> str:
    return environment().get_template(name).render(**values)


def _needed(body: str, language: str) -> frozenset[str]:
    """Functions of the preamble that the kernels call."""
    loader = environment().loader
    assert loader is not None
    source, _, _ = loader.get_source(environment(), f"{language}/_preamble.py.jinja")
    needed = {name for name in PREAMBLE.findall(source) if f"{name}(" in body}
    return frozenset(needed | ({"online_softmax"} if "careful_softmax" in needed else set()))


def _tidied(source: str) -> str:
    """No trailing spaces, no line too long, no more than two empty lines."""
    source = "\n".join(part for line in source.splitlines() for part in wrapped(line.rstrip())) + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", source)
