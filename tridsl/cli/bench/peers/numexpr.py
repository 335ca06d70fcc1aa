"""NumExpr: an expression over blocks that fit the cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from tridsl.cli.bench.peers.contract import Arguments, Table


def _waves(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    numexpr: Any = importlib.import_module("numexpr")
    values = {"x": a["x"], "a": a["x"].dtype.type(a["a"]), "b": a["x"].dtype.type(a["b"])}
    return lambda: numexpr.evaluate("exp(-x*x)*a + tanh(b*x)", local_dict=values, out=out[0])


NUMEXPR: Table = {"waves": _waves}
