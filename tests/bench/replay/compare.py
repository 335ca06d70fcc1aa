"""Our strategies and Kernel Tuner's on recorded spaces, under one budget, in one table.

    python -m tests.bench.replay.compare [--folder DIR] [--seeds 100] [--peer-seeds 20] [--budget 80] [--jobs 2] [--synthetic] [--only NAME …]

Without Kernel Tuner (extra `bench`) its rows are left out, and the output says so. Every figure has its 95% interval over the seeds
(bootstrap); `density` is the part of a space that is within 95% of its best. Losses are printed like wins.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from tests.autotune.spaces import recording as synthetic
from tests.bench.replay.peers import STRATEGIES as PEERS
from tests.bench.replay.peers import play_peer
from tridsl.autotune.replay import (
    Recording,
    Summary,
    Trace,
    bootstrap,
    density,
    play,
    quantile,
    read,
    summarise,
)

HERE = Path(__file__).parent
TARGETS = "targets: median <= 16 and p90 <= 40 trials to 95%, 3 x fewer than random, gap at the stop <= 3% mean and <= 8% worst"
Player = Callable[[Recording, int, int], Trace]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.replay.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE / "recordings")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--peer-seeds", type=int, default=20, help="of the evolutionary search and of Kernel Tuner's strategies, which take longer")
    parser.add_argument("--budget", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=1, help="spaces that are searched at a time; a replay measures nothing")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--synthetic", action="store_true", help="made-up spaces, for trying the machinery")
    given = parser.parse_args(arguments)
    if given.synthetic:
        recordings = [synthetic(kind, seed) for kind in ("rugged", "plateau", "cliff", "noisy") for seed in (0, 1)]
    else:
        recordings = [read(path) for path in sorted(given.folder.glob("*.jsonl"))]
    recordings = [r for r in recordings if len(r.ratios) > 1 and (not given.only or r.name in given.only)]
    if not recordings:
        sys.exit(f"there are no recordings in {given.folder}; make them with tests.bench.replay.record, or say --synthetic")
    report(recordings, given.seeds, given.budget, Console(width=140), peer_seeds=given.peer_seeds, jobs=given.jobs)
    return 0


def report(
    recordings: Sequence[Recording], seeds: int, budget: int, console: Console, *, peer_seeds: int = 20, jobs: int = 1
) -> dict[tuple[str, str], Summary]:
    """Prints the table and the verdicts; the summaries by recording and strategy."""
    if importlib.util.find_spec("kernel_tuner") is None:
        console.print("Kernel Tuner is not installed (pip install tridsl[bench]): its strategies are left out")
    found: dict[tuple[str, str], Summary] = {}
    work = partial(summaries, seeds=seeds, budget=budget, peer_seeds=peer_seeds)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        for recording, several in zip(recordings, pool.map(work, recordings) if pool else map(work, recordings)):
            truth = recording.truth()
            title = f"{recording.name}: {len(truth)} points, density {100 * density(truth):.1f}%, {len(recording.failed)} failed"
            table = Table("strategy", "seeds", "median trials", "p90", "gap mean %", "worst %", "P", "tried", title=title, title_justify="left")
            for one in several:
                found[recording.name, one.strategy] = one
                table.add_row(*_row(one, budget))
            console.print(table)
    for line in verdicts(recordings, found, budget):
        console.print(line)
    return found


def summaries(recording: Recording, *, seeds: int, budget: int, peer_seeds: int) -> list[Summary]:
    """Every strategy on one recording. Random search gets a budget in which it always arrives, so that its median is known."""
    ours = {"ranked": (budget, seeds), "random": (len(recording.ratios), seeds), "evolutionary": (budget, peer_seeds)}
    found = [_summary(partial(_ours, name), name, recording, most, range(count)) for name, (most, count) in ours.items()]
    if importlib.util.find_spec("kernel_tuner") is not None:
        found += [_summary(partial(_theirs, name), f"kernel_tuner {name}", recording, budget, range(peer_seeds)) for name in PEERS]
    return found


def _ours(name: str, recording: Recording, budget: int, seed: int) -> Trace:
    return play(name, recording, budget=budget, seed=seed)


def _theirs(name: str, recording: Recording, budget: int, seed: int) -> Trace:
    return play_peer(name, recording, budget=budget, seed=seed)


def _summary(player: Player, name: str, recording: Recording, budget: int, seeds: Sequence[int]) -> Summary:
    return summarise(lambda r, seed: player(r, budget, seed), name, recording, budget=budget, seeds=seeds)


def _row(one: Summary, budget: int) -> tuple[str, ...]:
    def trials(value: float) -> str:
        return f">{budget}" if value > budget >= max(one.used) else f"{value:.0f}"

    low, high = bootstrap(one.trials, median)
    p_low, p_high = bootstrap(one.scores, fmean)
    return (
        one.strategy, str(one.seeds), f"{trials(median(one.trials))} ({trials(low)}-{trials(high)})", trials(quantile(one.trials, 0.9)),
        f"{100 * fmean(one.gaps):.1f}", f"{100 * max(one.gaps):.1f}", f"{fmean(one.scores):.2f} ({p_low:.2f}-{p_high:.2f})",
        f"{fmean(one.used):.0f}",
    )  # fmt: skip


def verdicts(recordings: Sequence[Recording], found: dict[tuple[str, str], Summary], budget: int) -> list[str]:
    """What the goals ask, over all spaces together."""
    ours = [found[r.name, "ranked"] for r in recordings]
    luck = [found[r.name, "random"] for r in recordings]
    trials = [t for one in ours for t in one.trials]
    gaps = [g for one in ours for g in one.gaps]
    faster = [median(b.trials) / median(a.trials) for a, b in zip(ours, luck)]
    lines = [
        TARGETS,
        f"ranked, all spaces: median {median(trials):.0f}, p90 {quantile(trials, 0.9):.0f} trials to 95% (never: {budget + 1})",
        f"gap at the stop {100 * fmean(gaps):.1f}% mean, {100 * max(gaps):.1f}% worst; {fmean(u for o in ours for u in o.used):.0f} points tried",
        f"random needs {min(faster):.1f} to {max(faster):.1f} times as many (median {median(faster):.1f}); at least 3 times on {sum(f >= 3 for f in faster)} of {len(faster)} spaces",
    ]
    for recording, times, chance in zip(recordings, faster, luck):
        if times < 3:
            share = 100 * density(recording.truth())
            lines.append(f"  less than 3 times on {recording.name}: {share:.0f}% of its points are within 95%, so random needs {median(chance.trials):.0f}")
    worst = sorted(zip(recordings, ours), key=lambda pair: -median(pair[1].trials))[:3]
    lines.append("most trials: " + ", ".join(f"{r.name} {median(o.trials):.0f} (p90 {quantile(o.trials, 0.9):.0f})" for r, o in worst))
    peers = sorted({name for _, name in found if name.startswith("kernel_tuner")})
    if peers:
        best = {r.name: max(peers, key=lambda p: fmean(found[r.name, p].scores)) for r in recordings}
        behind = [r.name for r, one in zip(recordings, ours) if fmean(one.scores) < fmean(found[r.name, best[r.name]].scores)]
        lines.append(f"behind Kernel Tuner's best strategy (by P, chosen per space) on {len(behind)} of {len(recordings)} spaces: {', '.join(behind) or 'none'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
