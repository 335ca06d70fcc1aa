"""devices, doctor, explain, cache."""

from __future__ import annotations

import pytest

from tests.cli.command import Command


def test_devices_here_and_absent(command: Command) -> None:
    found = command("devices", "--json").data
    cpu = next(d for d in found["devices"] if d["kind"] == "cpu")
    assert cpu["device"] == "cpu" and cpu["facts"]["cores"] >= 1
    assert {d["kind"] for d in found["devices"]} | {a["kind"] for a in found["absent"]} == {"cpu", "gpu", "npu"}
    assert all(a["reason"] for a in found["absent"])
    text = command("devices")
    assert text.status == 0
    assert "cpu" in text.out and "npu" in text.out


def test_doctor_says_what_is_missing_and_how_to_get_it(command: Command) -> None:
    shown = command("doctor", "--json")
    assert shown.status == 0
    findings = shown.data["findings"]
    parts = {f["part"] for f in findings}
    assert {"Python", "CPU", "OpenMP", "NPU", "cache", "locked memory", "package numpy", "package vulkan"} <= parts
    assert any(part.startswith("Vulkan") for part in parts)
    devices = {part.removeprefix("Vulkan device ") for part in parts if part.startswith("Vulkan device ")}
    assert devices == {part.removeprefix("arrays for ") for part in parts if part.startswith("arrays for ")}
    for finding in findings:
        assert finding["state"] in ("ok", "missing", "note")
        assert finding["found"]
        if finding["state"] == "missing":
            assert finding["fix"] and finding["purpose"]
    assert "missing" in command("doctor").out


def test_explain_lists_and_explains(command: Command) -> None:
    listed = command("explain", "--json").data
    assert len(listed) > 50
    one = command("explain", "E0203")
    assert one.status == 0 and one.out.startswith("E0203: ")
    for spelling in ("e0203", "203", "E203", "[E0203]"):
        assert command("explain", spelling).out == one.out


@pytest.mark.parametrize("code", ["E9999", "word", ""])
def test_explain_of_an_unknown_code(command: Command, code: str) -> None:
    found = command("explain", code)
    assert found.status == 1
    assert "E0810" in found.err


def test_cache_is_shown_and_cleared(command: Command, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIDSL_CACHE", str(tmp_path / "new"))
    assert command("cache", "show", "--json").data["binaries"] == 0
    assert command("run", "stdlib:saxpy", "--shape", "N=8", "--set", "a=2", "--device", "cpu").status == 0
    found = command("cache", "show", "--json").data
    assert found["folder"] == str(tmp_path / "new")
    assert found["binaries"] >= 1 and found["bytes"] > 0
    assert command("cache", "clear", "--json").data["deleted"] >= found["binaries"]
    assert command("cache", "show", "--json").data["bytes"] == 0
