"""What `tune`, `why` and `personality pin` are about: ops at sizes on devices, from the command line or from bench blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from tridsl import stdlib
from tridsl.api.devices import devices, find
from tridsl.api.engine import Services
from tridsl.autotune.packed import laid_out
from tridsl.autotune.request import Request
from tridsl.backend import Device
from tridsl.check.sizes import Number
from tridsl.cli.bench.cases import bench_blocks
from tridsl.cli.settings import Settings
from tridsl.cli.targets import Given, Target, choose, find_module, find_target, given, known_values, lifted, pairs
from tridsl.diagnostics import error
from tridsl.ir.op import Scalar
from tridsl.program.compose import with_constants
from tridsl.program.realise import default_threads
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which ops, as written: `FILE:OP` with sizes, or `FILE` or `FILE:OP` at the sizes of their bench blocks."""

    operation: str
    shape: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One op at sizes on one device. `operation` is how the user names it."""

    operation: str
    request: Request

    @property
    def title(self) -> str:
        return self.request.key.text


def subjects(question: Question, services: Services, settings: Settings) -> tuple[Subject, ...]:
    """Every op at every sizes on every device that is asked for. E0703, E0801, E0803, E0805, E0814, and what is wrong in the file."""
    chosen, layouts = chosen_devices(question.device), dict(pairs("--layout", question.layouts))
    return tuple(
        Subject(operation=operation, request=request_for(target, said, device, question.threads or settings.threads, layouts))
        for operation, target, said in _cases(question, services)
        for device in chosen
    )


def chosen_devices(name: str) -> tuple[Device, ...]:
    """`all`: every processor that is here, software devices only when named. E0703."""
    if name != "all":
        return (find(name).device,)
    return tuple(d for d in devices() if not d.spec.software)


def request_for(target: Target, said: Given, device: Device, threads: int | None, layouts: Mapping[str, str] | None = None) -> Request:
    """The op with its leading axes, `const` parameters and layouts in place, at its sizes. `threads` None: as many as a call would use.
    E0503, E0540, E0805."""
    whole = lifted(choose(target, said, {}), said, {})
    values = known_values(whole, said, {})
    missing = [name for name in whole.sizes if name not in values]
    if missing:
        raise error("E0805", f"`{whole.name}` needs the size {missing[0]}", help=f"add --shape {','.join(f'{m}=…' for m in missing)}, or a bench block")
    constants: dict[str, Number] = {}
    for parameter in whole.params:
        if isinstance(parameter, Scalar) and parameter.const:
            if parameter.name not in values:
                raise error("E0805", f"`{whole.name}` needs a value for `{parameter.name}` ({parameter.dtype})", help=f"add --set {parameter.name}=…")
            constants[parameter.name] = values[parameter.name]
    op = laid_out(with_constants(whole, constants), layouts or {})
    arguments = {p.name: values[p.name] for p in op.params if isinstance(p, Scalar) and p.name in values}
    sizes = {name: int(values[name]) for name in op.sizes}
    return Request(
        op=op, device=device, sizes=sizes, arguments=arguments, threads=threads or default_threads(math.prod(sizes.values())),
        blocks=target.module.bound.schedules.get(target.name, ()),
    )  # fmt: skip


def _cases(question: Question, services: Services) -> Iterator[tuple[str, Target, Given]]:
    if question.shape or question.values:
        target = find_target(question.operation, services)
        yield question.operation, target, given(target, question.shape, question.values)
        return
    for operation, target in _targets(question.operation, services):
        for case in bench_blocks(operation, target):
            yield operation, target, case.given


def _targets(operation: str, services: Services) -> Iterator[tuple[str, Target]]:
    """The op that is named; of a file, or of the library (`stdlib`), every op that has a bench block. E0814: none has."""
    file = operation
    if file == "stdlib":
        names = stdlib.names()
    elif Path(file).is_file():
        names = tuple(find_module(file, services).ops)
    else:
        yield operation, find_target(operation, services)
        return
    found = 0
    for name in names:
        target = find_target(f"{file}:{name}", services)
        if target.module.bound.benches.get(name):
            found += 1
            yield f"{file}:{name}", target
    if not found:
        raise error("E0814", f"no op of `{file}` has a bench block, so their sizes are not known", help=f"add one to the file: bench {next(iter(names), 'f')} {{ N = 4096 }}")
