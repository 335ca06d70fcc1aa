"""THE LIST: every stage between a checked `Op` and a `Binary`, in order, on one page.

A stage's name is its dump extension, its `--until` argument and its override point. Everything here is pure: the same op,
schedule, device and facts give the same binary, so a cache key is the hash of the arguments and the versions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol

from tridsl.backend import Backend, Binary, Code, Records
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.ir.op import Op
from tridsl.passes.boundaries import boundaries
from tridsl.passes.decide_nests import decide_nests
from tridsl.passes.decode_packings import decode_packings
from tridsl.passes.expand_copies import expand_copies
from tridsl.passes.form_mma import form_mma
from tridsl.passes.hoist_rows import hoist_rows
from tridsl.passes.join_updates import join_updates
from tridsl.passes.later_places import later_places
from tridsl.passes.meet_lanes import meet_lanes
from tridsl.passes.narrow_integers import narrow_integers
from tridsl.passes.pad_tiles import pad_tiles
from tridsl.passes.partition_loops import partition_loops
from tridsl.passes.place_init import place_init
from tridsl.passes.register_tiles import register_tiles
from tridsl.passes.simplify import simplify
from tridsl.passes.specialise import Specialisation, specialise
from tridsl.passes.strip_vectors import strip_vectors
from tridsl.passes.to_loops import to_loops
from tridsl.passes.transpose_tiles import transpose_tiles
from tridsl.passes.unread_tiles import unread_tiles
from tridsl.passes.unsigned_dots import unsigned_dots
from tridsl.passes.whole_tiles import whole_tiles
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Schedule
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The side inputs of one compilation. `schedule` None asks for the automatic one. `records` change no result, only how soon it is there."""

    spec: DeviceSpec
    backend: Backend
    schedule: Schedule | None = None
    facts: Specialisation = field(default_factory=Specialisation)
    records: Records | None = field(default=None, compare=False)


StageFunction = Callable[[Any, Build], Any]
Stages = tuple[tuple[str, StageFunction], ...]

TO_KERNEL: Stages = (
    ("loops", lambda op, build: to_loops(op)),
    ("specialise", lambda kernel, build: specialise(kernel, build.facts)),  # first: known sizes give every later stage bounds
    ("boundaries", lambda kernel, build: boundaries(kernel)),  # before schedule: `at` reads regions off plain indices
)
SCHEDULE: Stages = (
    ("schedule", lambda kernel, build: apply_schedule(kernel, build.schedule or (), build.spec)),
    ("simplify", lambda kernel, build: simplify(kernel)),  # not before schedule: it dissolves loops that steps name
)
LOWER: Stages = (
    ("unread_tiles", lambda kernel, build: unread_tiles(kernel)),  # sees whole nests; what it skips has no start and no end
    ("later_places", lambda kernel, build: later_places(kernel)),  # sees all loops of a reduction, and where it starts
    ("register_tiles", lambda kernel, build: register_tiles(kernel)),
    ("join_updates", lambda kernel, build: join_updates(kernel)),  # sees where tiles are added to what is in memory
    ("meet_lanes", lambda kernel, build: meet_lanes(kernel)),  # sees the tiles that lanes share, and where they start
    ("place_init", lambda kernel, build: place_init(kernel)),  # what register_tiles left in memory
    ("pad_tiles", lambda kernel, build: pad_tiles(kernel)),  # sees the register tiles
    ("form_mma", lambda kernel, build: form_mma(kernel)),  # the tiles are whole now
    ("unsigned_dots", lambda kernel, build: unsigned_dots(kernel)),  # sees how tiles start and which copies fill panels
    ("whole_tiles", lambda kernel, build: whole_tiles(kernel)),  # the tails that pad_tiles could not fill
    ("expand_copies", lambda kernel, build: expand_copies(kernel, build.spec)),
    ("decode_packings", lambda kernel, build: decode_packings(kernel)),  # panels are filled by plain stores now
    ("hoist_rows", lambda kernel, build: hoist_rows(kernel, build.spec)),  # the rows have vector loops, too
    ("narrow_integers", lambda kernel, build: narrow_integers(kernel, build.spec)),  # before the lanes are counted
    ("strip_vectors", lambda kernel, build: strip_vectors(kernel, build.spec)),  # copies have vector loops too
    ("partition", lambda kernel, build: partition_loops(simplify(kernel))),  # the strips are the loops worth splitting
    ("decide_nests", lambda kernel, build: decide_nests(kernel, build.spec)),  # what loops of the nest itself cannot be cut for
    ("finish", lambda kernel, build: simplify(kernel)),  # each part decides its clamps and masks
    ("transpose_tiles", lambda kernel, build: transpose_tiles(kernel, build.spec)),  # the tiles are known to be whole
)


def stages(backend: Backend) -> Stages:
    """All stages from an `Op` to a `Binary` on `backend`."""
    target = tuple((stage.name, _target(stage.run)) for stage in backend.lower)
    return (*TO_KERNEL, *SCHEDULE, *(LOWER if backend.shared else ()), *target, ("accepts", _accepts), ("emit", _emit), ("build", _build))


def _target(run: Callable[..., Any]) -> StageFunction:
    return lambda kernel, build: run(kernel, build.spec)


def _accepts(kernel: Any, build: Build) -> Any:
    problems = build.backend.accepts(kernel, build.spec)
    if problems:
        raise TriError(*problems)
    return kernel


def _emit(kernel: Any, build: Build) -> Code:
    return build.backend.emit(kernel, build.spec)


def _build(code: Code, build: Build) -> Binary:
    backend = build.backend
    if build.records is None or backend.build_with is None:
        return backend.build(code, build.spec)
    return backend.build_with(code, build.spec, build.records)


class OnStage(Protocol):
    """Called behind every stage: dumps, timings, verification and goldens are such callbacks."""

    def __call__(self, name: str, value: Any, seconds: float) -> None: ...


def run(
    value: Any, steps: Stages, build: Build, *, until: str | None = None,
    on_stage: OnStage | None = None, overrides: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:  # fmt: skip
    """`value` through `steps`, up to and with the stage named `until`. An override may replace what a stage gave (a text of
    `emit` edited by hand, say). E0802: no stage has the name."""
    names = [name for name, _ in steps]
    for wanted in (*((until,) if until else ()), *(overrides or {})):
        if wanted not in names:
            raise error("E0802", f"there is no stage `{wanted}`", help=f"the stages are: {', '.join(names)}")
    for name, function in steps:
        start = time.perf_counter()
        value = function(value, build)
        if overrides and name in overrides:
            value = overrides[name](value)
        if on_stage:
            on_stage(name, value, time.perf_counter() - start)
        if name == until:
            break
    return value


def complete(op: Op, build: Build, *, shipped: bool = True) -> Build:
    """With the automatic schedule where none was given."""
    if build.schedule is not None:
        return build
    return replace(build, schedule=automatic(op, build.spec, dict(build.facts.sizes), shipped=shipped))


def lower(
    op: Op, build: Build, *, until: str = "emit", on_stage: OnStage | None = None,
    overrides: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:  # fmt: skip
    """The value of stage `until`: a `Kernel`, `Code` or `Binary`. Where a chip's shipped answers give a schedule that is not legal
    any more, the automatic one without them is taken."""
    whole = complete(op, build)
    try:
        return run(op, stages(build.backend), whole, until=until, on_stage=on_stage, overrides=overrides)
    except TriError:
        plain = whole if build.schedule is not None else complete(op, build, shipped=False)
        if plain.schedule == whole.schedule:
            raise
        return run(op, stages(build.backend), plain, until=until, on_stage=on_stage, overrides=overrides)


def build(op: Op, build: Build, *, on_stage: OnStage | None = None) -> Binary:
    """Machine code for `op`. Raises TriError for an illegal schedule or a missing feature; anything else is our bug."""
    binary: Binary = lower(op, build, until="build", on_stage=on_stage)
    return binary
