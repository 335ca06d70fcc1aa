"""`tridsl personality ship`: winners of this machine as default answers for its family of chips, in the form of `devices/answers`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

import tridsl
from tridsl.cli.evidence import Known, command_line, count, known, open_whole_store, report
from tridsl.cli.files import read_bytes, write_bytes
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject, subjects
from tridsl.cli.targets import services_for
from tridsl.devices.answers import Answer, Row, Sheet
from tridsl.devices.spec import chip_names
from tridsl.diagnostics import error
from tridsl.dtypes import DType
from tridsl.personality import belief
from tridsl.personality.belief import Standing, duration, percent
from tridsl.personality.candidate import candidate
from tridsl.schedule.automatic import automatic, choices
from tridsl.schedule.shapes import bucket, sized_like
from tridsl.schedule.text import text_schedule

_HEAD = """# Measured best answers to the automatic scheduler's decisions on this family of chips: its defaults there. Written by
# `tridsl personality ship`; `tridsl.devices.answers` says what a row means.
"""
_PER_RUN = ".threads"
"""Decisions that depend on how many cores a process was given, which is no fact of the family."""


def ship(question: Question, settings: Settings, output: Path | None, *, alike: bool = False) -> Report:
    """Rows for the subjects whose winner, measured here and now, is better than the scheduler's own default; the file's other rows stay.
    `alike`: for all sizes of their class, which whoever ships them has to have looked at.
    E0820: this processor has no chip file, or `output` is no file of rows."""
    store, notes = open_whole_store(settings)
    rows: list[Row] = []
    left_out: list[str] = []
    for subject in subjects(question, services_for(settings), settings):
        chip = subject.request.device.spec.name
        if chip not in chip_names():
            raise error("E0820", f"`{chip}` has no chip file, so nothing can be shipped for its family", help="add devices/chips/NAME.toml with its `cpuid` or `target_cpu`")
        found = known(store, subject.request.key)
        made = _row(subject, found, alike)
        if isinstance(made, Row):
            rows.append(made)
        else:
            left_out.append(f"{subject.title}: {made}")
    text = sheet_text(rows)
    told = [f"{count(len(rows), 'row')}" + (f" in {output}" if output is not None else ""), *left_out]
    if output is not None and rows:
        write_bytes(output, sheet_text([*_read(output), *rows]).encode())
    data = {"rows": [msgspec.to_builtins(row) for row in rows], "left_out": left_out, "file": None if output is None else str(output)}
    return report(data, told if output is not None else [text.rstrip("\n"), *(f"# {line}" for line in left_out)], notes)


def _row(subject: Subject, found: Known, alike: bool) -> Row | str:
    """The row, or why there is none."""
    request = subject.request
    op, spec, sizes = request.op, request.subject.device.spec, request.sizes
    if text_schedule(request.blocks, op, spec, sizes) is not None:
        return "a schedule text serves it, and goes before shipped answers: change its `param` defaults"
    won = found.ranking.winner
    if won is None or won.status != "fresh":
        return f"no winner measured here under this software: {command_line('tune', Question(operation=subject.operation, device=str(request.device)))}"
    point = won.candidate.values
    given = {n: v for n, v in point.items() if isinstance(v, int | str) and not isinstance(v, DType)}
    own = {c.name: c.default for c in choices(op, spec, sizes, given, shipped=False)}
    answers = {n: v for n, v in given.items() if n in own and v != own[n] and not n.endswith(_PER_RUN)}
    if not answers:
        return "the scheduler's own default is best"
    gain = _gain(subject, found)
    if gain is None or gain.against is None or gain.against.high >= 0:
        return "the winner is not surely better than the scheduler's own default"
    types = {t.name: t.dtype.name for t in op.tensors}
    where = sized_like(sizes) if alike else bucket(sizes)
    return Row(op=op.name, types=types, sizes=where, answers=answers, source="measured", evidence=_evidence(subject, found, gain))


def _gain(subject: Subject, found: Known) -> Standing | None:
    """How the winner compares with the scheduler's own default, where both were measured."""
    request = subject.request
    op, spec = request.op, request.subject.device.spec
    default = candidate(automatic(op, spec, request.sizes, shipped=False), {c.name: c.default for c in choices(op, spec, request.sizes, {}, shipped=False)})
    ranking = belief.rank(found.trials, found.key.fingerprint, incumbent=default)
    return next((s for s in ranking.standings if ranking.winner is not None and s.candidate == ranking.winner.candidate), None)


def _evidence(subject: Subject, found: Known, gain: Standing) -> str:
    """`K=512 …, 1 thread: 1.8 ms, −9% (95%: −10% to −8%) against the scheduler's own default, 40 pairs; tridsl 0.1.0, 2026-11-26`."""
    assert gain.against is not None
    ratio, low, high = (percent(value) for value in gain.against)
    when = time.strftime("%Y-%m-%d", time.gmtime(max(t.time for t in found.trials)))
    measured = f"{duration(gain.seconds)}, {ratio} (95%: {low} to {high}) against the scheduler's own default, {count(gain.pairs, 'pair')}"
    return f"{found.key.bucket}, {count(subject.request.team, 'thread')}: {measured}; tridsl {tridsl.__version__}, {when}"


def _read(file: Path) -> tuple[Row, ...]:
    """E0820."""
    if not file.exists():
        return ()
    try:
        return msgspec.toml.decode(read_bytes(file), type=Sheet).row
    except msgspec.MsgspecError as problem:
        raise error("E0820", f"`{file}` is no file of shipped answers: {problem}", help="name another file, or repair that one") from None


def sheet_text(rows: Iterable[Row]) -> str:
    """The file: sorted by op, types and sizes, a later row in place of an earlier one with its subject."""
    latest = {row.subject: row for row in rows}
    return _HEAD + "".join(f"\n{_row_text(latest[subject])}" for subject in sorted(latest))


def _row_text(row: Row) -> str:
    lines = ["[[row]]", f"op = {_quoted(row.op)}", f"types = {_table(row.types)}", f"sizes = {_quoted(row.sizes)}", f"answers = {_table(row.answers)}"]
    return "\n".join([*lines, f"source = {_quoted(row.source)}", f"evidence = {_quoted(row.evidence)}"]) + "\n"


def _table(values: Mapping[str, Answer]) -> str:
    return "{ " + ", ".join(f"{name if name.isidentifier() else _quoted(name)} = {_quoted(value)}" for name, value in values.items()) + " }"


def _quoted(value: Answer) -> str:
    """A string, number or truth value as TOML and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)
