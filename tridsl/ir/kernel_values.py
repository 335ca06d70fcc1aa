"""What the generated Python of `ir.kernel_source` calls: one element at a time, with the meaning of `ir.scalar`.

Integers are Python ints within their type, bools Python or NumPy bools, floats NumPy scalars (f16 and bf16 as f32).
Memory is a flat list per tensor; None marks an element that was never written. `POISON` stands for the value of such an
element of a padded buffer: arithmetic passes it on, deciding by it or storing it to global memory is a fault.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from tridsl.dtypes import BF16, F16, F64, DType
from tridsl.ir import scalar

Path = tuple[tuple[int, int], ...]


class KernelFault(Exception):
    """A kernel did what no kernel may do: a bug in a pass or a schedule step, never the user's."""


class NeverWritten(KernelFault):
    """It read an element that it had not written."""


class _Poison:
    """The value of memory that holds none."""

    __array_ufunc__ = None  # NumPy scalars then leave `x + POISON` to us

    def __bool__(self) -> bool:
        raise KernelFault("a decision depends on memory that was never written")

    def __index__(self) -> int:
        raise KernelFault("an index depends on memory that was never written")

    def __repr__(self) -> str:
        return "POISON"


POISON: Any = _Poison()
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
    for _form in (f"__{_name}__", f"__r{_name}__"):
        setattr(_Poison, _form, lambda self, other: self)
for _name in ("neg", "abs", "invert"):
    setattr(_Poison, f"__{_name}__", lambda self: self)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Poison, f"__{_name}__", lambda self, other: self)
_Poison.__hash__ = object.__hash__  # type: ignore[method-assign]


def poisonous(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or POISON when an argument is."""

    def guarded(*args: Any) -> Any:
        return POISON if any(a is POISON for a in args) else function(*args)

    return guarded


# Faults.


def out_of_bounds(tensor: str, *index: int) -> NoReturn:
    raise KernelFault(f"{tensor}{list(index)} is outside the tensor")


def never_written(tensor: str, *index: int) -> NoReturn:
    raise NeverWritten(f"{tensor}{list(index)} is read but was never written")


def checked(value: Any, tensor: str) -> Any:
    """`value` on its way to global memory."""
    if value is POISON:
        raise KernelFault(f"a value that was never written is stored to {tensor}")
    return value


# Races between iterations of parallel loops. A path is the tuple of (loop instance, iteration) around a statement.


def _concurrent(a: Path, b: Path) -> bool:
    for one, other in zip(a, b):
        if one != other:
            return one[0] == other[0]
    return False


def _same(a: Any, b: Any) -> bool:
    """Whether two elements are the same value; NaN is."""
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f"))


class Memory(list[Any]):
    """A tensor that parallel iterations share: remembers who wrote each element last."""

    __slots__ = ("name", "writers")

    def __init__(self, values: Iterable[Any], name: str) -> None:
        super().__init__(values)
        self.name = name
        self.writers: dict[int, Path] = {}

    def read(self, position: int, path: Path) -> Any:
        writer = self.writers.get(position)
        if writer is not None and writer is not path and _concurrent(writer, path):
            raise KernelFault(
                f"element {position} of {self.name} is read by one iteration of a parallel loop and written by another"
            )
        return self[position]

    def write(self, position: int, path: Path, again: Any = None) -> None:
        """`again`: the value, where another iteration may have written the same."""
        writer = self.writers.get(position)
        if writer is not None and writer is not path and _concurrent(writer, path):
            if again is not None and _same(self[position], again):
                return
            raise KernelFault(f"element {position} of {self.name} is written by two iterations of one parallel loop")
        self.writers[position] = path


def loop_instances() -> Callable[[], int]:
    """Numbers for the executions of parallel loops."""
    return itertools.count().__next__


# Barriers. A lane whose body waits is a generator that yields the scope of each barrier it reaches.


def lockstep(lanes: list[Generator[str, None, None]], absorbs: tuple[str, ...]) -> Generator[str, None, None]:
    """Runs all lanes from barrier to barrier; passes on the barriers that reach beyond these lanes."""
    while lanes:
        reached = [(lane, scope) for lane in lanes if (scope := next(lane, None)) is not None]
        if not reached:
            return
        scopes = {scope for _, scope in reached}
        if len(reached) != len(lanes) or len(scopes) > 1:
            raise KernelFault("not all lanes reach the same barrier")
        if not scopes <= set(absorbs):
            yield scopes.pop()
        lanes = [lane for lane, _ in reached]


# Scalars.

def touch(*looks: Callable[[], Any]) -> bool:
    """True, when each element that is looked at is there; whether it was ever written does not matter."""
    for look in looks:
        with suppress(NeverWritten):
            look()
    return True


def wrapped_quotient(a: int, b: int) -> int:
    return a // b if b else 0


def wrapped_remainder(a: int, b: int) -> int:
    return a % b if b else 0


def shifted_left(a: int, b: int, bits: int) -> int:
    return a << b if 0 <= b < bits else 0


def shifted_right(a: int, b: int, bits: int) -> int:
    return a >> b if 0 <= b < bits else -1 if a < 0 else 0


def float_quotient(a: Any, b: Any) -> Any:
    return np.floor(a / b)


def float_remainder(a: Any, b: Any) -> Any:
    return a - np.floor(a / b) * b


def float_maximum(a: Any, b: Any) -> Any:
    return a if a >= b or a != a else b  # noqa: PLR0124 (NaN)


def float_minimum(a: Any, b: Any) -> Any:
    return a if a <= b or a != a else b  # noqa: PLR0124 (NaN)


def converter(source: DType, target: DType) -> Callable[[Any], Any]:
    """Casts to or from a float, one value at a time."""
    if target.is_integer:
        low, high = target.low or 0, target.high or 0

        def to_integer(value: Any) -> int:
            if value != value:  # noqa: PLR0124 (NaN)
                return 0
            return low if value <= low else high if value >= high else int(value)

        return to_integer
    if target in (F16, BF16):
        return lambda value: scalar.round_to(scalar.HELD[target].type(value), target)[()]
    held = scalar.HELD[target].type
    if source.bits == 64 and source.is_integer and target != F64:
        return lambda value: np.int64(value).astype(held)  # through a Python float it would round twice
    return held


def function(name: str, dtype: DType) -> Callable[..., Any]:
    """A function of `expr.FUNCTIONS` on one value; `dtype` is its result's."""
    compute, held = scalar.FUNCTION[name], scalar.HELD[dtype].type
    return lambda *args: held(compute(*(np.float64(a) for a in args)))


def boundary_index(mode: str) -> Callable[[int, int], int]:
    """The index inside `0..length` an access outside stands for (see `op_values.map_boundary`)."""
    return {"edge": _edge, "wrap": _wrap, "reflect": _reflect, "symmetric": _symmetric}[mode]


def _edge(position: int, length: int) -> int:
    return min(max(position, 0), length - 1)


def _wrap(position: int, length: int) -> int:
    return position % length if length else -1


def _reflect(position: int, length: int) -> int:
    if length <= 1:
        return length - 1
    folded = position % (2 * length - 2)
    return folded if folded < length else 2 * length - 2 - folded


def _symmetric(position: int, length: int) -> int:
    if length == 0:
        return -1
    folded = position % (2 * length)
    return folded if folded < length else 2 * length - 1 - folded
