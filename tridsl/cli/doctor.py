"""`tridsl doctor`: what this machine has and lacks, what each part is for, how to get it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from tridsl.backends.cpu import amx
from tridsl.backends.cpu.host import cpu_flags, host_spec
from tridsl.backends.npu.facts import Machine, npu_on_bus, this_machine
from tridsl.backends.npu.facts import findings as npu_findings
from tridsl.backends.vulkan.api import open_api
from tridsl.backends.vulkan.build import find_compiler
from tridsl.backends.vulkan.driver import process_driver
from tridsl.backends.vulkan.instance import open_instance
from tridsl.cli.output import OK, USER, Report
from tridsl.cli.settings import Settings
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.diagnostics import TriError
from tridsl.runtime.artifacts import Artifacts
from tridsl.structs import dataclass

EXTRAS: dict[str, tuple[str, str]] = {
    "vulkan": ("the GPU", "vulkan"),
    "cffi": ("the GPU", "vulkan"),
    "pillow": ("pictures of `tridsl run --image`", "image"),
    "matplotlib": ("the photograph of `tridsl demo`", "demo"),
}
"""Optional packages: what for, and the extra that brings them."""

LEAST_LOCKED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part of the machine. `state`: `ok`, `missing` (something does not work) or `note` (it works, but less well). `seen`: what other
    programs say when the part is not there."""

    part: str
    state: str
    found: str
    purpose: str = ""
    seen: str = ""
    fix: str = ""


def doctor(settings: Settings) -> Report:
    """All findings. Status 1 when a part is missing without which nothing runs."""
    findings = tuple(finding for look in LOOKS for finding in look(settings))
    lines: list[str] = []
    for f in findings:
        lines.append(f"{f.state:8}{f.part:28}{f.found}")
        if f.state != "ok":
            lines += [f"{'':36}{word}: {text}" for word, text in (("for", f.purpose), ("seen", f.seen), ("fix", f.fix)) if text]
    count = sum(f.state == "missing" for f in findings)
    lines.append(f"\n{count} missing part{'' if count == 1 else 's'}." if count else "\nNothing is missing for the devices that are here.")
    broken = any(f.state == "missing" and f.purpose == NEEDED for f in findings)
    return Report(data={"findings": [asdict(f) for f in findings]}, text=("\n".join(lines),), status=USER if broken else OK)


NEEDED = "everything"


def _python(settings: Settings) -> Iterator[Finding]:
    yield Finding(part="Python", state="ok", found=f"{platform.python_version()} ({sys.executable})")
    try:
        required = [r for r in metadata.requires("tridsl") or () if "extra ==" not in r]
    except metadata.PackageNotFoundError:
        yield Finding(part="tridsl", state="missing", found="not installed as a package", purpose=NEEDED, fix="pip install -e . in the checkout")
        return
    yield Finding(part="tridsl", state="ok", found=metadata.version("tridsl"))
    for requirement in required:
        yield _package(re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0], NEEDED, "pip install tridsl")
    for name, (purpose, extra) in EXTRAS.items():
        yield _package(name, purpose, f"pip install 'tridsl[{extra}]'")


def _package(name: str, purpose: str, fix: str) -> Finding:
    try:
        return Finding(part=f"package {name}", state="ok", found=metadata.version(name), purpose=purpose)
    except metadata.PackageNotFoundError:
        return Finding(part=f"package {name}", state="missing", found="not installed", purpose=purpose, fix=fix)


def _cpu(settings: Settings) -> Iterator[Finding]:
    spec = host_spec()
    caches = ", ".join(f"L{n} {size >> 10} KiB" for n, size in enumerate((spec.l1_bytes, spec.l2_bytes, spec.l3_bytes), 1) if size)
    vectors = f"{spec.vector_bits}-bit vectors, {spec.vector_registers} registers" if spec.vector_bits else "no vectors that tridsl knows"
    yield Finding(part="CPU", state="ok", found=f"{spec.target_cpu}, {spec.cores} cores for this process, {vectors}, {caches}")
    wanted = ("avx512f", "avx512vnni", "avx512bf16", "avx2", "fma") if platform.machine() == "x86_64" else ("neon", "dotprod", "bf16", "i8mm")
    present = [name for name in wanted if name in spec.features]
    yield Finding(part="CPU features", state="ok" if present else "note", found=", ".join(present) or "none that kernels are written for")
    yield from _tiles(spec)
    if spec.name == "host":
        yield Finding(
            part="chip facts", state="note", found=f"no chip file for {spec.target_cpu}", purpose="rates that only a chip file gives",
            fix="add tridsl/devices/chips/<name>.toml; kernels work without",
        )  # fmt: skip
    else:
        yield Finding(part="chip facts", state="ok", found=f"tridsl/devices/chips/{load_chip(spec.name).name}.toml")
    everyone = os.cpu_count() or 1
    if spec.cores is not None and spec.cores < everyone:
        yield Finding(part="core affinity", state="note", found=f"{spec.cores} of {everyone} cores", purpose="threads of kernels", fix="see taskset, or the container's cpuset")
    yield _openmp()


def _tiles(spec: DeviceSpec) -> Iterator[Finding]:
    """The tile registers of AMX, on a processor that shows them."""
    used = sorted(name for name in spec.features if name.startswith(amx.PREFIX))
    if used:
        yield Finding(part="CPU matrix tiles", state="ok", found=f"{', '.join(used)}, permitted by the kernel")
    elif "amx_tile" in cpu_flags():
        yield Finding(
            part="CPU matrix tiles", state="note", found="the processor has AMX, the kernel does not permit it", purpose="products of i8 and bf16",
            seen="arch_prctl(ARCH_REQ_XCOMP_PERM) fails", fix="Linux 5.16 or newer; a container must not filter arch_prctl",
        )  # fmt: skip


def _openmp() -> Finding:
    for name in ("libgomp.so.1", "libomp.so.5", "libomp.so"):
        try:
            ctypes.CDLL(name)
            return Finding(part="OpenMP", state="ok", found=name)
        except OSError:
            continue
    return Finding(part="OpenMP", state="missing", found="neither libgomp nor libomp", purpose="more than one thread on the CPU", fix="apt-get install libgomp1")


def _vulkan(settings: Settings) -> Iterator[Finding]:
    purpose = "the GPU"
    try:
        api = open_api()
        yield Finding(part="Vulkan loader", state="ok", found="libvulkan")
    except TriError as problem:
        yield _missing("Vulkan loader", problem, purpose)
        return
    try:
        for device in process_driver().devices():
            yield Finding(part=f"Vulkan device {device}", state="ok", found=device.description)
            yield Finding(part=f"time-out of {device}", state="ok", found=f"{settings.timeout:g} s a call (TRIDSL_TIMEOUT)")
            yield Finding(part=f"arrays for {device}", state="ok", found=process_driver().sharing(device.name))
        if all(device.spec.software for device in process_driver().devices()):
            yield Finding(part="GPU", state="note", found="only a software device", purpose="speed on the GPU", fix=_gpu_fix())
    except TriError as problem:
        yield _missing("Vulkan driver", problem, purpose)
    try:
        open_instance(api, True)
        yield Finding(part="Vulkan validation layer", state="ok", found="VK_LAYER_KHRONOS_validation")
    except TriError as problem:
        yield _missing("Vulkan validation layer", problem, "tests of the GPU backend", state="note")
    try:
        find_compiler()
        yield Finding(part="GLSL compiler", state="ok", found="libshaderc or glslc")
    except TriError as problem:
        yield _missing("GLSL compiler", problem, purpose)


def _gpu_fix() -> str:
    """Why hardware may be invisible: no device node, or no right to open it."""
    nodes = sorted(Path("/dev/dri").glob("renderD*"))
    if not nodes:
        return "there is no /dev/dri/renderD*: no GPU, or a container without it (docker run --device /dev/dri)"
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        return f"{closed[0]} cannot be opened: usermod -aG render $USER, then log in again"
    return "install the GPU maker's Vulkan driver (AMD and Intel: apt-get install mesa-vulkan-drivers)"


def _npu(settings: Settings) -> Iterator[Finding]:
    """Without the device one line; with it every part that running on it takes, in the order in which they fail."""
    machine = this_machine(settings.peano)
    rows = tuple(npu_parts(machine))
    yield from rows if npu_on_bus(machine) is not None else rows[:1]


def npu_parts(machine: Machine) -> Iterator[Finding]:
    """Every part that a run on an NPU takes, and that building for one takes."""
    for row in npu_findings(machine):
        yield Finding(
            part=row.part, state="note" if row.fix else "ok", found=row.state, purpose="the NPU" if row.fix else "", seen=row.seen, fix=row.fix
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if locked not in (resource.RLIM_INFINITY,) and locked < LEAST_LOCKED_BYTES:
        yield Finding(
            part="locked memory", state="note", found=f"limit {locked >> 10} KiB", purpose="memory shared with GPUs and NPUs",
            fix="ulimit -l unlimited, or LimitMEMLOCK=infinity",
        )  # fmt: skip
    else:
        yield Finding(part="locked memory", state="ok", found="no limit" if locked == resource.RLIM_INFINITY else f"limit {locked >> 20} MiB")
    memory = host_spec().memory_bytes
    yield Finding(part="memory", state="ok", found=f"{memory / 2**30:.1f} GiB for this process" if memory else "unknown")


def _cache(settings: Settings) -> Iterator[Finding]:
    contents = Artifacts(settings.cache).show()
    place = contents.folder
    while not place.exists():
        place = place.parent
    found = f"{contents.folder}: {contents.binaries} kernels, {contents.size / 1e6:.1f} MB"
    if os.access(place, os.W_OK | os.X_OK):
        yield Finding(part="cache", state="ok", found=found)
    else:
        yield Finding(part="cache", state="note", found=f"{found}, cannot be written", purpose="kernels that are compiled once", fix="set TRIDSL_CACHE to a folder of yours")


def _missing(part: str, problem: TriError, purpose: str, state: str = "missing") -> Finding:
    first = problem.diagnostics[0]
    return Finding(part=part, state=state, found=first.message, purpose=purpose, fix=first.help)


LOOKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_python, _cpu, _vulkan, _npu, _limits, _cache)
"""What is looked at, in the order it is shown."""
