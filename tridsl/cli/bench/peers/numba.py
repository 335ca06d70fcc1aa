"""Numba: the loops that one would write, with the flags that let it use vectors. Exponentials are scalar: it has no vector library here."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Peer, Table


def above_storing(x: Any, t: Any, y: Any, at: Any) -> int:
    """Every element is stored; the place of the next moves on when it is kept. No branch to guess."""
    n = 0
    for i in range(x.size):
        y[n] = x[i]
        at[n] = i
        n += x[i] >= t
    return n


def above_branching(x: Any, t: Any, y: Any, at: Any) -> int:
    n = 0
    for i in range(x.size):
        if x[i] >= t:
            y[n] = x[i]
            at[n] = i
            n += 1
    return n


def saxpy(s: Any, x: Any, y: Any, z: Any) -> None:
    for i in range(x.size):
        z[i] = s * x[i] + y[i]


def add(x: Any, y: Any, z: Any) -> None:
    for i in range(x.size):
        z[i] = x[i] + y[i]


def cumsum(x: Any, y: Any) -> None:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
        y[i] = total


def waves(a: Any, b: Any, x: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = math.exp(-x[i] * x[i]) * a + math.tanh(b * x[i])


def softmax(x: Any, y: Any) -> None:
    for r in range(x.shape[0]):
        row, made = x[r], y[r]
        most = row[0]
        for n in range(row.size):
            most = max(most, row[n])
        total = np.float32(0)
        for n in range(row.size):
            made[n] = math.exp(row[n] - most)
            total += made[n]
        scale = np.float32(1) / total
        for n in range(row.size):
            made[n] *= scale


def layernorm(x: Any, gamma: Any, beta: Any, eps: Any, y: Any) -> None:
    for r in range(x.shape[0]):
        row, made = x[r], y[r]
        total = np.float32(0)
        for n in range(row.size):
            total += row[n]
        mean = total / np.float32(row.size)
        squares = np.float32(0)
        for n in range(row.size):
            squares += (row[n] - mean) * (row[n] - mean)
        scale = np.float32(1) / np.float32(math.sqrt(squares / np.float32(row.size) + eps))
        for n in range(row.size):
            made[n] = (row[n] - mean) * scale * gamma[n] + beta[n]


def rmsnorm(x: Any, gamma: Any, eps: Any, y: Any) -> None:
    for r in range(x.shape[0]):
        row, made = x[r], y[r]
        squares = np.float32(0)
        for n in range(row.size):
            squares += row[n] * row[n]
        scale = np.float32(1) / np.float32(math.sqrt(squares / np.float32(row.size) + eps))
        for n in range(row.size):
            made[n] = row[n] * scale * gamma[n]


@cache
def _compiled(function: Callable[..., Any], fast: bool) -> Any:
    numba: Any = importlib.import_module("numba")
    return numba.njit(function, fastmath=fast or {"contract"})


def _rows(function: Callable[..., Any], names: Sequence[str], *, fast: bool = True) -> Peer:
    """A function of arguments and the array of its one result; scalars in the arrays' type."""

    def peer(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
        known = {"eps": 1e-5} | dict(arguments)
        if any(isinstance(known[n], np.ndarray) and known[n].dtype != np.float32 for n in names):
            return None
        values = [known[n] if isinstance(known[n], np.ndarray) else np.float32(known[n]) for n in names]
        compiled, result = _compiled(function, fast), out[0]

        def call() -> Any:
            compiled(*values, result)
            return result

        return call

    return peer


def _above(function: Callable[..., int]) -> Peer:
    def peer(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
        compiled, x, t = _compiled(function, False), a["x"], a["x"].dtype.type(a["t"])
        y, at = out

        def call() -> Any:
            n = compiled(x, t, y, at)
            return y[:n], at[:n]

        return call

    return peer


NUMBA: Table = {
    "above": _above(above_storing), "above:branching": _above(above_branching),
    "saxpy": _rows(saxpy, ("a", "x", "y"), fast=False), "add": _rows(add, ("x", "y"), fast=False),
    "cumsum": _rows(cumsum, ("x",), fast=False), "waves": _rows(waves, ("a", "b", "x")),
    "softmax": _rows(softmax, ("x",)), "layernorm": _rows(layernorm, ("x", "gamma", "beta", "eps")), "rmsnorm": _rows(rmsnorm, ("x", "gamma", "eps")),
}  # fmt: skip
