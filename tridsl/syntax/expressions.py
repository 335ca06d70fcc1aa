"""Expressions to text with no parentheses but the necessary ones."""

from __future__ import annotations

from tridsl.syntax import nodes

_CONDITIONAL, _OR, _AND, _NOT, _COMPARISON, _BIT_OR, _BIT_XOR, _BIT_AND, _SHIFT, _SUM, _PRODUCT, _UNARY, _ATOM = range(13)

_INFIX = {
    "or": _OR, "and": _AND, "|": _BIT_OR, "^": _BIT_XOR, "&": _BIT_AND, "<<": _SHIFT, ">>": _SHIFT, "+": _SUM, "-": _SUM,
    "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), _COMPARISON),
}  # fmt: skip


def expression(node: nodes.Expression) -> str:
    """A whole expression, as it stands right of `=` or between commas."""
    return _print(node, _CONDITIONAL)


def inner(node: nodes.Expression) -> str:
    """An expression inside brackets, where products of a sum are written close: `y*stride + r`."""
    return _print(node, _CONDITIONAL, close_products=True)


def range_(node: nodes.Range) -> str:
    """`-1..2`, `0..N-1`."""
    return f"{_print(node.low, _SUM, close=True)}..{_print(node.high, _SUM, close=True)}"


def index(node: nodes.Index) -> str:
    return node.name if node.range is None else f"{node.name} in {range_(node.range)}"


def keyword(node: nodes.Keyword) -> str:
    return node.name if node.value is None else f"{node.name}={expression(node.value)}"


def arguments(args: tuple[nodes.Expression, ...], keywords: tuple[nodes.Keyword, ...]) -> str:
    return ", ".join([*map(expression, args), *map(keyword, keywords)])


def _print(
    node: nodes.Expression, level: int, *, close: bool = False, close_products: bool = False, summand: bool = False
) -> str:
    """`level`: the loosest binding that needs no parentheses here. `close`: no blanks around signs; `close_products`:
    none around the `*` of a `summand`."""
    match node:
        case nodes.Name(name=name) | nodes.Word(name=name):
            return name
        case nodes.Number():
            return _number(node)
        case nodes.Text(value=value):
            return f'"{value}"'
        case nodes.Range():
            return range_(node)
        case nodes.Field(value=value, name=name):
            return f"{_print(value, _ATOM)}.{name}"
        case nodes.Invoke(function=function, args=args, keywords=keywords):
            return f"{function}({arguments(args, keywords)})"
        case nodes.Access(tensor=tensor, index=places, options=options):
            return f"{tensor}[{', '.join(map(inner, places))}{_options(options)}]"
        case nodes.Reduction():
            axes = ", ".join(map(index, node.axes))
            scan = "scan " if node.scan else ""
            return f"{scan}{node.reducer}[{axes}{_options(node.options)}]({', '.join(map(expression, node.args))})"
        case nodes.Conditional(condition=condition, then=then, otherwise=otherwise):
            own = _CONDITIONAL
            text = f"if {_print(condition, _OR)} then {_print(then, _OR)} else {_print(otherwise, _CONDITIONAL)}"
        case nodes.Prefix(operator="not", operand=operand):
            own, text = _NOT, f"not {_print(operand, _NOT)}"
        case nodes.Prefix(operator=operator, operand=operand):
            own, text = _UNARY, f"{operator}{_print(operand, _UNARY)}"
        case nodes.Infix(operator=operator, left=left, right=right):
            own = _INFIX[operator]
            tight = close or close_products and summand and operator == "*" and _short(left, right)
            sign = operator if tight else f" {operator} "
            style = {"close": close, "close_products": close_products, "summand": own == _SUM}
            before = _print(left, own + (own == _COMPARISON), **style)  # comparisons do not chain
            text = f"{before}{sign}{_print(right, own + 1, **style)}"
    if own >= level:
        return text
    return f"({_print(node, _CONDITIONAL, close_products=close_products)})"


def _short(*operands: nodes.Expression) -> bool:
    return all(isinstance(operand, nodes.Name | nodes.Number) for operand in operands)


def _number(node: nodes.Number) -> str:
    """As it was written, when that is still its value."""
    written = node.text
    try:
        value = int(written, 0) if isinstance(node.value, int) else float(written)
    except ValueError:
        return repr(node.value)
    return written if value == node.value else repr(node.value)


def _options(options: tuple[nodes.Keyword, ...]) -> str:
    return "; " + ", ".join(map(keyword, options)) if options else ""
