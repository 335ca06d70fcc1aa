"""Host facts: right, cheap the second time, and never in the way."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tridsl.backends.cpu import host
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import F32


def test_facts_agree_with_the_system(tmp_path: Path) -> None:
    spec = host.host_spec(tmp_path)
    assert spec.kind == "cpu" and spec.target_triple.split("-")[0] == platform.machine()
    assert spec.cores == len(os.sched_getaffinity(0))
    assert spec.memory_bytes and spec.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert spec.target_cpu and all(word[0] in "+-" for word in spec.target_features.split(","))
    assert spec.features == {w[1:] for w in spec.target_features.split(",") if w[0] == "+"}
    assert spec.vector_bits and spec.lanes(F32) == spec.vector_bits // 32


def test_the_second_time_llvm_is_not_imported(tmp_path: Path) -> None:
    first = host.host_spec(tmp_path)
    script = (
        "import sys\nfrom pathlib import Path\nfrom tridsl.backends.cpu.host import host_spec\n"
        "before = 'llvmlite' in sys.modules\n"
        f"spec = host_spec(Path({str(tmp_path)!r}))\n"
        "assert before or 'llvmlite' not in sys.modules\nprint(spec.target_features, spec.name)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
    assert out.split() == [first.target_features, first.name]


def test_a_damaged_or_unwritable_cache_only_costs_time(tmp_path: Path) -> None:
    want = host.host_spec(tmp_path)
    (file,) = (tmp_path / "host").iterdir()
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for content in (b"", b"{", b'{"cpu": 1}', b'{"cpu": "x", "features": [], "missing": [], "chip": "h", "more": 1}'):
        file.write_bytes(content)
        assert host.host_spec(tmp_path) == want
        assert file.read_bytes() != content
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert host.host_spec(blocked) == want


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2"}, (512, 32, True)),
        ("x86_64", {"avx512f", "avx2"}, (256, 16, False)),
        ("x86_64", {"sse2"}, (128, 16, False)),
        ("aarch64", {"neon"}, (128, 32, False)),
        ("riscv64", {"v"}, (None, None, False)),
    ],
)
def test_vector_registers(machine: str, features: set[str], expected: tuple[object, ...]) -> None:
    assert host._vectors(machine, frozenset(features)) == expected


def test_cache_sizes_come_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"index0": ("1", "Data", "48K"), "index1": ("1", "Instruction", "32K"), "index2": ("2", "Unified", "2M")}
    for name, values in rows.items():
        (tmp_path / name).mkdir()
        for file, value in zip(("level", "type", "size"), values):
            (tmp_path / name / file).write_text(value + "\n")
    monkeypatch.setattr(host, "_CACHES", tmp_path)
    assert host._cache_bytes() == {1: 48 << 10, 2: 2 << 20}
    (tmp_path / "index2" / "size").write_text("many\n")
    assert host._cache_bytes() == {1: 48 << 10}


def test_the_chip_file_of_this_processor_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chips = {
        "a-gpu": DeviceSpec(name="a-gpu", kind="gpu", target_cpu="znver4"),
        "arm": DeviceSpec(name="arm", kind="cpu", target_cpu="znver4", target_triple="aarch64-unknown-linux-gnu"),
        "zen4": DeviceSpec(name="zen4", kind="cpu", target_cpu="znver4", target_triple="x86_64-unknown-linux-gnu"),
    }
    monkeypatch.setattr(host, "load_chip", chips.__getitem__)
    assert host._matching_chip("znver4", "x86_64") is chips["zen4"]
    assert host._matching_chip("znver5", "x86_64") is None


INTEL, AMD = ("vendor_id\t: GenuineIntel", "cpu family\t: 6"), ("vendor_id\t: AuthenticAMD", "cpu family\t: 25")


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ((*INTEL, "model\t\t: 143"), "sapphire_rapids"), ((*INTEL, "model\t\t: 207", "model name\t: Xeon"), "sapphire_rapids"),
        ((*INTEL, "model\t\t: 106"), None), ((*AMD, "model\t\t: 17"), "zen4"), ((*AMD, "model\t\t: 97"), "zen4"),
        ((*AMD, "model\t\t: 32"), None), ((*INTEL, "model\t\t: 17"), None), (INTEL, None), (("model: many", *INTEL), None), ((), None),
    ],
)  # fmt: skip
def test_families_are_known_by_cpuid(lines: tuple[str, ...], name: str | None) -> None:
    """Also where LLVM gives another name, as an old one does for a new processor."""
    found = host._matching_chip("generic", "x86_64", host._cpuid(lines))
    assert (found and found.name) == name


def test_llvms_name_goes_before_cpuid() -> None:
    found = host._matching_chip("znver4", "x86_64", ("GenuineIntel", 6, 207))
    assert found is not None and found.name == "zen4"
