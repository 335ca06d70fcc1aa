"""Who else can compute an op: formulas in NumPy, and calls of libraries that happen to be installed.

A peer is given the arguments by name (arrays the op itself gets; packed trits as int8) and arrays for the results, and returns a
function of no arguments that fills or makes them. NumPy's formulas, given f64 arrays, are also the reference for sizes at which the
interpreter would take minutes.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Arguments = Mapping[str, Any]
Peer = Callable[[Arguments, Sequence[Any]], Callable[[], Any]]
"""The returned function gives the results, so that they can be checked; library results count as they come."""


def _matmul(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    left, right = a["A"], a["B"]
    if left.dtype.kind == "i":
        return lambda: np.matmul(left, right, dtype=np.int32, out=out[0])
    return lambda: np.matmul(left, right, out=out[0])


def _softmax(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y = a["x"], out[0]

    def call() -> Any:
        np.subtract(x, x.max(axis=-1, keepdims=True), out=y)
        np.exp(y, out=y)
        return np.divide(y, y.sum(axis=-1, keepdims=True), out=y)

    return call


def _layernorm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y, eps = a["x"], out[0], a.get("eps", 1e-5)

    def call() -> Any:
        np.subtract(x, x.mean(axis=-1, keepdims=True), out=y)
        variance = np.einsum("...n,...n->...", y, y) / x.shape[-1]
        np.divide(y, np.sqrt(variance + eps, dtype=y.dtype)[..., None], out=y)
        np.multiply(y, a["gamma"], out=y)
        return np.add(y, a["beta"], out=y)

    return call


def _rmsnorm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y, eps = a["x"], out[0], a.get("eps", 1e-5)

    def call() -> Any:
        square = np.einsum("...n,...n->...", x, x) / x.shape[-1]
        np.divide(x, np.sqrt(square + eps, dtype=y.dtype)[..., None], out=y)
        return np.multiply(y, a["gamma"], out=y)

    return call


def _attention(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    q, k, v, scale = a["Q"], a["K"], a["V"], a["scale"]
    group = q.shape[0] // k.shape[0]
    hidden = np.triu(np.ones((q.shape[1], k.shape[1]), bool), 1 + k.shape[1] - q.shape[1]) if a.get("causal") else None

    def call() -> Any:
        for head in range(q.shape[0]):
            scores = (q[head] @ k[head // group].T) * q.dtype.type(scale)
            if hidden is not None:
                scores[hidden] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            np.matmul(scores, v[head // group], out=out[0][head])
        return out[0]

    return call


def _tgemm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    """BLAS has no integers: f32 products of small integers are exact while sums stay below 2^24, which 6912 * 128 does."""
    w, x = a["W"].astype(np.float32), a["X" if "X" in a else "x"].astype(np.float32)
    scale = (a["sw"] * a["sx"][:, None]) if "X" in a else a["sw"] * np.float32(a["sx"])
    return lambda: np.multiply(np.matmul(x, w.T, out=out[0]) if out[0].dtype == np.float32 else x @ w.T, scale, out=out[0])


def _gray(a: Arguments) -> Any:
    rgba = a["rgba"].astype(np.int32)
    return (4899 * rgba[..., 0] + 9617 * rgba[..., 1] + 1868 * rgba[..., 2] + 8192) >> 14


def _edges(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        g = np.pad(_gray(a), 1, mode="edge")
        laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
        out[0][...] = np.where(np.abs(laplacian) > a["threshold"], 255, 0)
        return out[0]

    return call


def _sobel(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        g = np.pad(_gray(a), 1, mode="edge")
        x, y = g[:, 2:] - g[:, :-2], g[2:] - g[:-2]
        total = np.abs(x[:-2] + 2 * x[1:-1] + x[2:]) + np.abs(y[:, :-2] + 2 * y[:, 1:-1] + y[:, 2:])
        out[0][...] = np.where(total > a["threshold"], 255, 0)
        return out[0]

    return call


def _above(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, t = a["x"], a["t"]

    def call() -> Any:
        keep = x >= t
        return x[keep], np.flatnonzero(keep)

    return call


def _saxpy(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    scale = a["x"].dtype.type(a["a"])
    return lambda: np.add(np.multiply(a["x"], scale, out=out[0]), a["y"], out=out[0])


NUMPY: dict[str, Peer] = {
    "matmul": _matmul, "softmax": _softmax, "layernorm": _layernorm, "rmsnorm": _rmsnorm, "attention": _attention,
    "tgemm": _tgemm, "tgemv": _tgemm, "edges": _edges, "sobel_edges": _sobel, "above": _above, "saxpy": _saxpy,
    "cumsum": lambda a, out: lambda: np.cumsum(a["x"], axis=-1, out=out[0]),
}  # fmt: skip


def _torch(function: Callable[[Any, Mapping[str, Any], list[Any]], Callable[[], Any]]) -> Peer:
    """A call of PyTorch on the same memory, without autograd."""

    def peer(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
        torch = importlib.import_module("torch")
        torch.set_grad_enabled(False)
        keep_memory()
        tensors = {n: _tensor(torch, v) if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
        return function(torch, tensors, [_tensor(torch, o) for o in out])

    return peer


def _tensor(torch: Any, array: Any) -> Any:
    """PyTorch's tensor over NumPy's memory; NumPy's bf16 is not PyTorch's, so its bits are passed."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else torch.from_numpy(array)


def _torch_attention(torch: Any, a: Mapping[str, Any], out: Sequence[Any]) -> Callable[[], Any]:
    """PyTorch's `is_causal` aligns the first query with the first key, ours the last with the last: a mask where they differ."""
    q, k, v = (a[name][None] for name in ("Q", "K", "V"))
    queries, keys, causal = q.shape[2], k.shape[2], bool(a.get("causal", False))
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal and queries != keys else None
    options = {"scale": a["scale"], "attn_mask": mask, "is_causal": causal and mask is None, "enable_gqa": q.shape[1] != k.shape[1]}
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)[0]


TORCH: dict[str, Peer] = {
    "matmul": _torch(lambda t, a, out: lambda: t.matmul(a["A"], a["B"], out=out[0])),
    "softmax": _torch(lambda t, a, out: lambda: t.softmax(a["x"], -1, out=out[0])),
    "layernorm": _torch(lambda t, a, out: lambda: t.nn.functional.layer_norm(a["x"], a["gamma"].shape, a["gamma"], a["beta"], a.get("eps", 1e-5))),
    "rmsnorm": _torch(lambda t, a, out: lambda: t.nn.functional.rms_norm(a["x"], a["gamma"].shape, a["gamma"], a.get("eps", 1e-5))),
    "attention": _torch(_torch_attention),
    "cumsum": _torch(lambda t, a, out: lambda: t.cumsum(a["x"], -1, out=out[0])),
    "gelu": _torch(lambda t, a, out: lambda: t.nn.functional.gelu(a["x"])),
    "saxpy": _torch(lambda t, a, out: lambda: t.add(a["y"], a["x"], alpha=a["a"], out=out[0])),
    "above": _torch(lambda t, a, out: lambda: t.masked_select(a["x"], a["x"] >= a["t"])),
}  # fmt: skip


def _opencv(a: Arguments, out: Sequence[Any], sobel: bool) -> Callable[[], Any]:
    cv2: Any = importlib.import_module("cv2")
    rgba, edge = a["rgba"], out[0]
    shape = rgba.shape[:2]
    gray, first, second = np.empty(shape, np.uint8), np.empty(shape, np.int16), np.empty(shape, np.int16)
    low, high = np.empty(shape, np.uint8), np.empty(shape, np.uint8)

    def laplacian() -> Any:
        cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY, dst=gray)
        cv2.Laplacian(gray, cv2.CV_16S, dst=first, ksize=1, borderType=cv2.BORDER_REPLICATE)
        cv2.convertScaleAbs(first, dst=low)
        cv2.threshold(low, a["threshold"], 255, cv2.THRESH_BINARY, dst=edge)
        return edge

    def gradient() -> Any:
        cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY, dst=gray)
        cv2.Sobel(gray, cv2.CV_16S, 1, 0, dst=first, borderType=cv2.BORDER_REPLICATE)
        cv2.Sobel(gray, cv2.CV_16S, 0, 1, dst=second, borderType=cv2.BORDER_REPLICATE)
        cv2.convertScaleAbs(first, dst=low)
        cv2.convertScaleAbs(second, dst=high)
        cv2.add(low, high, dst=low)
        cv2.threshold(low, a["threshold"], 255, cv2.THRESH_BINARY, dst=edge)
        return edge

    return gradient if sobel else laplacian


OPENCV: dict[str, Peer] = {"edges": lambda a, out: _opencv(a, out, False), "sobel_edges": lambda a, out: _opencv(a, out, True)}


def _numba_above(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    numba: Any = importlib.import_module("numba")

    def pack(x: Any, t: Any, y: Any, at: Any) -> int:
        n = 0
        for i in range(x.size):
            if x[i] >= t:
                y[n] = x[i]
                at[n] = i
                n += 1
        return n

    compiled = numba.njit(pack)
    t = a["x"].dtype.type(a["t"])

    def call() -> Any:
        n = compiled(a["x"], t, out[0], out[1])
        return out[0][:n], out[1][:n]

    return call


def _numba_saxpy(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    numba: Any = importlib.import_module("numba")

    def saxpy(s: Any, x: Any, y: Any, z: Any) -> None:
        for i in range(x.size):
            z[i] = s * x[i] + y[i]

    compiled, scale = numba.njit(saxpy, fastmath={"contract"}), a["x"].dtype.type(a["a"])

    def call() -> Any:
        compiled(scale, a["x"], a["y"], out[0])
        return out[0]

    return call


NUMBA: dict[str, Peer] = {"above": _numba_above, "saxpy": _numba_saxpy}


def _onnx(op: str, inputs: Sequence[str], attributes: bytes = b"", opset: int = 17) -> Peer:
    """One ONNX node in ONNX Runtime, input and output bound to our memory."""

    def peer(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))  # the process is pinned to as many cores as it may have threads
        session = runtime.InferenceSession(_onnx_model(op, inputs, attributes, opset), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name in inputs:
            binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(arguments[name]))
        result = out[0]
        binding.bind_output("out", "cpu", 0, result.dtype, result.shape, result.ctypes.data)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return result

        return call

    return peer


def _field(number: int, content: bytes | int) -> bytes:
    """One field of a protocol buffer: a varint, or bytes with their length (protobuf.dev, Encoding)."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _onnx_model(op: str, inputs: Sequence[str], attributes: bytes, opset: int) -> bytes:
    """A ModelProto of one node; the field numbers are those of onnx.proto3. Every tensor is f32 of unknown shape."""
    kind = _field(1, _field(1, 1))  # TypeProto.tensor_type.elem_type = FLOAT
    node = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, b"out") + _field(4, op.encode()) + attributes
    values = b"".join(_field(11, _field(1, name.encode()) + _field(2, kind)) for name in inputs)
    graph = _field(1, node) + _field(2, b"g") + values + _field(12, _field(1, b"out") + _field(2, kind))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, opset))


def _onnx_integer(name: str, value: int) -> bytes:
    """An integer attribute of a node (AttributeProto: name, i, type INT)."""
    return _field(5, _field(1, name.encode()) + _field(3, value & (1 << 64) - 1) + _field(20, 2))


ONNXRUNTIME: dict[str, Peer] = {
    "matmul": _onnx("MatMul", ("A", "B")),
    "softmax": _onnx("Softmax", ("x",), _onnx_integer("axis", -1)),
    "layernorm": _onnx("LayerNormalization", ("x", "gamma", "beta"), _onnx_integer("axis", -1)),
}

LIBRARIES: dict[str, dict[str, Peer]] = {"numpy": NUMPY, "torch": TORCH, "opencv": OPENCV, "numba": NUMBA, "onnxruntime": ONNXRUNTIME}
_MODULES = {"opencv": "cv2"}
ONLY_F32 = ("onnxruntime",)
"""Libraries whose calls here are written for f32."""


def installed() -> dict[str, bool]:
    """Every peer, and whether it can be imported here."""
    return {name: importlib.util.find_spec(_MODULES.get(name, name)) is not None for name in LIBRARIES}


def set_threads(count: int) -> None:
    """Every library on `count` threads; NumPy's BLAS read OMP_NUM_THREADS when it was imported."""
    here = installed()
    if here["torch"]:
        importlib.import_module("torch").set_num_threads(count)
    if here["opencv"]:
        importlib.import_module("cv2").setNumThreads(0 if count == 1 else count)


def keep_memory() -> None:
    """Freed memory stays with the process, so that libraries that allocate their results find pages that are mapped already
    (glibc's mallopt: M_MMAP_MAX = 0, M_TRIM_THRESHOLD as large as it gets)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)
        libc.mallopt(-1, 2**31 - 1)
