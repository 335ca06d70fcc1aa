"""The facts of the processor this process runs on, as a `DeviceSpec`.

LLVM knows the processor's name and features best, but importing it takes 50 ms. So it is asked once per machine; the
answer is kept in a small file whose name is a hash of what `/proc/cpuinfo` says and of LLVM's version. A warm process
reads two small files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tridsl.backends.cpu.amx import usable
from tridsl.devices import spec as facts_of_chips
from tridsl.devices.spec import DeviceSpec, chips_that_mention, load_chip
from tridsl.environment import cache_folder
from tridsl.whole_files import write_whole

_FORMAT = 2
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What LLVM said (the processor's name and features), and what the chip file that describes it adds: its name, by which shipped
    answers are found, and what was measured."""

    cpu: str
    features: tuple[str, ...]
    missing: tuple[str, ...]
    chip: str
    peak_f32_ops_per_second_per_core: float | None = None
    peak_bf16_ops_per_second_per_core: float | None = None
    peak_copy_bytes_per_second: float | None = None
    stream_bytes: int | None = None


def host_spec(cache: Path | None = None) -> DeviceSpec:
    """This machine's processor. `cache` is the directory for LLVM's answer; None is the user's cache directory.

    `name` is that of the chip file with the same `target_cpu`, or for its vendor, family and model, else `host`. `cores` are those this process may use.
    A cache that cannot be read or written only costs the time to ask again.
    """
    machine = platform.machine()
    folder = (cache or cache_folder()) / "host"
    file = folder / f"{_identity(machine)}.json"
    answer = _read(file)
    if answer is None:
        answer = _ask_llvm(machine)
        _write(file, answer)
    return _spec(machine, answer)


def _identity(machine: str) -> str:
    """A hash of everything that LLVM's answer and the choice of the chip depend on."""
    chips = []
    folder = os.path.join(os.path.dirname(facts_of_chips.__file__), "chips")
    if os.path.isdir(folder):
        chips = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder))
    facts = (_FORMAT, machine, _llvm_version(), chips, _cpuinfo())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _llvm_version() -> str:
    """llvmlite's version, from the name of its metadata folder: `importlib.metadata` takes 12 ms to import, half of a warm start."""
    spec = importlib.util.find_spec("llvmlite")
    for place in (spec and spec.submodule_search_locations) or ():
        for name in sorted(os.listdir(os.path.dirname(place))):
            if name.startswith("llvmlite-") and name.endswith((".dist-info", ".egg-info")):
                return name
    from importlib import metadata

    return metadata.version("llvmlite")


def _cpuinfo() -> tuple[str, ...]:
    """The lines of the first processor that name its kind; not its momentary frequency or number."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU ")
    try:
        with open("/proc/cpuinfo", errors="replace") as stream:
            first = stream.read(1 << 14).split("\n\n", 1)[0]
    except OSError:
        return ()
    return tuple(line for line in first.splitlines() if line.startswith(wanted))


def cpu_flags() -> frozenset[str]:
    """What Linux says that the processor has, under its own names."""
    said = next((line.partition(":")[2] for line in _cpuinfo() if line.startswith(("flags", "Features"))), "")
    return frozenset(said.split())


def _read(file: Path) -> _Answer | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Answer)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(file: Path, answer: _Answer) -> None:
    """Atomically: another process reads the old file, none, or the whole new one."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, msgspec.json.encode(answer))
    except OSError:
        return


def _ask_llvm(machine: str) -> _Answer:
    from llvmlite import binding  # heavy (50 ms), and only a cold process needs it

    llvm: Any = binding

    features = llvm.get_host_cpu_features()
    cpu = llvm.get_host_cpu_name()
    chip = _matching_chip(cpu, machine, _cpuid(_cpuinfo()))
    return _Answer(
        cpu=cpu,
        features=tuple(sorted(name for name, here in features.items() if here)),
        missing=tuple(sorted(name for name, here in features.items() if not here)),
        chip=chip.name if chip else "host",
        peak_f32_ops_per_second_per_core=chip.peak_f32_ops_per_second_per_core if chip else None,
        peak_bf16_ops_per_second_per_core=chip.peak_bf16_ops_per_second_per_core if chip else None,
        peak_copy_bytes_per_second=chip.peak_copy_bytes_per_second if chip else None,
        stream_bytes=chip.stream_bytes if chip else None,
    )


def _matching_chip(cpu: str, machine: str, cpuid: tuple[str, int, int] | None = None) -> DeviceSpec | None:
    """The chip file, the first by name, with this `target_cpu`, else one that describes this vendor, family and model: of a family under
    several names, or too new for this LLVM."""

    def here(names: Iterable[str]) -> Iterator[DeviceSpec]:
        return (c for c in map(load_chip, names) if c.kind == "cpu" and c.target_triple.split("-")[0] in ("", machine))

    named = next((c for c in here(chips_that_mention(cpu)) if c.target_cpu == cpu), None)  # start-up time: the others need not be parsed
    if named is not None or cpuid is None:
        return named
    family = chips_that_mention(f"{cpuid[0]} {cpuid[1]} ")  # as `_describes` has it
    return next((c for c in here(family) if any(_describes(text, cpuid) for text in c.cpuid)), None)


def _cpuid(lines: tuple[str, ...]) -> tuple[str, int, int] | None:
    """Vendor, family and model of an x86 processor; None where they are not told."""
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    try:
        return said["vendor_id"], int(said["cpu family"]), int(said["model"])
    except (KeyError, ValueError):
        return None


def _describes(text: str, cpuid: tuple[str, int, int]) -> bool:
    """Whether `GenuineIntel 6 143` or `AuthenticAMD 25 16..31` is this processor; both ends of a range belong to it."""
    vendor, family, models = text.split()
    low, _, high = models.partition("..")
    return (vendor, int(family)) == cpuid[:2] and int(low) <= cpuid[2] <= int(high or low)


def _spec(machine: str, answer: _Answer) -> DeviceSpec:
    features = usable(frozenset(answer.features))
    bits, registers, masks = _vectors(machine, features)
    caches = _cache_bytes()
    return DeviceSpec(
        name=answer.chip,
        kind="cpu",
        features=features,
        target_triple=f"{machine}-unknown-linux-gnu",
        target_cpu=answer.cpu,
        target_features=",".join([f"+{name}" for name in sorted(features)] + [f"-{name}" for name in sorted({*answer.features, *answer.missing} - features)]),
        vector_bits=bits,
        vector_registers=registers,
        has_masks=masks,
        cores=len(os.sched_getaffinity(0)),
        l1_bytes=caches.get(1),
        l2_bytes=caches.get(2),
        l3_bytes=caches.get(3),
        memory_bytes=_memory_bytes(),
        peak_f32_ops_per_second_per_core=answer.peak_f32_ops_per_second_per_core,
        peak_bf16_ops_per_second_per_core=answer.peak_bf16_ops_per_second_per_core,
        peak_copy_bytes_per_second=answer.peak_copy_bytes_per_second,
        stream_bytes=answer.stream_bytes,
    )


def _vectors(machine: str, features: frozenset[str]) -> tuple[int | None, int | None, bool]:
    """Bits and number of the SIMD registers, and whether instructions take lane masks."""
    if machine == "aarch64":
        return 128, 32, False
    if machine != "x86_64":
        return None, None, False
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= features:
        return 512, 32, True
    return (256 if "avx2" in features else 128), 16, False


def _cache_bytes() -> dict[int, int]:
    """Size of the data or unified cache of each level that core 0 uses; without those of which the system does not say it."""
    found: dict[int, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        with suppress(OSError, ValueError):
            if (index / "type").read_text().strip() in ("Data", "Unified"):
                text = (index / "size").read_text().strip()
                found.setdefault(int((index / "level").read_text()), int(text.rstrip("KMG")) * _UNITS.get(text[-1], 1))
    return found


def _memory_bytes() -> int | None:
    """Physical memory, or the limit of this process's control group where that is less."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
