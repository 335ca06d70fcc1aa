"""`tridsl demo`: kernels on every device here, the edges of a photograph, a ternary feed-forward network, a
short search for a better schedule. Under a minute."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tridsl.api.engine import Services
from tridsl.autotune.answers import compare
from tridsl.autotune.tune import tune
from tridsl.backend import Device
from tridsl.buffer import pack
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.contest import agreement, our_call, plain, prepare, reference
from tridsl.cli.bench.sampling import SAMPLES, Reading, interleave, once
from tridsl.cli.bench.table import seconds
from tridsl.cli.devices import find
from tridsl.cli.images import read_image, write_image
from tridsl.cli.output import OK, OUR_BUG, Report
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, subjects
from tridsl.cli.targets import find_target, services_for
from tridsl.diagnostics import TriError, error
from tridsl.ir.evaluate import evaluate_op, infer_sizes
from tridsl.personality.belief import percent
from tridsl.personality.store import Store
from tridsl.structs import dataclass

THRESHOLD = 40
"""Of the Laplacian, of 1020: what the eye calls an edge in a photograph."""

KERNELS = (
    Case(operation="stdlib:matmul", sizes={"M": 256, "K": 256, "N": 256}),
    Case(operation="stdlib:softmax", shapes={"x": (512, 1024)}),
    Case(operation="stdlib:layernorm", shapes={"x": (512, 1024)}),
    Case(operation="stdlib:attention", sizes={"H": 4, "G": 4, "S": 128, "L": 128, "D": 64, "E": 64}, scalars={"scale": 0.125, "causal": True}),
    Case(operation="stdlib:above", sizes={"N": 1_000_000}, scalars={"t": 0.5}),
    Case(operation="stdlib:cumsum", sizes={"N": 100_000}),
)
TUNED = "stdlib:rmsnorm x=256x256"
TUNING_SECONDS = 4.0
KERNEL_SECONDS, FEWEST_SAMPLES = 2.0, 5
"""For the samples of one kernel, and how few are enough for a median with its spread: what a software GPU takes long for is sampled less often."""
FFN = {"tokens": 8, "width": 640, "hidden": 1728}
"""A quarter of BitNet b1.58 2B's feed-forward network in each direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `answer`: whether it is right, or why there is none; `measured`: it has a figure, which is measured."""

    what: str
    case: str
    device: str
    right: bool
    answer: str
    reading: Reading | None = None
    measured: bool = False

    def data(self) -> dict[str, Any]:
        basics = {"what": self.what, "case": self.case, "device": self.device, "right": self.right, "answer": self.answer}
        return basics | ({"label": "measured"} if self.measured else {}) | (self.reading.data() if self.reading else {})


def demo(folder: Path, image: Path | None, settings: Settings) -> Report:
    """Rows of every device, and pictures in `folder`. Status 70 when an answer is wrong."""
    services = services_for(settings)
    threads = settings.threads or len(os.sched_getaffinity(0))
    present, absent = find()
    picture = read_image(image or photograph(), "RGBA")
    rows: list[Row] = []
    written: list[str] = []
    for device in present:
        for case in KERNELS:
            rows.append(_guarded(case.operation, case.title, device, lambda case=case, device=device: _kernel(case, device, services, threads)))  # type: ignore[misc]
        for name in ("edges", "sobel_edges"):
            place = folder / f"{name}-{str(device).replace(':', '-')}.png"
            title = f"{picture.shape[1]}x{picture.shape[0]} photograph"
            rows.append(_guarded(f"stdlib:{name}", title, device, lambda name=name, device=device, place=place: _picture(name, picture, place, device, services, threads)))  # type: ignore[misc]
            if place.exists():
                written.append(str(place))
        rows.append(_guarded("ternary FFN", _ffn_title(), device, lambda device=device: _ffn(device, services, threads)))  # type: ignore[misc]
        rows.append(_guarded("tridsl tune", TUNED, device, lambda device=device: _tuned(device, services, settings)))  # type: ignore[misc]
    write_image(folder / "photograph.png", picture)
    wrong = [row for row in rows if not row.right]
    data = {"devices": list(map(str, present)), "absent": absent, "rows": [r.data() for r in rows], "pictures": written}
    return Report(data=data, text=_text(rows, absent, written), status=OUR_BUG if wrong else OK)


def photograph() -> Path:
    """The portrait of Grace Hopper that comes with matplotlib. E0807."""
    found = importlib.util.find_spec("matplotlib")
    place = Path(found.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg" if found is not None and found.origin else None
    if place is None or not place.is_file():
        raise error("E0807", "the demo's photograph comes with matplotlib, which is not installed", help="pip install 'tridsl[demo]', or give a picture: --image FILE")
    return place


def _guarded(what: str, case: str, device: Device, measure: Callable[[], Row]) -> Row:
    """A device that lacks something for one kernel says so in its row; the others go on."""
    print(f"{device}: {what}", file=sys.stderr)
    try:
        return measure()
    except TriError as problem:
        return Row(what=what, case=case, device=str(device), right=True, answer=f"not on this device: {problem.diagnostics[0].message}")


def _kernel(case: Case, device: Device, services: Services, threads: int) -> Row:
    ready = prepare(case, services)
    call = our_call(ready, services, str(device), threads)
    found = agreement(ready, call(), reference(ready))
    times = _timed(call) if found.right else None
    answer = found.reason or f"error {found.worst:.1g}"
    return Row(what=case.operation, case=case.title, device=str(device), right=found.right, answer=answer, reading=times)


def _timed(call: Callable[[], Any]) -> Reading:
    """Samples of a call that was made before, as many as there is time for."""
    samples = max(FEWEST_SAMPLES, min(SAMPLES, int(KERNEL_SECONDS / once(call))))
    return interleave({"": lambda number: call()}, samples)[""]


def _picture(name: str, picture: NDArray[Any], place: Path, device: Device, services: Services, threads: int) -> Row:
    """The op on the photograph, exactly equal to the interpreter's answer, and written to a file."""
    op = _op(name, services, str(device), threads)
    edge = op(picture, THRESHOLD)
    right = np.array_equal(edge, find_target(f"stdlib:{name}", services).op_object(services).reference(picture, THRESHOLD))
    write_image(place, edge)
    times = _timed(lambda: op(picture, THRESHOLD, out=edge)) if right else None
    title = f"{picture.shape[1]}x{picture.shape[0]} photograph"
    return Row(what=f"stdlib:{name}", case=title, device=str(device), right=right, answer="exact" if right else "differs", reading=times)


def _ffn(device: Device, services: Services, threads: int) -> Row:
    """down(relu2(gate(x)) * up(x)) with packed ternary weights and 8-bit activations, each op of it against the interpreter in f64 on the
    same inputs."""
    random = np.random.default_rng(0)
    tokens, width, hidden = FFN["tokens"], FFN["width"], FFN["hidden"]
    shapes = {"gate": (hidden, width), "up": (hidden, width), "down": (width, hidden)}
    weights = {n: pack(random.integers(-1, 2, shape).astype(np.int8), "t16") for n, shape in shapes.items()}
    scales = {n: np.float32(0.01) * random.random(shape[0], dtype=np.float32) for n, shape in shapes.items()}
    x = random.standard_normal((tokens, width)).astype(np.float32)
    problems: list[str] = []
    ops = {name: _op(name, services, str(device), threads) for name in ("quantise", "tgemm", "relu2_mul")}

    def layer(run: Callable[..., Any]) -> Any:
        q, sx = run("quantise", x=x)
        gate, up = (run("tgemm", W=weights[n], X=q, sw=scales[n], sx=sx) for n in ("gate", "up"))
        h, sh = run("quantise", x=run("relu2_mul", gate=gate, up=up))
        return run("tgemm", W=weights["down"], X=h, sw=scales["down"], sx=sh)

    def checked(name: str, **arguments: Any) -> Any:
        returned = ops[name](*arguments.values())
        problem = _problem(name, arguments, returned, services)
        if problem:
            problems.append(f"{name}: {problem}")
        return returned

    layer(checked)
    title = _ffn_title()
    if problems:
        return Row(what="ternary FFN", case=title, device=str(device), right=False, answer="; ".join(problems))
    times = _timed(lambda: layer(lambda name, **arguments: ops[name](*arguments.values())))
    return Row(what="ternary FFN", case=title, device=str(device), right=True, answer="every op right", reading=times)


def _problem(name: str, arguments: Mapping[str, Any], returned: Any, services: Services) -> str:
    """What is wrong with an op's results, empty when nothing is."""
    given = plain(arguments)
    ready = prepare(Case(operation=f"stdlib:{name}", shapes={n: a.shape for n, a in given.items()}), services)
    exact = evaluate_op(ready.whole, given, infer_sizes(ready.whole, given), exact=True)
    results = returned if isinstance(returned, tuple) else (returned,)
    return compare(ready.whole, {t.name: r for t, r in zip(ready.whole.outputs, results)}, exact).reason


def _tuned(device: Device, services: Services, settings: Settings) -> Row:
    """A few seconds of search; what is measured is kept, and the next start of any program uses it."""
    (subject,) = subjects(Question(operation="stdlib:rmsnorm", shape=("x=256x256",), device=str(device)), services, settings)
    found = tune(subject.request, budget_seconds=TUNING_SECONDS, store=Store(settings.personality))
    standing = next((s for s in found.ranking.standings if s.candidate == found.winner), None)
    said: str = found.state
    if standing is not None and standing.against is not None and found.winner != found.incumbent:
        said += f", {percent(standing.against.ratio)} against the default"
    return Row(what="tridsl tune", case=TUNED, device=str(device), right=True, answer=f"{said}, {found.trials} tried (measured)", measured=found.anything)


def _ffn_title() -> str:
    return f"{FFN['tokens']} tokens, {FFN['width']}-{FFN['hidden']}-{FFN['width']}"


def _op(name: str, services: Services, device: str, threads: int) -> Callable[..., Any]:
    op: Any = find_target(f"stdlib:{name}", services).op_object(services)
    return lambda *arguments, **keywords: op(*arguments, device=device, threads=threads, **keywords)


def _text(rows: list[Row], absent: list[dict[str, str]], written: list[str]) -> tuple[Any, ...]:
    table = Table("device", "op", "case", "answer", "median (p10, p90)", "", box=None, pad_edge=False)
    for row in rows:
        r = row.reading
        times = (f"{seconds(r.median)} ({seconds(r.p10)}, {seconds(r.p90)})", "measured") if r else ("", "")
        table.add_row(row.device, row.what.removeprefix("stdlib:"), row.case, row.answer if row.right else f"WRONG: {row.answer}", *times)
    notes = [f"{a['kind']}: absent: {a['reason']}" for a in absent]
    notes.append("What was tuned is kept: `tridsl personality show`, `tridsl why stdlib:rmsnorm --shape x=256x256`")
    return (table, "", *notes, "", "Pictures:", *(f"  {place}" for place in written))
