"""A traced program of ten small launches, replayed on a GPU, with PyTorch's CUDA graph of the same work beside it.

    python -m tests.bench.gpu_programs [--device gpu:0] [--runs 200]

Arguments and results stay on the device. Printed, all measured, medians: processor time until a replay is submitted (nothing waits), wall
time of a replay with its wait, both for us and for the graph, in turns; and the ratio of the waited times (theirs over ours).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from time import perf_counter
from typing import Any

import numpy as np

import tridsl
from tridsl import stdlib
from tridsl.backends.vulkan.commands import download, upload
from tridsl.backends.vulkan.recording import VulkanRecording

ROWS, WIDTH, LAYERS = 64, 256, 5
WARM_UP = 50


def program(x: Any, *weights: Any) -> Any:
    for weight in weights:
        x = stdlib.softmax(stdlib.matmul(x, weight))
    return x


def peer(torch: Any, arrays: list[np.ndarray]) -> tuple[Any, Any]:
    """A captured graph and its result."""
    x, *weights = (torch.from_numpy(a).cuda() for a in arrays)

    def work() -> Any:
        y = x
        for weight in weights:
            y = torch.softmax(y @ weight, -1)
        return y

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((ROWS, WIDTH)).astype(np.float32)]
    arrays += [random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(LAYERS)]
    traced = tridsl.jit(program, device=options.device)
    want = traced(*arrays)
    assembled = traced.compiled(*arrays)
    (step,) = assembled.program.steps
    recording = step.executable
    assert isinstance(recording, VulkanRecording)
    device = recording.device
    held = [array for array in recording.arrays if array.offset is None]
    slots = [device.memory.allocate(array.bytes) for array in held]
    inputs = iter(arrays)
    for array, slot in zip(held, slots):
        if array.upload:
            upload(device, memoryview(next(inputs)).cast("B"), slot)
    times: dict[str, list[float]] = {"submit": [], "replay": [], "graph submit": [], "graph": []}
    try:
        import torch

        graph, theirs = peer(torch, arrays) if torch.cuda.is_available() else (None, None)
    except ImportError:
        graph = None
    for number in range(WARM_UP + options.runs):
        start = perf_counter()
        with device.lock:
            recording.begin(slots)
            submitted = perf_counter()
            recording.finish()
        done = perf_counter()
        if number >= WARM_UP:
            times["submit"].append(submitted - start)
            times["replay"].append(done - start)
        if graph is not None:
            start = perf_counter()
            graph.replay()
            submitted = perf_counter()
            torch.cuda.synchronize()
            if number >= WARM_UP:
                times["graph submit"].append(submitted - start)
                times["graph"].append(perf_counter() - start)
    found = np.empty_like(want)
    download(device, slots[[array.download for array in held].index(True)], memoryview(found).cast("B"))
    assert np.array_equal(found, want), "a replay gives another answer than a call"
    print(f"{device.physical.description}: {len(assembled.plan.launches)} launches in one submit")
    for name, taken in times.items():
        if taken:
            low, high = np.quantile(taken, (0.1, 0.9)) * 1e6
            print(f"  {name:13} {statistics.median(taken) * 1e6:8.1f} us  (p10 {low:.1f}, p90 {high:.1f})  measured")
    if graph is not None:
        wrong = float(np.abs(theirs.cpu().numpy() - want).max())
        print(f"  against the graph: {statistics.median(times['graph']) / statistics.median(times['replay']):.2f} (answers differ by {wrong:.1g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
