"""tridsl: one `.tri` file says what a tensor operation computes; it is compiled for the CPU, the GPU and the NPU of this chip."""

from __future__ import annotations

from tridsl.buffer import Buffer, pack
from tridsl.diagnostics import TriError

__all__ = ["Buffer", "TriError", "pack"]
