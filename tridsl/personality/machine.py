"""What `/proc`, `/sys` and the installed packages say about this machine, by level of the fingerprint. Reads, never fails: a
fact that cannot be read is absent."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
from pathlib import Path

_INSTRUCTION_SETS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "gfni", "vaes", "vpclmul", "asimd", "neon", "sve", "sme", "i8mm", "bf16")
"""Beginnings of the flags that decide which code is made; the others come and go with kernels and mitigations."""


def cpu_family(root: Path) -> dict[str, str]:
    """Architecture, microarchitecture and instruction sets."""
    told = _cpuinfo(root)
    flags = (told.get("flags") or told.get("Features") or "").split()
    isa = sorted(flag for flag in flags if flag.startswith(_INSTRUCTION_SETS))
    return {
        "architecture": platform.machine(),
        "vendor": told.get("vendor_id") or told.get("CPU implementer", ""),
        "family": told.get("cpu family") or told.get("CPU architecture", ""),
        "model": told.get("model") or told.get("CPU part", ""),
        "instructions": hashlib.blake2b(" ".join(isa).encode(), digest_size=6).hexdigest() if isa else "",
    }


def cpu_sku(root: Path) -> dict[str, str]:
    """The model's name and stepping, its caches, and the machine's memory.

    Memory is rounded up to a quarter of a power of two: the kernel keeps some of it, and not always the same part.
    """
    told = _cpuinfo(root)
    facts = {"name": told.get("model name", ""), "stepping": told.get("stepping") or told.get("CPU revision", "")}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (_text(index / name) for name in ("type", "level", "size"))
        if kind in ("Data", "Unified") and size:
            facts[f"l{level}"] = size
    total = _table(root / "proc/meminfo", ":").get("MemTotal", "").split()
    if total and total[0].isdigit():
        facts["memory"] = f"{_nominal(int(total[0]) / (1 << 20)):g} GiB"
    return facts


def unit(root: Path) -> dict[str, str]:
    """This installation, by a hash that does not give its number away."""
    number = _text(root / "etc/machine-id")
    return {"machine": hidden(number)} if number else {}


def hidden(number: str) -> str:
    """A number of a unit, one way (machine-id(5) asks for a keyed hash)."""
    return hashlib.blake2b(number.encode(), digest_size=8, key=b"tridsl personality").hexdigest()


def versions(root: Path) -> dict[str, str]:
    """Kernel, microcode, tridsl, and llvmlite, whose wheel carries LLVM."""
    return {
        "kernel": _text(root / "proc/sys/kernel/osrelease"),
        "microcode": _cpuinfo(root).get("microcode", ""),
        **_installed(("tridsl", "llvmlite")),
    }


def _installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of packages, from the names of their metadata folders: importing `importlib.metadata` takes longer than all the
    rest. The first on the path is the one that is imported."""
    found: dict[str, str] = {}
    for folder in reversed(sys.path):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        for name in names:
            package, _, version = name.removesuffix(".dist-info").removesuffix(".egg-info").partition("-")
            if package in packages and version and name.endswith((".dist-info", ".egg-info")):
                found[package] = version
    return found


def operating(root: Path) -> dict[str, str]:
    """The operating point, in bins wide enough to come back."""
    return {
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "profile": _text(root / "sys/firmware/acpi/platform_profile"),
        "power": _power(root),
        "temperature": _temperature(root),
        "quota": _quota(root),
        "load": _load(root),
    }


def _power(root: Path) -> str:
    """`battery` when a battery is being emptied, `mains` when there is one that is not, nothing without."""
    states = [_text(supply / "status") for supply in (root / "sys/class/power_supply").glob("*") if _text(supply / "type") == "Battery"]
    return "" if not states else "battery" if "Discharging" in states else "mains"


def _temperature(root: Path) -> str:
    """The hottest zone, to 10 °C."""
    readings = [_text(zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*")]
    degrees = [int(reading) / 1000 for reading in readings if reading.lstrip("-").isdigit()]
    return f"{math.floor(max(degrees) / 10) * 10} °C" if degrees else ""


def _quota(root: Path) -> str:
    """Processors' worth of time that the control group allows, nothing without a limit."""
    limit, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if not limit:
        limit = _text(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = _text(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if not limit.isdigit() or not period.isdigit() or int(period) == 0:
        return ""
    return f"{int(limit) / int(period):.1f} cpus"


def _load(root: Path) -> str:
    """Others' demand on a processor in the last minute: idle below 0.25, light below 0.75, busy below 1.5, else crowded."""
    first = _text(root / "proc/loadavg").partition(" ")[0]
    try:
        share = float(first) / (os.cpu_count() or 1)
    except ValueError:
        return ""
    return next((name for bound, name in ((0.25, "idle"), (0.75, "light"), (1.5, "busy")) if share < bound), "crowded")


def _nominal(gibibytes: float) -> float:
    """The smallest quarter step between powers of two that is not below: 23.5 is 24, 30.9 is 32."""
    step = 2.0 ** (math.floor(math.log2(max(gibibytes, 0.25))) - 2)
    return math.ceil(gibibytes / step) * step


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines."""
    return _table(root / "proc/cpuinfo", ":", until_blank=True)


def _table(path: Path, separator: str, *, until_blank: bool = False) -> dict[str, str]:
    try:
        with open(path, errors="replace") as stream:
            text = stream.read(1 << 14)
    except OSError:
        return {}
    lines = (text.split("\n\n", 1)[0] if until_blank else text).splitlines()
    parts = (line.partition(separator) for line in lines)
    return {name.strip(): value.strip() for name, _, value in parts if value}


def _text(path: Path) -> str:
    try:
        with open(path, errors="replace") as stream:
            return stream.read(4096).strip()
    except (OSError, ValueError):
        return ""
