"""The store: what is added is found, whatever the disk, other processes and other versions do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.personality.makers import HERE, KERNEL, NEWER, OTHER_UNIT, Reports, campaign, failed, key, ok, tiled
from tridsl.personality import belief, store
from tridsl.personality.candidate import Candidate
from tridsl.personality.evidence import Key, Trial
from tridsl.personality.journal import Journal
from tridsl.personality.lines import write
from tridsl.personality.store import Store

ROOT = Path(__file__).resolve().parents[2]
A, B, C = (tiled(size) for size in (4, 8, 16))
TRIALS = campaign({A: 1e-3, B: 0.5e-3, C: 2e-3})


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def kept(tmp_path: Path, reports: Reports) -> Iterator[Store]:
    yield Store(tmp_path / "personality", report=reports)
    for folder in tmp_path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o700)


def again(kept: Store) -> Store:
    return Store(kept.folder, report=kept._report)


def best(kept: Store, where: Key | None = None) -> Candidate | None:
    found = kept.winner(where or key())
    return found.candidate if found else None


def test_what_is_added_is_found(kept: Store, reports: Reports) -> None:
    assert kept.trials(key()) == ()
    assert kept.winner(key()) is None
    assert kept.subjects() == ()
    assert not kept.folder.exists(), "reading makes nothing"
    assert kept.add(*TRIALS)
    assert set(kept.trials(key())) == set(TRIALS) == set(again(kept).trials(key()))
    assert best(kept) == best(again(kept)) == B
    assert kept.winner(key()) == belief.winner(TRIALS, HERE.hashes)
    assert kept.trials(key("M=1")) == ()
    assert kept.subjects() == (key(),)
    assert oct(kept.folder.stat().st_mode)[-3:] == "700"
    assert reports == []


def test_a_candidate_more_keeps_all_evidence(kept: Store) -> None:
    kept.add(*TRIALS)
    kept.add(ok(tiled(64), [0.2e-3] * 5, (B, [0.5e-3] * 5)))
    assert set(TRIALS) < set(kept.trials(key()))
    assert best(kept) == tiled(64)


def test_related_shapes(kept: Store) -> None:
    other = ok(A, [1e-3], where=key("M=1"))
    kept.add(*TRIALS, other, ok(A, [1e-3], where=key(kernel="cd" * 16)))
    assert set(kept.related(key("M=77"))) == {*TRIALS, other}


def test_a_winner_follows_new_evidence_of_any_process(kept: Store) -> None:
    kept.add(*TRIALS)
    other = again(kept)
    assert best(kept) == best(other) == B
    other.add(*(failed(B, "wrong_result", "off") for _ in range(2)))
    assert best(kept) == best(other) == A


def test_a_warm_winner_asks_for_no_more_than_the_state_of_its_file(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.add(*TRIALS)
    found = kept.winner(key())

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("ranked again")

    fresh = again(kept)
    monkeypatch.setattr(belief, "winner", forbidden)
    monkeypatch.setattr(belief, "rank", forbidden)
    assert kept.winner(key()) == found
    monkeypatch.setattr(Journal, "refresh", forbidden)
    assert fresh.winner(key()) == found, "another process reads what was remembered"
    monkeypatch.setattr(store, "_recall", forbidden)
    assert fresh.winner(key()) == found


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "other", "newer"])
def test_a_damaged_memory_of_a_winner_is_made_anew(kept: Store, damage: str) -> None:
    kept.add(*TRIALS)
    kept.winner(key())
    (note,) = (kept.folder / "winners").iterdir()
    content = note.read_bytes()
    changed = {
        "flip": content.replace(b'"size",8', b'"size",9'),
        "truncate": content[:-20],
        "empty": b"",
        "other": b"[" * 100_000,
        "newer": content.replace(b"[1,", b"[2,", 1),
    }[damage]
    assert changed != content
    note.write_bytes(changed)
    assert best(again(kept)) == B
    assert note.read_bytes() == content


def test_a_journal_of_the_same_size_is_another_state(kept: Store) -> None:
    kept.add(*TRIALS)
    kept.winner(key())
    path = next((kept.folder / "evidence").rglob("*.jsonl"))
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=(1, 1))
    assert best(again(kept)) is None


def test_places(kept: Store) -> None:
    kept.add(*TRIALS)
    found = kept.winner(key(at=NEWER))
    assert found is not None and found.status == "suspect"
    assert kept.winner(key()) != found
    again(kept).winner(key(at=NEWER))
    assert kept.winner(key()) == belief.winner(TRIALS, HERE.hashes), "places do not share what is remembered"
    elsewhere = again(kept).winner(key(at=OTHER_UNIT))
    assert elsewhere is not None and elsewhere.status == "prior", "the same software on another unit"
    assert again(kept).winner(key()) == belief.winner(TRIALS, HERE.hashes)
    kept.know(HERE)
    kept.know(msgspec.structs.replace(HERE, operating=(("load", "busy"),)))
    kept.know(NEWER)
    assert again(kept).machines() == {HERE.hashes: HERE, NEWER.hashes: NEWER}
    assert len((kept.folder / "machines.jsonl").read_bytes().splitlines()) == 2
    said = belief.explain(kept.trials(key()), NEWER.hashes, kept.machines())
    assert any("driver 25.2→25.3" in sentence for sentence in said)


def test_pins(kept: Store) -> None:
    kept.add(*TRIALS)
    latest = 0.0
    for time, who in ((4.0, A), (4.5, B), (5.0, A), (4.75, A), (6.0, B), (5.5, A), (7.0, C), (6.5, B)):
        assert kept.pin(key(), who, time)
        latest = max(latest, time)
        pinned = kept.pinned(key())
        assert pinned is not None and pinned.time == latest, "the latest holds, not the last written"
    found = again(kept).winner(key())
    assert found is not None and (found.candidate, found.status) == (C, "pinned")
    assert kept.forget(key(), 6.0, pins_only=True) == 8
    assert best(kept) == B
    assert kept.pinned(key()) is None


def test_forgetting(kept: Store) -> None:
    kept.add(*TRIALS, ok(A, [1.0], where=key("M=1")))
    assert kept.forget(key(), 6.0) == len(TRIALS)
    assert again(kept).trials(key()) == ()
    assert best(kept) is None
    assert kept.forget(key(), 7.0) == 0
    assert len(kept.trials(key("M=1"))) == 1
    assert {r for r in kept.records() if isinstance(r, Trial)} >= set(TRIALS), "the records themselves stay"
    later = ok(A, [1e-3], time=9.0)
    kept.add(later)
    assert kept.trials(key()) == (later,)


def test_nothing_is_kept_of_a_call_with_a_bad_record(kept: Store) -> None:
    with pytest.raises(ValueError):
        kept.add(TRIALS[0], msgspec.structs.replace(TRIALS[1], samples=(-1.0,)))
    assert kept.trials(key()) == ()


def test_a_record_in_another_subjects_file_does_not_count(kept: Store, reports: Reports) -> None:
    kept.add(*TRIALS)
    path = next((kept.folder / "evidence").rglob("*.jsonl"))
    with open(path, "ab") as stream:
        stream.write(write(failed(B, "crash", where=key("M=1"))) + b"garbage\n" + write(HERE))
    found = again(kept)
    assert set(found.trials(key())) == set(TRIALS)
    assert reports.codes == ["E0901"]
    assert "3 lines of the personality were skipped" in reports[0].message
    assert [s.fault for s in found.skipped()[path]] == ["foreign", "damaged", "foreign"]
    found.add(ok(C, [1e-3]))
    found.trials(key())
    assert reports.codes == ["E0901"], "said once"


def test_strange_files_in_the_folder(kept: Store) -> None:
    kept.add(*TRIALS)
    (kept.folder / "evidence" / "notes.txt").write_text("hello")
    (kept.folder / "evidence" / KERNEL / "directory.jsonl").mkdir()
    (kept.folder / "machines.jsonl").write_bytes(os.urandom(5000))
    reports = Reports()
    found = Store(kept.folder, report=reports)
    assert set(found.trials(key())) == set(TRIALS)
    assert {r for r in found.records() if isinstance(r, Trial)} == set(TRIALS)
    assert found.machines() == {}
    assert found.subjects() == found.subjects() == (key(),)
    assert sorted(reports.codes) == ["E0901", "E0905"]


# Disks that do not take it -----------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "file").write_text("in the way")
    found = Store(tmp_path / "file" / "personality", report=reports)
    assert not found.add(*TRIALS[:3])
    assert not found.add(*TRIALS[3:])
    assert set(found.trials(key())) == set(TRIALS)
    assert best(found) == B
    assert found.in_memory == len(TRIALS)
    assert found.subjects() == (key(),)
    assert found.forget(key(), 1.0) == len(TRIALS)
    assert found.trials(key()) == ()
    assert reports.codes == ["E0902"], "said once"


LIMITED = """
import resource, sys
from pathlib import Path
from tests.personality.makers import Reports, key, ok, tiled
from tridsl.personality.store import Store
reports = Reports()
store = Store(Path(sys.argv[1]), report=reports)
trials = [ok(tiled(size), [1e-3 * size]) for size in range(1, 30)]
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
written = [store.add(trial) for trial in trials[:20]]
assert written[0] and not written[-1], written
assert set(store.trials(key())) == set(trials[:20])
assert reports.codes == ["E0902"] and "File too large" in reports[0].message, reports
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.add(*trials[20:])
assert store.in_memory == 0
assert set(Store(store.folder).trials(key())) == set(trials)
print("kept")
"""


def test_no_space_then_space(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "personality")]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "kept\n", done.stderr


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from tests.personality.makers import Reports, campaign, key, tiled
from tridsl.personality.store import Store
trials = campaign({tiled(4): 1e-3, tiled(8): 5e-4})
if os.geteuid() == 0:
    os.setuid(65534)
reports = Reports()
store = Store(Path(sys.argv[1]), report=reports)
assert not store.add(*trials)
assert set(store.trials(key())) >= set(trials) and store.winner(key()).candidate == tiled(8)
assert reports.codes == ["E0902"], reports.codes
print("in memory")
"""


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_no_permission(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "personality"
    Store(folder).add(*TRIALS[:1])
    for place in (tmp_path, *tmp_path.parents):
        if place.owner() == tmp_path.owner() and place != place.parent and str(place).startswith("/tmp/"):
            place.chmod(place.stat().st_mode | 0o011)
    folder.chmod(mode)
    command = [sys.executable, "-c", UNPRIVILEGED, str(folder)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    folder.chmod(0o700)
    assert done.stdout == "in memory\n", done.stderr


def test_a_folder_that_others_can_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "personality"
    folder.mkdir(mode=0o755)
    Store(folder).add(TRIALS[0])
    assert oct(folder.stat().st_mode)[-3:] == "700"
    folder.chmod(0o555)
    Store(folder, report=Reports()).add(TRIALS[1])
    assert oct(folder.stat().st_mode)[-3:] == "500", "what its owner has closed stays closed"
    folder.chmod(0o700)


# Many at once ------------------------------------------------------------------------------------------------------------

TUNERS = """
import os, random, sys
from pathlib import Path
from tests.personality.makers import Reports, key, ok, tiled
from tridsl.personality.store import Store
inherited = Store(Path(sys.argv[1]), report=Reports())
children = []
for number in range(1, 17):
    child = os.fork()
    children.append(child)
    if not child:
        reports = Reports()
        store = inherited if number % 2 else Store(Path(sys.argv[1]), report=reports)
        draw = random.Random(number)
        for count in range(12):
            place = key(f"M={draw.randrange(4)}")
            kept = store.add(ok(tiled(number), [draw.random()], where=place, time=float(count)))
            store.winner(place)
            if not kept or reports or inherited._report:
                os._exit(1)
        os._exit(0)
print([os.waitpid(child, 0)[1] for child in children])
"""


def test_sixteen_processes_tune_at_once(tmp_path: Path, reports: Reports) -> None:
    command = [sys.executable, "-c", TUNERS, str(tmp_path / "personality")]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == f"{[0] * 16}\n", done.stderr
    found = Store(tmp_path / "personality", report=reports)
    trials = [r for r in found.records() if isinstance(r, Trial)]
    assert len(trials) == 16 * 12
    assert reports == []
    for place in found.subjects():
        assert found.winner(place) == belief.winner(found.trials(place), HERE.hashes)


def test_threads_share_a_store(kept: Store) -> None:
    def work(number: int) -> None:
        for count in range(5):
            kept.add(ok(tiled(number), [1e-3], time=float(count)))
            kept.winner(key())

    workers = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(kept.trials(key())) == len(again(kept).trials(key())) == 40


def test_a_fork_while_another_thread_is_at_work(kept: Store) -> None:
    kept.add(*TRIALS)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with kept._lock:
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if best(kept) == B else 1)
    status = os.waitpid(child, 0)[1]
    done.set()
    holder.join()
    assert status == 0
