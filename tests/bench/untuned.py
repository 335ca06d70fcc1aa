"""Ops that are not in the library: how near is the default schedule to what `tridsl tune` finds?

    OMP_NUM_THREADS=1 python -m tests.bench.untuned [--budget 6s] [--only softmax,blur] [--json]

Not part of the suite, and alone on the machine; eighteen ops (`untuned.tri`) take about four minutes. Each is tuned from an empty store;
the winner and the default are then compared in turns, in fresh processes several times (`tests.bench.live`). `default / tuned` is the
default's speed over the winner's, 1 where the default won. Exit status 1 when one is below `--least` (0.8).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.live import Against, DefaultFails, Rounds, against, say
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject, subjects
from tridsl.cli.targets import services_for
from tridsl.cli.tune import seconds as parse_seconds
from tridsl.personality.belief import duration

OPS = Path(__file__).with_suffix(".tri")


def chosen(only: str) -> list[Subject]:
    names = [name for name in only.split(",") if name]
    every = subjects(Question(operation=str(OPS), threads=1), services_for(Settings()), Settings())
    return [s for s in every if not names or any(name in s.operation.rpartition(":")[2] for name in names)]


def measured(subject: Subject, budget: float, how: Rounds) -> Against:
    """Raises KeyboardInterrupt."""
    try:
        return against(subject.title, subject.request, budget, how)
    except DefaultFails as problem:
        return Against(case=subject.title, problem=str(problem))


def fraction(row: Against) -> float:
    """Of the winner's speed that the default has."""
    return 0.0 if row.problem else min(row.ratio, 1.0)


def show(rows: list[Against], least: float) -> None:
    table = Table("op", "default", "default / tuned", "noise floor", "trials", "winner", box=None, pad_edge=False)
    for row in rows:
        style = "red" if fraction(row) < least else "yellow" if fraction(row) < 0.9 else ""
        table.add_row(row.case, duration(row.seconds), f"{fraction(row):.2f}", f"{100 * row.floor:.1f}%", str(row.trials), row.problem or row.winner, style=style)
    below = sum(fraction(row) < least for row in rows)
    Console(width=None if sys.stdout.isatty() else 220).print(table, f"all figures are measured; {len(rows)} ops, {below} below {least:g}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.untuned", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=parse_seconds, default=6.0)
    parser.add_argument("--only", default="", help="ops whose names contain one of these, by commas")
    parser.add_argument("--least", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes in a comparison")
    parser.add_argument("--blocks", type=int, default=6, help="blocks with each")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    rows: list[Against] = []
    try:
        for subject in chosen(given.only):
            rows.append(measured(subject, given.budget, Rounds(rounds=given.rounds, blocks=given.blocks)))
            say(f"{rows[-1].case}: {fraction(rows[-1]):.2f} {rows[-1].winner}")
    except KeyboardInterrupt:
        say("interrupted: this is what was known by then")
    if given.json:
        print(json.dumps({"label": "measured", "rows": [asdict(r) | {"fraction": fraction(r)} for r in rows]}, indent=2))
    else:
        show(rows, given.least)
    return 1 if any(fraction(row) < given.least for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
