"""What is said of each part that an NPU takes, on machines made of files: with everything, and with one thing missing at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.npu.test_hardware import program
from tridsl.backends.npu.facts import BUILDING, RUNNING, Finding, Machine, absent, findings, npu_on_bus

BUS, MODULE = "sys/bus/pci/devices/0000:c5:00.1", "sys/module/amdxdna"


def write(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def whole(root: Path, device: str = "0x17f0", revision: str = "0x11") -> Machine:
    """A machine that has everything."""
    for name, value in (("vendor", "0x1022"), ("device", device), ("revision", revision), ("fw_version", "1.0.0.166")):
        write(root / BUS / name, value)
    (root / "sys/bus/pci/devices/0000:00:00.0").mkdir()
    (root / MODULE).mkdir(parents=True)
    (root / BUS / "driver").symlink_to(root / MODULE)
    write(root / f"lib/firmware/amdnpu/{device[2:]}_{revision[2:]}/npu.sbin.zst")
    write(root / "dev/accel/accel0")
    write(root / "usr/lib/x86_64-linux-gnu/libxrt_driver_xdna.so.2")
    program(root / "peano/bin/clang++", "")
    program(root / "peano/bin/llvm-objcopy", "")
    program(root / "bin/aiecc", "")
    return Machine(root=root, locked=None, peano=root / "peano", path=str(root / "bin"), importable=lambda name: True)


def of(machine: Machine, part: str) -> Finding:
    return next(f for f in findings(machine) if f.part == part)


def test_nothing_is_wrong_with_a_whole_machine(tmp_path: Path) -> None:
    machine = whole(tmp_path)
    assert absent(machine) is None
    assert [f for f in findings(machine) if f.fix or f.seen] == []
    assert of(machine, "firmware").state == "1.0.0.166 is running"


@pytest.mark.parametrize(
    ("device", "revision", "generation", "product"),
    [
        ("0x1502", "0x00", "aie2", "Phoenix"), ("0x17f0", "0x10", "aie2p", "Strix (XDNA2)"), ("0x17f0", "0x11", "aie2p", "Strix Halo"),
        ("0x17f0", "0x20", "aie2p", "Krackan"), ("0x17f0", "0x77", "aie2p", "unknown revision"),
    ],
)  # fmt: skip
def test_the_device_on_the_bus_says_its_product(tmp_path: Path, device: str, revision: str, generation: str, product: str) -> None:
    found = npu_on_bus(whole(tmp_path, device, revision))
    assert found is not None and found.generation == generation and product in found.product
    assert found.identity == f"{device[2:]}_{revision[2:]}"


def test_another_device_is_no_npu(tmp_path: Path) -> None:
    machine = whole(tmp_path)
    write(tmp_path / BUS / "vendor", "0x8086")
    assert npu_on_bus(machine) is None
    assert npu_on_bus(replace(machine, root=tmp_path / "nowhere")) is None


def remove(*names: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        for name in names:
            place = root / name
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()

    return act


LACKS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    # what is done to the machine: the part that is named, what one sees of it elsewhere, the beginning of the fix
    "device": (remove("sys/bus"), "NPU", "No such device with index '0'", "an AMD Ryzen AI"),
    "module": (remove(f"{BUS}/driver", MODULE), "kernel driver", "0 devices found", "modprobe amdxdna"),
    "probe": (remove(f"{BUS}/driver"), "kernel driver", "Incompatible firmware protocol major", "install the firmware that belongs"),
    "firmware": (remove(f"{BUS}/driver", "lib/firmware"), "firmware", "Direct firmware load for amdnpu/17f0_11/npu.sbin failed", "install linux-firmware"),
    "node": (remove("dev/accel/accel0"), "device node", "No such device", "once the driver has taken"),
    "plugin": (remove("usr/lib/x86_64-linux-gnu/libxrt_driver_xdna.so.2"), "XRT plugin for XDNA", "0 devices, without an error", "install it"),
    "compiler": (remove("peano/bin/clang++"), "Peano", "unknown target triple", "install llvm-aie"),
    "objcopy": (remove("peano/bin/llvm-objcopy"), "llvm-objcopy", "Unable to recognise the format", "install llvm-aie"),
    "aiecc": (remove("bin/aiecc"), "aiecc", "command not found", "install mlir-aie"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_each_part_says_what_one_sees_and_what_to_do(tmp_path: Path, lack: str) -> None:
    act, part, seen, fix = LACKS[lack]
    machine = whole(tmp_path)
    act(tmp_path)
    found = of(machine, part)
    assert seen in found.seen and found.fix.startswith(fix)
    problem = absent(machine)
    if part in [look(machine, npu_on_bus(machine)).part for look in BUILDING]:
        assert problem is None  # a design that was built elsewhere runs without
    else:
        assert problem is not None and problem.code == "E0775" and "npu:sim" in (problem.help or "")


def test_the_first_part_that_fails_is_the_reason(tmp_path: Path) -> None:
    machine = whole(tmp_path)
    remove("dev/accel/accel0", "usr/lib/x86_64-linux-gnu/libxrt_driver_xdna.so.2")(tmp_path)
    problem = absent(machine)
    assert problem is not None and problem.message.startswith("device node: no /dev/accel/accel0")


def test_a_node_of_another_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = whole(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: "accel" not in str(path))
    found = of(machine, "device node")
    assert "may not be opened" in found.state and "render" in found.fix


@pytest.mark.parametrize(("locked", "enough"), [(None, True), (1 << 30, True), ((1 << 30) - 1, False), (8 << 20, False)])
def test_the_memory_that_may_be_locked(tmp_path: Path, locked: int | None, enough: bool) -> None:
    found = of(replace(whole(tmp_path), locked=locked), "memory lock limit")
    assert bool(found.fix) is not enough
    assert enough or "Resource temporarily unavailable" in found.seen


def test_a_python_without_the_runtime(tmp_path: Path) -> None:
    found = of(replace(whole(tmp_path), importable=lambda name: name != "pyxrt"), "XRT (pyxrt)")
    assert "No module named 'pyxrt'" in found.seen and "python3-xrt" in found.fix


def test_the_drivers_making_is_told(tmp_path: Path) -> None:
    machine = whole(tmp_path)
    assert "the kernel's own" in of(machine, "kernel driver").state
    write(tmp_path / MODULE / "taint", "OE")
    write(tmp_path / MODULE / "version", "2.21.0")
    assert "2.21.0, amd/xdna-driver's" in of(machine, "kernel driver").state


def test_parts_come_in_the_order_in_which_they_fail(tmp_path: Path) -> None:
    parts = [f.part for f in findings(whole(tmp_path))]
    assert parts == [
        "NPU", "kernel driver", "firmware", "device node", "memory lock limit", "XRT (pyxrt)", "XRT plugin for XDNA", "Peano", "llvm-objcopy", "aiecc",
    ]  # fmt: skip
    assert len(parts) == len(RUNNING) + len(BUILDING)
