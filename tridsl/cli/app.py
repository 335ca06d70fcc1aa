"""The whole command line on one page: names, arguments, options, help. What a command does is in the module of its name.

Those modules are imported by the command that runs: `tridsl --help` loads neither LLVM nor the parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tridsl.cli.output import present
from tridsl.cli.settings import from_environment

app = typer.Typer(
    help="Tensor operations in .tri files, compiled just in time for the CPU and the GPU.\n\n"
    "Exit status: 0 success, 1 the input is wrong, 2 wrong usage, 3 nothing could be measured, 70 a bug of tridsl.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
cache_app = typer.Typer(help="The cache of compiled kernels.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache_app, name="cache")
personality_app = typer.Typer(help="What was measured on this machine: look at it, carry it, decide on it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(personality_app, name="personality")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Device = Annotated[str, typer.Option("--device", "-d", help="cpu, gpu, gpu:software, … (see `tridsl devices`).")]
Operation = Annotated[str, typer.Argument(metavar="FILE:OP", help="An op of a file (`kernels.tri:softmax`) or of the library (`stdlib:softmax`).")]
Shapes = Annotated[
    list[str] | None, typer.Option("--shape", metavar="M=512,x=8x512", help="Sizes by name, or a tensor's whole shape (extra leading axes are mapped).")
]
Values = Annotated[list[str] | None, typer.Option("--set", metavar="eps=1e-5,T=f16", help="Scalars and type parameters by name.")]
Layouts = Annotated[list[str] | None, typer.Option("--layout", metavar="W=t16", help="Layouts of packed matrices by name: t16, t20, t96.")]
Threads = Annotated[int | None, typer.Option(min=1, help="The most threads (default: as many as a call would use).")]
Subject = Annotated[str, typer.Argument(metavar="FILE:OP", help="An op; without sizes, at those of its bench blocks.")]


class Regime(StrEnum):
    """Where the arrays of a measurement are."""

    both = "both"
    goal = "goal"
    hot = "hot"
    cold = "cold"


def run(arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run their command; the exit status."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="tridsl")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


@app.command()
def devices(as_json: Json = False) -> None:
    """The processors that are here, and why others are not."""
    from tridsl.cli.devices import devices

    raise typer.Exit(present(lambda settings: devices(), from_environment, as_json=as_json))


@app.command()
def doctor(
    npu_report: Annotated[bool, typer.Option("--npu-report", help="A self-check of the NPU backend, to be pasted into an issue.")] = False,
    as_json: Json = False,
) -> None:
    """What is missing on this machine (drivers, libraries, limits), what it is for, how to fix it."""
    from tridsl.cli.doctor import doctor
    from tridsl.cli.npu_report import npu_report as report

    raise typer.Exit(present(report if npu_report else doctor, from_environment, as_json=as_json))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".tri files.")],
    prove_monoids: Annotated[bool, typer.Option(help="Test that monoids are associative and their identities neutral, on random values.")] = False,
    as_json: Json = False,
) -> None:
    """Report every mistake of .tri files: syntax, meaning, schedules."""
    from tridsl.cli.check import check

    raise typer.Exit(present(lambda settings: check(tuple(files), prove_monoids=prove_monoids), from_environment, as_json=as_json))


@app.command()
def fmt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".tri files, rewritten in place.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit status 1 if a file is not formatted.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change, exit status 1 if anything would.")] = False,
    as_json: Json = False,
) -> None:
    """Write .tri files in the one canonical form; comments are kept."""
    from tridsl.cli.fmt import fmt

    raise typer.Exit(present(lambda settings: fmt(tuple(files), write=not (check or diff), diff=diff), from_environment, as_json=as_json))


@app.command()
def lower(
    operation: Operation,
    device: Device = "cpu",
    until: Annotated[str, typer.Option(metavar="STAGE", help="Stage to print; `list` prints the names of all.")] = "emit",
    chip: Annotated[str | None, typer.Option(help="Facts of another chip in place of this machine's; `list` prints the names.")] = None,
    shape: Shapes = None,
    values: Values = None,
    dump: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the text of every stage into a folder.")] = None,
    override: Annotated[list[str] | None, typer.Option(metavar="emit=my.ll", help="Replace what a stage gave by the contents of a file.")] = None,
    timings: Annotated[bool, typer.Option("--timings", help="Print how long each stage took.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw what stage `array` of an NPU gave: tiles, streams, memory, the bottleneck.")] = None,
    as_json: Json = False,
) -> None:
    """Print an op at any stage of the compiler. Without shapes, sizes stay symbolic."""
    from tridsl.cli.lower import Options, lower

    options = Options(
        operation=operation, device=device, until=until, chip=chip, shape=tuple(shape or ()), values=tuple(values or ()),
        dump=dump, override=tuple(override or ()), timings=timings, svg=svg,
    )  # fmt: skip
    raise typer.Exit(present(lambda settings: lower(options, settings), from_environment, as_json=as_json))


@app.command("run")
def run_(
    operation: Operation,
    device: Device = "auto",
    shape: Shapes = None,
    values: Values = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", metavar="x=x.npy", help="An array argument from a .npy file.")] = None,
    image: Annotated[Path | None, typer.Option(help="A PNG or JPEG file as the argument of an image op.")] = None,
    output: Annotated[list[str] | None, typer.Option("--output", "-o", metavar="[y=]FILE", help="Write a result: .npy, or an image format.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="The most threads (default: OMP_NUM_THREADS, else every core).")] = None,
    seed: Annotated[int, typer.Option(help="Of the random arguments that --shape asks for.")] = 0,
    check_stages: Annotated[bool, typer.Option(help="Run the reference interpreter on every stage and name the first that differs. Small shapes.")] = False,
    as_json: Json = False,
) -> None:
    """Run an op on arrays from files, on an image, or on random arrays of given shapes."""
    from tridsl.cli.run import Options, run

    options = Options(
        operation=operation, device=device, shape=tuple(shape or ()), values=tuple(values or ()), inputs=tuple(inputs or ()), image=image,
        output=tuple(output or ()), threads=threads, seed=seed, check_stages=check_stages,
    )  # fmt: skip
    raise typer.Exit(present(lambda settings: run(options, settings), from_environment, as_json=as_json))


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="An error code, for example E0203; without it all are listed.")] = None, as_json: Json = False
) -> None:
    """What an error means, with a wrong and a corrected program."""
    from tridsl.cli.explain import explain

    raise typer.Exit(present(lambda settings: explain(code), from_environment, as_json=as_json))


@app.command()
def bench(
    operations: Annotated[list[str] | None, typer.Argument(metavar="[FILE:OP ...]", help="Ops, measured at the sizes of their bench blocks.")] = None,
    suite: Annotated[str, typer.Option(help="A list of rows, when no op is named; `list` prints their names.")] = "cpu",
    only: Annotated[list[str] | None, typer.Option(metavar="WORD", help="Rows of the suite whose name contains it; may be given again.")] = None,
    device: Annotated[str | None, typer.Option("--device", "-d", help="cpu, gpu, gpu:software, … (default: what the suite is for).")] = None,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Also measure the libraries that are installed and know the op.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads of everybody, each pinned to a core.")] = 1,
    samples: Annotated[int, typer.Option(min=30, help="Samples of each reading.")] = 30,
    regime: Annotated[Regime, typer.Option(help="Readings with the arrays in the cache, out of it, both, or the one that a row's goal is for.")] = Regime.both,
    quick: Annotated[bool, typer.Option("--quick", help="To try it: five samples of the readings that the goals are for.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 when a floor is missed.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print tables for a file of results.")] = False,
    read: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Measure nothing: show what `--json` wrote before; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Measure ops beside their peers on this machine: interleaved, correctness first, fractions of the machine's peak, goals."""
    from tridsl.cli.bench.command import bench, shown
    from tridsl.cli.bench.rows import DEVICES
    from tridsl.cli.bench.session import Options

    if read:
        raise typer.Exit(present(lambda settings: shown(tuple(read), as_markdown=as_markdown, strict=strict), from_environment, as_json=as_json))
    options = Options(
        operations=tuple(operations or ()), suite=suite, device=device or DEVICES.get(suite, "cpu"), peers=peers, threads=threads, samples=samples, only=tuple(only or ()),
        regime=regime.value, quick=quick, strict=strict, markdown=as_markdown,
    )  # fmt: skip
    raise typer.Exit(present(lambda settings: bench(options, settings), from_environment, as_json=as_json))


@app.command()
def tune(
    operation: Annotated[str, typer.Argument(metavar="FILE[:OP]", help="An op, or every op with a bench block of a file or of the library (`stdlib`).")],
    budget: Annotated[str, typer.Option(metavar="60s", help="How long to search, over all ops together: 60s, 5m, 1h.")] = "60s",
    device: Annotated[str, typer.Option("--device", "-d", help="cpu, gpu, gpu:software, … or `all` processors that are here.")] = "all",
    shape: Shapes = None,
    values: Values = None,
    layout: Layouts = None,
    threads: Annotated[int | None, typer.Option(min=1, help="The most threads (default: as many as a call would use).")] = None,
    strategy: Annotated[str, typer.Option(help="ranked, random, evolutionary, optuna.")] = "ranked",
    seed: Annotated[int, typer.Option(help="Of the search; a run with the same seed goes on where it was ended.")] = 0,
    as_json: Json = False,
) -> None:
    """Search for faster schedules of an op on this machine, check every answer, and keep what was measured. May be ended at any time."""
    from tridsl.cli.subjects import Question
    from tridsl.cli.tune import Options, run

    question = Question(operation=operation, shape=tuple(shape or ()), values=tuple(values or ()), device=device, threads=threads, layouts=tuple(layout or ()))
    options = Options(question=question, budget=budget, strategy=strategy, seed=seed)
    raise typer.Exit(present(lambda settings: run(options, settings), from_environment, as_json=as_json))


@app.command()
def why(
    operation: Subject,
    device: Annotated[str, typer.Option("--device", "-d", help="cpu, gpu, gpu:software, … or `all` processors that are here.")] = "cpu",
    shape: Shapes = None,
    values: Values = None,
    layout: Layouts = None,
    threads: Threads = None,
    limit: Annotated[int, typer.Option(min=1, help="Candidates that are listed; --json lists all.")] = 10,
    as_json: Json = False,
) -> None:
    """What is served for an op and why: the ranking, ties, what failed, and what the cost model says."""
    from tridsl.cli.subjects import Question
    from tridsl.cli.why import why

    question = Question(operation=operation, shape=tuple(shape or ()), values=tuple(values or ()), device=device, threads=threads, layouts=tuple(layout or ()))
    raise typer.Exit(present(lambda settings: why(question, settings, limit), from_environment, as_json=as_json))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("out"),
    image: Annotated[Path | None, typer.Option(help="Your own picture in place of the photograph that comes along.")] = None,
    as_json: Json = False,
) -> None:
    """Compile, check and time kernels on every device here; find the edges of a photograph; run a ternary FFN."""
    from tridsl.cli.demo import demo

    raise typer.Exit(present(lambda settings: demo(output, image, settings), from_environment, as_json=as_json))


@cache_app.command("show")
def cache_show(as_json: Json = False) -> None:
    """Where the cache is and how large."""
    from tridsl.cli.cache import show

    raise typer.Exit(present(show, from_environment, as_json=as_json))


@cache_app.command("clear")
def cache_clear(as_json: Json = False) -> None:
    """Delete every compiled kernel; they are made anew when needed."""
    from tridsl.cli.cache import clear

    raise typer.Exit(present(clear, from_environment, as_json=as_json))


@personality_app.command("show")
def personality_show(
    everything: Annotated[bool, typer.Option("--all", help="Also what says nothing about this machine.")] = False, as_json: Json = False
) -> None:
    """Every op that was measured and who won; this machine's fingerprint; where the evidence is."""
    from tridsl.cli.personality.show import show

    raise typer.Exit(present(lambda settings: show(settings, everything=everything), from_environment, as_json=as_json))


@personality_app.command("verify")
def personality_verify(as_json: Json = False) -> None:
    """Read all evidence again; exit status 1 when a part of it does not count. Lists winners that should be measured again."""
    from tridsl.cli.personality.verify import verify

    raise typer.Exit(present(verify, from_environment, as_json=as_json))


@personality_app.command("diff")
def personality_diff(
    left: Annotated[str, typer.Argument(metavar="LEFT", help="A bundle, or `.` for this machine's evidence.")],
    right: Annotated[str, typer.Argument(metavar="[RIGHT]", help="The same.")] = ".",
    as_json: Json = False,
) -> None:
    """What only one side has measured, and where the winners differ."""
    from tridsl.cli.personality.bundles import diff

    raise typer.Exit(present(lambda settings: diff(left, right, settings), from_environment, as_json=as_json))


@personality_app.command("export")
def personality_export(file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle to write.")], as_json: Json = False) -> None:
    """Write all evidence into one file, a bundle."""
    from tridsl.cli.personality.bundles import export

    raise typer.Exit(present(lambda settings: export(file, settings), from_environment, as_json=as_json))


@personality_app.command("import")
def personality_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.")],
    decisions: Annotated[bool, typer.Option("--decisions", help="Also its pins and forgotten records.")] = False,
    as_json: Json = False,
) -> None:
    """Take the evidence of a bundle: hints, until they were tried here."""
    from tridsl.cli.personality.bundles import take

    raise typer.Exit(present(lambda settings: take(file, settings, decisions=decisions), from_environment, as_json=as_json))


@personality_app.command("merge")
def personality_merge(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The bundle to write.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles.")],
    as_json: Json = False,
) -> None:
    """Write the union of bundles; this machine's evidence stays as it is."""
    from tridsl.cli.personality.bundles import merge

    raise typer.Exit(present(lambda settings: merge(output, tuple(files)), from_environment, as_json=as_json))


@personality_app.command("pin")
def personality_pin(
    operation: Subject,
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The beginning of an id that `why` prints, or all values: rows=4,vectors=2.")],
    device: Device = "cpu",
    shape: Shapes = None,
    values: Values = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Use this candidate for the op from now on, whatever was measured."""
    from tridsl.cli.personality.decisions import pin
    from tridsl.cli.subjects import Question

    question = Question(operation=operation, shape=tuple(shape or ()), values=tuple(values or ()), device=device, threads=threads)
    raise typer.Exit(present(lambda settings: pin(question, candidate, settings), from_environment, as_json=as_json))


@personality_app.command("ship")
def personality_ship(
    operation: Annotated[str, typer.Argument(metavar="FILE[:OP]", help="An op, or every op with a bench block of a file or of the library (`stdlib`).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Add the rows to this file: tridsl/devices/answers/CHIP.toml.")] = None,
    alike: Annotated[bool, typer.Option("--alike", help="For all sizes of their class (same octave, same divisor), not for these alone.")] = False,
    shape: Shapes = None,
    values: Values = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write winners as default answers for this family of chips (`devices/answers`). They come after schedule texts."""
    from tridsl.cli.personality.ship import ship
    from tridsl.cli.subjects import Question

    question = Question(operation=operation, shape=tuple(shape or ()), values=tuple(values or ()), threads=threads)
    raise typer.Exit(present(lambda settings: ship(question, settings, output, alike=alike), from_environment, as_json=as_json))


@personality_app.command("forget")
def personality_forget(
    operation: Subject,
    device: Annotated[str, typer.Option("--device", "-d", help="cpu, gpu, gpu:software, … or `all` processors that are here.")] = "cpu",
    shape: Shapes = None,
    values: Values = None,
    pins: Annotated[bool, typer.Option("--pins", help="Only the pins; measurements still count.")] = False,
    as_json: Json = False,
) -> None:
    """Let what was measured of the op, and its pins, count no longer."""
    from tridsl.cli.personality.decisions import forget
    from tridsl.cli.subjects import Question

    question = Question(operation=operation, shape=tuple(shape or ()), values=tuple(values or ()), device=device)
    raise typer.Exit(present(lambda settings: forget(question, settings, pins_only=pins), from_environment, as_json=as_json))
