"""ONNX Runtime: one node, its inputs and its output bound to our memory. `prepacked`: the weights are a constant of the model, which it
lays out for itself when the model is loaded."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Peer, Table

_ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}
"""TensorProto.DataType of onnx.proto3."""


def _session(model: bytes) -> Any:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))  # the process is pinned to as many cores as it may have threads
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _shared(op: str, inputs: tuple[tuple[str, str], ...], result: str, attributes: bytes, opset: int) -> Any:
    return _session(_model(op, inputs, result, attributes, opset))


def _bound(session: Any, inputs: dict[str, Any], result: Any) -> Callable[[], Any]:
    runtime: Any = importlib.import_module("onnxruntime")
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(value))
    binding.bind_output("out", "cpu", 0, result.dtype, result.shape, result.ctypes.data)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return result

    return call


def _node(op: str, inputs: Sequence[str], attributes: bytes = b"", opset: int = 17) -> Peer:
    """A node of f32 tensors, all of them arguments."""

    def peer(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
        given = {name: arguments[name] for name in inputs}
        if any(v.dtype != np.float32 for v in given.values()):
            return None
        return _bound(_shared(op, tuple((n, "float32") for n in inputs), "float32", attributes, opset), given, out[0])

    return peer


def _prepacked(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
    """C = A B with B a constant; of i8 as MatMulInteger, with A moved to u8 beforehand, as its quantised models have it."""
    left, right = arguments["A"], arguments["B"]
    if left.dtype.name not in ("float32", "int8") or right.nbytes >= 1 << 30:  # a model is a message of at most 2 GiB
        return None
    if left.dtype == np.float32:
        model = _model("MatMul", (("A", "float32"),), "float32", b"", 17, {"B": right})
        return _bound(_session(model), {"A": left}, out[0])
    zero = np.array(128, np.uint8)
    model = _model("MatMulInteger", (("A", "uint8"),), "int32", b"", 17, {"B": right, "zero": zero})
    return _bound(_session(model), {"A": (left.view(np.uint8) ^ zero).view(np.uint8)}, out[0])


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


def _model(
    op: str, inputs: Sequence[tuple[str, str]], result: str, attributes: bytes, opset: int, constants: dict[str, Any] | None = None
) -> bytes:  # fmt: skip
    """A ModelProto of one node; the field numbers are those of onnx.proto3. Tensors are of unknown shape, constants follow the inputs."""

    def value(name: str, dtype: str) -> bytes:
        return _field(1, name.encode()) + _field(2, _field(1, _field(1, _ELEMENTS[dtype])))  # TypeProto.tensor_type.elem_type

    def constant(name: str, array: Any) -> bytes:
        dims = b"".join(_field(1, extent) for extent in array.shape)
        return dims + _field(2, _ELEMENTS[array.dtype.name]) + _field(8, name.encode()) + _field(9, array.tobytes())

    held = constants or {}
    names = [*(name for name, _ in inputs), *held]
    node = b"".join(_field(1, name.encode()) for name in names) + _field(2, b"out") + _field(4, op.encode()) + attributes
    graph = _field(1, node) + _field(2, b"g") + b"".join(_field(5, constant(n, v)) for n, v in held.items())
    graph += b"".join(_field(11, value(*pair)) for pair in inputs) + _field(12, value("out", result))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, opset))


def _integer(name: str, value: int) -> bytes:
    """An integer attribute of a node (AttributeProto: name, i, type INT)."""
    return _field(5, _field(1, name.encode()) + _field(3, value & (1 << 64) - 1) + _field(20, 2))


ONNXRUNTIME: Table = {
    "matmul": _node("MatMul", ("A", "B")), "matmul:prepacked": _prepacked,
    "softmax": _node("Softmax", ("x",), _integer("axis", -1)),
    "layernorm": _node("LayerNormalization", ("x", "gamma", "beta"), _integer("axis", -1)),
}  # fmt: skip
