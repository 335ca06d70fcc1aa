"""The ladder: what is gathered, what a difference means, and in which words it is told."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from tests.personality.makers import HERE, NEWER, OTHER_FAMILY, OTHER_UNIT
from tridsl.backend import Device
from tridsl.devices.spec import DeviceSpec
from tridsl.personality import fingerprint
from tridsl.personality.fingerprint import LEVELS, Fingerprint, changes, compare, compare_hashes, grade, here

CPU = Device(name="cpu", backend="cpu", spec=DeviceSpec(name="host", kind="cpu"))
GPU = Device(
    name="gpu:0", backend="vulkan", description="Radeon 780M (radv 25.2)",
    spec=DeviceSpec(name="AMD Radeon 780M", kind="gpu", subgroup_sizes=(32, 64), shared_bytes=65536),
)  # fmt: skip
SOFTWARE_GPU = Device(
    name="gpu:software", backend="vulkan", description="llvmpipe (LLVM 15.0.6) (llvmpipe Mesa 22.3.6)",
    spec=DeviceSpec(name="llvmpipe (LLVM 15.0.6, 256 bits)", kind="gpu", software=True),
)  # fmt: skip

FILES = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    "stepping\t: 1\nmicrocode\t: 0x1000065\ncpu MHz\t\t: 2596.1\nflags\t\t: fpu sse sse2 avx2 avx512f ibpb\n\n"
    "processor\t: 1\nvendor_id\t: Other\n",
    "proc/meminfo": "MemTotal:       24684084 kB\nMemFree: 1 kB\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "proc/loadavg": "0.01 0.02 0.03 1/90 3526\n",
    "etc/machine-id": "a7d2c1\n",
    "sys/devices/system/cpu/cpu0/cache/index0/type": "Data\n",
    "sys/devices/system/cpu/cpu0/cache/index0/level": "1\n",
    "sys/devices/system/cpu/cpu0/cache/index0/size": "32K\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/thermal/thermal_zone0/temp": "57300\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
}


def machine(folder: Path, **changed: str) -> Path:
    """A root with the files above; `changed` by the file's last name."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed.get(path.name.replace("-", "_"), text))
    return folder


def test_this_machine_is_known() -> None:
    found = here(CPU)
    assert dict(found.family)["architecture"]
    assert {"kernel", "llvmlite", "tridsl", "generator", "threads"} <= dict(found.software).keys()
    assert dict(found.software)["llvmlite"] == metadata.version("llvmlite")
    assert compare(found, here(CPU)) in (None, "operating")
    assert found.hashes == here(CPU).hashes


def test_facts_of_a_processor(tmp_path: Path) -> None:
    found = here(CPU, root=machine(tmp_path), threads=4)
    assert dict(found.family) | {"architecture": "", "instructions": ""} == {
        "architecture": "", "vendor": "AuthenticAMD", "family": "25", "model": "17", "instructions": "",
    }  # fmt: skip
    assert dict(found.sku) == {"name": "AMD EPYC", "stepping": "1", "l1": "32K", "memory": "24 GiB"}
    assert dict(found.software)["microcode"] == "0x1000065"
    assert dict(found.software)["threads"] == "4"
    assert dict(found.operating) == {
        "governor": "performance", "power": "battery", "temperature": "50 °C", "quota": "1.5 cpus", "load": "idle",
    }  # fmt: skip
    assert "a7d2c1" not in found.text, "a machine's number is not given away"


@pytest.mark.parametrize(
    ("file", "text", "level"),
    [
        ("cpuinfo", FILES["proc/cpuinfo"].replace("avx512f", "amx_tile"), "family"),
        ("cpuinfo", FILES["proc/cpuinfo"].replace("AMD EPYC", "AMD Ryzen"), "sku"),
        ("meminfo", "MemTotal: 50000000 kB\n", "sku"),
        ("machine_id", "other\n", "unit"),
        ("cpuinfo", FILES["proc/cpuinfo"].replace("0x1000065", "0x1000066"), "software"),
        ("osrelease", "6.2.0\n", "software"),
        ("scaling_governor", "powersave\n", "operating"),
        ("status", "Charging\n", "operating"),
        ("cpu.max", "max 100000\n", "operating"),
        ("cpuinfo", FILES["proc/cpuinfo"].replace("ibpb", "ssbd").replace("2596.1", "3000.0"), None),
        ("meminfo", "MemTotal: 24600000 kB\n", None),
        ("temp", "50100\n", None),
    ],
)
def test_first_level_that_differs(tmp_path: Path, file: str, text: str, level: str | None) -> None:
    before = here(CPU, root=machine(tmp_path / "a"))
    assert compare(before, here(CPU, root=machine(tmp_path / "b", **{file: text}))) == level


def test_threads_and_compilers_are_software(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert compare(here(CPU, root=root, threads=2), here(CPU, root=root, threads=4)) == "software"
    assert compare(here(CPU, root=root, generator="3"), here(CPU, root=root, generator="4")) == "software"
    assert compare(here(CPU, root=root), here(CPU, root=root, driver={"llvmlite": "0.51"})) == "software"


def test_a_machine_that_says_nothing_is_a_machine(tmp_path: Path) -> None:
    found = here(CPU, root=tmp_path / "nothing")
    assert found.unit == ()
    assert found.operating == ()
    assert compare(found, found) is None


def test_a_gpu_by_its_facts(tmp_path: Path) -> None:
    root = machine(tmp_path)
    found = here(GPU, root=root, driver={"driver": "25.1"}, unit="uuid-1")
    assert dict(found.sku) == {"name": "AMD Radeon 780M"}
    assert {"subgroup_sizes": "32,64", "shared_bytes": "65536"}.items() <= dict(found.software).items()
    offers_more = replace(GPU, spec=replace(GPU.spec, features=frozenset({"cooperative_matrix"}), memory_bytes=1 << 33))
    assert compare(found, here(offers_more, root=root, driver={"driver": "25.1"}, unit="uuid-1")) == "software"
    other = replace(GPU, spec=replace(GPU.spec, name="AMD Radeon 890M"))
    assert compare(found, here(other, root=root, driver={"driver": "25.1"}, unit="uuid-1")) == "sku"
    assert dict(found.family)["name"] == "AMD Radeon"
    assert "uuid-1" not in found.text
    assert compare(found, here(GPU, root=root, driver={"driver": "25.2"}, unit="uuid-1")) == "software"
    assert compare(found, here(GPU, root=root, driver={"driver": "25.1"}, unit="uuid-2")) == "unit"
    assert dict(here(GPU, root=root).software)["driver"] == GPU.description


def test_a_software_gpu_is_its_processor(tmp_path: Path) -> None:
    found = here(SOFTWARE_GPU, root=machine(tmp_path / "a"), threads=2)
    assert "Mesa 22.3.6" in dict(found.software)["driver"]
    other_cpu = FILES["proc/cpuinfo"].replace("AMD EPYC", "AMD Ryzen")
    assert compare(found, here(SOFTWARE_GPU, root=machine(tmp_path / "b", cpuinfo=other_cpu), threads=2)) == "sku"
    assert compare(found, here(SOFTWARE_GPU, root=machine(tmp_path / "a"), threads=3)) == "software"
    assert compare(found, here(CPU, root=machine(tmp_path / "a"), threads=2)) == "family"


def test_grades() -> None:
    assert [grade(level) for level in (None, *reversed(LEVELS))] == ["same", "operating", "suspect", "foreign", "foreign", "foreign"]
    pairs = [(HERE, None), (NEWER, "software"), (OTHER_UNIT, "unit"), (OTHER_FAMILY, "family")]
    assert [compare_hashes(HERE.hashes, other.hashes) for other, _ in pairs] == [level for _, level in pairs]


def test_changes_in_words() -> None:
    assert [change.text for change in changes(HERE, NEWER)] == ["driver 25.2→25.3"]
    without = msgspec.structs.replace(HERE, software=HERE.software[1:])
    assert [change.text for change in changes(HERE, without)] == ["driver 25.2→unknown"]
    assert changes(HERE, HERE) == ()


def test_hashes_do_not_change_between_versions_of_this_code() -> None:
    """Evidence is kept by them: whoever changes them loses everybody's personality."""
    assert HERE.hashes.software == "4cc11ae3d3e52c5f"
    assert HERE.hashes.family == "2d6670e2ffa88229"


def test_text_has_a_line_a_level() -> None:
    lines = HERE.text.splitlines()
    assert [line.split()[0] for line in lines] == list(LEVELS)
    assert "(no facts)" in lines[-1]
    assert "llvmlite 0.50.0" in lines[3]


def test_facts_round_trip() -> None:
    assert msgspec.json.decode(msgspec.json.encode(HERE), type=Fingerprint) == HERE
    assert HERE.lasting.operating == ()
    assert isinstance(fingerprint.operating_point(), tuple)
