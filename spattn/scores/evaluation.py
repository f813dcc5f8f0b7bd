"""Scores evaluated with torch: whatever pairs the variables stand for, broadcast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spattn.scores.nodes import Expression, Function, Infix, Negative, Number, Read, Variable
from spattn.scores.whole import is_whole


@dataclass(frozen=True)
class Values:
    """What variables and tensors stand for.

    Attributes:
        variables: Floats for s, int64 for q, k, h, b.
        tensors: Of the call, by name, in the dtype of s.
    """

    variables: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]

    def at(self, s: Tensor) -> Values:
        """The same with another score."""
        return Values({**self.variables, "s": s}, self.tensors)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of results."""
        return self.variables["s"]


def evaluated(node: Expression, values: Values) -> Tensor:
    """The value of arithmetic, in the dtype of s; broadcastable to the pairs."""
    return _value(node, values).to(values.like.dtype)


def place(index: tuple[Expression, ...], tensor: Tensor, values: Values) -> Tensor:
    """Where a tensor is read, as an index into it flattened, int64."""
    flat = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for one, size in zip(index, tensor.shape, strict=False):
        flat = flat * size + _value(one, values).clamp(0, size - 1)
    return flat


def _value(node: Expression, values: Values) -> Tensor:
    """The value; whole numbers as int64, in which positions are exact."""
    match node:
        case Number(value):
            whole = is_whole(node)
            dtype = torch.int64 if whole else values.like.dtype
            return torch.full((), int(value) if whole else value, dtype=dtype, device=values.like.device)
        case Variable(name):
            return values.variables[name]
        case Read(name, index):
            tensor = values.tensors[name]
            return tensor.reshape(-1)[place(index, tensor, values)]
        case Negative(operand):
            return -_value(operand, values)
        case Infix(operator, left, right):
            return _infix(operator, *_operands((left, right), values, whole=is_whole(node)))
        case Function(name, arguments):
            return _function(name, *_operands(arguments, values, whole=is_whole(node)))


def _operands(given: Iterable[Expression], values: Values, *, whole: bool) -> list[Tensor]:
    """The values of what a node is made of, as int64 where it is `whole`, else in the dtype of s."""
    found = (_value(one, values) for one in given)
    return list(found) if whole else [x.to(values.like.dtype) for x in found]


def _infix(operator: str, x: Tensor, y: Tensor) -> Tensor:
    match operator:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
    return x / y


def _function(name: str, *given: Tensor) -> Tensor:
    match name:
        case "min":
            return torch.minimum(*given)
        case "max":
            return torch.maximum(*given)
        case "less":
            x, y = given
            return torch.where(x < y, 1.0, torch.where(x == y, 0.5, 0.0)).to(x.dtype)
    (x,) = given
    functions = {"exp": torch.exp, "tanh": torch.tanh, "log": torch.log, "abs": torch.abs, "sign": torch.sign}
    return functions[name](x)
