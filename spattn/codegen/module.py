"""The generated module of a layout: a head that says what it computes, the functions it calls, a kernel a pass."""

from __future__ import annotations

import re

from spattn._version import __version__
from spattn.codegen.environment import code, comment, environment
from spattn.codegen.helpers import Helpers
from spattn.codegen.kernel_specs import CONSTANTS, FORWARD, GRAD_KV, GRAD_Q, KernelSpec
from spattn.codegen.kernel_text import COORDINATES, kernel_text
from spattn.codegen.languages.language import Language
from spattn.codegen.model import KernelText, LoopText
from spattn.codegen.parameters import Role
from spattn.codegen.pruning import pruned
from spattn.codegen.signature import Signature, combining
from spattn.codegen.wrapping import wrapped
from spattn.expressions.frozen import frozen
from spattn.expressions.text import text
from spattn.layout.describe import describe
from spattn.layout.ir import Box, Layout
from spattn.scores.nodes import Score


@frozen
class KernelSource:
    """What a launcher must know of a kernel.

    Attributes:
        kind: What it computes.
        number: Its pass.
        name: As the module has it.
        roles: Its run-time tensors, in order.
        final: Does it store the call's results? Else it leaves them to the next pass.
        resume: Does it go on from an earlier pass?
        has_masked_tiles: May rows have to be mended that inf or NaN spoiled?
        boxes: Those that it walks over.
        signature: Its arguments.
        repairing: Those of the kernel that repairs its tiles.
    """

    kind: KernelSpec
    number: int
    name: str
    roles: tuple[Role, ...]
    final: bool
    resume: bool
    has_masked_tiles: bool
    boxes: tuple[Box, ...]
    signature: Signature
    repairing: Signature

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides of its boxes."""
        count = sum(len(box.shape) for box in self.boxes)
        return self.repairing.names[-count:] if count else ()

    @property
    def combining(self) -> Signature:
        """The arguments of the kernel that combines its splits."""
        return combining(self.kind)


@frozen
class ModuleSource:
    """Generated text and its kernels; the same layouts give the same bytes.

    Attributes:
        text: A module that imports the functions which its kernels call.
        helpers: Where these are.
        passes: Its kernels.
    """

    text: str
    helpers: Helpers
    passes: tuple[KernelSource, ...]

    @property
    def standalone(self) -> str:
        """The text with the functions written out that it imports; few ask for it."""
        return standalone(self.text, self.helpers)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The run-time tensors of all passes, in order."""
        return tuple(role for one in self.passes for role in one.roles)

    def of(self, kind: KernelSpec) -> tuple[KernelSource, ...]:
        """The passes of one kind, in the order of their layout."""
        return tuple(one for one in self.passes if one.kind.name == kind.name)

    def kernel_of(self, kind: KernelSpec, number: int) -> KernelSource:
        """The kernel of a pass, which the language serves."""
        return next(one for one in self.of(kind) if one.number == number)


def module_source(layout: Layout, pattern: str, language: Language, score: Score | None = None) -> ModuleSource:
    """The kernels of `layout`, forward, of passes that the language serves. `pattern` stands in the head, escaped."""
    kernels = _kernels(layout, FORWARD, language, score)
    return _module(kernels, describe(layout, COORDINATES), layout, pattern, language, score)


def backward_source(
    layout: Layout, transposed: Layout, pattern: str, language: Language, score: Score | None = None
) -> ModuleSource:
    """The kernels of the gradients: dq along `layout`, dk and dv along `transposed`, of direction "keys"."""
    launched = sum(bool(one.walks) for one in layout.passes)
    of_queries = _kernels(layout, GRAD_Q, language, score)
    kernels = [*of_queries, *_kernels(transposed, GRAD_KV, language, score, launched)]
    lines = [
        *(re.sub("^pass", GRAD_Q.prefix, line) for line in describe(layout, COORDINATES)),
        *(re.sub("^pass", GRAD_KV.prefix, line) for line in describe(transposed, COORDINATES)),
    ]
    return _module(kernels, lines, layout, pattern, language, score)


@frozen
class LoopFunction:
    """A loop as a function: `names` are the kernel's variables that its body speaks of, each with a comma.

    `constants` likewise.
    """

    name: str
    title: str
    names: str
    constants: str
    body: str


def _kernels(
    layout: Layout, kind: KernelSpec, language: Language, score: Score | None, launched: int = 0
) -> list[KernelText]:
    """Those of all passes; so many launches come before, and every second one goes through the heads backwards."""
    kernels = []
    for i, one in enumerate(layout.passes):
        if language.refusal(one, kind.name) is None:
            kernels.append(kernel_text(layout, i, kind, reversed_heads=launched % 2 == 1, score=score))
        launched += bool(one.walks)
    return kernels


def _module(
    kernels: list[KernelText],
    lines: list[str],
    layout: Layout,
    pattern: str,
    language: Language,
    score: Score | None,
) -> ModuleSource:
    body = pruned("".join(_kernel(kernel, language.templates) for kernel in kernels))
    return ModuleSource(
        headed(body, lines, layout, pattern, language, score), language.helpers, tuple(map(_pass_source, kernels))
    )


def headed(body: str, lines: list[str], layout: Layout, pattern: str, language: Language, score: Score | None) -> str:
    """Kernels below a head that says what they compute, and imports what they call; `lines` are of the layout."""
    names = {
        "version": comment(__version__),
        "digest": comment(language.helpers.digest),
        "pattern": comment(pattern),
        "condition": comment(text(layout.condition)),
        "score": comment(str(score)) if score else None,
        "layout": [comment(line) for line in lines],
        "helpers": language.helpers.imported(body),
    }
    return tidied(render(f"{language.templates}/_head.py.jinja", **names) + body)


def standalone(source: str, helpers: Helpers) -> str:
    """A text with the functions written out that it imports."""
    imported, inlined = helpers.imported(source), helpers.inlined(source)
    return tidied(source.replace(imported, inlined)) if imported else source


def _kernel(kernel: KernelText, templates: str) -> str:
    loops = [_loop_function(kernel, i, one, templates) for i, one in enumerate(kernel.loops)]
    spoken = {name for one in loops for name in re.findall(r"\w+", one.names)}
    by_head = [tensor for tensor in kernel.tensors if f"{tensor.name}_ptr" in spoken]
    names = {"kernel": kernel, "kind": kernel.kind, "side": kernel.side, "loops": loops, "by_head": by_head}
    return render(f"{templates}/{kernel.kind.name}.py.jinja", **names)


def _loop_function(kernel: KernelText, number: int, one: LoopText, templates: str) -> LoopFunction:
    names = {"one": one, "walk": one.walks[0], "kind": kernel.kind, "side": kernel.side}
    body = render(f"{templates}/_loop.py.jinja", **names).rstrip("\n")
    spoken = set(re.findall(r"[a-zA-Z_]\w*", body))
    variables = code(" ".join(f"{name}," for name in kernel.variables if name in spoken))
    constants = code(" ".join(f"{name}," for name in (*CONSTANTS, "REPAIR") if name in spoken))
    return LoopFunction(code(f"{kernel.name}_loop_{number}"), one.title, variables, constants, code(body))


def _pass_source(kernel: KernelText) -> KernelSource:
    roles = tuple(kernel.parameters.roles)
    boxes = tuple(text.box for text in kernel.boxes)
    number = int(kernel.name.rsplit("_", 1)[1])
    return KernelSource(
        kind=kernel.kind,
        number=number,
        name=str(kernel.name),
        roles=roles,
        final=kernel.final,
        resume=kernel.resume,
        has_masked_tiles=kernel.has_masked_tiles,
        boxes=boxes,
        signature=kernel.signature,
        repairing=kernel.repairing,
    )


def render(name: str, **values: object) -> str:
    """A template, filled in."""
    return environment().get_template(name).render(**values)


def tidied(source: str) -> str:
    """No trailing spaces, no line too long, no more than two empty lines."""
    source = "\n".join(part for line in source.splitlines() for part in wrapped(line.rstrip())) + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", source)
