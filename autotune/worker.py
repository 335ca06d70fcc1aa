"""The child's side of measuring: compiles, loads and runs one candidate in a process that may crash, hang or be killed.

It is told what to do over a pipe, and works on arrays that all candidates of a session share, so that each runs on the same
memory. Only the parent decides what an answer means. Answers are JSON of the types below: a candidate that ran wild may have sent
anything, and what it sends must not be executed (`pickle`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tridsl.backend import Device, Executable, Timed, load_backend
from tridsl.diagnostics import TriError
from tridsl.dtypes import INDEX, NUMPY_TYPES, DType
from tridsl.ir.op import Op, Role, Scalar
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build
from tridsl.schedule.steps import Schedule
from tridsl.structs import dataclass

Number = bool | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An array in shared memory: `offset` in bytes, shape, and element type. Inputs lie in memory that candidates cannot write, and
    so do the contents (`fresh`) that an `inout` parameter gets before each run; everything else lies in memory that they can."""

    offset: int
    shape: tuple[int, ...]
    dtype: DType
    role: Role = "output"
    fresh: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A candidate and everything its process needs. `limit`: bytes of address space beyond what the process has when it begins.
    `copies`: of all arrays, each `sizes_in_bytes` (inputs, results) long."""

    op: Op
    device: Device
    schedule: Schedule | None
    facts: Specialisation
    sizes: Mapping[str, int]
    scalars: Mapping[str, Number]
    places: Mapping[str, Place]
    limit: int
    copies: int
    sizes_in_bytes: tuple[int, int]
    threads: int


class Prepared(NamedTuple):
    """What `prepare` gives: something to run, with the names of its slots in order, and a hash of its code."""

    executable: Executable
    slots: tuple[str, ...]
    code: str


MOST_RUNS, LEAST_RUNS = 2000, 3

Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class Ready(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    compile_seconds: Seconds
    code: Annotated[str, msgspec.Meta(max_length=400)]


class Failed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    outcome: Literal["compile_error", "crash", "wrong_result"]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Times(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Of each run, in seconds, in order."""

    seconds: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1, max_length=MOST_RUNS + LEAST_RUNS)]


Answer: TypeAlias = Ready | Failed | Times
_ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Ready | Failed | Times)


class Turn(NamedTuple):
    """Run again and again for about `seconds` (0: once), after a run or two that are not counted, on copy number `copy` of the arrays."""

    seconds: float
    copy: int = 0


Prepare = Callable[[Job], Prepared]


def prepare(job: Job) -> Prepared:
    """Compile and load. Raises TriError for a schedule that is not legal."""
    backend = load_backend(job.device.backend)
    binary = build(job.op, Build(spec=job.device.spec, backend=backend, schedule=job.schedule, facts=job.facts))
    executable = backend.driver().load(binary, job.device)
    slots = (*(p.name for p in binary.signature.params), *binary.signature.sizes)
    return Prepared(executable=executable, slots=slots, code=hashlib.blake2b(binary.blob, digest_size=16).hexdigest())


def main(pipe: Connection, memory: Sequence[int]) -> None:
    """Entry of the process: the first message says what to make and how. `memory`: handles of the shared memory, inputs and results."""
    job, make = pipe.recv()
    serve(job, pipe, make, memory)


def serve(job: Job, pipe: Connection, make: Prepare, memory: Sequence[int]) -> None:
    """Compile, say so, and take turns until the pipe is closed."""
    try:
        _limit(job.limit)
        start = time.perf_counter()
        copies = _copies(job, memory)
        prepared = make(job)
        _send(pipe, Ready(time.perf_counter() - start, prepared.code))
    except Exception as problem:  # noqa: BLE001 (whatever it is, the parent must hear of it)
        _send(pipe, _failed(problem, "compile_error"))
        return
    values = [{**arrays, **job.scalars, **job.sizes} for arrays, _ in copies]
    slots = [[given[name] for name in prepared.slots] for given in values]
    while True:
        try:
            turn: Turn | None = pipe.recv()
        except EOFError:
            return
        if turn is None:
            return
        try:
            times = Times(_run(prepared.executable, slots[turn.copy], copies[turn.copy][1], job.threads, turn.seconds))
        except Exception as problem:  # noqa: BLE001 (a kernel may raise anything, the parent must hear of it)
            _send(pipe, _failed(problem, "crash"))
            return
        if _has_children():  # they would run beside everything that is measured from now on
            _send(pipe, Failed("crash", "it started a process of its own"))
            return
        _send(pipe, times)


def read_answer(message: bytes) -> Answer:
    """Raises ValueError for what is none."""
    try:
        return _ANSWER.decode(message)
    except (ValueError, RecursionError):
        raise ValueError("no answer") from None


def _send(pipe: Connection, answer: Answer) -> None:
    pipe.send_bytes(msgspec.json.encode(answer))


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _run(executable: Executable, slots: list[Any], fresh: list[tuple[NDArray[Any], NDArray[Any]]], threads: int, seconds: float) -> tuple[float, ...]:
    def once() -> float:
        for array, contents in fresh:
            np.copyto(array, contents)
        start = time.perf_counter()
        executable(slots, threads)
        return time.perf_counter() - start

    if seconds and not fresh and isinstance(executable, Timed):
        return executable.timed(slots, threads, seconds, MOST_RUNS)
    first = once()
    if not seconds:
        return (first,)
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < LEAST_RUNS or (time.perf_counter() < end and len(found) < MOST_RUNS):
        found.append(once())
    return tuple(found)


def _limit(more: int) -> None:
    """No more address space than `more` bytes beyond what is there: a candidate that eats memory fails, not the machine."""
    with open("/proc/self/statm") as stream:
        now = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as stream:
        stream.write("1000")  # should the machine run out of memory, a candidate is ended and not who tunes


def _copies(job: Job, memory: Sequence[int]) -> list[tuple[dict[str, NDArray[Any]], list[tuple[NDArray[Any], NDArray[Any]]]]]:
    """Of each copy: the arrays by name, and those that get fresh contents before a run, with them."""
    inputs, results = (mmap.mmap(h, 0, access=a) for h, a in zip(memory, (mmap.ACCESS_READ, mmap.ACCESS_WRITE)))
    found = []
    for copy in range(job.copies):
        inside, outside = (copy * size for size in job.sizes_in_bytes)
        arrays = {n: view(inputs, p, base=inside) if p.role == "input" else view(results, p, base=outside) for n, p in job.places.items()}
        found.append((arrays, [(arrays[n], view(inputs, p, p.fresh, base=inside)) for n, p in job.places.items() if p.fresh is not None]))
    return found


def view(memory: mmap.mmap, place: Place, offset: int | None = None, *, base: int = 0) -> NDArray[Any]:
    """The array at a place (or of that shape at `offset`) of the copy that begins at `base`."""
    count = int(np.prod(place.shape, dtype=np.int64))
    flat = np.frombuffer(memory, NUMPY_TYPES[place.dtype], count, base + (place.offset if offset is None else offset))
    return flat.reshape(place.shape)


def parameters(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[tuple[int, ...], DType, Role]]:
    """Shape, element type and role of every array that a kernel of `op` takes, run-time lengths too."""
    found: dict[str, tuple[tuple[int, ...], DType, Role]] = {}
    for param in op.params:
        if isinstance(param, Scalar):
            continue
        found[param.name] = (shapes[param.name], param.dtype, param.role)
        if param.length and param.role != "input":
            found[param.length] = ((), INDEX, "output")
    return found


def _failed(problem: BaseException, outcome: Literal["compile_error", "crash"]) -> Failed:
    if isinstance(problem, IndexError) and outcome == "crash":
        return Failed("wrong_result", f"a check failed: {str(problem).splitlines()[0]}")
    if isinstance(problem, TriError):
        first = problem.diagnostics[0]
        return Failed("compile_error", f"{first.code}: {first.message}"[:1000])
    if isinstance(problem, MemoryError):
        return Failed("crash", "out of memory (above the limit of its process)")
    return Failed(outcome, f"{type(problem).__name__}: {problem}"[:400])
