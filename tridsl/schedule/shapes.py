"""The shape bucket of a call: which calls share evidence and shipped answers.

A static size is a constant of the kernel, so its exact value is part of the bucket. A dynamic size is an argument of one kernel
that serves many values; those that behave alike share a bucket: the same octave, and the same class of divisibility, because
that decides whether tails run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

EXACT_TO = 16
"""Dynamic sizes up to this are buckets of their own: a vector or a tile more or less is a large part of them."""

LARGEST_DIVISOR = 64
"""Divisibility is looked at up to this power of two (the longest vector: 64 bytes)."""


def bucket(sizes: Mapping[str, int], dynamic: Collection[str] = ()) -> str:
    """`K=64 M=512 N~2^9/16`: sizes by name. `~2^e/d`: dynamic, in 2^e .. 2^(e+1)-1, d the largest power of two, at most 64,
    that divides it. Raises ValueError for a negative size."""
    return " ".join(_one(name, sizes[name], name in dynamic) for name in sorted(sizes))


def sized_like(sizes: Mapping[str, int]) -> str:
    """The bucket with every size as if it were dynamic: calls that behave alike, whatever their exact sizes are."""
    return bucket(sizes, sizes)


def _one(name: str, size: int, is_dynamic: bool) -> str:
    if size < 0:
        raise ValueError(f"size {name} is {size}")
    if not is_dynamic:
        return f"{name}={size}"
    if size <= EXACT_TO:
        return f"{name}~{size}"
    return f"{name}~2^{size.bit_length() - 1}/{min(size & -size, LARGEST_DIVISOR)}"
