"""`tridsl lower`: an op at any stage, for any device or chip, with or without sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tridsl import pipeline
from tridsl.api.devices import find
from tridsl.backend import Backend, Binary, Code, Drawable, backend_names, load_backend
from tridsl.check.sizes import Number
from tridsl.cli.files import read_bytes, write_bytes
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.cli.targets import Given, choose, find_source, find_target, given, known_values, lifted, pairs, services_for
from tridsl.devices.spec import DeviceSpec, chip_names, load_chip
from tridsl.diagnostics import error
from tridsl.ir.expr import Node
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Scalar
from tridsl.ir.printer import print_kernel, print_op
from tridsl.ir.serial import from_json, to_json
from tridsl.passes.specialise import Specialisation
from tridsl.program.compose import with_constants
from tridsl.schedule.text import text_schedule
from tridsl.structs import dataclass, replace
from tridsl.syntax.format import format as format_module
from tridsl.syntax.nodes import Module
from tridsl.syntax.parse import parse

FRONT = ("parse", "check")
"""Stages before the list of `pipeline`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of the command, as written."""

    operation: str
    device: str = "cpu"
    until: str = "emit"
    chip: str | None = None
    shape: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    dump: Path | None = None
    override: tuple[str, ...] = ()
    timings: bool = False
    svg: Path | None = None


@dataclass(slots=True, kw_only=True)
class Stages:
    """What every stage gave, in order: (name, value, seconds)."""

    seen: list[tuple[str, Any, float]]

    def __call__(self, name: str, value: Any, seconds: float) -> None:
        self.seen.append((name, value, seconds))


def lower(options: Options, settings: Settings) -> Report:
    """The text of stage `until`. E0801-E0806, E0809, E0813, E0821, and what the stages raise."""
    if options.chip == "list":
        return Report(data={"chips": chip_names()}, text=("\n".join(chip_names()),))
    spec, backend = find_device(options.device, options.chip)
    names = [*FRONT, *(name for name, _ in pipeline.stages(backend))]
    if options.until == "list":
        return Report(data={"stages": names}, text=("\n".join(names),))
    if options.until not in names:
        raise error("E0802", f"there is no stage `{options.until}`", help=f"the stages are: {', '.join(names)}")
    stages = Stages(seen=[])
    target = find_target(options.operation, services_for(settings)) if options.until != "parse" else None
    if target is None:  # what does not pass `check` can still be printed
        file = options.operation.rpartition(":")[0] or options.operation
        source = find_target(options.operation, services_for(settings)).module.source if file == "stdlib" else find_source(file)[0]
        stages("parse", parse(source), 0.0)
    else:
        stages("parse", target.module.bound.module, 0.0)
        said = given(target, options.shape, options.values)
        op = lifted(choose(target, said, {}), said, {})
        stages("check", op, 0.0)
        if options.until != "check":
            blocks = target.module.bound.schedules.get(target.name, ())
            op, build = prepared(op, said, spec, backend)
            build = replace(build, schedule=text_schedule(blocks, op, spec, dict(build.facts.sizes)))
            overrides = {name: _override(name, Path(file)) for name, file in pairs("--override", options.override, commas=False).items()}
            pipeline.lower(op, build, until=options.until, on_stage=stages, overrides=overrides)
    return _report(options, stages)


def find_device(device: str, chip: str | None) -> tuple[DeviceSpec, Backend]:
    """A device that is here, or the facts of a chip file with the first backend for its kind. E0703, E0813."""
    if chip is None:
        target = find(device)
        return target.device.spec, target.backend
    if chip not in chip_names():
        raise error("E0813", f"there is no chip file `{chip}`", help=f"chips: {', '.join(chip_names())}")
    spec = load_chip(chip)
    kind = spec.kind if device == "auto" else device.partition(":")[0]
    for backend in map(load_backend, backend_names()):
        if backend.kind == kind == spec.kind:
            return spec, backend
    raise error("E0813", f"chip `{chip}` is a {spec.kind}, which `--device {device}` is not", help=f"write --device {spec.kind} --chip {chip}")


def prepared(op: Op, said: Given, spec: DeviceSpec, backend: Backend) -> tuple[Op, pipeline.Build]:
    """The op with its `const` parameters in place, and the side inputs of a compilation with the sizes that are known."""
    values = known_values(op, said, {})
    constants: dict[str, Number] = {p.name: values[p.name] for p in op.params if isinstance(p, Scalar) and p.const and p.name in values}
    sizes = tuple((name, int(values[name])) for name in op.sizes if name in values)
    return with_constants(op, constants), pipeline.Build(spec=spec, backend=backend, facts=Specialisation(sizes=sizes))


def text_of(value: Any) -> str:
    """The text of a stage's value."""
    if isinstance(value, Code):
        return value.text
    if isinstance(value, Binary):
        return f"{value.backend} binary `{value.entry}`, {len(value.blob)} bytes"
    if isinstance(value, Op):
        return print_op(value)
    if isinstance(value, Module):
        return format_module(value)
    return print_kernel(value) if isinstance(value, Kernel) else str(value)


def _override(stage: str, file: Path) -> Callable[[Any], Any]:
    """What replaces a stage's value by a file: text of `emit`, bytes of `build`, the JSON that `--dump` writes of a kernel. E0809."""

    def replaced(value: Any) -> Any:
        content = read_bytes(file)
        try:
            if isinstance(value, Code):
                return replace(value, text=content.decode())
            if isinstance(value, Binary):
                return replace(value, blob=content)
            return from_json(content, Kernel)
        except (ValueError, TypeError) as problem:
            raise error(
                "E0809", f"`{file}` cannot stand for stage `{stage}`: {problem}",
                help="emit takes text, build an object file, every other stage the .json that `tridsl lower --dump DIR` writes beside its text",
            ) from None  # fmt: skip

    return replaced


def _report(options: Options, stages: Stages) -> Report:
    name, value, _ = stages.seen[-1]
    if options.dump is not None:
        _dump(options.dump, options.operation.rpartition(":")[2].rpartition("/")[2], stages)
    if options.svg is not None:
        write_bytes(options.svg, _picture(name, value).encode())
    timings = [{"stage": n, "seconds": round(s, 6), "label": "measured"} for n, _, s in stages.seen[len(FRONT) :]]
    text = text_of(value).rstrip("\n")
    lines = [text] if not options.timings else [text, "", *(f"{t['stage']:16} {float(str(t['seconds'])) * 1e3:9.3f} ms  measured" for t in timings)]
    data: dict[str, Any] = {"operation": options.operation, "stage": name, "text": text}
    return Report(data=data | ({"timings": timings} if options.timings else {}), text=tuple(lines))


def _picture(stage: str, value: Any) -> str:
    if isinstance(value, Drawable):
        return value.svg()
    raise error("E0821", f"stage `{stage}` gives nothing that can be drawn", help="write --device npu:sim --until array, with every size")


def _dump(folder: Path, op: str, stages: Stages) -> None:
    """`03_matmul.boundaries` is the text of stage `boundaries`, the fourth; kernels also as `.json`, a binary as its bytes."""
    for number, (stage, value, _) in enumerate(stages.seen):
        path = folder / f"{number:02}_{op}.{stage}"
        write_bytes(path, value.blob if isinstance(value, Binary) else (text_of(value).rstrip("\n") + "\n").encode())
        if isinstance(value, (Kernel, Op)) and isinstance(value, Node):
            write_bytes(path.with_name(path.name + ".json"), to_json(value))
