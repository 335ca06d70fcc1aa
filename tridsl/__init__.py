"""tridsl: one `.tri` file says what a tensor operation computes; it is compiled for the CPU, the GPU and the NPU of this chip.

    from tridsl import stdlib
    y = stdlib.softmax(x)                      # NumPy in, NumPy out
    ops = tridsl.load("kernels.tri")           # a namespace of ops
    ops = tridsl.compile("op twice(x: f32[N]) -> y: f32[N] { y[i] = 2 * x[i] }")

Importing this loads the call layer, and a call of a kernel that the cache has nothing more; the parser, the passes and LLVM are imported
when something must be compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import tridsl.devices  # noqa: F401  # the package, before the function of that name below hides it
from tridsl import stdlib
from tridsl.api import library, memory
from tridsl.api.devices import devices
from tridsl.api.library import Readable
from tridsl.api.ops import Namespace
from tridsl.api.rows import PackedRows, pack_rows
from tridsl.autotune.serving import PersonalityWarning, Serving
from tridsl.buffer import Buffer, Hint, pack
from tridsl.diagnostics import TriError
from tridsl.timeout import set_timeout

library.wire(Serving())

__version__ = "0.1.0"

__all__ = [
    "Buffer", "PackedRows", "PersonalityWarning", "TriError", "buffer", "compile", "devices", "jit", "load", "pack", "pack_rows", "set_timeout",
    "stdlib",
]  # fmt: skip


def load(path: str | os.PathLike[str] | Readable) -> Namespace:
    """The ops of a `.tri` file as attributes: `ops = tridsl.load("kernels.tri"); ops.softmax(x)`.

    `path` may also be a file in a package, `"pkg:kernels.tri"` or `importlib.resources.files("pkg") / "kernels.tri"`. Raises
    TriError: E0803 for a file that cannot be read, and everything that is wrong in it.
    """
    return library.load(path, stdlib.source, library.default_services())


def compile(text: str) -> Namespace:
    """The ops of `.tri` text as attributes. Raises TriError for everything that is wrong in it."""
    return library.compile_text(text, stdlib.source, library.default_services())


def jit(function: Callable[..., Any] | None = None, *, device: str = "auto", threads: int | None = None, tune: bool = False) -> Any:
    """Decorator: the calls of ops inside `function` become one program - fused, placed, with planned memory.

    The function runs once per shapes and element types of its arrays and values of its other arguments. `print(f.plan(...))` shows
    what runs where. `tune`: better schedules are looked for in the background after the first call, and used once they are found.
    A function whose docstring is `.tri` text becomes the op of that text. Errors: E0535-E0537.
    """
    from tridsl.api import decorator  # start-up time: the parts that make programs

    return decorator.jit(function, compile, library.default_services(), device, threads, tune)


def buffer(shape: int | Sequence[int], dtype: Any, *, hint: Hint = "balanced") -> Buffer:
    """A buffer of zeros: `tridsl.buffer((4096, 4096), "f32", hint="prefer_gpu")`. `np.asarray(buffer)` is a view of it.

    `dtype` is a name (`"f32"`, `"bf16"`) or a NumPy type. Raises E0533 for another type, E0540 for an unknown hint, E0601 and
    E0602 for sizes that cannot be had.
    """
    return memory.buffer(shape, dtype, hint=hint)
