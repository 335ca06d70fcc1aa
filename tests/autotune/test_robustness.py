"""Tuning when everything goes wrong: killed sessions, many at once, candidates that run wild, other software, disks that are full, and
evidence that was damaged."""

from __future__ import annotations

import ast
import builtins
import json
import marshal
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.autotune.kernels import MATMUL, SAXPY, TEXT, cpu, module, op
from tests.autotune.planted import EXECUTED, make, make_slower, space_with
from tests.autotune.sessions import MARK, QUICK, request
from tests.autotune.test_measure import children
from tests.personality.makers import Reports
from tridsl.autotune.measure import Limits
from tridsl.autotune.request import Memory, Progress, Request, Result
from tridsl.autotune.session import FINAL
from tridsl.autotune.tune import tune
from tridsl.autotune.worker import Prepare
from tridsl.autotune.zygote import zygote
from tridsl.diagnostics import TriError
from tridsl.personality import belief, bundle, fingerprint
from tridsl.personality.evidence import Key, Trial
from tridsl.personality.fingerprint import Fingerprint
from tridsl.personality.store import Store

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads would not survive a fork


def run(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.autotune.sessions", *map(str, arguments)]


# kill -9 -----------------------------------------------------------------------------------------------------------------


def marked(mark: str) -> set[int]:
    """Processes that were started, directly or not, by the session of this name."""
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment:
            found.add(int(entry))
    return found


def gone(mark: str) -> bool:
    """Whether all of them have ended; waits for a while."""
    end = time.monotonic() + 10
    while (left := bool(marked(mark))) and time.monotonic() < end:
        time.sleep(0.01)
    return not left


@pytest.mark.long
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.full)])
def test_kill_at_random_moments(kills: int, tmp_path: Path) -> None:
    """Each session goes on in the store of those before it. What one said it had kept is there; one trial may be lost; one line may
    be cut off; nothing that it started is left."""
    draw = random.Random(kills)
    what = request()

    def kill(process: int) -> None:
        threading.Timer(draw.uniform(0.0, 1.0), os.kill, (process, signal.SIGKILL)).start()

    promised: set[str] = set()
    cut = 0
    with subprocess.Popen(run("killed", tmp_path), cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for attempt in range(kills):
            mark = f"{tmp_path}/{attempt}"
            print(mark, file=parent.stdin, flush=True)
            begun: set[str] = set()
            doomed = child = 0
            for line in parent.stdout:
                match line.split():
                    case "child", pid:
                        child = int(pid)
                    case "begun", name:
                        begun.add(name)
                    case "kept", name:
                        promised.add(name)
                    case "dead",:
                        break
                if child and not doomed and (attempt % 2 or len(begun) > 1):  # from its start, or once it measures
                    doomed = child
                    kill(doomed)
            store = Store(tmp_path / "personality", report=Reports())
            kept = {t.id for t in store.trials(what.key)}
            assert promised <= kept
            assert len(begun - kept) <= 1
            skipped = [s for lines in store.skipped().values() for s in lines]
            assert len(skipped) <= cut + 1 and all(s.fault in ("torn", "damaged") for s in skipped)
            cut = len(skipped)
            assert gone(mark), "processes of a session outlived it"
        parent.stdin.close()
    store = Store(tmp_path / "personality", report=Reports())
    result = tune(what, budget_seconds=4, strategy="random", store=store, limits=QUICK, lock=tmp_path / "lock")
    assert result.winner is not None and not result.failures
    assert result.reused > 0, "what the killed sessions measured was not used"


# Many at once ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "seconds"), [(4, 2.0), pytest.param(16, 8.0, marks=pytest.mark.full)])
def test_many_tune_at_once(count: int, seconds: float, tmp_path: Path) -> None:
    """Some the same op, some others, all on one store and under one lock."""
    sessions = [
        subprocess.Popen(run("many", tmp_path, number, seconds), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    said: set[str] = set()
    for session in sessions:
        out, err = session.communicate(timeout=120)
        assert session.returncode == 0 and not err, err
        *lines, last = out.splitlines()
        ended = json.loads(last)
        assert ended["state"] in ("tuned", "kept") and not ended["reasons"], ended
        assert not any("lock" in note for note in ended["notes"]), ended
        said |= {line.removeprefix("kept ") for line in lines if line.startswith("kept ")}
    store = Store(tmp_path / "personality", report=Reports())
    found = {r.id for r in store.records() if isinstance(r, Trial)}
    assert said == found and len(said) >= count
    assert not store.skipped()


# Candidates that run wild ------------------------------------------------------------------------------------------------

SLOW, GOOD = "slow 1 default", "slow 0 good"
WILD = {
    "segfault": ("crash", "killed by SIGSEGV"),
    "abort": ("crash", "killed by SIGABRT"),
    "kill": ("crash", "killed by SIGKILL"),
    "kill the group": ("crash", "killed by SIGKILL"),
    "stop": ("timeout", "still running after 0.6 s"),
    "hang": ("timeout", "still running after 0.6 s"),
    "spin": ("timeout", "still running after 0.6 s"),
    "exit": ("crash", "the process ended with status 0"),
    "memory": ("crash", "out of memory"),
    "memory, step by step": ("crash", "out of memory"),
    "wrong": ("wrong_result", "`z`"),
    "writes an input": ("crash", "killed by SIGSEGV"),
    "writes beyond": ("wrong_result", "it wrote outside of its results: 4 bytes behind `z`"),
    "close the pipe": ("crash", "it closed its pipe and went on"),
    "garbage": ("crash", "it sent what is no answer"),
    "endless garbage": ("crash", "it sent what is no answer"),
    "a pickle": ("crash", "it sent what is no answer"),
    "more messages": ("crash", "it sent what is no answer"),
    "another message": ("crash", "it sent what is no answer"),
    "half a message": ("timeout", "still running after 0.6 s"),
    "print and abort": ("crash", f"killed by SIGABRT: {'x' * 200}"),
    "say and abort": ("crash", "killed by SIGABRT: free(): ?[31minvalid pointer"),
    "fork": ("crash", "it started a process of its own"),
    "leaves a daemon": ("crash", "it started a process of its own"),
    "fork and abort": ("crash", "killed by SIGABRT"),
    "raise": ("wrong_result", "a check failed: element 7 is outside"),
    "bug": ("compile_error", "KeyError: 'no such loop'"),
}
"""Mistakes, what becomes of them, and what is said."""
HARMLESS = ("prints",)
STRICT = Limits(turn_seconds=0.0005, run_seconds=0.6, memory_bytes=1 << 28)


def saxpy() -> Request:
    return Request(op=op(SAXPY), device=cpu(), sizes={"N": 64}, threads=1)


def session(
    names: tuple[str, ...], folder: Path, store: Store | Memory, on_progress: Callable[[Progress], None] | None = None, how: Prepare = make
) -> Result:
    """Every one of these candidates, the first of which is the incumbent."""
    return tune(
        saxpy(), budget_seconds=60, strategy="random", limits=STRICT, space=space_with(names), make=how, store=store, lock=folder / "lock",
        on_progress=on_progress,
    )  # fmt: skip


def test_candidates_that_run_wild_are_put_aside_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = (SLOW, *WILD, *HARMLESS, GOOD)
    store = Store(tmp_path / "personality")
    first = session(names, tmp_path, store)
    assert first.state == "tuned" and first.winner is not None and first.winner.text == f"mistake={GOOD}"
    found = {q.candidate.text.removeprefix("mistake="): (q.outcome, "; ".join(q.reasons)) for q in first.ranking.quarantined}
    assert found.keys() == WILD.keys()
    for mistake, (outcome, words) in WILD.items():
        assert found[mistake][0] == outcome and words in found[mistake][1], (mistake, found[mistake])
    assert not EXECUTED, "what a candidate sent was executed"
    (parent,) = children(os.getpid())
    assert not children(parent), "a process that a candidate started is left"
    assert capfd.readouterr() == ("", "")

    before = {t.id for t in store.trials(first.key)}
    again = session(names, tmp_path, Store(tmp_path / "personality"))
    assert again.winner == first.winner and not again.failures
    new = [t for t in store.trials(first.key) if t.id not in before]
    assert {t.outcome for t in new} <= {"ok"} and not {t.candidate for t in new} & {q.candidate for q in first.ranking.quarantined}


def test_a_timeout_among_good_trials_is_the_machines(tmp_path: Path) -> None:
    """Such a candidate is not left out of the next session: what is served must be what is searched."""
    store = Store(tmp_path / "personality")
    first = session((SLOW, GOOD), tmp_path, store)
    (good,) = [t for t in store.trials(first.key) if t.candidate == first.winner][:1]
    store.add(msgspec.structs.replace(good, outcome="timeout", reason="still running", samples=(), pairing=None))
    again = session((SLOW, GOOD), tmp_path, store)
    assert again.winner == first.winner and again.reused == 1
    assert len(store.trials(first.key)) > 3, "it was not compared once more in the end"


def test_a_session_survives_its_zygote(tmp_path: Path) -> None:
    """Nobody is put aside for what befell the process that starts candidates."""
    killed: list[int] = []

    def kill(event: Progress) -> None:
        if event.doing == "searching" and not killed:
            process = zygote()._process
            process.kill()
            killed.append(process.wait())

    store = Memory()
    result = session((SLOW, *(f"slow 0.5 {n}" for n in range(4)), GOOD), tmp_path, store, on_progress=kill)
    assert killed and result.winner is not None and result.winner.text == f"mistake={GOOD}"
    assert not result.failures and not result.ranking.quarantined
    assert all(t.outcome == "ok" for t in store.trials(result.key))


def test_an_incumbent_that_dies_again_and_again_ends_the_search(tmp_path: Path) -> None:
    store = Memory()
    result = session(("dies later", *(f"slow 0 {n}" for n in range(100))), tmp_path, store)
    assert result.state in ("kept", "tuned") and result.exit_status == 0
    assert any("the search was ended" in note and "SIGABRT" in note for note in result.notes)
    assert len(store.trials(result.key)) > 1


# Other software ----------------------------------------------------------------------------------------------------------


def software(monkeypatch: pytest.MonkeyPatch, **facts: str) -> None:
    """As if everything from now on were run with this software."""
    real = fingerprint.here

    def here(*arguments: object, **more: object) -> Fingerprint:
        found: Fingerprint = real(*arguments, **more)  # type: ignore[arg-type]
        return msgspec.structs.replace(found, software=tuple((n, facts.get(n, v)) for n, v in found.software))

    monkeypatch.setattr(fingerprint, "here", here)


@pytest.mark.parametrize(("fact", "old"), [("generator", "an older one"), ("llvmlite", "0.1.0"), ("threads", "64")])
def test_a_winner_under_other_software_is_verified_first(fact: str, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "personality"
    names = (SLOW, *(f"slow 0.5 {n}" for n in range(3)), GOOD)
    with monkeypatch.context() as before:
        software(before, **{fact: old})
        first = session(names, tmp_path, Store(folder))
    assert first.state == "tuned" and first.winner is not None
    key = saxpy().key
    now = dict(fingerprint.here(cpu(), threads=1).software)[fact]
    store = Store(folder)
    suspect = store.winner(key)
    assert suspect is not None and (suspect.candidate, suspect.status, suspect.servable) == (first.winner, "suspect", True)
    known = {t.id for t in store.trials(key)}
    doing: list[tuple[str, int]] = []
    result = session(names, tmp_path, store, on_progress=lambda e: doing.append((e.doing, e.trials)))
    assert result.winner == first.winner
    steps = [d for d, _ in doing]
    assert steps.index("verifying what was best before") < steps.index("ranking by predicted time")
    new = sorted((t for t in store.trials(key) if t.id not in known), key=lambda t: t.time)
    assert next(t.candidate for t in new if t.candidate != result.incumbent) == first.winner
    fresh = store.winner(key)
    assert fresh is not None and (fresh.candidate, fresh.status) == (first.winner, "fresh")
    sentences = belief.explain(store.trials(key), key.fingerprint, store.machines())
    (changed,) = [s for s in sentences if "→" in s]
    assert changed.startswith(f"{fact} {old}→{now}: f N=64 ") and "kept in" in changed and "%" in changed


def test_a_winner_that_other_software_made_slower_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "personality"
    names = ("slow 3 default", "slow 1 winner", "slow 2 other")
    with monkeypatch.context() as before:
        software(before, generator="an older one")
        first = session(names, tmp_path, Store(folder))
        assert first.winner is not None and first.winner.text == "mistake=slow 1 winner"
    store = Store(folder)
    result = session(names, tmp_path, store, how=make_slower)
    assert result.winner is not None and result.winner.text == "mistake=slow 2 other"
    (changed,) = [s for s in belief.explain(store.trials(result.key), result.key.fingerprint, store.machines()) if "→" in s]
    assert "re-ranked in" in changed and "+" in changed


# Spaces that grow --------------------------------------------------------------------------------------------------------

SMALL = TEXT.replace("{1, 2, 4, 8} = 2", "{2, 4} = 2").replace("pow2(8, 64)", "pow2(8, 16)")


def test_a_value_more_keeps_all_evidence(tmp_path: Path) -> None:
    store = Memory()

    def tuned(text: str, on_progress: Callable[[Progress], None] | None = None) -> Result:
        what = Request(op=op(text), device=cpu(), sizes={"M": 16, "N": 64}, blocks=module(text).schedules["f"], threads=1)
        return tune(what, budget_seconds=60, strategy="random", limits=QUICK, store=store, lock=tmp_path / "lock", on_progress=on_progress)

    first = tuned(SMALL)
    known = {t.id for t in store.trials(first.key)}
    searched: list[frozenset[str]] = []

    def look(event: Progress) -> None:
        if event.doing == "comparing the best once more":
            searched.append(frozenset(t.candidate.text for t in store.trials(first.key) if t.id not in known))

    again = tuned(SMALL.replace("{2, 4} = 2", "{2, 4, 8} = 2"), look)
    assert first.trials == 3 and again.reused == 3 and again.key == first.key
    assert searched == [{"rows=8 width=8", "rows=8 width=16"}]
    assert len({t.candidate for t in store.trials(first.key) if t.id not in known}) <= 2 + FINAL


# No place to keep anything -----------------------------------------------------------------------------------------------


def test_without_a_place_for_the_store_tuning_works_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reports = Reports()
    store = Store(tmp_path / "file" / "personality", report=reports)
    result = session((SLOW, GOOD), tmp_path, store)
    assert result.state == "tuned" and result.exit_status == 0
    assert reports.codes == ["E0902"] and store.in_memory > 2
    again = session((SLOW, GOOD), tmp_path, store)
    assert again.reused == 1 and reports.codes == ["E0902"]


FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8200, 8200))
sys.argv = ["tridsl", "tune", sys.argv[1], "--budget", "3s", "--strategy", "random", "--device", "cpu", "--threads", "1", "--json"]
runpy.run_module("tridsl", run_name="__main__")
"""


def test_a_disk_that_fills_up_while_tuning(tmp_path: Path) -> None:
    file = tmp_path / "kernels.tri"
    file.write_text(MATMUL + "bench f { M = 16, N = 32, K = 8 }\n")
    environment = {**ENVIRONMENT, "TRIDSL_PERSONALITY": str(tmp_path / "personality"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", FULL, str(file)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert [n["code"] for n in data["notes"]] == ["E0902"] and data["in_memory"] > 0
    assert data["results"][0]["winner"] and "Traceback" not in done.stderr
    store = Store(tmp_path / "personality", report=Reports())
    assert [k.text for k in store.subjects()] == [data["results"][0]["subject"]] and not store.skipped()


# Damaged evidence --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, bytes]:
    """A journal that a session wrote, with good and bad candidates, and its key."""
    folder = tmp_path_factory.mktemp("measured")
    result = session((SLOW, "slow 0.5 other", "segfault", "wrong", GOOD), folder, Store(folder / "personality"))
    (path,) = (folder / "personality" / "evidence").glob("*/*.jsonl")
    return result.key, path.read_bytes()


class Damaged:
    """A store whose journal has this content."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder, self.key = folder / "personality", key
        self.path = self.folder / "evidence" / key.kernel / f"{key.subject}.jsonl"
        self.path.parent.mkdir(parents=True)

    def store(self, content: bytes) -> Store:
        self.path.write_bytes(content)
        return Store(self.folder, report=Reports())


def test_a_journal_cut_off_anywhere(measured: tuple[Key, bytes], tmp_path: Path) -> None:
    key, content = measured
    lines = content.splitlines(keepends=True)[:3]
    damaged = Damaged(tmp_path, key)
    whole = b"".join(lines)
    for end in range(len(whole) + 1):
        found = damaged.store(whole[:end])
        count = whole[:end].count(b"\n")
        assert len(found.trials(key)) == count
        faults = [s.fault for skipped in found.skipped().values() for s in skipped]
        assert faults == ([] if whole[:end].endswith(b"\n") or not end else ["torn"])


def damage(draw: random.Random, content: bytes) -> bytes:
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start, length = draw.randrange(len(made)), draw.randint(1, 80)
        match draw.randrange(8):
            case 0:
                made[start] ^= 1 << draw.randrange(8)
            case 1:
                made[start:start] = draw.randbytes(length)
            case 2:
                made[start : start + length] = b"9" * (10 * length)
            case 3:
                made[start:start] = draw.choice((b"[", b'{"a":')) * 20_000
            case 4:
                made[start : start + length] = bytes(length)
            case 5:
                made[start:start] = draw.choice((b"1e999", b"-1", b"NaN", b"1e-400", b"18446744073709551616", b"\n", b"\xff\xfe"))
            case 6:
                made[start:start] = content[draw.randrange(len(content)) :][: 10 * length]
            case _:
                del made[start : start + 10 * length]
                made += b"{" if not made else b""
    return bytes(made)


def test_a_damaged_journal_makes_no_other_winner(measured: tuple[Key, bytes], tmp_path: Path) -> None:
    """Whatever happens to a journal of real trials: no exception, and nothing wins that was not measured to be good."""
    key, content = measured
    damaged = Damaged(tmp_path, key)
    good = {t.id: t for t in damaged.store(content).trials(key)}
    able = {t.candidate for t in good.values() if t.outcome == "ok"}
    draw = random.Random(2)
    for _ in range(200):
        store = damaged.store(damage(draw, content))
        assert {t.id: t for t in store.trials(key)}.items() <= good.items()
        won = store.winner(key)
        assert won is None or won.candidate in able
        belief.explain(store.trials(key), key.fingerprint, store.machines())


def test_a_session_goes_on_with_a_damaged_journal(measured: tuple[Key, bytes], tmp_path: Path) -> None:
    key, content = measured
    draw = random.Random(3)
    store = Damaged(tmp_path, key).store(damage(draw, content) + b"[" * 5000 + content[: len(content) // 2])
    result = session((SLOW, "slow 0.5 other", "segfault", "wrong", GOOD), tmp_path, store)
    assert result.winner is not None and result.winner.text == f"mistake={GOOD}"
    again = Store(store.folder, report=Reports()).winner(key)
    assert again is not None and again.candidate == result.winner


def test_evidence_is_never_executed(measured: tuple[Key, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile journals and bundles are read with everything that executes data taken away."""
    key, content = measured
    damaged = Damaged(tmp_path, key)
    good = {t.id for t in damaged.store(content).trials(key)}
    attack = pickle.dumps(Attack())
    hostile = (
        attack, attack + b"\n" + content, content + attack, content.replace(b'"segfault"', b'"__import__(\'os\').abort()"'),
        b'{"format":1,"kind":"trial","id":"x","record":{"__reduce__":["os.system",["true"]],"py/object":"os.system"}}\n',
        b'{"bundle":"tridsl personality","format":1,"records":1,"digest":"x"}\n' + attack + b"\n" + content, marshal.dumps(compile("1/0", "x", "exec")),
    )  # fmt: skip

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("evidence was executed")

    path = tmp_path / "good.tribundle"
    bundle.export(damaged.store(content), path)
    assert bundle.take(Store(tmp_path / "taken", report=Reports()), path).new == len(good)  # msgspec evaluates the names of types once
    monkeypatch.setattr(pickle, "loads", refuse)  # first: what pytest needs for the others is imported by now
    for place, name in ((pickle, "load"), (pickle, "Unpickler"), (marshal, "loads"), (os, "system"), (subprocess, "Popen"), (builtins, "eval"), (builtins, "exec")):
        monkeypatch.setattr(place, name, refuse)
    for number, file in enumerate(hostile):
        store = damaged.store(file)
        assert {t.id for t in store.trials(key)} <= good
        store.winner(key)
        path = tmp_path / f"{number}.tribundle"
        path.write_bytes(file)
        try:
            bundle.take(Store(tmp_path / "taken", report=Reports()), path)
        except TriError as problem:
            assert problem.code == "E0903"
    monkeypatch.undo()
    assert not EXECUTED


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return EXECUTED.append, (1,)


def test_the_personality_has_nothing_that_executes_data() -> None:
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "diskcache", "joblib", "yaml", "eval", "exec", "compile", "__import__"}
    for path in sorted((ROOT / "tridsl" / "personality").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {a.name.partition(".")[0] for a in node.names} if isinstance(node, ast.Import) else set()
            named |= {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
            named |= {node.func.id} if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else set()
            assert not named & forbidden, (path.name, named & forbidden)
