"""Stencils: what a result reads at neighbouring rows slides along with it, row by row into a ring."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Load
from tridsl.ir.op import Map
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, points, values_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Slide, Step, StoreIn
from tridsl.schedule.traffic import sources_ahead


def slid(
    graph: Graph, root: str, axis: str, near: list[str], inlined: list[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps that make each row of the stages `near` once, right before the loop over rows of a strip of `root` needs it; none where
    other stages read them too, or a row is needed at one place only."""
    direct = all(_readers(graph, n, inlined) == {root} and len(_rows(graph, n)) > 1 for n in near)
    if not direct or not decide(f"{root}.slide", True, (False,), "whether rows of the stages before it are made once each, into a ring"):
        return []
    steps: list[Step] = []
    for name in reversed(near):
        steps.append(Slide(stage=name, consumer=root, axis=f"{axis}.i"))
        steps += _widened(graph, name, spec, sizes, decide)
        steps += sources_ahead(graph, name, root, f"{axis}.i", spec, sizes, decide)
    return steps


def _readers(graph: Graph, stage: str, inlined: list[str]) -> set[str]:
    """Stages that read `stage`, themselves or through stages that are inlined into them."""
    found: set[str] = set()
    for read in graph.readers(stage):
        found |= _readers(graph, read.reader, inlined) if read.reader in inlined else {read.reader}
    return found


def _rows(graph: Graph, stage: str) -> set[int]:
    """The rows that are read, from the reader's own."""
    return {normal_form(r.load.index[0]).constant for r in graph.readers(stage)}


def _widened(graph: Graph, name: str, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Integers that every reader widens to one type are kept in that type, where the ring then still leaves half of the nearest
    cache to the rest: a value is widened once instead of at each of its reads."""
    stage = graph.stages[name]
    wide = _read_as(graph, name)
    if not isinstance(stage, Map) or wide is None or not stage.dtype.is_integer or wide.storage_bits <= stage.dtype.storage_bits:
        return []
    rows = _rows(graph, name)
    kept = 1 << (max(rows) - min(rows)).bit_length()
    width = points(stage.axes[1:], sizes)
    fits = width is not None and spec.l1_bytes is not None and 2 * kept * width * wide.storage_bytes <= spec.l1_bytes
    if not decide(f"{name}.widen", fits, (False, True), f"whether it is kept as {wide}, the type that its readers compute in"):
        return []
    return [StoreIn(stage=name, space="l1", type=wide)]


def _read_as(graph: Graph, name: str) -> DType | None:
    """The integer type that all reads of a stage are cast to."""
    nodes = [n for reader in {r.reader for r in graph.readers(name)} for v in values_of(graph.stages[reader]) for n in walk(v)]
    plain = [n for n in nodes if isinstance(n, Load) and n.tensor == name]
    cast = [n.dtype for n in nodes if isinstance(n, Cast) and isinstance(n.a, Load) and n.a.tensor == name]
    one = len(cast) == len(plain) and len(set(cast)) == 1 and cast[0].is_integer
    return cast[0] if one else None
