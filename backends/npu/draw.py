"""A design as a picture (SVG text): tiles with what lies in their memory, the streams between them, and what the prediction says is slowest.

Rows stand as on the array: the edge towards the host's memory at the bottom, memory tiles above it, cores on top. A stream has the colour of the
tensor that goes through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from math import prod

from tridsl.backends.npu.cost import Prediction
from tridsl.backends.npu.design import MEMTILE, SHIM, ArrayDesign, Direction, Place, Task
from tridsl.backends.npu.readings import kind_of
from tridsl.devices.spec import ArraySpec

COLOURS = ("#1b6ca8", "#c8553d", "#2f8f4e", "#8f5db7", "#b8860b", "#008b8b", "#a0522d", "#5b6770")
"""Of the tensors, in their order (dark enough to be read on white)."""
TILE_WIDTH, TILE_HEIGHT, GAP_X, GAP_Y = 210, 104, 36, 44
LEFT, TOP = 24, 132
BAR_HEIGHT = 22
KINDS = {"core": "core", "memtile": "memory tile", "shim": "edge"}

Channel = tuple[Place, Direction, int]


def draw(design: ArrayDesign, prediction: Prediction, array: ArraySpec) -> str:
    """The whole picture. Deterministic."""
    picture = _Picture(design=design, prediction=prediction, array=array)
    picture.all()
    return picture.text()


def tensors_of_channels(design: ArrayDesign) -> dict[Channel, tuple[str, ...]]:
    """The tensors that each channel moves: what the host's transfers say, carried along streams and through shared buffers."""
    buffers = {(c.tile, c.direction, c.channel): {d.buffer for d in c.descriptors} for c in design.chains}
    linked: list[tuple[Channel, Channel]] = []
    for flow in design.flows:
        source = (flow.source.tile, flow.source.direction, flow.source.channel)
        linked += [(source, (e.tile, e.direction, e.channel)) for e in flow.targets]
    keys = list(buffers)
    linked += [(a, b) for n, a in enumerate(keys) for b in keys[n + 1 :] if a[0] == b[0] and buffers[a] & buffers[b]]
    found: dict[Channel, set[str]] = {}
    for task in design.sequence:
        if isinstance(task, Task):
            found.setdefault((task.tile, task.direction, task.channel), set()).add(task.tensor)
    changed = True
    while changed:
        changed = False
        for a, b in linked:
            both = found.get(a, set()) | found.get(b, set())
            for key in (a, b):
                if both != found.get(key, set()):
                    found[key] = set(both)
                    changed = True
    order = [t.name for t in design.tensors]
    return {key: tuple(sorted(names, key=order.index)) for key, names in found.items()}


@dataclass(slots=True, kw_only=True)
class _Picture:
    design: ArrayDesign
    prediction: Prediction
    array: ArraySpec
    parts: list[str] = field(default_factory=list)
    width: int = 0
    height: int = 0
    colours: Mapping[str, str] = field(default_factory=dict)

    def all(self) -> None:
        tiles = self.design.tiles()
        columns = max(tile[0] for tile in tiles) + 1
        rows = max(tile[1] for tile in tiles) + 1
        self.width = max(LEFT + columns * (TILE_WIDTH + GAP_X), 760)
        self.colours = {t.name: COLOURS[n % len(COLOURS)] for n, t in enumerate(self.design.tensors)}
        self.heading()
        self.streams(rows)
        for tile in tiles:
            self.tile(tile, rows)
        self.height = TOP + rows * (TILE_HEIGHT + GAP_Y) + 20 * (len(self.design.tensors) + 1)
        self.legend(TOP + rows * (TILE_HEIGHT + GAP_Y))

    def text(self) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}" font-family="sans-serif" font-size="12">'
        return "\n".join([head, f'<rect width="{self.width}" height="{self.height}" fill="white"/>', *self.parts, "</svg>"]) + "\n"

    # Pieces.

    def words(self, x: float, y: float, text: str, *, size: int = 12, fill: str = "#222", anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, fill: str, name: str, title: str = "", stroke: str = "#555") -> None:
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{max(width, 0.5):g}" height="{height:g}" fill="{fill}" stroke="{stroke}" stroke-width="0.6">{inside}</rect>'
        )

    def heading(self) -> None:
        design, prediction = self.design, self.prediction
        self.words(LEFT, 26, f"{design.name} on {design.generation}: {len(design.cores)} cores in {design.columns} columns", size=17)
        dispatch = f"{prediction.dispatch * 1e6:.0f} us of dispatch"
        self.words(LEFT, 46, f"predicted {prediction.seconds * 1e6:.1f} us with {dispatch}; bound by {prediction.bottleneck}")
        parts = {"memory": prediction.memory, "streams": prediction.streams, "cores": prediction.cores}
        longest = max(parts.values()) or 1.0
        for n, (name, seconds) in enumerate(parts.items()):
            y = 58 + 20 * n
            bound = name == prediction.bottleneck
            self.words(LEFT, y + 11, name)
            self.box(LEFT + 60, y, 300 * seconds / longest, 14, "#c8553d" if bound else "#b9c4cc", "time bottleneck" if bound else "time", f"{seconds * 1e6:.2f} us")
            self.words(LEFT + 66 + 300 * seconds / longest, y + 11, f"{seconds * 1e6:.1f} us" + (" (bottleneck)" if bound else ""))

    def corner(self, tile: Place, rows: int) -> tuple[int, int]:
        return LEFT + tile[0] * (TILE_WIDTH + GAP_X), TOP + (rows - 1 - tile[1]) * (TILE_HEIGHT + GAP_Y)

    def tile(self, tile: Place, rows: int) -> None:
        x, y = self.corner(tile, rows)
        kind = kind_of(tile)
        self.box(x, y, TILE_WIDTH, TILE_HEIGHT, "#f7f8fa", f"tile {kind}")
        self.words(x + 8, y + 17, f"{KINDS[kind]} {tile[0]}, {tile[1]}", size=13)
        used = {direction: len({c for c in self.channels(tile) if c[1] == direction}) for direction in ("in", "out")}
        chains = sum(len(c.descriptors) for c in self.design.chains if c.tile == tile)
        if kind == "shim":
            self.transfers(x, y, tile)
            return
        limit = getattr(self.array, f"{kind}_memory_bytes")
        self.memory(x + 8, y + 28, tile, limit)
        locks = sum(lock.tile == tile for lock in self.design.locks)
        most = {d: getattr(self.array, f"{kind}_{d}_channels") for d in ("in", "out")}
        self.words(x + 8, y + 84, f"channels {used['in']} of {most['in']} in, {used['out']} of {most['out']} out", size=10, fill="#555")
        counts = f"{chains} of {getattr(self.array, f'{kind}_descriptors')} descriptors, {locks} of {getattr(self.array, f'{kind}_locks')} locks"
        self.words(x + 8, y + 97, counts, size=10, fill="#555")

    def memory(self, x: float, y: float, tile: Place, limit: int) -> None:
        """A bar as long as the tile's memory: the stack, then the buffers where they lie."""
        whole = TILE_WIDTH - 16
        self.box(x, y, whole, BAR_HEIGHT, "white", "memory")
        stack = next((core.stack_bytes for core in self.design.cores if core.tile == tile), 0)
        if stack:
            self.box(x, y, whole * stack / limit, BAR_HEIGHT, "#9aa5ad", "stack", f"stack, {stack} bytes")
        names = self.buffers(tile)
        end = stack
        for b in (b for b in self.design.buffers if b.tile == tile):
            tensor = names.get(b.name, "")
            title = f"{b.name}: {b.dtype}{list(b.shape)} at {b.address}, {b.bytes} bytes"
            self.box(x + whole * b.address / limit, y, whole * b.bytes / limit, BAR_HEIGHT, self.colours.get(tensor, "#d9dde0"), "buffer", title)
            end = max(end, b.address + b.bytes)
        self.words(x, y + BAR_HEIGHT + 15, f"{end / 1024:.1f} of {limit / 1024:.0f} KiB", size=11)

    def transfers(self, x: float, y: float, tile: Place) -> None:
        """What goes through the edge, channel by channel."""
        sizes = {t.name: t.element_bytes for t in self.design.tensors}
        moved: dict[tuple[Direction, int], tuple[int, int, set[str]]] = {}
        for task in self.design.sequence:
            if isinstance(task, Task) and task.tile == tile:
                count, total, names = moved.get((task.direction, task.channel), (0, 0, set()))
                amount = prod(d.size for d in task.dimensions) * task.repeats * sizes[task.tensor]
                moved[task.direction, task.channel] = (count + 1, total + amount, names | {task.tensor})
        for n, ((direction, channel), (count, total, tensors)) in enumerate(sorted(moved.items())):
            towards = "from" if direction == "out" else "to"
            text = f"{towards} memory, channel {channel}: {total / 1024:.1f} KiB of {', '.join(sorted(tensors))} in {count} transfer{'s' if count > 1 else ''}"
            self.words(x + 8, y + 36 + 16 * n, text, size=10, fill=self.colours[min(tensors)])

    def streams(self, rows: int) -> None:
        moved = tensors_of_channels(self.design)
        ways: dict[tuple[Place, Place], int] = {}
        for flow in self.design.flows:
            source = (flow.source.tile, flow.source.direction, flow.source.channel)
            tensors = moved.get(source, ())
            colour = self.colours.get(tensors[0], "#999") if tensors else "#999"
            for target in flow.targets:
                here = ways.setdefault((flow.source.tile, target.tile), 0)
                ways[flow.source.tile, target.tile] += 1
                self.stream(flow.source.tile, target.tile, rows, here, colour, f"{', '.join(tensors)}: {flow.source.tile} to {target.tile}")

    def stream(self, source: Place, target: Place, rows: int, number: int, colour: str, title: str) -> None:
        """A line from tile to tile, beside those that were drawn between the two."""
        (x0, y0), (x1, y1) = self.corner(source, rows), self.corner(target, rows)
        up = y1 < y0
        shift = 24 + 14 * number + (9 * source[1] if up else TILE_WIDTH / 2 + 9 * source[1])
        start, end = (y0, y1 + TILE_HEIGHT) if up else (y0 + TILE_HEIGHT, y1)
        a, b = min(x0 + shift, x0 + TILE_WIDTH - 8), min(x1 + shift, x1 + TILE_WIDTH - 8)
        middle = (start + end) / 2
        path = f"M {a:g} {start:g} C {a:g} {middle:g} {b:g} {middle:g} {b:g} {end:g}"
        self.parts.append(f'<path class="flow" d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" opacity="0.75"><title>{escape(title)}</title></path>')

    def legend(self, y: int) -> None:
        for n, t in enumerate(self.design.tensors):
            self.box(LEFT, y + 20 * n, 14, 14, self.colours[t.name], "legend")
            self.words(LEFT + 22, y + 12 + 20 * n, f"{t.role} {t.name}: {t.dtype}{list(t.given)}")

    # Questions.

    def channels(self, tile: Place) -> Iterator[tuple[Place, Direction, int]]:
        yield from ((e.tile, e.direction, e.channel) for f in self.design.flows for e in (f.source, *f.targets) if e.tile == tile)

    def buffers(self, tile: Place) -> dict[str, str]:
        """The tensor whose parts each buffer of a tile holds."""
        moved = tensors_of_channels(self.design)
        found: dict[str, str] = {}
        for chain in (c for c in self.design.chains if c.tile == tile):
            tensors = moved.get((chain.tile, chain.direction, chain.channel), ())
            for d in chain.descriptors:
                named = next((t for t in tensors if d.buffer.startswith(t)), tensors[0] if tensors else "")
                found[d.buffer] = named
        return found


assert SHIM < MEMTILE  # rows are drawn from the bottom
