"""PyTorch on NVIDIA's own stack: arrays in the memory of the GPU, times by the events of its stream."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments
from tridsl.cli.bench.peers.torch import FUNCTIONS, Function, Tensors, tensor_of

NAME = "torch"


@cache
def pytorch() -> Any:
    """PyTorch, where it is installed and has a GPU; else None."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")  # a peer, where it is installed
    if not torch.cuda.is_available():
        return None
    torch.set_grad_enabled(False)
    return torch


def _matmul(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any]:
    """cuBLAS; of f16 in f16, which its fastest products are."""
    left, right = a["A"], a["B"]
    if left.dtype == torch.int8:
        return lambda: torch._int_mm(left, right)
    return lambda: torch.matmul(left, right)


def _vector(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any]:
    """PyTorch has no ternary weights, and its products of bytes take no single vector: scaled weights of f16, eight times the bytes."""
    weights, x = (a["W"] * (a["sw"] * float(a["sx"]))[:, None]).half(), a["x"].half()
    return lambda: torch.mv(weights, x)


ON_DEVICE: dict[str, Function] = {
    **{name: function for name, function in FUNCTIONS.items() if name != "attention:two products"},
    "matmul": _matmul, "tgemv": _vector,
    "copy": lambda t, a, out: lambda: out[0].copy_(a["x"]),
    "sum": lambda t, a, out: lambda: t.sum(a["x"], -1),
    "silu_mul": lambda t, a, out: lambda: t.nn.functional.silu(a["gate"]) * a["up"],
    "argmax": lambda t, a, out: lambda: t.argmax(a["x"], -1),
    "topk": lambda t, a, out: lambda: t.topk(a["x"], int(a["k"])),
    "above": lambda t, a, out: lambda: (t.masked_select(a["x"], a["x"] >= a["t"]), t.nonzero(a["x"] >= a["t"])[:, 0]),
}  # fmt: skip


def peers_of(op: str) -> Iterator[tuple[str, Function]]:
    """(contestant, function) of everybody who knows the op."""
    if op in ON_DEVICE:
        yield NAME, ON_DEVICE[op]


def tensors_of(torch: Any, arguments: Arguments) -> dict[str, Any]:
    """Copies of the arguments in the memory of the GPU."""
    return {n: tensor_of(torch, v).cuda() if isinstance(v, np.ndarray) and v.ndim else v for n, v in arguments.items()}


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    """A result on the host; bf16 as the f32 it stands for."""
    found: np.ndarray[Any, Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).cpu().numpy()
    return found


def device_seconds(torch: Any, call: Callable[[], Any], runs: int) -> tuple[float, ...]:
    """Seconds of each of `runs` runs between events of the stream, which is filled before anybody waits."""
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(runs)]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return tuple(start.elapsed_time(end) / 1e3 for start, end in events)


def graph_of(torch: Any, work: Callable[[Mapping[str, Any]], Any], arguments: Arguments) -> tuple[Callable[[], None], Any]:
    """A captured CUDA graph of `work` as a call that replays it and waits, and its result."""
    tensors = tensors_of(torch, arguments)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work(tensors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work(tensors)

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay, result


def outs_of(torch: Any, outs: Sequence[Any]) -> list[Any]:
    """Tensors for results, like the arrays."""
    return [tensor_of(torch, o).cuda() for o in outs]
