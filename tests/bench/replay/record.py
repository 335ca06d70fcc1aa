"""Measure whole spaces, once, on a machine with nothing else to do.

    python -m tests.bench.replay.record --list
    python -m tests.bench.replay.record [NAME …] [--folder DIR] [--blocks 9] [--minutes 60] [--threads 1]
    python -m tests.bench.replay.record --predict      # put today's predictions into recordings; measures nothing

Every point is written as soon as it is measured; a run that was ended goes on where it was. Nothing may be measured beside it: it
holds the machine-wide lock a block at a time, and refuses to begin when the machine is loaded (`--anyway`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.bench.replay.subjects import SUBJECTS, Recorded, name_of, op_of
from tridsl.autotune.measure import VERSION, Bench, Failure, Limits, Runner, Subject
from tridsl.autotune.predicted import Predictor
from tridsl.autotune.replay import FORMAT, Header, Line, decode_point, encode_point, read
from tridsl.autotune.space import Point, Space, automatic_space, describe
from tridsl.backend import Device, load_backend
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.personality import fingerprint

HERE = Path(__file__).parent
BATCH = 4
"""Points whose processes are alone with the incumbent at a time."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.replay.record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--folder", type=Path, default=HERE / "recordings")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--anyway", action="store_true")
    given = parser.parse_args(arguments)
    wanted = [(s, shape) for s in SUBJECTS for shape in s.shapes if not given.names or name_of(s, shape) in given.names]
    if not wanted:
        sys.exit(f"no subject is called {', '.join(given.names)}; see --list")
    device = load_backend("cpu").driver().devices()[0]
    device = replace(device, spec=replace(device.spec, cores=given.threads))  # with one thread, threads are no choice
    if given.list:
        for subject, shape in wanted:
            space = space_of(subject, shape, device.spec)
            print(f"{name_of(subject, shape):32} {len(space.listing(20_000) or ()):6} points{_recorded(subject, shape, given.folder)}")
        return 0
    if given.predict:
        for subject, shape in wanted:
            predict_again(subject, shape, given.folder / f"{name_of(subject, shape)}.jsonl", device, given.threads)
        return 0
    if os.getloadavg()[0] > 0.7 and not given.anyway:
        sys.exit(f"the load is {os.getloadavg()[0]:.2f}: something else is running; wait, or say --anyway")
    end = time.monotonic() + 60 * given.minutes
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        for subject, shape in wanted:
            record(subject, shape, given.folder / f"{name_of(subject, shape)}.jsonl", device, given.blocks, given.threads, end)
    except KeyboardInterrupt:
        print("ended; what was measured is kept")
    return 0


def space_of(subject: Recorded, shape: Mapping[str, int], spec: DeviceSpec) -> Space:
    op = op_of(subject.op, subject.overload, subject.types, subject.lift)
    return automatic_space(op, spec, shape).thin(subject.thin)


def record(
    subject: Recorded, shape: Mapping[str, int], path: Path, device: Device, blocks: int, threads: int, end: float,
    limits: Limits | None = None, most: int = 20_000,
) -> None:  # fmt: skip
    """The points of one space that `path` does not have yet (at most `most`), until `end` (`time.monotonic`)."""
    op = op_of(subject.op, subject.overload, subject.types, subject.lift)
    space = space_of(subject, shape, device.spec)
    default = space.default()
    done = _begun(path, _header(subject, shape, device, threads, default))
    todo = [p for p in (space.listing(20_000) or ()) if p not in done][:most]
    Random(path.stem).shuffle(todo)  # a drift of the machine must not look like a slope of the space
    what = Subject(op=op, device=device, sizes=shape, threads=threads)
    predictor = Predictor(what)
    print(f"{path.stem}: {len(done)} points known, {len(todo)} to measure", flush=True)
    if not todo:
        return
    with Bench(what, limits) as bench, path.open("ab") as file:
        (anchor,) = bench.start([space.schedule(default)])
        if isinstance(anchor, Failure):
            sys.exit(f"{path.stem}: the default schedule fails: {anchor.reason}")
        for first in range(0, len(todo), BATCH):
            if time.monotonic() > end:
                return
            batch = todo[first : first + BATCH]
            for point, line in _measured(bench, anchor, space, batch, blocks, predictor, first).items():
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                said = line.reason or f"{sorted(line.seconds)[len(line.seconds) // 2] * 1e6:.1f} µs"
                print(f"  {describe(point)}: {said}", flush=True)


def predict_again(subject: Recorded, shape: Mapping[str, int], path: Path, device: Device, threads: int) -> None:
    """The predictions of a recording by the cost model as it is now. They are no measurements: any machine may do it, on the chip's
    facts that the header keeps."""
    if not path.exists():
        return
    first, *lines = path.read_bytes().splitlines()
    header = msgspec.json.decode(first, type=Header)
    if header.chip != _facts(device.spec):
        sys.exit(f"{path.name} was recorded on another chip, whose predictions are made there")
    space = space_of(subject, shape, device.spec)
    what = Subject(op=op_of(subject.op, subject.overload, subject.types, subject.lift), device=device, sizes=shape, threads=threads)
    predictor = Predictor(what)
    again = [msgspec.json.decode(line, type=Line) for line in lines]
    again = [msgspec.structs.replace(l, predicted=_predicted(predictor, space, encode_point(l.point))) for l in again]
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (header, *again)))
    print(f"{path.stem}: {len(again)} predictions")


def _measured(
    bench: Bench, anchor: Runner, space: Space, batch: list[Point], blocks: int, predictor: Predictor, seed: int
) -> dict[Point, Line]:
    started = dict(zip(batch, bench.start([space.schedule(p) for p in batch])))
    runners = {p: r for p, r in started.items() if isinstance(r, Runner)}
    times = bench.blocks([anchor, *runners.values()], blocks, Random(seed))
    beside = times[anchor]
    assert not isinstance(beside, Failure), beside
    found: dict[Point, Line] = {}
    for point, runner in started.items():
        answer = runner if isinstance(runner, Failure) else times[runner]
        common = {"point": decode_point(point), "predicted": _predicted(predictor, space, point)}
        if isinstance(answer, Failure):
            found[point] = Line(outcome=answer.outcome, reason=answer.reason, **common)  # type: ignore[arg-type]
        else:
            found[point] = Line(seconds=tuple(answer), incumbent=tuple(beside), **common)  # type: ignore[arg-type]
    for runner in runners.values():
        bench.end(runner)
    return found


def _predicted(predictor: Predictor, space: Space, point: Point) -> float | None:
    try:
        return predictor.cost(space.schedule(point)).seconds
    except TriError:
        return None


def _begun(path: Path, header: Header) -> set[Point]:
    """Points that the file has. A new file gets its header; a line that was cut short is cut off; another machine's file is refused."""
    if not path.exists() or not path.stat().st_size:
        path.write_bytes(msgspec.json.encode(header) + b"\n")
        return set()
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    first, *lines = whole.splitlines()
    before = msgspec.json.decode(first, type=Header)
    for name in ("format", "sizes", "chip", "software", "threads", "default", "measurer"):
        if getattr(before, name) != getattr(header, name):
            sys.exit(f"{path} was begun with another {name}; move it away, or go on where it was begun")
    return {encode_point(msgspec.json.decode(line, type=Line).point) for line in lines}


def _header(subject: Recorded, shape: Mapping[str, int], device: Device, threads: int, default: Point) -> Header:
    here = fingerprint.here(device, threads=threads)
    return Header(
        format=FORMAT, name=name_of(subject, shape), op=f"stdlib:{subject.op}", overload=subject.overload, types=dict(subject.types),
        lift=subject.lift, sizes=dict(shape), thin=dict(subject.thin), default=decode_point(default), chip=_facts(device.spec),
        software=dict(here.software), threads=threads, commit=_commit(), measurer=VERSION, time=time.time(),
    )  # fmt: skip


def _facts(spec: DeviceSpec) -> dict[str, Any]:
    """Everything the space and the prediction depend on."""
    known = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return {n: sorted(v) if isinstance(v, frozenset) else list(v) if isinstance(v, tuple) else v for n, v in known.items() if v not in (None, ())}


def chip_of(header: Header) -> DeviceSpec:
    """The chip of a recording, from the facts that its header keeps."""
    return DeviceSpec(**{n: frozenset(v) if n == "features" else tuple(v) if isinstance(v, list) else v for n, v in header.chip.items()})


def _recorded(subject: Recorded, shape: Mapping[str, int], folder: Path) -> str:
    """How many points a recording has, and for how many of them today's scheduler still asks on that chip."""
    path = folder / f"{name_of(subject, shape)}.jsonl"
    if not path.exists():
        return ""
    recording = read(path)
    space = space_of(subject, shape, chip_of(recording.header))
    return f"; recorded {len(recording.ratios)}, of which {sum(p in space for p in recording.ratios)} are points of today's space there"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=HERE)
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
