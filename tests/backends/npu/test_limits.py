"""A design at each limit is possible, one past it is refused with the limit's name; the same for every rule."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import fields
from importlib import resources
from typing import Any

import pytest
from msgspec.structs import replace

from tests.backends.npu.designs import GENERATIONS, chip
from tests.backends.npu.small import CORE, LINE, MEMTILE, SHIM, buffer, chain, end, moving, small, task, tensor
from tridsl.backends.npu.design import ArrayDesign, Await, Dimension, Flow, Lock, Place, SetLock
from tridsl.backends.npu.limits import DESCRIPTOR_BANK, LIMITS, check
from tridsl.backends.npu.rules import RULES
from tridsl.devices.spec import ArraySpec

Make = Callable[[int], ArrayDesign]
TILES = {"core": CORE, "memtile": MEMTILE, "shim": SHIM}


def with_(design: ArrayDesign, **more: tuple[Any, ...]) -> ArrayDesign:
    """The design with more parts of a kind."""
    return replace(design, **{name: (*getattr(design, name), *parts) for name, parts in more.items()})


def memory(tile: Place) -> Make:
    return lambda n: with_(small(), buffers=(buffer("last", tile, n - 4 * len(LINE) * 8),))


def channels(tile: Place, direction: str) -> Make:
    return lambda n: with_(small(), flows=(Flow(source=end(tile, direction, n - 1), targets=()),))


def descriptors(kind: str) -> Make:
    if kind == "shim":
        return lambda n: with_(small(), sequence=(task("out", "x", number=n - 1),))
    return lambda n: with_(small(), chains=(chain(TILES[kind], "in", 3, moving(n - 1, "mx" if kind == "memtile" else "cx", True)),))


def locks(tile: Place) -> Make:
    return lambda n: with_(small(), locks=(Lock(name="last", tile=tile, number=n - 1, initial=0),))


def transfer(kind: str, dims: Callable[[int], tuple[Dimension, ...]]) -> Make:
    """A transfer with these dimensions on a tile of `kind`, from something as large as it takes."""

    def made(n: int) -> ArrayDesign:
        if kind == "shim":
            return with_(small(), tensors=(tensor("wide", "input", (1 << 40,)),), sequence=(task("out", "wide", number=5, dimensions=dims(n)),))
        tile = TILES[kind]
        first = buffer("wide", tile, 0, shape=(1 << 22,))
        return with_(small(), buffers=(first,), chains=(chain(tile, "in", 3, moving(30 if kind == "memtile" else 5, "wide", True, dims(n))),))

    return made


def counted(n: int) -> tuple[Dimension, ...]:
    return (*(Dimension(size=2, stride=64 << 2 * d) for d in reversed(range(n - 1))), Dimension(size=4, stride=1))


def shim_counted(n: int) -> tuple[Dimension, ...]:
    return counted(n + 1)


def across(count: int, source: int, target: int) -> ArrayDesign:
    """That many streams from one column's cores to another's: half of them one column, half all the way."""
    nearer = source + (1 if target > source else -1)
    flows = (Flow(source=end((source, 2), "out"), targets=(end((nearer if n % 2 else target, 2), "in"), end((source, 3), "in"))) for n in range(count))
    return replace(small(), flows=tuple(flows))


MAKERS: dict[str, Make] = {
    "columns": lambda n: with_(small(), buffers=(buffer("far", (n - 1, 2), 4096),)),
    "rows": lambda n: with_(small(), buffers=(buffer("high", (0, n + 1), 4096),)),
    "core memory": memory(CORE),
    "memtile memory": memory(MEMTILE),
    **{f"{kind} {word} channels": channels(tile, direction) for kind, tile in TILES.items() for word, direction in (("input", "in"), ("output", "out"))},
    **{f"{kind} descriptors": descriptors(kind) for kind in TILES},
    "memtile descriptors of a channel": lambda n: with_(small(), chains=(chain(MEMTILE, "in", 3, moving(DESCRIPTOR_BANK + n - 1, "mx", True)),)),
    **{f"{kind} locks": locks(tile) for kind, tile in TILES.items()},
    "lock value": lambda n: with_(small(), sequence=(SetLock(lock="cx_full", value=n),)),
    **{f"{kind} transfer dimensions": transfer(kind, shim_counted if kind == "shim" else counted) for kind in TILES},
    **{f"{kind} transfer wrap": transfer(kind, lambda n: (Dimension(size=n, stride=8), Dimension(size=4, stride=1))) for kind in TILES},
    **{f"{kind} transfer step": transfer(kind, lambda n: (Dimension(size=2, stride=n), Dimension(size=4, stride=1))) for kind in TILES},
    **{f"{kind} transfer length": transfer(kind, lambda n: (Dimension(size=n, stride=1),)) for kind in TILES},
    "memtile streams to cores": lambda n: replace(small(), flows=tuple(Flow(source=end(MEMTILE, "out", c), targets=(end(CORE, "in"),)) for c in range(n))),
    "memtile streams from cores": lambda n: replace(small(), flows=tuple(Flow(source=end(CORE, "out"), targets=(end(MEMTILE, "in", c),)) for c in range(n))),
    "streams eastwards": lambda n: across(n, 0, 3),
    "streams westwards": lambda n: across(n, 3, 0),
    "arguments": lambda n: replace(small(), tensors=(*small().tensors, *(tensor(f"x{i}", "input") for i in range(n)))[:n]),
    "iterations": transfer("shim", lambda n: (Dimension(size=n, stride=64), *(Dimension(size=1, stride=0),) * 2, Dimension(size=4, stride=1))),
    "repeats": lambda n: with_(small(), sequence=(task("out", "x", number=5, repeats=n),)),
    "shim queue": lambda n: replace(small(), sequence=tuple(task("out", "x", number=d) for d in range(n))),
}


def names(design: ArrayDesign, generation: str, code: str) -> set[str]:
    return {d.message.split("`")[3] for d in check(design, chip(generation)) if d.code == code}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_design_at_the_limit_is_possible_and_one_past_it_is_not(limit: Any, generation: str) -> None:
    spec = chip(generation)
    assert spec.array is not None
    most = limit.limit(spec, spec.array)
    assert limit.name not in names(MAKERS[limit.name](most), generation, "E0771")
    assert limit.name in names(MAKERS[limit.name](most + 1), generation, "E0771")


def test_every_limit_has_such_a_test() -> None:
    assert {limit.name for limit in LIMITS} == set(MAKERS)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_small_design_is_possible(generation: str) -> None:
    assert check(small(), chip(generation)) == ()


def test_a_message_says_which_limit_where_and_both_numbers() -> None:
    (found,) = check(channels(CORE, "in")(3), chip("aie2"))
    assert found.message == "`small` exceeds the limit `core input channels` of aie2: tile (0, 2) has 3 input channels, at most 2 are possible"


BROKEN: dict[str, tuple[ArrayDesign, ArrayDesign]] = {
    # rule: (a design that keeps it, one that does not)
    "offset in words": (
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, LINE, offset=2)),)),
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, LINE, offset=1)),)),
    ),
    "rows in words": (
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, (Dimension(size=6, stride=1),))),)),
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, (Dimension(size=5, stride=1),))),)),
    ),
    "strides in words": (
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, (Dimension(size=2, stride=6), *LINE))),)),
        with_(small(), buffers=(buffer("h", CORE, 8192, (64,), 2),), chains=(chain(CORE, "in", 1, moving(9, "h", True, (Dimension(size=2, stride=9), *LINE))),)),
    ),
    "no standing still": (
        with_(small(), sequence=(task("out", "x", number=5, dimensions=(Dimension(size=4, stride=0), *(Dimension(size=1, stride=0),) * 2, *LINE)),)),
        with_(small(), sequence=(task("out", "x", number=5, dimensions=(Dimension(size=4, stride=0), *LINE)),)),
    ),
    "no going back": (
        with_(small(), sequence=(task("out", "x", number=5, offset=8, dimensions=(Dimension(size=2, stride=8), *LINE)),)),
        with_(small(), sequence=(task("out", "x", number=5, offset=8, dimensions=(Dimension(size=2, stride=-8), *LINE)),)),
    ),
    "transfers inside": (
        with_(small(), sequence=(task("out", "x", number=5, offset=24, dimensions=LINE),)),
        with_(small(), sequence=(task("out", "x", number=5, offset=28, dimensions=LINE),)),
    ),
    "buffers apart": (
        with_(small(), buffers=(buffer("over", CORE, 4096 + 128),)),
        with_(small(), buffers=(buffer("over", CORE, 960),)),
    ),
    "buffers aligned": (
        with_(small(), buffers=(buffer("odd", CORE, 8192 + 64),)),
        with_(small(), buffers=(buffer("odd", CORE, 8192 + 16),)),
    ),
    "memory of its own": (
        with_(small(), chains=(chain(MEMTILE, "in", 1, moving(24, "mx", True)),)),
        with_(small(), chains=(chain(CORE, "in", 1, moving(9, "mx", True)),)),
    ),
    "descriptors in one place": (
        with_(small(), chains=(chain(CORE, "in", 1, moving(9, "cx", True)),)),
        with_(small(), chains=(chain(CORE, "in", 1, moving(1, "cx", True)),)),
    ),
    "descriptors free": (
        with_(small(), sequence=(task("in", "y"), Await(tile=SHIM, direction="in", channel=0), task("in", "y"))),
        with_(small(), sequence=(task("in", "y"), task("in", "y"), Await(tile=SHIM, direction="in", channel=0))),
    ),
}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_design_that_breaks_a_rule_is_refused(rule: Any, generation: str) -> None:
    keeps, breaks = BROKEN[rule.name]
    assert rule.name not in names(keeps, generation, "E0772")
    assert rule.name in names(breaks, generation, "E0772")


NO_LIMITS = {
    "granule_bytes": "of rules about multiples", "load_bytes": "of a rule about alignment", "core_stack_bytes": "given, not used up",
    "core_program_bytes": "of text and objects (`program_memory`)", "clock_hz": "a rate", "stream_bytes_per_cycle": "a rate",
    "memory_bytes_per_second": "a rate", "dispatch_seconds": "a rate", "macs_per_cycle": "rates",
}  # fmt: skip
"""Facts of an array that limit no design by themselves, and what they are."""


class Asked:
    """Facts that remember which of them were read."""

    def __init__(self, facts: ArraySpec) -> None:
        self.facts, self.names = facts, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.facts, name)


def test_every_fact_of_an_array_is_a_limit_or_says_what_else() -> None:
    spec = chip("aie2")
    assert spec.array is not None
    asked = Asked(spec.array)
    for limit in LIMITS:
        limit.limit(spec, asked)  # type: ignore[arg-type]
    assert asked.names | set(NO_LIMITS) == {f.name for f in fields(ArraySpec)}
    assert not asked.names & set(NO_LIMITS)


def test_every_rule_has_such_a_test() -> None:
    assert {rule.name for rule in RULES} == set(BROKEN)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_fact_of_a_generation_has_its_source(generation: str) -> None:
    facts = tomllib.loads(resources.files("tridsl.devices").joinpath("chips", f"{generation}.toml").read_text())
    assert {fact["source"] for fact in facts.values() if isinstance(fact, dict)} <= {"published", "fitted"}  # nothing was measured here
    declared = {f"array_{f.name}" for f in fields(ArraySpec)}
    assert {name for name in facts if name.startswith("array_")} == declared
