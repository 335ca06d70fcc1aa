"""What a peer is: another library's way to compute an op, on the arrays that the op gets.

A peer is given the arguments by name (packed trits as int8) and arrays for the results, and returns a function of no arguments that
fills or makes them and returns the results, in the op's order; those it lacks at the end may be left out. None: it cannot (these types).
What is slow to make (a compiled function, a session) it keeps for the next set of arrays: cold readings call it on many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Arguments = Mapping[str, Any]
Peer = Callable[[Arguments, Sequence[Any]], Callable[[], Any] | None]
Table = dict[str, Peer]
"""Peers of one library by op. `matmul:prepacked` is another way to compute `matmul`, shown under its own name."""


def is_brain(array: Any) -> bool:
    """Whether an array holds bf16, which NumPy itself does not know."""
    return bool(array.dtype.name == "bfloat16")
