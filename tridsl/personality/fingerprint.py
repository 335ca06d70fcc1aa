"""Where something was measured, as a ladder of five levels, and what a difference means for the evidence.

family     instruction set and microarchitecture          differs: of use to a cost model at most
sku        the model: caches, registers, memory            differs: a prior
unit       this very piece                                 differs: a prior
software   driver, compiler, kernel, microcode, threads    differs: suspect - served, and to be verified
operating  governor, power, temperature, quota, load       differs: the same evidence, measured at another point

The number of cores that a process may use is software: it is what a machine, a container or `taskset` was given, and a change
must make winners suspect, not foreign. A GPU that is a program on the CPU has that CPU's family, SKU and unit; the program
and its threads are software.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from tridsl.backend import HOST_KINDS, Device, load_backend
from tridsl.devices.spec import DeviceSpec
from tridsl.personality import machine

Level = Literal["family", "sku", "unit", "software", "operating"]
LEVELS: tuple[Level, ...] = ("family", "sku", "unit", "software", "operating")

Grade = Literal["same", "operating", "suspect", "foreign"]
"""What evidence from elsewhere is worth; from best to least."""

_GRADES: dict[Level | None, Grade] = {
    None: "same",
    "operating": "operating",
    "software": "suspect",
    "unit": "foreign",
    "sku": "foreign",
    "family": "foreign",
}

_Short: TypeAlias = Annotated[str, msgspec.Meta(max_length=400)]
_Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
Facts: TypeAlias = Annotated[tuple[tuple[_Short, _Short], ...], msgspec.Meta(max_length=200)]
"""Names and values, sorted by name; a fact that is not known is absent."""


class Hashes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fingerprint as 16 hexadecimal digits a level: what keys carry. The operating point is beside it, in the trial."""

    family: _Digest
    sku: _Digest
    unit: _Digest
    software: _Digest


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The facts behind the hashes, kept once, so that a difference can be told in words."""

    family: Facts
    sku: Facts
    unit: Facts
    software: Facts
    operating: Facts = ()

    @property
    def hashes(self) -> Hashes:
        return Hashes(family=_hash(self.family), sku=_hash(self.sku), unit=_hash(self.unit), software=_hash(self.software))

    @property
    def lasting(self) -> Fingerprint:
        """Without the operating point, which changes by the minute: what a store keeps."""
        return msgspec.structs.replace(self, operating=())

    @property
    def text(self) -> str:
        """A line a level, the hash first."""
        levels = ((level, getattr(self, level)) for level in LEVELS)
        return "\n".join(
            f"{level:<9} {_hash(facts)}  {', '.join(f'{name} {value}' for name, value in facts) or '(no facts)'}"
            for level, facts in levels
        )


class Change(NamedTuple):
    """A fact that differs; None: not known on that side."""

    level: Level
    name: str
    before: str | None
    after: str | None

    @property
    def text(self) -> str:
        """`driver 25.1→25.2`."""
        return f"{self.name} {self.before or 'unknown'}→{self.after or 'unknown'}"


def compare(before: Fingerprint, after: Fingerprint) -> Level | None:
    """The first level at which they differ, from family on; None when they do not."""
    return next((level for level in LEVELS if getattr(before, level) != getattr(after, level)), None)


def compare_hashes(before: Hashes, after: Hashes) -> Level | None:
    """`compare` for the four levels that have hashes."""
    return next((level for level in LEVELS[:4] if getattr(before, level) != getattr(after, level)), None)


def grade(level: Level | None) -> Grade:
    """What evidence is worth that differs first at `level`."""
    return _GRADES[level]


def changes(before: Fingerprint, after: Fingerprint) -> tuple[Change, ...]:
    """Every fact that differs, by level and name."""
    return tuple(_changes(before, after))


def _changes(before: Fingerprint, after: Fingerprint) -> Iterator[Change]:
    for level in LEVELS:
        old, new = dict(getattr(before, level)), dict(getattr(after, level))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield Change(level, name, old.get(name), new.get(name))


def here(
    device: Device,
    *,
    driver: Mapping[str, str] | None = None,
    unit: str = "",
    generator: str | None = None,
    threads: int | None = None,
    root: Path = Path("/"),
) -> Fingerprint:
    """The fingerprint of a device of this machine, now. Levels up to software are gathered once a process.

    `driver`: names and versions of what drives it (`driver`, `firmware`, `xrt`, …); by default the device's description.
    `unit`: its own number (a UUID), hashed before it is kept. `generator`: version of what makes the code, by default that of
    the device's backend.
    `threads`: processors that kernels may use, by default those this process may. `root`: where `proc`, `sys` and `etc` lie.
    """
    facts = tuple(sorted((driver or {}).items()))
    usable = threads or len(os.sched_getaffinity(0))
    made_by = load_backend(device.backend).version if generator is None else generator
    return msgspec.structs.replace(_lasting(device, facts, unit, made_by, usable, root), operating=operating_point(root))


def operating_point(root: Path = Path("/")) -> Facts:
    """Governor, power source, hottest zone to 10 °C, quota and load of this machine, now; a dozen small files."""
    return _facts(machine.operating(root))


@cache
def _lasting(
    device: Device, driver: tuple[tuple[str, str], ...], unit: str, generator: str, threads: int, root: Path
) -> Fingerprint:
    spec, versions = device.spec, machine.versions(root) | {"generator": generator}
    if spec.kind in HOST_KINDS:
        return Fingerprint(
            family=_facts(machine.cpu_family(root)),
            sku=_facts(machine.cpu_sku(root)),
            unit=_facts(machine.unit(root)),
            software=_facts({**versions, **dict(driver), "threads": str(threads)}),
        )
    versions |= dict(driver) or {"driver": device.description}
    if spec.software:
        simulated = {"runs as": spec.kind}
        return Fingerprint(
            family=_facts({**machine.cpu_family(root), **simulated}),
            sku=_facts(machine.cpu_sku(root)),
            unit=_facts(machine.unit(root)),
            software=_facts({**versions, "device": spec.name, "threads": str(threads)}),
        )
    piece = {"device": machine.hidden(unit)} if unit else {}
    return Fingerprint(
        family=_facts({"kind": spec.kind, "name": _family_name(spec.name)}),
        sku=_facts({"name": spec.name} | _known(spec, _SILICON)),
        unit=_facts({**machine.unit(root), **piece}),
        software=_facts(versions | _known(spec, _OFFERED)),
    )


_SILICON = ("columns", "cores", "l2_bytes", "vector_bits")
_OFFERED = ("features", "subgroup_sizes", "shared_bytes", "max_group_lanes", "memory_bytes")
"""What a driver offers of a device, and may offer more of in its next version: software, so that evidence lives on as suspect."""


def _known(spec: DeviceSpec, names: tuple[str, ...]) -> dict[str, str]:
    found = ((name, getattr(spec, name)) for name in names)
    return {name: _value(value) for name, value in found if value is not None}


def _value(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _family_name(name: str) -> str:
    """The words of a marketing name before its number: `AMD Radeon RX`, `NVIDIA`."""
    words = name.split()
    count = next((position for position, word in enumerate(words) if any(map(str.isdigit, word))), len(words))
    return " ".join(words[:count]) or name


def _facts(values: Mapping[str, str]) -> Facts:
    """Sorted, cut to what a record may hold, without what is not known."""
    return tuple((name[:400], value[:400]) for name, value in sorted(values.items()) if value)


def _hash(facts: Facts) -> str:
    return hashlib.blake2b(msgspec.json.encode(facts), digest_size=8).hexdigest()
