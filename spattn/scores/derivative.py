"""Derivatives of arithmetic, one rule per node.

A derivative is arithmetic again, so that whatever evaluates or prints a score does its derivatives too.
"""

from __future__ import annotations

from spattn.scores.nodes import Expression, Function, Infix, Negative, Number, Read, Variable

ZERO, ONE = Number(0.0), Number(1.0)


def derivative(node: Expression, of: Variable | Read) -> Expression:
    """d node / d of, where an element that is read with the same indices is the same variable."""
    if node == of:
        return ONE
    match node:
        case Number() | Variable() | Read():
            return ZERO
        case Negative(operand):
            return negative(derivative(operand, of))
        case Infix(operator, left, right):
            return _of_infix(operator, (left, derivative(left, of)), (right, derivative(right, of)))
        case Function(name, arguments):
            total: Expression = ZERO
            for argument, rule in zip(arguments, _rules(name, arguments), strict=True):
                total = plus(total, times(rule, derivative(argument, of)))
            return total


def _of_infix(operator: str, left: tuple[Expression, Expression], right: tuple[Expression, Expression]) -> Expression:
    (x, dx), (y, dy) = left, right
    match operator:
        case "+":
            return plus(dx, dy)
        case "-":
            return plus(dx, negative(dy))
        case "*":
            return plus(times(dx, y), times(x, dy))
        case "/":
            by_y = ZERO if dy == ZERO else negative(times(over(x, times(y, y)), dy))
            return plus(over(dx, y), by_y)
    raise ValueError(f"there is no operator {operator}")


def _rules(name: str, arguments: tuple[Expression, ...]) -> tuple[Expression, ...]:
    """The derivative of a function by each of its arguments."""
    x, y = arguments[0], arguments[-1]
    value = Function(name, arguments)
    match name:
        case "exp":
            return (value,)
        case "tanh":
            return (Infix("-", ONE, Infix("*", value, value)),)
        case "log":
            return (over(ONE, x),)
        case "abs":
            return (Function("sign", (x,)),)
        case "min":
            return Function("less", (x, y)), Function("less", (y, x))
        case "max":
            return Function("less", (y, x)), Function("less", (x, y))
        case "sign" | "less":
            return (ZERO,) * len(arguments)
    raise ValueError(f"there is no function {name}")


def plus(x: Expression, y: Expression) -> Expression:
    """x + y, without a 0."""
    if x == ZERO or y == ZERO:
        return y if x == ZERO else x
    return Infix("-", x, y.operand) if isinstance(y, Negative) else Infix("+", x, y)


def times(x: Expression, y: Expression) -> Expression:
    """x * y, without a 0 or a 1."""
    if x == ZERO or y == ZERO:
        return ZERO
    if x == ONE or y == ONE:
        return y if x == ONE else x
    return Infix("*", x, y)


def over(x: Expression, y: Expression) -> Expression:
    """x / y, without a 0."""
    return ZERO if x == ZERO else Infix("/", x, y)


def negative(x: Expression) -> Expression:
    """-x; of a number a number, of -y it is y."""
    match x:
        case Number(value):
            return Number(0.0 if value == 0 else -value)
        case Negative(operand):
            return operand
    return Negative(x)
