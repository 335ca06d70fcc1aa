"""`tridsl run`: call an op from the shell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.check.sizes import solve
from tridsl.cli.files import read_array, write_array
from tridsl.cli.images import image_parameter, read_image, write_image
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.cli.stages import check_stages
from tridsl.cli.targets import (
    Given,
    choose,
    complete,
    find_target,
    given,
    lifted,
    pairs,
    scalar_values,
    services_for,
    with_all_axes,
)
from tridsl.diagnostics import error
from tridsl.ir.op import Op
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of the command, as written."""

    operation: str
    device: str = "auto"
    shape: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    image: Path | None = None
    output: tuple[str, ...] = ()
    threads: int | None = None
    seed: int = 0
    check_stages: bool = False


def run(options: Options, settings: Settings) -> Report:
    """Run the op and describe or write its results. E0801-E0808, E0815, and what a call raises."""
    services = services_for(settings)
    target = find_target(options.operation, services)
    said = given(target, options.shape, options.values)
    arrays: dict[str, NDArray[Any]] = {n: read_array(Path(f)) for n, f in pairs("--input", options.inputs, commas=False).items()}
    if options.image is not None:
        parameter, mode = image_parameter(choose(target, said, arrays))
        arrays[parameter.name] = read_image(options.image, mode)
    op = choose(target, said, arrays)
    places = _places(op, options.output)
    arguments = complete(op, said, arrays, options.seed)
    threads = options.threads or settings.threads or len(os.sched_getaffinity(0))
    if options.check_stages:
        return _checked(options, target, op, said, arguments, threads)
    types = {name: str(dtype) for name, dtype in op.types}
    call: Any = target.op_object(services)
    returned = call(**arguments, **types, device=options.device, threads=threads)
    results = returned if isinstance(returned, tuple) else (returned,)
    named = dict(zip((t.name for t in op.outputs), results)) | {t.name: arguments[t.name] for t in op.tensors if t.role == "inout"}
    for name, place in places.items():
        write = write_array if place.suffix == ".npy" else write_image
        write(place, named[name])
    data = {name: _data(array) | ({"file": str(places[name])} if name in places else {}) for name, array in named.items()}
    return Report(data={"operation": options.operation, "device": options.device, "results": data}, text=tuple(map(_line, data, data.values())))


def _places(op: Op, output: tuple[str, ...]) -> dict[str, Path]:
    """Result to file, from `-o FILE` or `-o y=FILE`. E0804."""
    names = [t.name for t in op.tensors if t.role != "input"]
    places: dict[str, Path] = {}
    for text in output:
        name, equals, file = text.partition("=")
        if not equals:
            if len(names) != 1:
                raise error("E0804", f"-o {text}: `{op.name}` has the results {', '.join(names)}", help=f"write -o {names[0]}={text}")
            name, file = names[0], text
        if name not in names:
            raise error("E0804", f"-o {text}: `{op.name}` has no result `{name}`", help=f"its results: {', '.join(names)}")
        places[name] = Path(file)
    return places


def _checked(options: Options, target: Any, op: Op, said: Given, arguments: Mapping[str, Any], threads: int) -> Report:
    tensors = {t.name: arguments[t.name].shape for t in op.tensors if t.role != "output"}
    whole = lifted(op, replace(said, shapes={**said.shapes, **tensors}), {})
    numbers = scalar_values(op, arguments)
    passed = with_all_axes(op, whole, arguments)
    sizes = solve(whole, {n: passed[n].shape for n in tensors}, numbers)
    return check_stages(target, whole, replace(said, scalars=numbers), passed, sizes, "cpu" if options.device == "auto" else options.device, threads)


def _data(array: NDArray[Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size:
        numbers = array.astype(np.float64)
        data |= {"min": float(numbers.min()), "max": float(numbers.max()), "mean": float(numbers.mean())}
        data["first"] = [value.item() if value.dtype.kind in "biuf" else float(value) for value in array.reshape(-1)[:4]]
    return data


def _line(name: str, data: Mapping[str, Any]) -> str:
    text = f"{name}: {data['dtype']}[{', '.join(map(str, data['shape']))}]"
    if "min" in data:
        text += f"  min {data['min']:.6g}, max {data['max']:.6g}, mean {data['mean']:.6g}"
    return text + (f" -> {data['file']}" if "file" in data else "")
