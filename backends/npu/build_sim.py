"""The kernel text, compiled for the host against the stand-in of the AIE API: what `npu:sim` runs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tridsl.backend import BackendUnavailable
from tridsl.diagnostics import Diagnostic

COMPILER = "g++"
ARCHITECTURES = {"aie2": 20, "aie2p": 21}
"""`__AIE_ARCH__` of each generation (aie_api)."""
FLAGS = ("-std=c++20", "-O1", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
"""With -O2 kernels are compiled in 0.43 s (softmax) and 0.70 s (attention) instead of 0.27 and 0.49, and run no faster; without any, in 0.11 and 0.12, and
run five times as long (*measured*)."""
TIMEOUT_SECONDS = 120.0


def compile_library(text: str, generation: str, extra: Sequence[str] = ()) -> bytes:
    """A shared library with the functions of `text`. BackendUnavailable E0773 without g++; RuntimeError with the numbered source when it does not
    compile, which is a fault of the emitter. `extra`: more flags (sanitizers)."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise BackendUnavailable(
            Diagnostic(
                code="E0773", message=f"npu:sim: there is no `{COMPILER}` on PATH, and the simulator compiles the kernels for this machine",
                help="install one: apt-get install g++",
            )
        )  # fmt: skip
    with resources.as_file(resources.files("tridsl.backends.npu").joinpath("shim")) as shim, tempfile.TemporaryDirectory(prefix="tridsl-npu-") as folder:
        source, output = Path(folder, "kernels.cc"), Path(folder, "kernels.so")
        source.write_text(text)
        command = [compiler, *FLAGS, *extra, f"-D__AIE_ARCH__={ARCHITECTURES[generation]}", "-I", str(shim), "-o", str(output), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _refused(f"{compiler} did not finish within {TIMEOUT_SECONDS:g} s", text) from None
        if done.returncode != 0:
            raise _refused(done.stderr.decode("utf-8", "replace"), text)
        return output.read_bytes()


def _refused(problem: str, text: str) -> RuntimeError:
    numbered = "\n".join(f"{number:>4} | {line}" for number, line in enumerate(text.split("\n"), 1))
    return RuntimeError(f"the emitted kernel text does not compile against the AIE API's stand-in\n{problem}\n{numbered}")


class Library:
    """Compiled kernel functions (`simulate.Kernels`)."""

    def __init__(self, blob: bytes) -> None:
        self._library = _loaded(blob)
        self._power_up = self._library.tridsl_shim_power_up
        self._failed = self._library.tridsl_shim_failed
        self._failed.restype = ctypes.c_char_p
        self._functions: dict[str, Callable[..., Any]] = {}

    def call(self, name: str, arguments: Sequence[int], pointers: Sequence[bool]) -> str | None:
        function = self._functions.get(name)
        if function is None:
            function = getattr(self._library, name)
            function.restype = None
            function.argtypes = [ctypes.c_void_p if p else ctypes.c_int32 for p in pointers]
            self._functions[name] = function
        self._power_up()
        function(*arguments)
        problem = self._failed()
        return None if problem is None else problem.decode()


@cache
def _loaded(blob: bytes) -> ctypes.CDLL:
    """Loaded once for each content, from a file that is gone before anybody could change it."""
    handle, path = tempfile.mkstemp(prefix="tridsl-npu-", suffix=".so")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        return ctypes.CDLL(path)
    finally:
        os.unlink(path)
