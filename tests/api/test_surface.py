"""What users see around calls: namespaces, help, signatures, stages as text, schedules, start-up."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import tridsl
from tridsl import stdlib
from tridsl.api import library
from tridsl.api.engine import Services
from tridsl.api.ops import Namespace
from tridsl.api.signatures import OpSummary
from tridsl.api.stubs import library_stub
from tridsl.diagnostics import SourceFile, TriError
from tridsl.schedule.steps import Order, Parallel, Split, Tile, Vector
from tridsl.schedule.text import text_schedule

SAXPY = "# z = a x + y\nop saxpy(a: f32, x: f32[N], y: f32[N]) -> z: f32[N] { z[i] = a*x[i] + y[i] }\n"


@pytest.fixture(scope="module")
def ops(compile_text: Callable[[str], Namespace]) -> Namespace:
    return compile_text(SAXPY)


@pytest.fixture
def x(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal(64).astype(np.float32)


def test_namespaces_list_their_ops(ops: Namespace) -> None:
    assert list(ops) == ["saxpy"] and "saxpy" in dir(ops) and ops["saxpy"] is ops.saxpy
    assert "saxpy" in repr(ops) and not hasattr(ops, "other")
    assert {"matmul", "softmax", "attention"} <= set(dir(stdlib)) and not hasattr(stdlib, "no_such_op")
    with pytest.raises(TriError, match="E0534"):
        _ = stdlib.no_such_op


def test_help_and_signature(ops: Namespace) -> None:
    text = pydoc.plain(pydoc.render_doc(ops.saxpy))
    for part in ("z = a x + y", "saxpy(a: f32, x: f32[N], y: f32[N]) -> z: f32[N]", "z[i] = a*x[i] + y[i]", "out="):
        assert part in text
    assert "T in {f32, f64, f16, bf16}" in pydoc.plain(pydoc.render_doc(stdlib.softmax))
    signature = inspect.signature(ops.saxpy)
    assert list(signature.parameters) == ["a", "x", "y", "out", "device", "threads", "tune"]
    assert signature.parameters["x"].annotation == "f32[N]" and signature.return_annotation == "f32[N]"
    assert repr(ops.saxpy) == "<op saxpy(a: f32, x: f32[N], y: f32[N]) -> z: f32[N]>"
    causal = inspect.signature(stdlib.attention).parameters["causal"]
    assert causal.default is False


def test_load_reads_files_and_package_files(tmp_path: Path, services: Services, x: np.ndarray) -> None:
    (tmp_path / "kernels.tri").write_text(SAXPY)
    (tmp_path / "more.tri").write_text(
        "use kernels: saxpy\nuse stdlib: softmax\nop f(x: f32[N]) -> y: f32[N] {\n  h = saxpy(2.0, x, x)\n  y = softmax(h)\n}\n"
    )
    for path in (tmp_path / "kernels.tri", str(tmp_path / "kernels.tri")):
        assert np.allclose(library.load(path, stdlib.source, services).saxpy(1.0, x, x), 2 * x)
    used = library.load(tmp_path / "more.tri", stdlib.source, services)
    e = np.exp(3 * x - (3 * x).max())
    assert np.allclose(used.f(x), e / e.sum(), atol=1e-6)
    for path in ("tridsl.stdlib:softmax.tri", "stdlib:softmax", files("tridsl.stdlib") / "softmax.tri"):
        assert list(library.load(path, stdlib.source, services)) == ["softmax"]
    for path in (tmp_path / "absent.tri", "no_such_package:x.tri", "tridsl.stdlib:absent.tri"):
        with pytest.raises(TriError, match="E0803"):
            library.load(path, stdlib.source, services)


def test_a_changed_used_module_is_seen(tmp_path: Path, services: Services, x: np.ndarray) -> None:
    path = tmp_path / "used.tri"
    main = tmp_path / "main.tri"
    main.write_text("use used: g\nop f(x: f32[N]) -> y: f32[N] {\n  y = g(x)\n}\n")
    for factor in (2, 3):
        path.write_text(f"op g(x: f32[N]) -> y: f32[N] {{ y[i] = {factor} * x[i] }}")
        assert np.allclose(library.load(main, stdlib.source, services).f(x), factor * x)


def test_mistakes_are_told_when_text_is_compiled(compile_text: Callable[[str], Namespace]) -> None:
    for text in ("op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] * }", "op f(x: f32[N]) -> y: f32[N] { y[i] = z[i] }"):
        with pytest.raises(TriError) as caught:
            compile_text(text)
        assert "<string>:1:" in str(caught.value) and "^" in str(caught.value)


def test_every_stage_has_a_text(ops: Namespace, x: np.ndarray) -> None:
    assert "z[i]: f32 = a * x[i] + y[i]" in ops.saxpy.lower(2.0, x, x, until="op")
    assert "for i < 64" in ops.saxpy.lower(2.0, x, x, until="schedule", schedule=())
    assert "for i < N" in ops.saxpy.lower(2.0, x, x, until="loops")
    assert "define" in ops.saxpy.lower(2.0, x, x, until="emit", device="cpu")
    assert "binary" in ops.saxpy.lower(2.0, x, x, until="build")
    with pytest.raises(TriError, match="E0802"):
        ops.saxpy.lower(2.0, x, x, until="nonsense")


def test_builder_and_text_make_equal_steps(compile_text: Callable[[str], Namespace]) -> None:
    text = (
        "op matmul(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] { C[i, j] = sum[k](A[i, k] * B[k, j]) }\n"
        "schedule matmul for cpu {\n  C.tile(i=4, j=16).split(k, 8).order(i.o, j.o, k.o, k.i, i.i, j.i).parallel(i.o).vector(j.i)\n  A.pack(at=i.o)\n}\n"
    )
    ops = compile_text(text)
    built = (
        ops.matmul.schedule("cpu").tile(i=4, j=16).split("k", 8).order("i.o", "j.o", "k.o", "k.i", "i.i", "j.i")
        .parallel("i.o").vector("j.i").on_stage("A").pack(at="i.o")
    )  # fmt: skip
    assert built.steps[:2] == (Tile(stage="C", sizes=(("i", 4), ("j", 16))), Split(stage="C", axis="k", factor=8))
    assert built.steps[3:5] == (Parallel(stage="C", axis="i.o"), Vector(stage="C", axis="j.i"))
    from tridsl.api.devices import find
    from tridsl.ir.op import Op

    module = ops._module
    op = Op(name="matmul", types=(), params=(), sizes=("M", "K", "N"), stages=())
    assert text_schedule(module.bound.schedules["matmul"], op, find("cpu").device.spec, {}) == built.steps


def test_schedules_change_the_kernel_not_the_answer(ops: Namespace, x: np.ndarray) -> None:
    plain = ops.saxpy(2.0, x, x)
    scheduled = ops.saxpy.with_schedule(ops.saxpy.schedule("cpu").split("i", 24).vector("i.i"))
    assert np.array_equal(scheduled(2.0, x, x), plain)
    assert "min(24, 64 - i.o*24)" in scheduled.lower(2.0, x, x, until="schedule")
    swapped = ops.saxpy.with_schedule((Order(stage="z", axes=("j",)),))
    with pytest.raises(TriError):
        swapped(2.0, x, x)
    with pytest.raises(TriError, match="E0539"):
        ops.saxpy.schedule("cpu").tile(i=0)


def test_reference_changes_nothing(compile_text: Callable[[str], Namespace], x: np.ndarray) -> None:
    ops = compile_text("op bump(inout x: f32[N], by: f32) { x[i] = x[i] + by }")
    memory = x.copy()
    assert np.allclose(ops.bump.reference(memory, 1.0), x + 1) and np.array_equal(memory, x)


def test_the_standard_library_agrees_with_numpy(random: np.random.Generator) -> None:
    a, b = random.standard_normal((24, 32)).astype(np.float32), random.standard_normal((32, 64)).astype(np.float32)
    assert np.allclose(stdlib.matmul(a, b), a @ b, atol=1e-4)
    assert stdlib.matmul(a, b, U="f32").dtype == np.float32
    half = stdlib.matmul(a.astype(np.float16), b.astype(np.float16), U=np.float32)
    assert half.dtype == np.float32 and np.allclose(half, a @ b, atol=0.1)
    e = np.exp(a - a.max(axis=1, keepdims=True))
    assert np.allclose(stdlib.softmax(a), e / e.sum(axis=1, keepdims=True), atol=1e-6)


def test_devices_have_names() -> None:
    names = [str(device) for device in tridsl.devices()]
    assert names[0] == "cpu" and "reference" not in names


def run(code: str, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"XDG_CACHE_HOME": str(cache), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, tridsl; from tridsl import stdlib; print([m for m in sys.modules if m.partition('.')[0] in ('lark', 'llvmlite', 'rich', 'typer', 'diskcache') or m.startswith(('tridsl.pipeline', 'tridsl.passes', 'tridsl.schedule'))])"
    assert run(code, tmp_path).strip() == "[]"


def test_a_warm_process_needs_neither_parser_nor_llvm(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, tridsl\nfrom tridsl import stdlib\n"
        "ops = tridsl.compile('op twice(x: f32[N]) -> y: f32[N] { y[i] = 2 * x[i] }')\n"
        "x = np.arange(12, dtype=np.float32).reshape(3, 4)\n"
        "assert np.allclose(stdlib.softmax(x).sum(axis=1), 1) and (ops.twice(x) == 2 * x).all() and (ops.twice(x) == 2 * x).all()\n"
        "print(sorted(m for m in ('lark', 'llvmlite', 'tridsl.syntax.lalr', 'tridsl.check.types', 'tridsl.pipeline') if m in sys.modules))\n"
    )
    assert "lark" in run(code, tmp_path)
    assert run(code, tmp_path).strip() == "[]"


def test_sources_are_named_as_users_type_them() -> None:
    assert isinstance(stdlib.source("softmax"), SourceFile) and stdlib.source("softmax").name == "stdlib:softmax"


def library_summaries(services: Services) -> list[OpSummary]:
    return [library.standard_op(name, stdlib.source, services, stdlib.trees)._engine.summary for name in stdlib.names()]


def test_stubs_of_the_standard_library_are_up_to_date(services: Services, request: pytest.FixtureRequest) -> None:
    path = Path(stdlib.__file__).with_name("__init__.pyi")
    text = library_stub(library_summaries(services))
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert path.read_text() == text, "run pytest tests/api/test_surface.py --update-golden"
    assert "class _attention(OpObject):" in text and "causal: bool = ..." in text
