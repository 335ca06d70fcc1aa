"""`@tridsl.jit`: calls of ops inside a function become one program - traced, fused, placed, with planned memory.

The function runs once per shapes and element types of its arrays and values of its other arguments; after that only the
program runs. A function whose docstring is `.tri` text becomes the op of that text (for notebooks).
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Callable
from dataclasses import field
from typing import Any

from tridsl.api.arguments import as_array, wrapper_like
from tridsl.api.devices import find
from tridsl.api.engine import Services
from tridsl.api.nested import flatten, unflatten
from tridsl.api.ops import Namespace, OpObject
from tridsl.api.tracing import Joined
from tridsl.diagnostics import error
from tridsl.plan import Plan
from tridsl.program.assemble import Assembled, Memory, assemble
from tridsl.program.place import place
from tridsl.program.trace import Trace, Tracer
from tridsl.structs import dataclass, replace

_OP = re.compile(r"^[ \t]*op[ \t]+[A-Za-z_]\w*[ \t]*[\[(]", re.MULTILINE)


def jit(
    function: Callable[..., Any] | None,
    compile_text: Callable[[str], Namespace],
    services: Services,
    device: str,
    threads: int | None,
    tune: bool = False,
) -> Any:
    """`tridsl.jit` with what it needs wired in; `function` None: a decorator that is still to get it."""
    if function is None:
        return lambda later: jit(later, compile_text, services, device, threads, tune)
    text = inspect.getdoc(function) or ""
    if _OP.search(text):
        return _op_of(function, compile_text(text))
    return JitFunction(function, services, device, threads, tune)


def _op_of(function: Callable[..., Any], ops: Namespace) -> OpObject:
    names = list(ops)
    if function.__name__ in names:
        return ops[function.__name__]
    if len(names) == 1:
        return ops[names[0]]
    raise error(
        "E0534",
        f"the docstring of {function.__name__}() has the ops {', '.join(names)}, and none of that name",
        help="give the function the name of the op it stands for",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    """A traced program and the shape of what the function returns; `echoed` are arguments returned as they are."""

    compiled: Assembled
    structure: Any
    results: tuple[str, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class _Given:
    """The arguments of one call: leaves of all containers, by path (`x`, `weights.0`)."""

    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    structure: Any
    arrays: dict[str, Any] = field(default_factory=dict)


class JitFunction:
    """A traced function. Call it as the function itself; `plan(...)` shows what a call with these arguments runs."""

    def __init__(self, function: Callable[..., Any], services: Services, device: str, threads: int | None, tune: bool) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._signature = inspect.signature(function)
        self._services = services
        self._device = device
        self._threads = threads
        self._tune = tune
        self._entries: dict[Any, _Entry] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        given = self._given(args, keywords)
        if any(
            isinstance(leaf, Tracer) for leaf in given.leaves
        ):  # called inside another traced function: it becomes part of that
            return self._function(*args, **keywords)
        entry = self._entry(given)
        arrays = given.arrays
        rows = (
            leaf for name, leaf in zip(given.names, given.leaves) if name in arrays and arrays[name].layout == "row"
        )
        first = next(rows, None)
        wrap = wrapper_like(first)
        found = entry.compiled.run({name: a.array for name, a in given.arrays.items()}, self._threads)
        passed = dict(zip(given.names, given.leaves))
        return unflatten(
            entry.structure, tuple(passed[name] if name in passed else wrap(found[name]) for name in entry.results)
        )

    def plan(self, *args: Any, **keywords: Any) -> Plan:
        """What a call with these arguments runs: op -> device, fences, bytes moved, buffers. Prints."""
        return self.compiled(*args, **keywords).plan

    def compiled(self, *args: Any, **keywords: Any) -> Assembled:
        """The program of a call with these arguments, for tools that measure or show it."""
        return self._entry(self._given(args, keywords)).compiled

    def __repr__(self) -> str:
        return f"<jit {self._function.__qualname__}{self._signature}>"

    def _given(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> _Given:
        try:
            bound = self._signature.bind(*args, **keywords)
        except TypeError as problem:
            raise error(
                "E0521",
                f"{self._function.__name__}(): {problem}",
                help=f"the call is {self._function.__name__}{self._signature}",
            ) from None
        bound.apply_defaults()
        paths, leaves, structure = flatten(dict(bound.arguments))
        given = _Given(names=paths, leaves=leaves, structure=structure)
        for name, leaf in zip(paths, leaves):
            if not isinstance(leaf, (bool, int, float, str, type(None), Tracer)):
                given.arrays[name] = as_array(name, leaf)
        return given

    def _entry(self, given: _Given) -> _Entry:
        key = (
            given.structure,
            tuple(_leaf_key(given.arrays.get(n), leaf) for n, leaf in zip(given.names, given.leaves)),
        )
        entry = self._entries.get(key)
        if entry is None:
            with self._lock:
                entry = self._entries.get(key)
                if entry is None:
                    entry = self._entries[key] = self._trace(given, key)
        return entry

    def _trace(self, given: _Given, key: Any) -> _Entry:
        trace = Trace()
        symbols = []
        for name, leaf in zip(given.names, given.leaves):
            array = given.arrays.get(name)
            symbols.append(leaf if array is None else trace.argument(name, array.dtype, array.shape, array.layout))
        arguments = unflatten(given.structure, tuple(symbols))
        bound = self._signature.bind_partial()
        bound.arguments.update(arguments)
        returned = self._function(*bound.args, **bound.kwargs)
        _, results, structure = flatten(returned)
        for result in results:
            if not isinstance(result, Tracer) or result.trace is not trace:
                raise error(
                    "E0537",
                    f"{self._function.__name__}() returned {type(result).__name__}, but a traced function returns tensors that it computed",
                    help="return the results of ops, or tuples, lists and dictionaries of them",
                )
        graph = trace.graph(results)
        memory = {name: Memory(strides=a.strides, layout=a.layout) for name, a in given.arrays.items()}
        constants = {name: (a.array, Memory(strides=a.strides, layout=a.layout)) for name, a in graph.constants}
        device = find(self._device).device.name

        def assembled() -> Assembled:
            services = self._services
            return assemble(
                graph, memory, constants, services.realiser, find, device, services.placer or place,
                lambda node: Joined(node, services.tuner),
            )  # fmt: skip

        entry = _Entry(compiled=assembled(), structure=structure, results=tuple(r.value.name for r in results))
        if self._tune:

            def renew() -> None:
                self._entries[key] = replace(entry, compiled=assembled())

            for node, target in zip(entry.compiled.graph.nodes, entry.compiled.targets):
                if node.origin is not None:
                    node.origin.train(target, renew)
        return entry


def _leaf_key(array: Any, leaf: Any) -> Any:
    return (type(leaf), leaf) if array is None else (array.dtype, array.shape, array.strides, array.layout)
