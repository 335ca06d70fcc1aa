"""`tridsl bench`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tridsl.api.devices import find
from tridsl.cli.bench import arrays, cases, extras, extras_gpu, peers, rows
from tridsl.cli.bench.markdown import markdown
from tridsl.cli.bench.measure import measure
from tridsl.cli.bench.on_device import measure_on_device
from tridsl.cli.bench.peaks import Peaks
from tridsl.cli.bench.peers import cuda
from tridsl.cli.bench.rows import Row
from tridsl.cli.bench.sampling import pin, start_with
from tridsl.cli.bench.session import Options, Session
from tridsl.cli.bench.table import table
from tridsl.cli.files import read_text
from tridsl.cli.output import NOTHING_MEASURED, OK, OUR_BUG, USER, Report
from tridsl.cli.settings import Settings
from tridsl.cli.targets import find_target, services_for
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error

Job = Callable[[Session], dict[str, Any]]

MORE: dict[str, Mapping[str, Job]] = {"cpu": extras.EXTRAS, "gpu": extras_gpu.EXTRAS_GPU}
"""Rows of a suite that are no op at sizes."""
ON_DEVICE: dict[str, Callable[[Row, Session], dict[str, Any]]] = {"gpu": measure_on_device}
"""Suites whose rows are timed by the device's own clock."""


def bench(options: Options, settings: Settings) -> Report:
    """Rows of readings. E0814, E0958, what the ops raise. Status: 3 when nothing was measured, 70 when an answer was wrong, and with
    `strict` 1 when a floor was missed; without it a missed floor is a result like others."""
    if options.suite == "list":
        return _listed()
    start_with(peers.environment(options.threads), ("-m", "tridsl", *sys.argv[1:]))
    jobs = list(_jobs(options, settings))
    device = find(options.device).device
    if device.spec.simulated:
        raise error("E0958", f"`{device}` is simulated: how long it takes says nothing about a device", help="`tridsl lower --until array` has a predicted time")
    on_cpu = device.spec.kind == "cpu"
    everything = tuple(sorted(os.sched_getaffinity(0)))
    cores = pin(options.threads)
    peers.set_threads(options.threads)
    peers.keep_memory()
    rotation = arrays.rotation(device.spec if on_cpu else DeviceSpec(name="host", kind="cpu"))
    probed = Peaks(device=device, threads=options.threads, rotation=rotation) if on_cpu else None
    session = Session(options=options, settings=settings, device=device, peaks=probed, rotation=rotation, everything=everything)
    measured: list[dict[str, Any]] = []
    for number, (name, job) in enumerate(jobs):
        print(f"[{number + 1}/{len(jobs)}] {name}", file=sys.stderr)
        try:
            measured.append(job(session))
        except KeyboardInterrupt:
            print("interrupted: what was measured so far follows", file=sys.stderr)
            break
        except TriError as problem:
            measured.append({"name": name, "operation": name, "case": "", "error": str(problem)})
    spec = device.spec
    machine = {
        "device": str(device), "description": device.description, "threads": options.threads, "cores": list(cores), "samples": session.samples,
        "peers": _peers_here(options), "versions": peers.versions(), "target": spec.target_cpu, "rotation_bytes": rotation,
        "caches": {"l1_bytes": spec.l1_bytes, "l2_bytes": spec.l2_bytes, "l3_bytes": spec.l3_bytes}, "quick": options.quick,
        "clock": "device" if options.suite in ON_DEVICE and not options.operations else "host",
    }  # fmt: skip
    return report({"machine": machine, "rows": measured}, as_markdown=options.markdown, strict=options.strict)


def shown(files: Sequence[Path], *, as_markdown: bool, strict: bool) -> Report:
    """The rows of documents that `--json` wrote, the last one where two have a name. E0814: a file that is no such document."""
    machine: Any = None
    found: dict[str, Any] = {}
    for file in files:
        try:
            document = json.loads(read_text(file))
            found |= {row["name"]: row for row in document["rows"]}
            machine = machine or document["machine"]
        except (ValueError, KeyError, TypeError):
            raise error("E0814", f"`{file}` is no document of `tridsl bench --json`", help="write one: tridsl bench --json > bench.json") from None
    return report({"machine": machine, "rows": list(found.values())}, as_markdown=as_markdown, strict=strict)


def report(data: dict[str, Any], *, as_markdown: bool = False, strict: bool = False) -> Report:
    """Text or Markdown of a document, and its status."""
    found = data["rows"]
    wrong = any(row.get("correct") is False for row in found)
    missed = strict and any(row.get("verdict") == "missed" for row in found)
    status = OUR_BUG if wrong else NOTHING_MEASURED if not any("readings" in row for row in found) else USER if missed else OK
    return Report(data=data, text=markdown(data) if as_markdown else table(found, data["machine"]), status=status)


def _jobs(options: Options, settings: Settings) -> Iterator[tuple[str, Job]]:
    """What is measured, by name, in order."""
    if options.operations:
        services = services_for(settings)
        for text in options.operations:
            for case in cases.bench_blocks(text, find_target(text, services)):
                yield _job(Row(name=f"{case.operation} {case.title}", case=case))
        return
    measured = ON_DEVICE.get(options.suite, measure)
    chosen = [_job(row, measured) for row in rows.suite(options.suite)] + list(MORE.get(options.suite, {}).items())
    kept = set(rows.matching([name for name, _ in chosen], options.only))
    yield from (pair for pair in chosen if pair[0] in kept)


def _job(row: Row, how: Callable[[Row, Session], dict[str, Any]] = measure) -> tuple[str, Job]:
    return row.name, lambda session: how(row, session)


def _peers_here(options: Options) -> dict[str, bool]:
    """Every peer of the suite, and whether it can be measured."""
    return {cuda.NAME: cuda.pytorch() is not None} if options.suite in ON_DEVICE else peers.installed()


def _listed() -> Report:
    named = {name: [*(row.name for row in suite), *MORE.get(name, {})] for name, suite in rows.SUITES.items()}
    return Report(data=named, text=tuple(f"{suite}: {len(names)} rows\n  " + "\n  ".join(names) for suite, names in named.items()))
