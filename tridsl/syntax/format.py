"""The one way to write a module: `format` prints nodes, `format_source` a text with its comments and blank lines.

`parse(format(module)) == module`, and formatting a formatted text changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from tridsl.diagnostics import SourceFile, Span
from tridsl.structs import dataclass, replace
from tridsl.syntax import nodes
from tridsl.syntax.expressions import arguments, expression, index, inner, range_
from tridsl.syntax.layout import scan
from tridsl.syntax.parse import parse

_WIDTH = 100
"""Longer lines are wrapped where the language has a good place for it."""

_CHAIN_WIDTH = 72
"""A chain of verbs that does not fit into `_WIDTH` is filled up to here, line by line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """Lines that stay together. `left`: what stands in front of an aligned ` = ` of the first line, which then holds
    only the rest. `start`, `end`: offsets in the source, for comments; `depth`: indentation in levels."""

    lines: tuple[str, ...]
    depth: int
    left: str = ""
    start: int = 0
    end: int = 0
    trail: str = ""  # the comment behind the last line
    kind: str = ""  # "item" begins an item, "open" ends with a brace, "close" is one, "comment" is one

    def begins_item(self) -> bool:
        return self.kind.startswith("item")

    def opens(self) -> bool:
        return self.kind in ("open", "item open")


def format(module: nodes.Module) -> str:
    """The text of a module, without comments. Ends with a newline unless the module is empty."""
    return _emit([unit for item in module.items for unit in _item(item, "")], "")


def format_source(text: str, name: str = "<string>") -> str:
    """A text in canonical form with all its comments, and single blank lines where it had any. Raises `TriError` as
    `parse` does."""
    source = SourceFile(name=name, text=text)
    module = parse(source)
    layout = scan(source)
    units = [unit for item in module.items for unit in _item(item, layout.text)]
    return _emit(_with_comments(units, layout.comments, text), text)


# ---- comments and blank lines


def _with_comments(units: list[_Unit], comments: tuple[Span, ...], text: str) -> list[_Unit]:
    """Comments of their own line before the unit they precede or interrupt; trailing ones behind their unit."""
    trailing: dict[int, list[str]] = {}
    before: dict[int, list[_Unit]] = {}
    at = 0  # the first unit that begins behind the comment
    for span in comments:
        while at < len(units) and units[at].start < span.start:
            at += 1
        written = text[span.start : span.end].rstrip()
        own_line = not text[text.rfind("\n", 0, span.start) + 1 : span.start].strip()
        if at and not own_line:
            trailing.setdefault(at - 1, []).append(written)
            continue
        place = at - 1 if at and span.start < units[at - 1].end else at
        before.setdefault(place, []).append(_comment(written, units[place] if place < len(units) else None, span))
    result = []
    for position, unit in enumerate(units):
        *earlier, last = trailing.get(position, [""])
        result += before.get(position, [])
        result += [_comment(written, unit, None) for written in earlier]
        result.append(replace(unit, trail=last))
    return result + before.get(len(units), [])


def _comment(written: str, unit: _Unit | None, span: Span | None) -> _Unit:
    depth = 0 if unit is None else unit.depth + (unit.kind == "close")
    offset = span.start if span else 0
    return _Unit(lines=(written,), depth=depth, start=offset, end=offset, kind="comment")


def _emit(units: list[_Unit], text: str) -> str:
    blocks: list[list[_Unit]] = []  # between blocks stands a blank line
    for position, unit in enumerate(units):
        previous = units[position - 1] if position else None
        if previous is None or _blank_between(previous, unit, _next_code(units, position), text):
            blocks.append([])
        blocks[-1].append(unit)
    return "".join(line + "\n" for line in "\n\n".join(_aligned(block) for block in blocks).split("\n")) if units else ""


def _next_code(units: list[_Unit], position: int) -> _Unit | None:
    return next((unit for unit in units[position:] if unit.kind != "comment"), None)


def _blank_between(previous: _Unit, unit: _Unit, code: _Unit | None, text: str) -> bool:
    """Items are set apart, but for runs of one-line items of one kind; elsewhere the source decides."""
    if previous.kind in ("close", "item") and (code is None or code.begins_item()) and previous.depth == 0:
        alike = previous.kind == "item" and code is not None and _first_word(previous) == _first_word(code)
        if not alike:
            return True
    if previous.opens() or unit.kind == "close" or not unit.start:
        return False
    line = text.rfind("\n", 0, unit.start)
    return line > 0 and not text[text.rfind("\n", 0, line) + 1 : line].strip()


def _first_word(unit: _Unit) -> str:
    return unit.lines[0].split(" ", 1)[0]


def _aligned(block: list[_Unit]) -> str:
    """The lines of units without blank lines between them: neighbouring `=` in one column, then trailing comments."""
    lines: list[tuple[str, str]] = []
    run: list[_Unit] = []
    for unit in block:
        if run and (not unit.left or unit.depth != run[0].depth):
            lines += _equals(run)
            run = []
        if unit.left:
            run.append(unit)
        else:
            lines += _lines(unit, unit.lines[0])
    lines += _equals(run)
    return "\n".join(_trailing(lines))


def _equals(run: list[_Unit]) -> Iterator[tuple[str, str]]:
    width = max((len(unit.left) for unit in run), default=0)
    for unit in run:
        yield from _lines(unit, f"{unit.left:<{width}} = {unit.lines[0]}")


def _lines(unit: _Unit, first: str) -> list[tuple[str, str]]:
    """Indented code and, with the last line, the trailing comment."""
    code = ["  " * unit.depth + line for line in (first, *unit.lines[1:])]
    return [(line, "") for line in code[:-1]] + [(code[-1], unit.trail)]


def _trailing(lines: list[tuple[str, str]]) -> Iterator[str]:
    for has_comment, run in groupby(lines, key=lambda line: bool(line[1])):
        pairs = list(run)
        width = max(len(code) for code, _ in pairs)
        yield from (f"{code:<{width}}  {comment}" if has_comment else code for code, comment in pairs)


# ---- nodes to units


def _item(item: nodes.Item, text: str) -> Iterator[_Unit]:
    start, end = _range(item)
    match item:
        case nodes.Operation():
            opening = _braces(text, start, end)[-2:-1]
            yield _Unit(
                lines=_operation_header(item), depth=0, start=start, end=opening[0] if opening else 0, kind="item open"
            )
            yield from map(_statement, item.body, [1] * len(item.body))
            yield _close(0, end)
        case nodes.Monoid():
            yield from _monoid(item, text)
        case nodes.ScheduleBlock():
            when = f" when {expression(item.when)}" if item.when is not None else ""
            header = f"schedule {item.op} for {item.device}{when} {{"
            opening = _braces(text, start, end)[:1]
            yield _Unit(lines=(header,), depth=0, start=start, end=opening[0] if opening else 0, kind="item open")
            for entry in item.items:
                first, last = _range(entry)
                yield _Unit(lines=_schedule_lines(entry), depth=1, start=first, end=last)
            yield _close(0, end)
        case nodes.BenchBlock():
            settings = ", ".join(f"{setting.name} = {_value(setting)}" for setting in item.values)
            block = f"{{ {settings} }}" if settings else "{ }"
            yield _Unit(lines=(f"bench {item.op} {block}",), depth=0, start=start, end=end, kind="item")
        case nodes.Use():
            names = ", ".join(name.name for name in item.names)
            yield _Unit(lines=(f"use {item.module}: {names}",), depth=0, start=start, end=end, kind="item")


def _value(setting: nodes.Keyword) -> str:
    assert setting.value is not None, "a bench setting has a value"
    return expression(setting.value)


def _range(node: nodes.Syntax) -> tuple[int, int]:
    return (node.span.start, node.span.end) if node.span else (0, 0)


def _close(depth: int, end: int) -> _Unit:
    offset = max(end - 1, 0)
    return _Unit(lines=("}",), depth=depth, start=offset, end=offset, kind="close")


def _braces(text: str, start: int, end: int) -> list[int]:
    """Offsets of the braces of an item; strings, which might hold one, stand only behind a schedule's first."""
    return [offset for offset in range(start, min(end, len(text))) if text[offset] in "{}"]


def _operation_header(item: nodes.Operation) -> tuple[str, ...]:
    name = f"op {item.name}{_type_parameters(item.type_parameters)}"
    entries = [f"dyn {size.name}" for size in item.dynamic] + list(map(_parameter, item.parameters))
    results = ", ".join(map(_parameter, item.results))
    arrow = "" if not item.results else f" -> {results}" if len(item.results) == 1 else f" -> ({results})"
    where = f" where {', '.join(map(expression, item.where))}" if item.where else ""
    head = f"{name}({', '.join(entries)})"
    if len(head + arrow + where) + 2 <= _WIDTH or not arrow + where:
        return (f"{head}{arrow}{where} {{",)
    tail = [f"{arrow}{where} {{"] if len(arrow + where) + 6 <= _WIDTH or not (arrow and where) else [arrow, f"{where} {{"]
    if len(head) <= _WIDTH or not entries:
        return (head, *("    " + line.lstrip() for line in tail))
    middle = [f"    {entry}," for entry in entries[:-1]] + [f"    {entries[-1]}"]
    return (f"{name}(", *middle, f"){tail[0]}", *("    " + line.lstrip() for line in tail[1:]))


def _type_parameters(parameters: tuple[nodes.TypeParameter, ...]) -> str:
    if not parameters:
        return ""
    texts = []
    for parameter in parameters:
        default = f" = {parameter.default.name}" if parameter.default is not None else ""
        texts.append(f"{parameter.name} in {{{', '.join(choice.name for choice in parameter.choices)}}}{default}")
    return f"[{', '.join(texts)}]"


def _parameter(parameter: nodes.Parameter) -> str:
    qualifier = parameter.qualifier + " " if parameter.qualifier else ""
    default = f" = {expression(parameter.default)}" if parameter.default is not None else ""
    return f"{qualifier}{parameter.name}: {_type(parameter.type)}{default}"


def _type(type_: nodes.Type) -> str:
    if type_.dims is None:
        return type_.dtype
    return f"{type_.dtype}[{'..' if type_.upto else ''}{', '.join(map(inner, type_.dims))}]"


def _statement(statement: nodes.Statement, depth: int) -> _Unit:
    left = ", ".join(target.name for target in statement.targets)
    if statement.indices is not None:
        left += f"[{', '.join(map(index, statement.indices))}]"
    start, end = _range(statement)
    lines = [expression(statement.value)]
    value = statement.value
    if len(left) + len(lines[0]) > _WIDTH and isinstance(value, nodes.Conditional):
        before = lines[0][: -len(expression(value.otherwise)) - len(" else ")]
        lines = [before, f"    else {expression(value.otherwise)}"]
    return _Unit(lines=tuple(lines), depth=depth, left=left, start=start, end=end)


def _monoid(item: nodes.Monoid, text: str) -> Iterator[_Unit]:
    start, end = _range(item)
    braces = _braces(text, start, end)[-6:] or [0] * 6
    opening, lift_open, lift_close, merge_open, merge_close, _ = braces
    parameters = ", ".join(map(_parameter, item.parameters))
    header = f"monoid {item.name}{_type_parameters(item.type_parameters)}({parameters}) -> {_type(item.result_type)} {{"
    yield _Unit(lines=(header,), depth=0, start=start, end=opening, kind="item open")
    state = ", ".join(f"{v.name}: {_type(v.type)} = {expression(v.identity)}" for v in item.state)
    yield _Unit(lines=(f"state {state}",), depth=1, start=_range(item.state[0])[0], end=_range(item.state[-1])[1])
    parts = (
        ("lift", item.lift, lift_open, lift_close),
        (f"merge {item.merge_names[0]}, {item.merge_names[1]}", item.merge, merge_open, merge_close),
    )
    for head, body, first, last in parts:
        yield _Unit(lines=(f"{head} {{",), depth=1, start=first, end=first, kind="open")
        yield from map(_statement, body, [2] * len(body))
        yield _close(1, last + 1 if last else 0)
    first, last = _range(item.result)
    yield _Unit(lines=(f"result {expression(item.result)}",), depth=1, start=first, end=last)
    yield _close(0, end)


def _schedule_lines(entry: nodes.Tunable | nodes.Require | nodes.Directive) -> tuple[str, ...]:
    match entry:
        case nodes.Require(condition=condition):
            return (f"require {expression(condition)}",)
        case nodes.Tunable(name=name, space=space, default=default):
            last = f" = {expression(default)}" if default is not None else ""
            return (f"param {name} in {_space(space)}{last}",)
        case nodes.Directive(tensor=tensor, calls=calls):
            return _chain(tensor, [f".{call.verb}({arguments(call.args, call.keywords)})" for call in calls])


def _space(space: nodes.Choices | nodes.Invoke | nodes.Range) -> str:
    if isinstance(space, nodes.Choices):
        return f"{{{', '.join(map(expression, space.items))}}}"
    return range_(space) if isinstance(space, nodes.Range) else expression(space)


def _chain(tensor: str, calls: list[str]) -> tuple[str, ...]:
    """One line, or lines that are filled and begin with a `.` below the first one; `order` then has its own line."""
    if len(tensor) + sum(map(len, calls)) <= _WIDTH:
        return (tensor + "".join(calls),)
    lines = [tensor + calls[0]]
    for previous, call in pairwise(calls):
        alone = call.startswith(".order(") or previous.startswith(".order(")
        if len(lines[-1]) + len(call) <= _CHAIN_WIDTH and not alone:
            lines[-1] += call
        else:
            lines.append(" " * len(tensor) + call)
    return tuple(lines)
