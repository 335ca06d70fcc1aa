"""What of an NPU is here: the device on the PCI bus, and everything that a run on it takes. Reads a few files, changes nothing.

Each part knows what its absence looks like to somebody who does not know (`seen`: the text of XRT, of the kernel's log or of a tool; from
amd/xdna-driver issues 903 and 1074, XRT pull request 9132, mlir-air issue 566 and the driver's source), and how to get it.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tridsl.diagnostics import Diagnostic

VENDOR = "0x1022"
PRODUCTS: dict[tuple[str, str | None], tuple[str, str]] = {
    ("0x1502", None): ("aie2", "Phoenix or Hawk Point (XDNA1)"),
    ("0x17f0", "0x10"): ("aie2p", "Strix (XDNA2)"),
    ("0x17f0", "0x11"): ("aie2p", "Strix Halo (XDNA2)"),
    ("0x17f0", "0x20"): ("aie2p", "Krackan (XDNA2)"),
    ("0x17f0", None): ("aie2p", "an XDNA2 of unknown revision"),
}
"""PCI device and revision (None: any other) to generation and product (amd/xdna-driver, npu*_regs.c)."""
DRIVER = "amdxdna"
PLUGINS = ("libxrt_driver_xdna.so.2", "libxrt_driver_xdna.so")
LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "opt/xilinx/xrt/lib")
FIRMWARE_FOLDERS = ("lib/firmware/updates", "lib/firmware")
MEMLOCK_BYTES = 1 << 30
"""Less than this much lockable memory stops buffers of ordinary size from being pinned; the device's own heap takes 64 MiB of it."""
NO_DEVICE = "XRT: No such device with index '0'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to look. `root`: of all paths; `locked`: bytes that may be locked, None for no limit; `peano`: the folder that the user named;
    `path`: where programs are looked for (None: PATH)."""

    root: Path = Path("/")
    locked: int | None = None
    peano: Path | None = None
    path: str | None = None
    importable: Callable[[str], bool] = lambda name: find_spec(name) is not None

    def which(self, *names: str) -> str | None:
        return next((found for name in names if (found := shutil.which(name, path=self.path))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Npu:
    """A device on the PCI bus: its entry in /sys, `identity` as firmware folders are named (17f0_11)."""

    entry: Path
    generation: str
    product: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part. `fix` is empty where nothing is wrong; `seen` is what one sees otherwise when the part is not there."""

    part: str
    state: str
    seen: str = ""
    fix: str = ""


def this_machine(peano: Path | None = None) -> Machine:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Machine(locked=None if soft == resource.RLIM_INFINITY else soft, peano=peano)


def read(path: Path) -> str:
    """A file of /sys, or nothing."""
    try:
        return path.read_text(errors="replace").strip()[:200]
    except OSError:
        return ""


def npu_on_bus(machine: Machine) -> Npu | None:
    """The first NPU on the PCI bus."""
    try:
        entries = sorted((machine.root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return None
    for entry in entries:
        device, revision = read(entry / "device"), read(entry / "revision")
        product = PRODUCTS.get((device, revision)) or PRODUCTS.get((device, None))
        if read(entry / "vendor") == VENDOR and product:
            return Npu(entry=entry, generation=product[0], product=product[1], identity=f"{device[2:]}_{revision[2:] or '*'}")
    return None


def findings(machine: Machine) -> tuple[Finding, ...]:
    """Every part that a run on an NPU takes, in the order in which they fail, then what building for it takes."""
    return tuple(look(machine, npu_on_bus(machine)) for look in (*RUNNING, *BUILDING))


def absent(machine: Machine) -> Diagnostic | None:
    """The first part that is missing for running, as the reason why there is no NPU."""
    device = npu_on_bus(machine)
    first = next((f for look in RUNNING if (f := look(machine, device)).fix), None)
    if first is None:
        return None
    return Diagnostic(code="E0775", message=f"{first.part}: {first.state}", help=f'{first.fix}; designs can be simulated by name: device="npu:sim"')


def _device(machine: Machine, npu: Npu | None) -> Finding:
    if npu is not None:
        return Finding(part="NPU", state=f"{npu.product}: {npu.generation}, PCI 1022:{npu.identity} at {npu.entry.name}")
    return Finding(
        part="NPU", state="none on the PCI bus (1022:1502 or 1022:17f0)", seen=NO_DEVICE,
        fix="an AMD Ryzen AI processor has one; enable the IPU in the firmware's setup",
    )  # fmt: skip


def _driver(machine: Machine, npu: Npu | None) -> Finding:
    """Loaded, and of which making: one from outside the kernel's tree goes with other firmware."""
    module = machine.root / "sys/module" / DRIVER
    if not module.exists():
        return Finding(
            part="kernel driver", state=f"{DRIVER} is not loaded", seen="xrt-smi examine: 0 devices found; there is no /dev/accel",
            fix=f"modprobe {DRIVER} (Linux 6.14 or newer, or amd/xdna-driver's package)",
        )  # fmt: skip
    version = read(module / "version")
    origin = "amd/xdna-driver's" if "O" in read(module / "taint") else "the kernel's own"
    state = f"{DRIVER}{' ' + version if version else ''}, {origin}"
    if npu is not None and not (npu.entry / "driver").exists():
        return Finding(
            part="kernel driver", state=f"{state}: loaded, but it did not take the device",
            seen=f"dmesg: {DRIVER} … aie2_check_protocol: Incompatible firmware protocol major …, or: firmware is not alive",
            fix="install the firmware that belongs to this driver: linux-firmware for the kernel's own, otherwise what came with amd/xdna-driver; then reboot",
        )  # fmt: skip
    return Finding(part="kernel driver", state=state)


def _firmware(machine: Machine, npu: Npu | None) -> Finding:
    """What the driver runs, or the files that it could load."""
    if npu is not None and (npu.entry / "driver").exists():
        version = read(npu.entry / "fw_version")
        return Finding(part="firmware", state=f"{version} is running" if version else "one that the driver took (it shows no version)")
    identity = npu.identity if npu is not None else "*"
    files = [f for folder in FIRMWARE_FOLDERS for f in sorted((machine.root / folder).glob(f"amdnpu/{identity}/npu*.sbin*"))]
    if files:
        return Finding(part="firmware", state=", ".join(dict.fromkeys(f.name for f in files)))
    return Finding(
        part="firmware", state=f"no amdnpu/{identity}/npu.sbin in /lib/firmware",
        seen=f"dmesg: {DRIVER} … Direct firmware load for amdnpu/{identity}/npu.sbin failed with error -2",
        fix="install linux-firmware of 2024-11 or newer, or the firmware of amd/xdna-driver's package; then reboot",
    )  # fmt: skip


def _node(machine: Machine, npu: Npu | None) -> Finding:
    nodes = sorted((machine.root / "dev/accel").glob("accel*"))
    if not nodes:
        return Finding(
            part="device node", state="no /dev/accel/accel0", seen=NO_DEVICE, fix="once the driver has taken the device it is there; a container needs --device /dev/accel/accel0"
        )
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return Finding(
            part="device node", state=f"{nodes[0]} may not be opened", seen=f"{NO_DEVICE}, where root has one",
            fix="usermod -aG render $USER, then log in again",
        )  # fmt: skip
    return Finding(part="device node", state=str(nodes[0]))


def _memory(machine: Machine, npu: Npu | None) -> Finding:
    if machine.locked is None:
        return Finding(part="memory lock limit", state="unlimited")
    state = f"{machine.locked >> 20} MiB"
    if machine.locked >= MEMLOCK_BYTES:
        return Finding(part="memory lock limit", state=state)
    return Finding(
        part="memory lock limit", state=state, seen="mmap(addr=…, len=67108864, …) failed (err=-11): Resource temporarily unavailable; or XRT finds no device",
        fix="memlock unlimited in /etc/security/limits.d, and LimitMEMLOCK=infinity for systemd sessions",
    )  # fmt: skip


def _runtime(machine: Machine, npu: Npu | None) -> Finding:
    if machine.importable("pyxrt"):
        return Finding(part="XRT (pyxrt)", state="found")
    return Finding(
        part="XRT (pyxrt)", state="not importable", seen="ModuleNotFoundError: No module named 'pyxrt'",
        fix="install XRT with its Python module for this Python (Debian sid: python3-xrt; AMD's: source /opt/xilinx/xrt/setup.sh)",
    )  # fmt: skip


def _plugin(machine: Machine, npu: Npu | None) -> Finding:
    places = (machine.root / folder / name for folder in LIBRARY_FOLDERS for name in PLUGINS)
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        return Finding(part="XRT plugin for XDNA", state=str(found))
    return Finding(
        part="XRT plugin for XDNA", state="libxrt_driver_xdna.so is missing", seen="XRT finds 0 devices, without an error",
        fix="install it (Debian sid: libxrt-npu2; otherwise xrt_plugin-amdxdna)",
    )  # fmt: skip


def _peano(machine: Machine, npu: Npu | None) -> Finding:
    program = machine.peano / "bin" / "clang++" if machine.peano else None
    if program is not None and program.exists():
        return Finding(part="Peano", state=str(program))
    return Finding(
        part="Peano", state="not found", seen="clang++: error: unknown target triple 'aie2-none-unknown-elf'",
        fix="install llvm-aie and name its folder in PEANO_INSTALL_DIR",
    )  # fmt: skip


def _objcopy(machine: Machine, npu: Npu | None) -> Finding:
    own = machine.peano / "bin" / "llvm-objcopy" if machine.peano else None
    program = str(own) if own is not None and own.exists() else machine.which("llvm-objcopy")
    if program:
        return Finding(part="llvm-objcopy", state=program)
    return Finding(
        part="llvm-objcopy", state="not found", seen="objcopy: Unable to recognise the format of the input file (GNU's does not know cores' ELF)",
        fix="install llvm-aie, which has it, or LLVM (Debian: llvm)",
    )  # fmt: skip


def _aiecc(machine: Machine, npu: Npu | None) -> Finding:
    program = machine.which("aiecc", "aiecc.py")
    if program:
        return Finding(part="aiecc", state=program)
    return Finding(part="aiecc", state="not on PATH", seen="aiecc: command not found", fix="install mlir-aie and put its tools on PATH")


Look = Callable[[Machine, Npu | None], Finding]
RUNNING: tuple[Look, ...] = (_device, _driver, _firmware, _node, _memory, _runtime, _plugin)
BUILDING: tuple[Look, ...] = (_peano, _objcopy, _aiecc)
