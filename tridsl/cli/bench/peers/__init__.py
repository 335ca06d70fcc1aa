"""Who else can compute an op: one file per library. `contract` says what a peer is.

A library that is not installed here is named and left out. `ELSEWHERE` are peers of the goals' table that this suite does not run.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from functools import cache

from tridsl.cli.bench.peers.contract import Arguments, Peer, Table
from tridsl.cli.bench.peers.halide import HALIDE
from tridsl.cli.bench.peers.jax import JAX
from tridsl.cli.bench.peers.numba import NUMBA
from tridsl.cli.bench.peers.numexpr import NUMEXPR
from tridsl.cli.bench.peers.numpy import NUMPY
from tridsl.cli.bench.peers.onnxruntime import ONNXRUNTIME
from tridsl.cli.bench.peers.opencv import OPENCV
from tridsl.cli.bench.peers.torch import TORCH

__all__ = [
    "ELSEWHERE", "LIBRARIES", "NUMPY", "Arguments", "Peer", "Table",
    "environment", "installed", "keep_memory", "peers_of", "set_threads", "versions",
]  # fmt: skip

LIBRARIES: dict[str, Table] = {
    "numpy": NUMPY, "torch": TORCH, "numba": NUMBA, "jax": JAX, "onnxruntime": ONNXRUNTIME, "opencv": OPENCV, "halide": HALIDE, "numexpr": NUMEXPR,
}  # fmt: skip
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "tgemm": ("ik_llama.cpp", "bitnet.cpp", "ggml"), "tgemv": ("ik_llama.cpp", "bitnet.cpp", "ggml"), "attention": ("ggml",),
}  # fmt: skip
_MODULES = {"opencv": "cv2"}
_PACKAGES = {"opencv": "opencv-python-headless"}

_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "HL_NUM_THREADS")


def environment(threads: int) -> dict[str, str]:
    """What libraries read when they are loaded."""
    flags = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}"
    return dict.fromkeys(_COUNTS, str(threads)) | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def installed() -> dict[str, bool]:
    """Every peer, and whether it can be imported here."""
    return {name: importlib.util.find_spec(_MODULES.get(name, name)) is not None for name in LIBRARIES}


def versions() -> dict[str, str]:
    """The version of every library that is installed."""
    found = {}
    for name in (name for name, here in installed().items() if here):
        try:
            found[name] = importlib.metadata.version(_PACKAGES.get(name, name))
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?"
    return found


def peers_of(op: str) -> Iterator[tuple[str, str, Peer]]:
    """(contestant, library, peer) of everybody who knows the op, installed or not: `numba`, `onnxruntime prepacked`."""
    for library, table in LIBRARIES.items():
        for key, peer in table.items():
            name, _, variant = key.partition(":")
            if name == op:
                yield f"{library} {variant}".strip(), library, peer


def set_threads(count: int) -> None:
    """Every library that can be told so late on `count` threads."""
    here = installed()
    if here["torch"]:
        importlib.import_module("torch").set_num_threads(count)
    if here["opencv"]:
        importlib.import_module("cv2").setNumThreads(0 if count == 1 else count)


@cache
def keep_memory() -> None:
    """Freed memory stays with the process, so that libraries that allocate their results find pages that are mapped already
    (glibc's mallopt: M_MMAP_MAX = 0, M_TRIM_THRESHOLD as large as it gets)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)
        libc.mallopt(-1, 2**31 - 1)
