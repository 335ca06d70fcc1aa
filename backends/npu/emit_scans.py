"""Running combinations in vectors: lanes combine with those in front of them, in steps that double, then with what ran before."""

from __future__ import annotations

from dataclasses import replace

from tridsl.backends.npu.emit_functions import element
from tridsl.backends.npu.emit_places import Frame, Lanes, cannot
from tridsl.backends.npu.emit_statements import mask_of
from tridsl.backends.npu.emit_values import merged, value
from tridsl.ir.loop import Accumulate, Block, Store


def running(frame: Frame, body: Block, lanes: Lanes) -> list[tuple[Store, dict[str, str]]]:
    """Text for one vector of `run += x[i]; y[i] = run`. Gives the stores with what stands for the running values in each: those behind the
    accumulation see each lane's own, those in front of it the lane's before."""
    step = next(s for s in body if isinstance(s, Accumulate))
    reducer = step.reducer
    places = [frame.places[t.tensor] for t in step.targets]
    if any(p.kind != "number" for p in places):
        raise cannot("running values that are not single numbers", step)
    still = Lanes(active=frame.lanes)
    nothing = [value(frame, i, still) for i in reducer.identity]
    values = [value(frame, v, lanes) for v in step.values]
    if lanes.active < frame.lanes:
        values = [f"aie::select({n}, {v}, {mask_of(frame, lanes.active)})" for n, v in zip(nothing, values)]
    distance = 1
    while distance < frame.lanes:
        number = len(frame.lines)
        names = [f"lanes_{number}_{n}" for n in range(len(values))]
        for name, text in zip(names, values):
            frame.line(f"const auto {name} = {text};")
        shifted = [f"aie::shuffle_up_fill({name}, {n}, {distance})" for name, n in zip(names, nothing)]
        values = list(merged(frame, reducer, shifted, names))
        distance *= 2
    values = list(merged(frame, reducer, [p.name for p in places], values))
    number = len(frame.lines)
    earlier = [f"before_{number}_{n}" for n in range(len(values))]
    for name, place, text in zip(earlier, places, values):
        frame.line(f"const auto {name} = aie::shuffle_up_fill({text}, {place.name}, 1);")
    for place, text in zip(places, values):
        frame.line(f"{place.name} = aie::broadcast<{element(place.dtype)}, {frame.lanes}>({text}.get({lanes.active - 1}));")
    found: list[tuple[Store, dict[str, str]]] = []
    seen = False
    for statement in body:
        seen = seen or statement is step
        if isinstance(statement, Store):
            found.append((statement, {p.name: text for p, text in zip(places, values if seen else earlier)}))
    return found


def standing_for(frame: Frame, texts: dict[str, str]) -> Frame:
    """The frame in which the running values are called otherwise. It writes into the same lines."""
    places = {name: replace(p, name=texts.get(p.name, p.name)) if p.kind == "number" else p for name, p in frame.places.items()}
    return replace(frame, places=places)
