"""tridsl: one `.tri` file says what a tensor operation computes; it is compiled for the CPU, the GPU and the NPU of this chip.

    from tridsl import stdlib
    y = stdlib.softmax(x)                      # NumPy in, NumPy out
    ops = tridsl.load("kernels.tri")           # a namespace of ops
    ops = tridsl.compile("op twice(x: f32[N]) -> y: f32[N] { y[i] = 2 * x[i] }")

The parser, LLVM and the backends are imported when something must be compiled, not here.
"""

from __future__ import annotations

import os

from tridsl import stdlib
from tridsl.api import decorator, library
from tridsl.api.devices import devices
from tridsl.api.library import Readable
from tridsl.api.memory import buffer
from tridsl.api.ops import Namespace
from tridsl.buffer import Buffer, pack
from tridsl.diagnostics import TriError

__version__ = "0.1.0"

__all__ = ["Buffer", "Namespace", "TriError", "buffer", "compile", "devices", "jit", "load", "pack", "stdlib"]


def load(path: str | os.PathLike[str] | Readable) -> Namespace:
    """The ops of a `.tri` file as attributes: `ops = tridsl.load("kernels.tri"); ops.softmax(x)`.

    `path` may also be a file in a package: `importlib.resources.files("pkg") / "kernels.tri"`. Raises TriError: E0803 for a
    file that cannot be read, and everything that is wrong in it.
    """
    return library.load(path, stdlib.source, library.default_services())


def compile(text: str) -> Namespace:
    """The ops of `.tri` text as attributes. Raises TriError for everything that is wrong in it."""
    return library.compile_text(text, stdlib.source, library.default_services())


jit = decorator.Jit(compile_text=compile, services=library.default_services)
"""Decorator: calls of ops inside the function become one program - fused, placed, with planned memory."""
