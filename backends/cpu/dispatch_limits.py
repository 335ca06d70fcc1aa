"""Numbers that the native dispatcher's code and its tables share: room for arguments, and the kinds of params and rules."""

from __future__ import annotations

MAX_ARGUMENTS = 24
MAX_SLOTS = 64
MAX_RANK = 16
TENSOR, FLOAT, INTEGER, BOOLEAN = range(4)
REQUIRED, DEFAULT, ALLOCATE = range(3)
CONSTANT, CHECK, BIND = range(3)
