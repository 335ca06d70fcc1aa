"""Bundles: sets of records as files. Union is union, and nothing bad comes in."""

from __future__ import annotations

import os
import random
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.personality.makers import HERE, NEWER, OTHER_UNIT, Reports, campaign, failed, key, ok, tiled
from tridsl.diagnostics import TriError
from tridsl.personality import bundle
from tridsl.personality.bundle import Bundle, difference, merge, of
from tridsl.personality.evidence import Forget, Pin, Record, Trial
from tridsl.personality.lines import write as write_line
from tridsl.personality.store import Store

A, B = tiled(4), tiled(8)
TRIALS = campaign({A: 1e-3, B: 0.5e-3, tiled(16): 2e-3})
POOL: tuple[Record, ...] = (
    *TRIALS,
    *(msgspec.structs.replace(t, origin=origin) for t in TRIALS[:3] for origin in ("x", "y")),
    failed(A, "crash"),
    Pin(key=key(), candidate=A, time=3.0),
    Forget(kernel=key().kernel, subject=key().subject, ids=(TRIALS[0].id,), time=4.0),
    HERE,
    NEWER,
)
bundles = st.lists(st.sampled_from(POOL), max_size=12).map(of)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.tribundle"


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "here", report=Reports())


@given(bundles, bundles, bundles)
def test_merging_is_union(a: Bundle, b: Bundle, c: Bundle) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(a, b, c)
    assert merge(a, a) == merge(a) == a
    assert merge(a, b).records.keys() == a.records.keys() | b.records.keys()
    assert merge() == of(())


@given(bundles, bundles)
def test_differences(a: Bundle, b: Bundle) -> None:
    found = difference(a, b)
    assert {*found.left, *found.both} == a.records.keys()
    assert {*found.right, *found.both} == b.records.keys()
    assert len({*found.left, *found.right, *found.both}) == len(found.left) + len(found.right) + len(found.both)
    assert difference(b, a).left == found.right


def test_of_two_that_are_the_same_the_one_measured_here_is_kept() -> None:
    here, there = TRIALS[0], msgspec.structs.replace(TRIALS[0], origin="x")
    for order in ((here, there), (there, here)):
        assert list(of(order).records.values()) == [here]


@given(bundles)
def test_files_round_trip(tmp_path_factory: pytest.TempPathFactory, a: Bundle) -> None:
    path = tmp_path_factory.getbasetemp() / "round.tribundle"
    bundle.write(a, path)
    found = bundle.read(path)
    assert found == a
    assert found.sound
    assert bundle.report(found, path) is None
    content = path.read_bytes()
    bundle.write(found, path)
    assert path.read_bytes() == content


def test_from_machine_to_machine(tmp_path: Path, path: Path, kept: Store) -> None:
    there = Store(tmp_path / "there", report=Reports())
    there.add(*TRIALS)
    there.know(HERE)
    there.pin(key(), A, 3.0)
    bundle.export(there, path)
    taken = bundle.take(kept, path)
    assert (taken.new, taken.known, taken.decisions, taken.skipped) == (len(TRIALS) + 1, 0, 1, ())
    assert {t.id for t in kept.trials(key())} == {t.id for t in TRIALS}
    assert {t.origin for t in kept.trials(key())} == {"mine.tribundle"}
    found = kept.winner(key())
    assert found is not None and (found.candidate, found.status, found.servable) == (B, "prior", False)
    assert kept.machines() == there.machines()
    assert bundle.take(kept, path).new == 0
    taken = bundle.take(kept, path, decisions=True)
    assert (taken.new, taken.decisions) == (1, 0)
    pinned = kept.winner(key())
    assert pinned is not None and (pinned.candidate, pinned.status) == (A, "pinned")


def test_a_canary_makes_a_prior_a_winner(tmp_path: Path, path: Path, kept: Store) -> None:
    bundle.write(of(msgspec.structs.replace(t, key=key(at=OTHER_UNIT)) for t in TRIALS), path)
    bundle.take(kept, path)
    kept.add(ok(B, [0.6e-3] * 5, (A, [1e-3] * 5), time=2000.0))
    found = kept.winner(key())
    assert found is not None and (found.candidate, found.status, found.servable) == (B, "fresh", True)


def test_where_an_import_was_imported_from_stays_known(path: Path, kept: Store) -> None:
    bundle.write(of([msgspec.structs.replace(TRIALS[0], origin="a friend of a friend")]), path)
    bundle.take(kept, path)
    assert kept.trials(key())[0].origin == "a friend of a friend"


def test_what_is_known_here_is_not_made_a_prior(path: Path, kept: Store) -> None:
    kept.add(*TRIALS)
    bundle.write(of(TRIALS), path)
    taken = bundle.take(kept, path)
    assert (taken.new, taken.known) == (0, len(TRIALS))
    found = kept.winner(key())
    assert found is not None and found.status == "fresh"


# Hostile files -----------------------------------------------------------------------------------------------------------

HEADER = b'{"bundle":"tridsl personality","format":1,"records":1,"digest":"x"}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello\n",
        os.urandom(3000),
        b"PK\x03\x04" * 100,
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        write_line(TRIALS[0]),
        HEADER.replace(b"tridsl", b"tvm"),
        HEADER.replace(b":1,", b":2,", 1),
        HEADER.replace(b":1,", b":9e99,", 1),
        HEADER.replace(b':1,"rec', b':1,"x":2,"rec', 1),
        b'{"bundle":"tridsl personality","format":1' + b"[" * 100_000 + b"\n",
        b"x" * (3 << 20),
    ],
)
def test_no_bundle(path: Path, kept: Store, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(TriError) as caught:
        bundle.take(kept, path)
    assert caught.value.code == "E0903"
    assert path.name in str(caught.value)
    assert list(kept.records()) == []


def test_files_that_are_none(tmp_path: Path, kept: Store) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(TriError) as caught:
            bundle.take(kept, path)
        assert caught.value.code == "E0905"
    with pytest.raises(TriError) as caught:
        bundle.write(of(TRIALS), tmp_path / "missing" / "x")
    assert caught.value.code == "E0905"
    (tmp_path / "directory").mkdir()
    with pytest.raises(TriError):
        bundle.write(of(TRIALS), tmp_path / "directory")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["directory", "fifo"], "nothing is left behind"


def test_a_bundle_that_is_too_large(path: Path, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write(of(TRIALS), path)
    monkeypatch.setattr(bundle, "LARGEST", 1000)
    with pytest.raises(TriError) as caught:
        bundle.take(kept, path)
    assert caught.value.code == "E0903"


def test_a_bundle_that_is_cut_off(path: Path, kept: Store) -> None:
    bundle.write(of(TRIALS), path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    taken = bundle.take(kept, path)
    assert (taken.new, [s.fault for s in taken.skipped]) == (3, ["torn"])
    told = bundle.report(bundle.read(path), path)
    assert told is not None and told.code == "E0904"
    assert "torn" in told.render() and "promises" in told.render()
    path.write_bytes(b"".join(lines[:4]))
    found = bundle.read(path)
    assert not found.complete and not found.skipped and not found.sound


def test_damage_of_any_kind(path: Path) -> None:
    """No exception but the typed ones, and never a record that was not there."""
    draw = random.Random(5)
    bundle.write(of(POOL), path)
    good = path.read_bytes()
    outcomes = {"refused": 0, "partly": 0, "whole": 0}
    for _ in range(400):
        content = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            start, length = draw.randrange(len(content)) if draw.random() < 0.8 else draw.randrange(100), draw.randint(1, 200)
            match draw.randrange(5):
                case 0:
                    content[start] ^= 1 << draw.randrange(8)
                case 1:
                    del content[start : start + length]
                case 2:
                    content[start:start] = content[draw.randrange(len(content)) :][:length]
                case 3:
                    del content[start:]
                    content += b"\n"
                case _:
                    content[start : start + length] = draw.choice((b"\n" * 5, b"[" * length, b"9" * length, b"\xff" * length, b"\0"))
        path.write_bytes(content)
        try:
            found = bundle.read(path)
        except TriError as problem:
            assert problem.code == "E0903"
            outcomes["refused"] += 1
            continue
        known = of(POOL).records
        for name, record in found.records.items():
            assert name in known
            if not isinstance(record, Trial):
                assert record == known[name]
            else:
                assert msgspec.structs.replace(record, origin="") == msgspec.structs.replace(known[name], origin="")
        outcomes["whole" if found.sound else "partly"] += 1
        told = bundle.report(found, path)
        assert (told is None) == found.sound
    assert outcomes["refused"] > 10 and outcomes["partly"] > 100


def test_a_name_is_shown_and_kept_harmlessly(tmp_path: Path, kept: Store) -> None:
    path = tmp_path / ("e" * 250)
    bundle.write(of(TRIALS[:1]), path)
    bundle.take(kept, path)
    assert kept.trials(key())[0].origin == "e" * 200


def test_every_code_is_explained() -> None:
    package = Path(bundle.__file__).parent
    used = {code for file in package.glob("*.py") for code in re.findall(r'"(E0\d{3})"', file.read_text())}
    explained = tomllib.loads((files("tridsl.grammar") / "errors" / "personality.toml").read_text(encoding="utf-8"))
    assert used == explained.keys()
    assert all(entry.keys() == {"title", "text", "wrong", "right"} for entry in explained.values())
