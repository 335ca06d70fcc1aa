"""The tile registers of AMX (Intel 64 and IA-32 Architectures SDM, vol. 1, chapter 18), and whether this process may use them.

Linux gives their 8 KiB of state to processes that ask (`arch_prctl`, Documentation/arch/x86/xstate.rst): once, for all threads and for
children by fork. A kernel or container may refuse; then the feature is not there.
"""

from __future__ import annotations

import ctypes
from functools import cache

ARCH_PRCTL, ASK, TILE_DATA = 158, 0x1023, 18
"""The system call on x86-64, ARCH_REQ_XCOMP_PERM, and the number of the state component."""
PREFIX = "amx-"
"""What LLVM's names of these features begin with."""


REGISTERS, ROWS, ROW_BYTES = 8, 16, 64
"""Of palette 1, the only one there is."""
CONFIGURATION = (1, *(0,) * 15, *(ROW_BYTES, 0) * REGISTERS, *(0,) * (32 - 2 * REGISTERS), *(ROWS,) * REGISTERS, *(0,) * (16 - REGISTERS))
"""64 bytes: the palette, the row to go on from, then (sixteen each) bytes of a row and rows, all registers alike and whole."""


@cache
def permitted() -> bool:
    """Asks for them."""
    try:
        return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, ASK, TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False


def usable(features: frozenset[str]) -> frozenset[str]:
    """`features` less those that this process is refused."""
    tiles = {name for name in features if name.startswith(PREFIX)}
    return features - tiles if tiles and not permitted() else features
