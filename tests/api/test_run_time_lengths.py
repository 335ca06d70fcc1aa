"""Run-time lengths in what comes after them: boundaries, empty reducers, calls of ops, several compactions of one length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tridsl.diagnostics import CheckFailed

KEEP = "  t = compact[i](x[i], x[i] > 0)\n"
MIXED = np.array([-1, 1, 2, -3, 4, 5], np.float32)
NEGATIVE = np.array([-1, -2, -1, -1], np.float32)


def both(text: str, *arguments: Any) -> Any:
    """The kernel's answer, which is the oracle's."""
    op = tridsl.compile(text)["q"]
    found = op(*arguments, device="cpu")
    np.testing.assert_array_equal(found, op.reference(*arguments))
    return found


def refused(text: str, *arguments: Any) -> str:
    op = tridsl.compile(text)["q"]
    with pytest.raises(CheckFailed) as by_kernel:
        op(*arguments, device="cpu")
    with pytest.raises(CheckFailed) as by_oracle:
        op.reference(*arguments)
    assert str(by_kernel.value) == str(by_oracle.value)
    return by_kernel.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("access", "second"),
    [("i + 1; pad=5", [2, 4, 5, 5]), ("i + 1; pad=edge", [2, 4, 5, 5]), ("i - 3; pad=wrap", [2, 4, 5, 1]),
     ("i + 2; pad=reflect", [4, 5, 4, 2]), ("i - 1; pad=symmetric", [1, 1, 2, 4])],
)  # fmt: skip
def test_a_boundary_is_where_the_elements_end(access: str, second: list[float]) -> None:
    """And not where the storage ends, which holds nothing there."""
    text = f"op q(x: f32[N]) -> y: f32[..N] {{\n{KEEP}  y[i] = 0 * t[i] + t[{access}]\n}}"
    np.testing.assert_array_equal(both(text, MIXED), np.array(second, np.float32))
    assert both(text, NEGATIVE).shape == (0,)


@pytest.mark.parametrize("reducer", ["max", "min", "argmax", "argmin"])
def test_an_empty_reducer_is_an_error(reducer: str) -> None:
    result = "i32" if reducer.startswith("arg") else "f32"
    text = f"op q(x: f32[N]) -> y: {result} {{\n{KEEP}  y = {reducer}[i](t[i])\n}}"
    both(text, MIXED)
    assert refused(text, NEGATIVE) == f"q: '{reducer}' over 'i' needs at least one element, and 't' is too short"


def test_an_empty_reducer_of_a_called_op_is_an_error() -> None:
    text = f"use stdlib: softmax\nop q(x: f32[N]) -> y: f32[..N] {{\n{KEEP}  y = softmax(t)\n}}"
    op = tridsl.compile(text)["q"]
    np.testing.assert_allclose(op(MIXED, device="cpu"), op.reference(MIXED), rtol=1e-5)
    assert "'t' is too short" in refused(text, NEGATIVE)


def test_checks_of_a_called_op_come_along() -> None:
    text = f"op top(x: f32[N]) -> m: f32 {{\n{KEEP}  m = max[i](t[i])\n}}\nop q(x: f32[N]) -> m: f32 {{\n  h = top(x)\n  m = h + 1\n}}"
    both(text, MIXED)
    assert refused(text, NEGATIVE) == "q: top: 'max' over 'i' needs at least one element, and 't' is too short"


def test_gathers_know_the_length() -> None:
    ids = np.array([0, 1, 2], np.int32)
    head = f"op q(x: f32[N], ids: i32[M]) -> y: f32[M] {{\n{KEEP}"
    assert "outside" in str(refused_text(head + "  y[m] = t[ids[m]]\n}", ids))
    assert refused(head + "  y[m] = t[ids[m]; pad=edge]\n}", NEGATIVE, ids) == (
        "q: 't[ids[m]; pad=edge]' needs an element of 't', and 't' is too short"
    )
    np.testing.assert_array_equal(both(head + "  y[m] = t[ids[m]; pad=7]\n}", NEGATIVE, ids), np.full(3, 7, np.float32))


def refused_text(text: str, ids: Any) -> str:
    with pytest.raises(CheckFailed) as problem:
        tridsl.compile(text)["q"](NEGATIVE, ids, device="cpu")
    return problem.value.diagnostics[0].message


def test_one_condition_gives_one_length() -> None:
    text = (
        "op q(x: f32[N], W: f32[N, M]) -> z: f32[M] {\n"
        + KEEP
        + "  p = compact[i](i, x[i] > 0)\n  z[m] = sum[i](t[i] * W[p[i], m])\n}"
    )
    weights = np.arange(18, dtype=np.float32).reshape(6, 3)
    kept = MIXED > 0
    np.testing.assert_array_equal(both(text, MIXED, weights), MIXED[kept] @ weights[kept])


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect", "symmetric"])
def test_an_empty_tensor_has_no_edge(mode: str) -> None:
    """NumPy's pad refuses it too; where nothing is read there is nothing to refuse."""
    op = tridsl.compile(f"op q(x: f32[N], ids: i32[M]) -> y: f32[M] {{\n  y[m] = x[ids[m]; pad={mode}]\n}}")["q"]
    empty, ids = np.zeros(0, np.float32), np.zeros(3, np.int32)
    for call in (op, op.reference):
        with pytest.raises(tridsl.TriError, match="needs an element of 'x'"):
            call(empty, ids)
        assert call(empty, ids[:0]).shape == (0,)
