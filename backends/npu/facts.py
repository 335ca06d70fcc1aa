"""What of an NPU is here: the device on the PCI bus, its kernel driver, the runtime, the compiler. Reads a few files of /sys, changes nothing."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tridsl.diagnostics import Diagnostic

PCI = Path("/sys/bus/pci/devices")
ACCEL = Path("/dev/accel")
PRODUCTS = {
    ("0x1022", "0x1502"): ("aie2", "Phoenix or Hawk Point (XDNA1)"),
    ("0x1022", "0x17f0"): ("aie2p", "Strix, Strix Halo or Krackan (XDNA2)"),
}
"""PCI vendor and device to generation and product (amd/xdna-driver, npu*_regs.c)."""
PLUGINS = ("libxrt_driver_xdna.so.2", "libxrt_driver_xdna.so")
LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/opt/xilinx/xrt/lib")
MEMLOCK_BYTES = 1 << 30
"""Less than this much lockable memory stops buffers of ordinary size from being pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `tridsl doctor`: `fix` is empty where nothing is wrong."""

    part: str
    state: str
    fix: str = ""


def read(path: Path) -> str:
    """A file of /sys, or nothing."""
    try:
        return path.read_text(errors="replace").strip()[:200]
    except OSError:
        return ""


def npu_on_bus(bus: Path = PCI) -> tuple[str, str] | None:
    """Generation and product of the first NPU on the PCI bus."""
    try:
        entries = sorted(bus.iterdir())
    except OSError:
        return None
    for entry in entries:
        found = PRODUCTS.get((read(entry / "vendor"), read(entry / "device")))
        if found:
            return found
    return None


def findings(bus: Path = PCI, accel: Path = ACCEL, peano: Path | None = None) -> tuple[Finding, ...]:
    """Every part that a run on an NPU needs, in the order in which they fail. `peano`: the folder that the user named."""
    device = npu_on_bus(bus)
    rows = [
        Finding(part="NPU", state=f"{device[1]}: {device[0]}") if device
        else Finding(part="NPU", state="none on the PCI bus (1022:1502 or 1022:17f0)", fix="an AMD Ryzen AI processor has one; enable the IPU in the firmware's setup"),
    ]  # fmt: skip
    nodes = sorted(accel.glob("accel*")) if accel.is_dir() else []
    usable = [n for n in nodes if os.access(n, os.R_OK | os.W_OK)]
    if not nodes:
        rows.append(Finding(part="kernel driver", state="no /dev/accel/accel0", fix="modprobe amdxdna (Linux 6.14 or newer, or amd/xdna-driver's package)"))
    elif not usable:
        rows.append(Finding(part="kernel driver", state=f"{nodes[0]} may not be opened", fix="usermod -aG render $USER, then log in again"))
    else:
        rows.append(Finding(part="kernel driver", state=str(usable[0])))
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    small = soft != resource.RLIM_INFINITY and soft < MEMLOCK_BYTES
    rows.append(
        Finding(part="memory lock limit", state=f"{soft >> 20} MiB", fix="memlock unlimited in /etc/security/limits.d, and LimitMEMLOCK=infinity for systemd sessions") if small
        else Finding(part="memory lock limit", state="unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 20} MiB")
    )  # fmt: skip
    runtime = find_spec("pyxrt") is not None
    rows.append(Finding(part="XRT (pyxrt)", state="found") if runtime else Finding(part="XRT (pyxrt)", state="not importable", fix="install XRT with its Python module (Debian sid: python3-xrt)"))
    plugin = next((str(p) for folder in LIBRARY_FOLDERS for name in PLUGINS if (p := Path(folder, name)).exists()), None)
    rows.append(
        Finding(part="XRT plugin for XDNA", state=plugin) if plugin
        else Finding(part="XRT plugin for XDNA", state="libxrt_driver_xdna.so is missing: XRT would find 0 devices without an error", fix="install it (Debian sid: libxrt-npu2)")
    )  # fmt: skip
    clang = peano / "bin" / "clang++" if peano else None
    rows.append(
        Finding(part="Peano", state=str(clang)) if clang and clang.exists()
        else Finding(part="Peano", state="not found", fix="install llvm-aie and name its folder in PEANO_INSTALL_DIR")
    )  # fmt: skip
    aiecc = shutil.which("aiecc") or shutil.which("aiecc.py")
    rows.append(Finding(part="aiecc", state=aiecc) if aiecc else Finding(part="aiecc", state="not on PATH", fix="install mlir-aie and put its tools on PATH"))
    return tuple(rows)


def absent(bus: Path = PCI, accel: Path = ACCEL) -> Diagnostic | None:
    """The first part that is missing for running, as the reason why there is no NPU."""
    first = next((f for f in findings(bus, accel) if f.fix and f.part not in ("Peano", "aiecc")), None)
    if first is None:
        return None
    return Diagnostic(
        code="E0775", message=f"{first.part}: {first.state}", help=f'{first.fix}; designs can be simulated by name: device="npu:sim"'
    )
