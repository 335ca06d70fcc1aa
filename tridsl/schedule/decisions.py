"""What the automatic scheduler decides, as named choices: a tuner gives other answers, and everything else stays as it was.

The scheduler asks (`decide("C.rows", 12, (4, 6, 8), …)`) at the moment it needs an answer, so a choice exists only where its
answer matters: who does not pack is not asked for panels. The choices asked under given answers are the space's shape there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from tridsl.diagnostics import error
from tridsl.structs import dataclass

Answer = int | str | bool
A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One decision: `<stage>.<what>`, its possible answers (the default first), and what it decides, in a few words."""

    name: str
    values: tuple[Answer, ...]
    about: str

    @property
    def default(self) -> Answer:
        return self.values[0]


class Decider:
    """Answers the scheduler's questions from `given`, otherwise with the default, and remembers what was asked, in order.

    `shipped`: defaults that take the place of the scheduler's own where they are possible answers.
    """

    __slots__ = ("asked", "given", "shipped")

    def __init__(self, given: Mapping[str, Answer] | None = None, shipped: Mapping[str, Answer] | None = None) -> None:
        self.given = given or {}
        self.shipped = shipped or {}
        self.asked: dict[str, Choice] = {}

    def __call__(self, name: str, default: A, others: Iterable[A], about: str) -> A:
        """The answer to `name`. E0951: the given one is not possible here."""
        values = tuple(dict.fromkeys((default, *others)))
        if len(values) == 1:
            return default
        if name in self.shipped:
            default = next((v for v in values if _same(v, self.shipped[name])), default)
            values = (default, *(v for v in values if v != default))
        self.asked[name] = Choice(name=name, values=values, about=about)
        answer = self.given.get(name, default)
        for value in values:
            if _same(value, answer):
                return value
        raise error(
            "E0951", f"{answer!r} is no possible answer to `{name}` ({about})", help=f"possible here: {', '.join(map(str, values))}"
        )

    def unused(self) -> tuple[str, ...]:
        """Shipped answers that nobody asked for, or that were not possible."""
        return tuple(n for n, a in self.shipped.items() if n not in self.asked or not _same(self.asked[n].default, a))

    def unasked(self) -> tuple[str, ...]:
        """Names that were given but never asked for."""
        return tuple(name for name in self.given if name not in self.asked)


def _same(left: Answer, right: Answer) -> bool:
    """Equality that tells True from 1."""
    return left == right and type(left) is type(right)
