"""The artifact cache: what is written is read back, whatever else lies in the folder, with any number of writers."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tridsl.backend import Binary, Signature
from tridsl.diagnostics import Diagnostic
from tridsl.dtypes import BF16, BOOL, F32, I64
from tridsl.ir.expr import Call, Cast, Const, Select, Unary, Var, add, ceildiv, index, mul
from tridsl.ir.expr import binary as compare
from tridsl.ir.op import Scalar, Tensor
from tridsl.runtime.artifacts import MAGIC, Artifacts

SIGNATURE = Signature(params=(Tensor(name="x", dtype=F32, shape=(index(4),)),), sizes=("n",), messages=("no",))


def binary(blob: bytes = b"code", entry: str = "f") -> Binary:
    return Binary(backend="cpu", entry=entry, blob=blob, signature=SIGNATURE, facts=(("threads", 2), ("cpu", "znver4")))


class Reports(list[Diagnostic]):
    def __call__(self, diagnostic: Diagnostic) -> None:
        self.append(diagnostic)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def cache(tmp_path: Path, reports: Reports) -> Artifacts:
    return Artifacts(tmp_path / "cache", report=reports)


def the_file(cache: Artifacts) -> Path:
    (path,) = (p for p in cache.folder.rglob("*") if p.is_file())
    return path


def test_what_is_written_is_read_back(cache: Artifacts, reports: Reports) -> None:
    assert cache.read(b"key") is None
    for blob in (b"", b"code", bytes(range(256)) * 1000):
        cache.write(b"key", binary(blob))
        assert cache.read(b"key") == binary(blob)
    assert cache.read(b"key ") is None
    assert Artifacts(cache.folder).read(b"key") == cache.read(b"key")
    assert reports == []


def test_signatures_come_back_exactly(cache: Artifacts) -> None:
    n, m = Var(name="N"), Var(name="M")
    strange = Select(
        condition=compare("lt", n, m),
        a=Cast(a=Call(function="sqrt", args=(Cast(a=n, dtype=F32),), dtype=F32), dtype=I64),
        b=Unary(op="neg", a=m, dtype=I64),
        dtype=I64,
    )
    strides = (mul(n, index(-1)),)
    signature = Signature(
        params=(
            Tensor(name="x", dtype=BF16, shape=(add(n, index(2)), ceildiv(m, index(16)), strange)),
            Tensor(name="s", dtype=F32, shape=(n,), role="inout", length="s.len", strides=strides, layout="t16"),
            Tensor(name="z", dtype=I64, shape=(), role="output"),
            Scalar(name="eps", dtype=F32, default=Const(value=1.0, dtype=F32)),
            Scalar(name="causal", dtype=BOOL, const=True, default=Const(value=False, dtype=BOOL)),
            Scalar(name="limit", dtype=F32, default=Const(value=-math.inf, dtype=F32)),
        ),
        sizes=("N", "M"),
        messages=("index out of range in `x[i]`", "ä\n"),
    )
    cache.write(b"key", Binary(backend="cpu", entry="f", blob=b"", signature=signature))
    found = cache.read(b"key")
    assert found is not None and found.signature == signature
    eps, causal = found.signature.params[3:5]
    assert type(eps.default.value) is float and causal.default.value is False  # type: ignore[union-attr]


def test_notes_are_json(cache: Artifacts) -> None:
    document = {"winner": [1, 2.5, "x", None, True], "ns": 12}
    assert cache.read_note(b"k") is None
    cache.write_note(b"k", document)
    assert cache.read_note(b"k") == document
    assert cache.read(b"k") is None  # binaries and notes have keys of their own
    with pytest.raises(TypeError):
        cache.write_note(b"k", object())


def test_the_folder_is_private(cache: Artifacts) -> None:
    cache.write(b"key", binary())
    folders = [cache.folder, *(p for p in cache.folder.rglob("*") if p.is_dir())]
    assert {p.stat().st_mode & 0o777 for p in folders} == {0o700}
    assert the_file(cache).stat().st_mode & 0o077 == 0


def test_every_damaged_byte_is_a_miss_and_deleted(cache: Artifacts, reports: Reports) -> None:
    cache.write(b"key", binary())
    path = the_file(cache)
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x20
        path.write_bytes(damaged)
        assert cache.read(b"key") is None and not path.exists()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert cache.read(b"key") is None and not path.exists()
    path.write_bytes(good + b"x")
    assert cache.read(b"key") is None
    assert [r.code for r in reports] == ["E0831"]  # told once
    assert str(path) in reports[0].notes[0]
    cache.write(b"key", binary())
    assert cache.read(b"key") == binary()


def test_a_well_summed_file_with_a_foreign_head_is_a_miss(cache: Artifacts, reports: Reports) -> None:
    cache.write(b"key", binary())
    path = the_file(cache)
    heads = [b"", b"null", b"{}", b'["cpu","f",[],[],[]]', b'["cpu","f",[],[],[],[],1]', b'["cpu",1,[],[],[],[]]', b"[" * 5000]
    loop_node = b'{"node":"Barrier","scope":"group"}'
    for params in (b'{"node":"Evil"}', b'{"node":"Tensor","name":1}', loop_node, b"null", b"7"):
        heads.append(b'["cpu","f",[],[%s],[],[]]' % params)
    for head in heads:
        rest = len(head).to_bytes(8, "little") + head + b"code"
        path.write_bytes(MAGIC + hashlib.sha256(rest).digest() + rest)
        assert cache.read(b"key") is None and not path.exists()
    rest = (2**63).to_bytes(8, "little")
    path.write_bytes(MAGIC + hashlib.sha256(rest).digest() + rest)
    assert cache.read(b"key") is None
    assert len(reports) == 1


def test_damage_warns_by_default(tmp_path: Path) -> None:
    cache = Artifacts(tmp_path)
    cache.write(b"key", binary())
    the_file(cache).write_bytes(b"rubbish")
    with pytest.warns(RuntimeWarning, match="E0831.*\n.*made anew"):
        cache.read(b"key")


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Artifacts(tmp_path / "file")
    cache.write(b"key", binary())
    assert cache.read(b"key") is None and cache.show().binaries == 0 and cache.clear() == 0


def test_show_and_clear(cache: Artifacts) -> None:
    for number in range(5):
        cache.write(bytes([number]), binary(b"x" * 100))
    cache.write_note(b"n", [1])
    contents = cache.show()
    assert (contents.binaries, contents.notes, contents.folder) == (5, 1, cache.folder)
    assert contents.size == sum(p.stat().st_size for p in cache.folder.rglob("*") if p.is_file())
    assert cache.clear() == 6
    assert cache.show().size == 0 and cache.read(b"\0") is None
    cache.write(b"\0", binary())
    assert cache.read(b"\0") == binary()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Artifacts(tmp_path, limit_bytes=100_000)
    for number in range(9):
        cache.write(bytes([number]), binary(b"x" * 10_000))
        path = cache._path("binaries", bytes([number]))
        os.utime(path, (time.time() - 90_000 + number,) * 2)
    assert cache.read(b"\0") is not None  # used again: the youngest now
    for number in range(9, 12):
        cache.write(bytes([number]), binary(b"x" * 10_000))
    kept = {number for number in range(12) if cache.read(bytes([number])) is not None}
    assert cache.show().size <= cache.limit_bytes
    assert {0, 9, 10, 11} <= kept and 1 not in kept


def test_files_of_writers_that_died_are_removed(cache: Artifacts) -> None:
    cache.write(b"key", binary())
    young, old = the_file(cache).with_name(".tmp-young"), the_file(cache).with_name(".tmp-old")
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert cache.show().binaries == 1
    assert young.exists() and not old.exists()


def test_many_threads(cache: Artifacts, reports: Reports) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        for turn in range(60):
            key = bytes([turn % 7])
            cache.write(key, binary(key * 5000, entry=f"f{turn % 7}"))
            found = cache.read(key)
            if found != binary(key * 5000, entry=f"f{turn % 7}"):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and reports == []


def test_many_processes(tmp_path: Path) -> None:
    script = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "from pathlib import Path\nfrom tests.runtime.test_artifacts import Artifacts, binary\n"
        "cache = Artifacts(Path(sys.argv[1]), limit_bytes=60_000)\n"
        "for turn in range(150):\n"
        "    key = bytes([turn % 11])\n"
        "    found = cache.read(key)\n"
        "    assert found is None or found == binary(key * 5000), found\n"
        "    cache.write(key, binary(key * 5000))\n"
    )
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=root, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors


def test_reading_does_not_write_when_the_file_is_young(cache: Artifacts) -> None:
    cache.write(b"key", binary())
    path = the_file(cache)
    before = path.stat().st_mtime_ns
    assert cache.read(b"key") is not None and path.stat().st_mtime_ns == before
    os.utime(path, (time.time() - 7200,) * 2)
    assert cache.read(b"key") is not None and time.time() - path.stat().st_mtime < 60
