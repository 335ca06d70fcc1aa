"""Memory that kernels borrow for their packed panels and intermediate tensors, and give back when they end.

`malloc` returns large blocks to the system whenever they are freed, and the next call pays for new pages: about 0.6 µs for each
4 KiB of them on a virtual machine, which is a quarter of the time of a product of 512 x 512 matrices. So the process keeps a few blocks of address
space. Pages come into them when they are first touched, as huge ones where the system has some (a packed panel of 1 MiB is then
one entry of the TLB instead of 256), and stay. Kernels take a free block by one atomic exchange; what is larger than a
block, or finds none free, is allocated and freed as ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

import msgspec

SYMBOL = "tridsl_scratch"
"""The name by which kernels know the table: `{i64 blocks, i64 bytes of each}`, then for each block, 64 bytes apart, `{i64 taken, ptr block}`."""

BLOCK_BYTES = 64 << 20
BLOCKS_PER_CORE = 4
"""A kernel has two panels and perhaps an intermediate tensor, in each thread."""
LINE = 64
"""Entries lie on cache lines of their own: threads take theirs without disturbing each other."""
HUGE_PAGE = 2 << 20
_ADVISE_HUGE_PAGES = 14
_NO_RESERVE = 0x4000


class Scratch(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks of this process. `table`: its address; the mapped ranges live as long as the process."""

    table: int
    pages: tuple[mmap.mmap, ...]


class _State:
    """Made when the first kernel that borrows is loaded. A forked child has copies of its parent's pages: what was taken stays taken."""

    def __init__(self) -> None:
        self.scratch: Scratch | None = None


_STATE = _State()


def resolve(name: str) -> int | None:
    """The address of the table, if that is what `name` is."""
    if name != SYMBOL:
        return None
    if _STATE.scratch is None:
        _STATE.scratch = make(BLOCKS_PER_CORE * (1 + len(os.sched_getaffinity(0))), BLOCK_BYTES)
    return _STATE.scratch.table


def make(blocks: int, size: int) -> Scratch:
    """A table of `blocks` blocks of `size` bytes; an empty one where the system has no address space for them."""
    table = mmap.mmap(-1, LINE * (1 + blocks))
    words = (ctypes.c_uint64 * (len(table) // 8)).from_buffer(table)
    address = ctypes.addressof(words)
    try:
        space = mmap.mmap(-1, blocks * size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    except OSError:
        return Scratch(table=address, pages=(table,))
    base = ctypes.addressof(ctypes.c_char.from_buffer(space))
    first = -(-base // HUGE_PAGE) * HUGE_PAGE
    with contextlib.suppress(OSError, ValueError):  # without huge pages small ones serve
        space.madvise(_ADVISE_HUGE_PAGES)
    words[0], words[1] = blocks, size
    for number in range(blocks):
        words[(1 + number) * LINE // 8 + 1] = first + number * size
    return Scratch(table=address, pages=(table, space))
