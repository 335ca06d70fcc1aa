"""Whether this process may use the tile registers of AMX.

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
