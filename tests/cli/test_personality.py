"""`tridsl personality`: evidence shown, carried, decided on and checked. Nothing is measured here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.world import World
from tests.personality.makers import HERE, OTHER_FAMILY, ok, tiled
from tridsl.personality import bundle
from tridsl.personality.candidate import Candidate
from tridsl.personality.evidence import Pin
from tridsl.personality.lines import write as write_line


@pytest.fixture
def measured(world: World) -> World:
    """`rows=2` wins, `rows=8` crashes."""
    world.keep([*world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4, world.at(4): 2e-4}), world.failed(world.at(8), "crash", "SIGSEGV")])
    return world


def told(world: World, *arguments: object, status: int = 0) -> Any:
    found = world("personality", *arguments, "--json")
    assert found.status == status, found.out + found.err
    return found.data


def winner(world: World) -> Any:
    return world("why", world.operation, "--json").data["subjects"][0]["winner"]


def refused(world: World, code: str, *arguments: object) -> Any:
    """The one error of a command that fails."""
    (problem,) = told(world, *arguments, status=1)["errors"]
    assert problem["code"] == code, problem
    assert problem["help"]
    return problem


# show ---------------------------------------------------------------------------------------------------------------------


def test_no_store(world: World) -> None:
    data = told(world, "show")
    assert (data["subjects"], data["exists"], data["folder"], data["skipped"], data["notes"]) == ([], False, str(world.personality), [], [])
    shown = world("personality", "show")
    assert "nothing is known about this machine yet" in shown.out and "cpu, by level" in shown.out
    assert not world.personality.exists()


def test_show(measured: World) -> None:
    data = told(measured, "show")
    (subject,) = data["subjects"]
    assert (subject["op"], subject["bucket"], subject["dtypes"], subject["device"]) == ("scale", "M=64 N=64", {"x": "f32", "y": "f32"}, "cpu")
    assert (subject["trials"], subject["counting"], subject["quarantined"], subject["threads"], subject["served"]) == (7, 7, 1, 1, "winner")
    assert subject["winner"]["id"] == measured.at(2).id and subject["winner"]["label"] == "measured" and subject["winner"]["seconds"] > 0
    levels = data["machine"]["cpu"]
    assert set(levels) == {"family", "sku", "unit", "software", "operating"}
    assert len(levels["software"]["hash"]) == 16 and levels["software"]["facts"]["llvmlite"]
    shown = measured("personality", "show").out
    for part in ("scale M=64 N=64 (f32) on cpu", measured.at(2).id[:8], "fresh", "measured", str(measured.personality), "family"):
        assert part in shown, part


def test_evidence_is_judged_for_the_threads_it_was_taken_with(world: World) -> None:
    two = world.request(threads=2)
    world.keep([*world.trials({world.at(1): 1e-4, world.at(2): 2e-4}), *world.trials({world.at(1): 2e-4, world.at(2): 1e-4}, two)], world.place(2))
    rows = told(world, "show")["subjects"]
    assert [(r["threads"], r["winner"]["id"], r["winner"]["status"]) for r in rows] == [(1, world.at(1).id, "fresh"), (2, world.at(2).id, "fresh")]


def test_what_says_nothing_here_is_shown_on_request(measured: World) -> None:
    key = measured.key
    measured.store.add(
        ok(tiled(4), [1e-3], where=msgspec.structs.replace(key, device="gpu:9")),
        ok(tiled(4), [1e-3], where=msgspec.structs.replace(key, bucket="M=1", fingerprint=OTHER_FAMILY.hashes)),
    )
    data = told(measured, "show")
    assert (len(data["subjects"]), data["hidden"]) == (1, 2)
    assert "2 subjects more" in measured("personality", "show").out
    data = told(measured, "show", "--all")
    assert (len(data["subjects"]), data["hidden"]) == (3, 0)
    absent = next(s for s in data["subjects"] if s["device"] == "gpu:9")
    assert (absent["present"], absent["winner"], absent["trials"]) == (False, None, 1)
    assert "device not here" in measured("personality", "show", "--all").out


def test_skipped_lines_are_counted(measured: World) -> None:
    path = measured.damage()
    (line,) = told(measured, "show")["skipped"]
    assert (line["file"], line["fault"]) == (str(path), "damaged") and line["offset"] > 0 and line["why"]
    assert "1 line skipped (1 damaged)" in measured("personality", "show").out


def test_notes_are_no_warnings(measured: World) -> None:
    measured.damage()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = measured("personality", "show")
    assert shown.err == "" and "note[E0901]" in shown.out


# verify -------------------------------------------------------------------------------------------------------------------


def test_a_sound_store(measured: World) -> None:
    data = told(measured, "verify")
    assert (data["sound"], data["skipped"], data["to_verify"], data["records"]) == (True, [], [], 8)
    assert "every winner was measured here under this software" in measured("personality", "verify").out


def test_damage_is_status_1(measured: World) -> None:
    path = measured.damage()
    measured.damage(b'{"format":1,"ki')
    data = told(measured, "verify", status=1)
    assert data["sound"] is False and [line["fault"] for line in data["skipped"]] == ["damaged", "torn"]
    shown = measured("personality", "verify")
    assert shown.status == 1 and f"{path}: byte " in shown.out and "torn" in shown.out
    assert winner(measured)["id"] == measured.at(2).id, "the rest counts"


def test_what_is_to_be_verified_has_a_command(world: World) -> None:
    before = world.place(kernel="5.0")
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}, at=before), before)
    (doubt,) = told(world, "verify")["to_verify"]
    assert (doubt["winner"]["status"], doubt["exact"]) == ("suspect", False)
    assert doubt["command"] == "tridsl tune FILE:scale --shape M=64,N=64 --device cpu --threads 1"
    shown = world("personality", "verify")
    assert shown.status == 0 and "the winner is suspect: rows=2 width=8" in shown.out and "FILE: where the op is written" in shown.out


@pytest.mark.parametrize(
    ("operation", "shape", "values"),
    [
        ("stdlib:matmul", "M=8,K=16,N=24", "T=bf16,U=f32"),
        ("stdlib:matmul", "M=8,K=16,N=24", "T=i8"),
        ("stdlib:softmax", "x=4x3x40", "T=f16"),
        ("stdlib:attention", "H=2,S=4,D=8,G=2,L=4,E=8", "causal=true"),
        ("stdlib:rmsnorm", "x=4x40", ""),
        ("stdlib:saxpy", "N=1000", ""),
    ],
)
def test_commands_of_the_library_are_exact(world: World, operation: str, shape: str, values: str) -> None:
    request = world.request(operation, shape=(shape,), values=(values,) if values else ())
    world.keep(world.trials({tiled(4): 1e-4, tiled(8): 2e-4}, request, origin="far.bundle"))
    (doubt,) = told(world, "verify")["to_verify"]
    assert (doubt["winner"]["status"], doubt["exact"]) == ("prior", True)
    words = shlex.split(doubt["command"])
    assert words[:3] == ["tridsl", "tune", operation]
    (subject,) = world("why", *words[2:], "--json").data["subjects"]
    assert subject["subject"] == request.key.subject and subject["winner"]["id"] == tiled(4).id


def test_a_store_that_cannot_be_read(world: World) -> None:
    world.personality.write_text("a file")
    (note,) = told(world, "verify", status=1)["notes"]
    assert note["code"] == "E0905"
    assert [n["code"] for n in told(world, "show")["notes"]] == ["E0905"]
    for arguments in (("export", world.personality.with_name("b")), ("diff", "."), ("pin", world.operation, "rows=2,width=8"), ("forget", world.operation)):
        refused(world, "E0905", *arguments)
    assert not world.personality.with_name("b").exists()


# pin and forget -----------------------------------------------------------------------------------------------------------


def test_pin_by_id(measured: World) -> None:
    chosen = measured.at(4)
    data = told(measured, "pin", measured.operation, chosen.id[:6].upper())
    assert (data["pinned"]["id"], data["measured_before"], data["notes"]) == (chosen.id, True, [])
    assert (winner(measured)["id"], winner(measured)["status"]) == (chosen.id, "pinned")
    shown = measured("personality", "pin", measured.operation, measured.at(1).id)
    assert f"`tridsl personality forget {measured.operation} --device cpu --pins`" in shown.out
    assert winner(measured)["id"] == measured.at(1).id, "the latest holds"


@pytest.mark.parametrize("values", ["rows=4,width=16", "width=16 rows=4"])
def test_pin_by_values(world: World, values: str) -> None:
    shown = world("personality", "pin", world.operation, values)
    assert shown.status == 0 and "it was never measured: `tridsl tune " in shown.out
    assert winner(world)["id"] == world.at(4, 16).id and winner(world)["seconds"] is None


def test_pin_by_values_of_the_automatic_schedule(world: World) -> None:
    arguments = ("pin", "stdlib:matmul", "--shape", "M=16,K=16,N=16")
    open_ = refused(world, "E0818", *arguments, "C.rows=4")
    values = open_["help"].rpartition(": ")[2]
    names = {part.partition("=")[0] for part in values.split(",")}
    assert "C.rows=4" in values and {note.partition(":")[0] for note in open_["notes"]} < names
    bare = ",".join(part.partition(".")[2] for part in values.split(","))
    assert told(world, *arguments, values)["pinned"]["id"] == told(world, *arguments, bare)["pinned"]["id"]


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        ("ffffffffffff", "E0817"), ("xyz", "E0817"), ("abc", "E0817"), ("rows=4", "E0818"), ("rows=3,width=8", "E0953"), ("rows=4,width=8,depth=1", "E0952"),
        ("rows=8,width=64", "E0953"), ("rows=,width=8", "E0804"), ("rows=4,rows=8,width=8", "E0804"),
    ],
)  # fmt: skip
def test_what_names_no_candidate(measured: World, candidate: str, code: str) -> None:
    refused(measured, code, "pin", measured.operation, candidate)
    assert winner(measured)["status"] == "fresh"


def test_an_ambiguous_id(world: World) -> None:
    seen: dict[str, Candidate] = {}
    for size in range(1, 5000):
        one = tiled(size)
        if (other := seen.setdefault(one.id[:4], one)) is not one:
            break
    world.store.add(*world.trials({one: 1e-4, other: 2e-4}))
    problem = refused(world, "E0818", "pin", world.operation, one.id[:4])
    assert {one.id, other.id} == {note.partition(":")[0] for note in problem["notes"]}


def test_pins_are_of_one_subject(world: World) -> None:
    problem = refused(world, "E0818", "pin", "stdlib:matmul", "abcdef")
    assert len(problem["notes"]) > 1 and "--shape" in problem["help"]


def test_who_failed_is_not_pinned(measured: World) -> None:
    problem = refused(measured, "E0819", "pin", measured.operation, measured.at(8).id)
    assert problem["notes"] == ["SIGSEGV"]
    refused(measured, "E0819", "pin", measured.operation, "rows=8,width=8")


def test_who_never_ran_here_is_not_pinned(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 2e-4}, origin="far.bundle"))
    refused(world, "E0819", "pin", world.operation, world.at(1).id)


def test_a_pin_that_cannot_be_kept_is_an_error(world: World) -> None:
    broken = World(command=world.command, monkeypatch=world.monkeypatch, personality=Path("/proc/none/here"), operation=world.operation, cache=world.cache)
    refused(broken, "E0902", "pin", world.operation, "rows=4,width=8")


def test_forget(measured: World) -> None:
    told(measured, "pin", measured.operation, measured.at(4).id)
    data = told(measured, "forget", measured.operation, "--pins")
    assert (data["forgotten"], data["pins_only"]) == (1, True)
    assert winner(measured)["id"] == measured.at(2).id
    shown = measured("personality", "forget", measured.operation)
    assert shown.status == 0 and "7 records no longer count" in shown.out
    assert winner(measured) is None
    assert told(measured, "forget", measured.operation)["forgotten"] == 0
    assert told(measured, "show")["subjects"] == []


# Bundles ------------------------------------------------------------------------------------------------------------------


def test_from_store_to_store(measured: World, tmp_path: Path) -> None:
    path = tmp_path / "mine.bundle"
    told(measured, "pin", measured.operation, measured.at(4).id)
    data = told(measured, "export", path)
    assert (data["file"], data["records"], data["trials"], data["pins"], data["forgotten"], data["machines"]) == (str(path), 9, 7, 1, 0, 1)
    there = measured.other("there")
    data = told(there, "import", path)
    assert (data["new"], data["known"], data["decisions_left_out"], data["skipped"], data["complete"], data["notes"]) == (8, 0, 1, [], True, [])
    assert (winner(there)["id"], winner(there)["status"]) == (measured.at(2).id, "prior")
    shown = there("personality", "import", path)
    assert "0 records taken, 8 known already" in shown.out and "--decisions takes them too" in shown.out
    assert told(there, "import", path, "--decisions")["new"] == 1
    assert (winner(there)["id"], winner(there)["status"]) == (measured.at(4).id, "pinned")


def test_an_import_says_that_it_is_a_hint(measured: World, tmp_path: Path) -> None:
    told(measured, "export", tmp_path / "b")
    shown = measured.other("there")("personality", "import", tmp_path / "b")
    assert "is a prior: a hint that is not served until its winner has run on this machine" in shown.out


def test_a_canary_ends_the_doubt(measured: World, tmp_path: Path) -> None:
    told(measured, "export", tmp_path / "b")
    there = measured.other("there")
    told(there, "import", tmp_path / "b")
    assert len(told(there, "verify")["to_verify"]) == 1
    there.keep(there.trials({measured.at(1): 1.1e-4, measured.at(2): 0.6e-4}))
    assert winner(there)["status"] == "fresh" and told(there, "verify")["to_verify"] == []


def test_export_spares_other_files(measured: World, tmp_path: Path) -> None:
    file = measured.operation.rpartition(":")[0]
    before = Path(file).read_bytes()
    refused(measured, "E0903", "export", file)
    assert Path(file).read_bytes() == before
    refused(measured, "E0905", "export", tmp_path / "none" / "b")
    told(measured, "export", tmp_path / "b")
    told(measured, "export", tmp_path / "b")


def test_a_damaged_bundle_is_taken_in_part(measured: World, tmp_path: Path) -> None:
    path = tmp_path / "b"
    told(measured, "export", path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"time":1000', b'"time":1001', 1) if b'"time":1000' in lines[2] else lines[2][:-5] + b"\n"
    lines[-1] = lines[-1][:40]
    path.write_bytes(b"".join(lines))
    there = measured.other("there")
    data = told(there, "import", path)
    assert (data["new"], data["complete"], len(data["skipped"])) == (6, False, 2)
    (note,) = data["notes"]
    assert note["code"] == "E0904"
    shown = measured.other("elsewhere")("personality", "import", path)
    assert shown.status == 0 and "2 lines skipped" in shown.out and "note[E0904]" in shown.out


@pytest.mark.parametrize(
    "content", [b"", b"\0\1\2", b'{"bundle":"another","format":1}\n', b'{"bundle":"tridsl personality","format":99,"records":0,"digest":""}\n', b"[" * 100_000]
)
def test_what_is_no_bundle_is_refused(measured: World, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b"
    path.write_bytes(content)
    for arguments in (("import", path), ("diff", path), ("merge", tmp_path / "out", path)):
        refused(measured, "E0903", *arguments)
    assert not (tmp_path / "out").exists()
    refused(measured, "E0905", "import", tmp_path / "missing")
    assert winner(measured)["id"] == measured.at(2).id


def test_a_hostile_bundle_is_shown_harmlessly(world: World, tmp_path: Path) -> None:
    path = tmp_path / "b\x1b[31m"
    nasty = msgspec.structs.replace(world.key, op="[bold]\x1b]0;owned\x07\u202e", device="cpu")
    who = msgspec.structs.replace(world.at(1), point=(("[red]\x1b[2J", 1),))
    bundle.write(bundle.of([*world.trials({who: 1e-4, world.at(2): 2e-4}), ok(who, [1e-4], where=nasty)]), path)
    told(world, "import", path)
    for arguments in (("show",), ("verify",), ("diff", path), ("import", path)):
        shown = world("personality", *arguments)
        assert shown.status == 0 and not {"\x1b", "\x07", "\u202e"} & set(shown.out), arguments
    shown = world("why", world.operation)
    assert "[red]" in shown.out and "\x1b" not in shown.out


def test_diff(measured: World, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    told(measured, "export", ours)
    assert told(measured, "diff", ours)["same"] is True
    assert "the same evidence of 1 subject" in measured("personality", "diff", ".", ours).out
    there = measured.other("there")
    there.keep(there.trials({measured.at(1): 1e-4, measured.at(2): 2e-4}, seed=1))
    there.store.add(Pin(key=there.key, candidate=measured.at(1), time=4.0))
    told(there, "export", theirs)
    data = told(measured, "diff", theirs, ours)
    (subject,) = data["subjects"]
    assert (subject["left"]["trials"], subject["left"]["decisions"], subject["right"]["trials"], subject["right"]["decisions"]) == (3, 1, 7, 0)
    assert (subject["left"]["winner"]["id"], subject["left"]["winner"]["status"]) == (measured.at(1).id, "pinned")
    assert subject["right"]["winner"]["id"] == measured.at(2).id
    assert (subject["both"], subject["winners_differ"], data["same"]) == (0, True, False)
    assert told(measured, "diff", theirs)["subjects"] == data["subjects"], "the store is the default"
    shown = measured("personality", "diff", theirs)
    assert "winners differ" in shown.out and "3 trials, 1 decision" in shown.out and "this machine's store" in shown.out


def test_what_was_forgotten_is_known_on_both_sides(measured: World, tmp_path: Path) -> None:
    told(measured, "export", tmp_path / "b")
    told(measured, "forget", measured.operation)
    (subject,) = told(measured, "diff", tmp_path / "b")["subjects"]
    assert (subject["left"]["trials"], subject["right"]["trials"], subject["right"]["decisions"], subject["both"]) == (0, 0, 1, 7)
    assert subject["right"]["winner"] is None and subject["winners_differ"] is False


def test_merging_is_union_and_idempotent(measured: World, tmp_path: Path) -> None:
    a, b, one, other, again = (tmp_path / name for name in ("a", "b", "one", "other", "again"))
    told(measured, "export", a)
    there = measured.other("there")
    there.keep(there.trials({measured.at(1): 1e-4, measured.at(2): 2e-4}, seed=1))
    there.store.know(HERE)
    told(there, "export", b)
    data = told(measured, "merge", one, a, b)
    assert (data["records"], data["trials"], data["machines"]) == (7 + 3 + 2, 10, 2)
    assert [(i["file"], i["records"]) for i in data["inputs"]] == [(str(a), 8), (str(b), 5)]
    told(measured, "merge", other, b, a)
    assert one.read_bytes() == other.read_bytes()
    told(measured, "merge", again, one, a, one, b)
    assert one.read_bytes() == again.read_bytes()
    told(measured, "merge", one, one, b)
    assert one.read_bytes() == again.read_bytes()
    assert told(measured, "diff", ".", a)["same"] is True, "the store is as it was"


def test_merging_takes_what_is_good(measured: World, tmp_path: Path) -> None:
    told(measured, "export", tmp_path / "a")
    with open(tmp_path / "a", "ab") as stream:
        stream.write(b"nonsense\n" + write_line(HERE)[:-9])
    data = told(measured, "merge", tmp_path / "out", tmp_path / "a")
    assert data["records"] == 8 and data["inputs"][0]["skipped"] == 2
    assert [note["code"] for note in data["notes"]] == ["E0904"]
    file = measured.operation.rpartition(":")[0]
    refused(measured, "E0903", "merge", file, tmp_path / "a")


@pytest.mark.parametrize("arguments", [("pin", "stdlib:matmul"), ("export",), ("import",), ("merge", "out"), ("diff",), ("nonsense",)])
def test_wrong_usage(world: World, arguments: tuple[str, ...]) -> None:
    assert world("personality", *arguments).status == 2


UNPRIVILEGED = """
import contextlib, io, os, sys
from tridsl.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:])  # whatever is imported may lie where only root reads
    main(["personality", "verify"])
    if sys.argv[2] == "export":
        os.remove(sys.argv[3])
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("closed", ["", "evidence"])
def test_no_permission_is_not_mistaken_for_no_evidence(measured: World, tmp_path: Path, closed: str) -> None:
    for place in (tmp_path, *tmp_path.parents):
        if place.owner() == tmp_path.owner() and place != place.parent and str(place).startswith("/tmp/"):
            place.chmod(place.stat().st_mode | 0o011)
    measured.personality.chmod(0o755)
    (measured.personality / closed).chmod(0o000)
    environment = {**os.environ, "TRIDSL_PERSONALITY": str(measured.personality), "TRIDSL_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    outcomes = {}
    for name, arguments in {"show": ("show",), "verify": ("verify",), "export": ("export", str(tmp_path / "b"))}.items():
        command = [sys.executable, "-c", UNPRIVILEGED, "personality", *arguments]
        outcomes[name] = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    (measured.personality / closed).chmod(0o700)
    assert [outcomes[name].returncode for name in ("show", "verify", "export")] == [0, 1, 1], outcomes
    assert "note[E0905]" in outcomes["show"].stdout and "Permission denied" in outcomes["verify"].stdout
    assert "error[E0905]" in outcomes["export"].stderr and not (tmp_path / "b").exists()
