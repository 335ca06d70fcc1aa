"""Journals: nothing lost among many writers and killed ones, nothing believed that is damaged."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.personality.makers import ok, tiled
from tridsl.personality.evidence import Record
from tridsl.personality.journal import Journal, append
from tridsl.personality.lines import LONGEST, Unusable, pieces, read, write

ROOT = Path(__file__).resolve().parents[2]
TRIALS = tuple(ok(tiled(size), [1e-3 * size, 2e-3]) for size in range(1, 21))


def everything(_: Record) -> bool:
    return True


def opened(path: Path) -> Journal:
    found = Journal(path, everything)
    found.refresh()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence" / "journal.jsonl"


def test_what_is_appended_is_read(path: Path) -> None:
    assert opened(path).records == {}
    for trial in TRIALS:
        append(path, write(trial))
    found = opened(path)
    assert set(found.records.values()) == set(TRIALS)
    assert found.skipped == {}
    assert oct(path.stat().st_mode)[-3:] == "600"
    assert oct(path.parent.stat().st_mode)[-3:] == "700"


def test_reading_goes_on_where_it_stopped(path: Path) -> None:
    append(path, write(TRIALS[0]))
    found = opened(path)
    assert not found.refresh()
    append(path, write(TRIALS[1]) + write(TRIALS[2]) + write(TRIALS[1]))
    assert found.refresh()
    assert set(found.records.values()) == set(TRIALS[:3])
    path.unlink()
    append(path, write(TRIALS[3]))
    assert found.refresh()
    assert set(found.records.values()) == {TRIALS[3]}, "another file is read from its beginning"
    path.unlink()
    assert found.refresh()
    assert found.records == {}


def test_a_torn_line_is_ended_by_the_next_writer(path: Path) -> None:
    append(path, write(TRIALS[0]))
    with open(path, "ab") as stream:
        stream.write(write(TRIALS[1])[:200])
    found = opened(path)
    assert set(found.records.values()) == {TRIALS[0]}
    assert [s.fault for s in found.skipped.values()] == ["torn"]
    append(path, write(TRIALS[2]))
    for reader in (found, opened(path)):
        reader.refresh()
        assert set(reader.records.values()) == {TRIALS[0], TRIALS[2]}
        assert [s.fault for s in reader.skipped.values()] == ["damaged"]


def test_a_line_that_is_being_written_is_no_torn_line(path: Path) -> None:
    append(path, write(TRIALS[0]))
    whole = write(TRIALS[1])
    with open(path, "ab", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(whole[:100])
        found = Journal(path, everything)
        reader = threading.Thread(target=found.refresh)
        reader.start()
        time.sleep(0.05)
        stream.write(whole[100:])
        fcntl.flock(stream, fcntl.LOCK_UN)
        reader.join()
    found.refresh()
    assert set(found.records.values()) == set(TRIALS[:2])
    assert found.skipped == {}


def test_lines_of_others_are_left_where_they_are(path: Path) -> None:
    newer = b'{"format":2,"kind":"trial","id":"?","record":{"all":"new"},"signature":"x"}\n'
    strangers = (
        (newer, "newer"),
        (b'{"format":1,"kind":"poem","id":"x","record":{}}\n', "foreign"),
        (b'{"format":0,"kind":"trial","id":"x","record":{}}\n', "foreign"),
        (b"hello\n", "damaged"),
        (b'{"format":"1","kind":"trial"}\n', "damaged"),
        (b"\xff\xfe\n", "damaged"),
        (b"\0" * 50 + b"\n", "damaged"),
        (b"x" * (LONGEST + 5) + b"\n", "oversized"),
        (write(TRIALS[1]).replace(b'"samples":[0.002', b'"samples":[0.001'), "damaged"),
        (b"[" * 200_000 + b"\n", "damaged"),
        (b'{"format":' + b"9" * 5000 + b"}\n", "damaged"),
        (b'{"format":1,"kind":"trial","id":"x","record":' + b'{"key":' * 2000 + b"\n", "damaged"),
    )
    content = write(TRIALS[0]) + b"".join(line for line, _ in strangers) + write(TRIALS[2])
    path.parent.mkdir()
    path.write_bytes(content)
    found = opened(path)
    assert set(found.records.values()) == {TRIALS[0], TRIALS[2]}
    assert [s.fault for s in found.skipped.values()] == [fault for _, fault in strangers]
    assert all(s.text.isprintable() and len(s.text) < 400 for s in found.skipped.values())
    assert [content[s.offset :].startswith(line) for s, (line, _) in zip(found.skipped.values(), strangers)] == [True] * len(strangers)
    append(path, write(TRIALS[3]))
    assert path.read_bytes() == content + write(TRIALS[3])


def test_format_one_is_read_for_ever() -> None:
    """Written by the first version of this code; it must never have to be written again."""
    golden = (Path(__file__).parent / "format1.jsonl").read_bytes().splitlines()
    records = dict(read(line) for line in golden)
    assert [type(record).__name__ for record in records.values()] == ["Trial", "Trial", "Pin", "Forget", "Fingerprint"]
    assert [json.loads(line)["id"] for line in golden] == list(records)
    assert [write(record).removesuffix(b"\n") for record in records.values()] == golden


def test_pieces_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\n" + b"b" * (3 * LONGEST) + b"\nc\nd")
    with open(path, "rb") as stream:
        found = list(pieces(stream))
    assert [piece.line for piece in found] == [b"a", None, b"c", b"d"]
    assert [piece.terminated for piece in found] == [True, True, True, False]
    assert [piece.offset for piece in found[1:]] == [piece.end for piece in found[:-1]]


def test_damage_of_any_kind(path: Path) -> None:
    """Whatever happens to the bytes: no exception, and nothing is read that was not written."""
    draw = random.Random(7)
    written = [write(trial) for trial in TRIALS[:6]]
    path.parent.mkdir()
    for _ in range(1500):
        content = bytearray(b"".join(written))
        for _ in range(draw.randint(1, 4)):
            start, length = draw.randrange(len(content)), draw.randint(1, 60)
            match draw.randrange(5):
                case 0:
                    content[start] ^= 1 << draw.randrange(8)
                case 1:
                    del content[start : start + length]
                case 2:
                    content[start:start] = content[draw.randrange(len(content)) :][:length]
                case 3:
                    del content[start:]
                    content += b"{"
                case _:
                    content[start : start + length] = draw.choice((b"\0" * length, b"\n", b"1e999", b'"' * length, b"[[[["))
        path.write_bytes(content)
        found = opened(path)
        assert set(found.records.values()) <= set(TRIALS)
        intact = {read(line[:-1])[0] for line in written if b"\n" + line in b"\n" + bytes(content)}
        assert intact <= found.records.keys()


def test_a_record_with_other_types_everywhere() -> None:
    """Every value of a valid record replaced by one of another kind, its hash made right: refused, or a record of that type."""
    strange: list[object] = [None, True, -1, 1 << 70, 1e308, "", "\x1b[31m", [], {}, [[[]]], {"a": {"b": []}}]
    document = json.loads(write(ok(tiled(4, extra=3), [1e-3], (tiled(8), [2e-3]))))

    def places(value: object, where: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [where] + [place for name, item in items for place in places(item, (*where, name))]

    refused = 0
    for where in places(document)[1:]:
        for value in strange:
            changed = json.loads(json.dumps(document))
            inner = changed
            for step in where[:-1]:
                inner = inner[step]
            inner[where[-1]] = value
            try:
                read(json.dumps(changed).encode())
            except Unusable as problem:
                refused += 1
                assert str(problem).isprintable()
    assert refused > 500


# Failing disks -----------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
from tests.personality.makers import ok, tiled
from tridsl.personality.journal import append
from tridsl.personality.lines import write
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
kept = 0
try:
    for size in range(1, 100):
        append(path, write(ok(tiled(size), [1e-3])) * 2)
        kept += 1
except OSError as problem:
    print(kept, problem.errno)
"""


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_full_disk_leaves_whole_lines(path: Path) -> None:
    kept, problem = map(int, run(LIMITED, path).split())
    assert problem == errno.EFBIG
    found = opened(path)
    assert path.read_bytes().endswith(b"\n")
    assert found.skipped == {}
    assert kept <= len(found.records) <= kept + 1


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "journal.jsonl").symlink_to(target)
    with pytest.raises(OSError):
        append(tmp_path / "journal.jsonl", b"x\n")
    assert target.read_text() == "mine"


def test_a_lock_that_is_not_given_back(path: Path) -> None:
    append(path, write(TRIALS[0]))
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            append(path, write(TRIALS[1]), patience=0.05)
    append(path, write(TRIALS[1]), patience=0.05)
    assert set(opened(path).records.values()) == set(TRIALS[:2])


def test_a_journal_that_is_deleted_while_a_writer_waits(path: Path) -> None:
    append(path, write(TRIALS[0]))
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=(path, write(TRIALS[1])))
        writer.start()
        time.sleep(0.05)
        path.unlink()
    writer.join()
    assert set(opened(path).records.values()) == {TRIALS[1]}


def test_an_interrupted_write_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, write(TRIALS[0]))
    before, real = path.read_bytes(), os.write
    calls: list[int] = []

    def interrupted(file: int, data: bytes) -> int:
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(file, data[:50])

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append(path, write(TRIALS[1]))
    monkeypatch.undo()
    assert path.read_bytes() == before


# Many processes ----------------------------------------------------------------------------------------------------------

WRITERS = """
import os, sys
from pathlib import Path
from tests.personality.makers import ok, tiled
from tridsl.personality.journal import append
from tridsl.personality.lines import write
path = Path(sys.argv[1])
children = []
for number in range(1, 17):
    child = os.fork()
    children.append(child)
    if not child:
        for count in range(25):
            trial = ok(tiled(number), [1e-3], time=float(count))
            append(path, write(trial))
            os.write(1, (trial.id + "\\n").encode())
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 16
"""


def test_sixteen_writers_lose_nothing(path: Path) -> None:
    said = set(run(WRITERS, path).split())
    found = opened(path)
    assert len(said) == 16 * 25
    assert found.records.keys() == said
    assert found.skipped == {}


FORKING = """
import os, sys, time
from pathlib import Path
from tests.personality.makers import ok, tiled
from tridsl.personality.journal import append
from tridsl.personality.lines import write
path = Path(sys.argv[1])
lines = [(t.id, write(t)) for t in (ok(tiled(1 + n % 9), [1e-3] * 400, time=float(n)) for n in range(400))]
for line in sys.stdin:  # one child a line of input: it writes until it is killed
    child = os.fork()
    if not child:
        start = int(line) * 4 % 400
        for name, content in lines[start:] + lines[:start]:
            append(path, content)
            os.write(1, (name + "\\n").encode())
        os._exit(0)
    os.write(1, f"child {child}\\n".encode())  # in one piece: the child writes to the same pipe
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


def test_kill_at_random_moments_loses_at_most_the_trial_being_written(path: Path) -> None:
    """What a killed process had been told is on the disk is there, and the journal opens, each of a hundred times."""
    draw = random.Random(11)
    parent = subprocess.Popen([sys.executable, "-c", FORKING, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None and parent.stdout is not None
    promised: set[str] = set()
    for attempt in range(100):
        print(attempt, file=parent.stdin, flush=True)
        said: list[str] = []
        child = 0
        for line in parent.stdout:
            word = line.split()
            if word[0] == "dead":
                break
            if word[0] == "child":
                child = int(word[1])
                time.sleep(draw.random() * 0.012)
                os.kill(child, signal.SIGKILL)
            else:
                said.append(word[0])
        assert child
        promised |= {name for name in said if len(name) == 32}
        found = opened(path)
        assert promised <= found.records.keys()
        assert len(found.skipped) <= attempt + 1
    parent.stdin.close()
    parent.wait(timeout=10)
    assert len(promised) > 20, "the processes were killed before they could write anything"
    assert all(s.fault in ("torn", "damaged") for s in opened(path).skipped.values())
    append(path, write(TRIALS[0]))
    assert TRIALS[0].id in opened(path).records
