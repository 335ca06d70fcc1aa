"""The native dispatcher's data: what a specialisation accepts, written as the structs that `dispatch_code` reads.

The structs hold addresses of Python objects and of each other; a `Packed` owns all of them, and the native code holds a
reference to the `Packed` while it runs a kernel through it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np

from tridsl.backend import Signature
from tridsl.backends.cpu import dispatch_limits as native
from tridsl.backends.cpu import openmp
from tridsl.backends.cpu.driver import scalar_slot
from tridsl.buffer import Buffer
from tridsl.dtypes import BOOL, F32, F64, NUMPY_TYPES, U8, DType
from tridsl.ir.op import Role

Scalar: TypeAlias = bool | int | float

_ALIGNED, _WRITEABLE = 0x0100, 0x0400  # NPY_ARRAY_ALIGNED, NPY_ARRAY_WRITEABLE
_NUMPY_ALIGNMENT = 16  # of the memory that NumPy allocates


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """`scale * <the size `name`> + offset`: an extent, or with scale = bytes of an element a stride. Sizes are >= 0."""

    name: str
    scale: int = 1
    offset: int = 0


Extent: TypeAlias = int | Size


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A `tridsl.Buffer` of this layout and shape (of elements), whose array is what is described."""

    layout: str
    shape: tuple[int, ...]


class TensorArgument(msgspec.Struct, frozen=True, kw_only=True):
    """An array that fits: exactly `numpy.ndarray`, this very dtype, this shape and these strides; with `held`, in such a buffer.

    `strides` in bytes, None for C-contiguous; an axis of one element may have any. `align`: bytes the first element's
    address is a multiple of (None: the dtype's own). A size takes its value where it is first met (inputs in order;
    extents, then strides from the last axis) and is compared everywhere else.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...] | None = None
    role: Role = "input"
    align: int | None = None
    held: Held | None = None


class ScalarArgument(msgspec.Struct, frozen=True, kw_only=True):
    """A number that fits: Python's float or int for float types, int within range for integers, bool for bool; NumPy's scalar
    of exactly this type.

    f16 and bf16 are not taken (their rounding is the fallback's). `default` is used when the call leaves it out.
    `constant`: only this value fits, bit for bit; where the kernel has no param of this name, nothing is passed.
    """

    name: str
    dtype: DType
    default: Scalar | None = None
    constant: Scalar | None = None


Argument: TypeAlias = TensorArgument | ScalarArgument


class NativeExecutable(Protocol):
    """What the dispatcher needs of an executable: `i32 entry(ptr slots, i64 threads)`, alive as long as this object."""

    @property
    def entry(self) -> int: ...

    @property
    def signature(self) -> Signature: ...


class Specialisation(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that one executable serves.

    `arguments` in call order; the outputs come last and are passed as `out=` (a tuple for several), positionally behind
    the inputs, or left out (or None): then they are allocated. `results` names what the call returns: one argument
    itself, several as a tuple, none as None; default: the outputs. `keywords` are further keyword arguments that the
    call must have with these very objects (`device="cpu"`, `threads=1`), and may have no others.
    `release_gil`: for kernels expected to run longer than about 10 µs. An array that is written may not overlap another.
    Nothing else is checked: contracts over sizes or scalars that are not constant here are for the caller to have proved.
    """

    executable: NativeExecutable
    arguments: tuple[Argument, ...]
    results: tuple[str, ...] | None = None
    threads: int = 1
    release_gil: bool = False
    keywords: tuple[tuple[str, object], ...] = ()


class Rule(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("kind", "size", "scale", "offset")]


class ParamEntry(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("kind", ctypes.c_int64), ("slot", ctypes.c_int64), ("absent", ctypes.c_int64),
        ("value", ctypes.c_uint64), ("width", ctypes.c_int64), ("low", ctypes.c_int64), ("high", ctypes.c_int64),
        ("dtype", ctypes.c_void_p), ("rank", ctypes.c_int64), ("mask", ctypes.c_int64), ("flags", ctypes.c_int64),
        ("item", ctypes.c_int64), ("contiguous", ctypes.c_int64), ("written", ctypes.c_int64),
        ("extents", ctypes.c_void_p), ("steps", ctypes.c_void_p), ("constant", ctypes.c_int64), ("number", ctypes.c_void_p),
        ("holder", ctypes.c_void_p), ("layout", ctypes.c_void_p), ("elements", ctypes.c_void_p),
        ("layout_at", ctypes.c_int64), ("shape_at", ctypes.c_int64), ("array_at", ctypes.c_int64),
    ]  # fmt: skip


class SpecEntry(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_void_p), ("keeper", ctypes.c_void_p), ("threads", ctypes.c_int64),
        ("release_gil", ctypes.c_int64), ("in_parallel", ctypes.c_void_p), ("params_count", ctypes.c_int64),
        ("inputs_count", ctypes.c_int64), ("params", ctypes.c_void_p), ("first_size", ctypes.c_int64),
        ("fixed_count", ctypes.c_int64), ("fixed", ctypes.c_void_p), ("results_count", ctypes.c_int64),
        ("results", ctypes.c_void_p), ("messages_count", ctypes.c_int64), ("messages", ctypes.c_void_p),
        ("watch", ctypes.c_int64),
    ]  # fmt: skip


class Unsupported(ValueError):
    """The native path cannot express this specialisation; the fallback serves it."""


class Packed:
    """A specialisation in the native layout, and everything its addresses point to."""

    __slots__ = ("_keep", "entry")

    def __init__(self, specialisation: Specialisation) -> None:
        """Raises Unsupported, or ValueError where the arguments and the executable's signature do not belong together."""
        self._keep: list[object] = [specialisation]
        self.entry = SpecEntry()
        _Packer(specialisation, self._keep).fill(self.entry)
        self.entry.keeper = id(self)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.entry)


class _Packer:
    """Fills one `SpecEntry`; every object whose address is stored goes to `keep`."""

    def __init__(self, specialisation: Specialisation, keep: list[object]) -> None:
        self.specialisation = specialisation
        self.signature = specialisation.executable.signature
        self.keep = keep
        self.slots = {param.name: index for index, param in enumerate(self.signature.params)}
        self.sizes = {name: index for index, name in enumerate(self.signature.sizes)}
        self.bound: set[str] = set()

    def fill(self, entry: SpecEntry) -> None:
        arguments = self.specialisation.arguments
        inputs = [a for a in arguments if not _is_output(a)]
        self._check(arguments, len(inputs))
        params = (ParamEntry * max(1, len(arguments)))()
        self.keep.append(params)
        for param, argument in zip(params, arguments):
            self._param(param, argument)
        if self.bound != set(self.sizes):
            raise Unsupported(f"no argument gives the sizes {sorted(set(self.sizes) - self.bound)}")
        names = [a.name for a in arguments]
        results = self.specialisation.results
        returned = [a.name for a in arguments if _is_output(a)] if results is None else list(results)
        fixed: list[object] = []
        for name, value in self.specialisation.keywords:
            fixed += [sys.intern(name), value]
        entry.entry = self.specialisation.executable.entry
        entry.threads = self.specialisation.threads
        entry.release_gil = self.specialisation.release_gil
        entry.in_parallel = openmp.runtime().symbols["omp_in_parallel"] if self.specialisation.threads > 1 else None
        entry.params_count, entry.inputs_count = len(arguments), len(inputs)
        entry.params = ctypes.addressof(params)
        entry.first_size = len(self.slots)
        entry.fixed_count, entry.fixed = len(fixed) // 2, self._objects(fixed)
        entry.results_count, entry.results = len(returned), self._numbers([names.index(name) for name in returned])
        entry.messages_count, entry.messages = len(self.signature.messages), self._objects(self.signature.messages)
        entry.watch = any(isinstance(a, TensorArgument) and a.role != "input" for a in arguments)

    def _check(self, arguments: Sequence[Argument], inputs: int) -> None:
        names = [a.name for a in arguments]
        if len(set(names)) != len(names) or any(_is_output(a) for a in arguments[:inputs]):
            raise ValueError(f"arguments {names}: names must differ and outputs come last")
        passed = {a.name for a in arguments if a.name in self.slots or not _is_constant(a)}
        if passed != set(self.slots):
            raise ValueError(f"arguments {sorted(passed)} do not match the kernel's params {sorted(self.slots)}")
        tensors = [a for a in arguments if isinstance(a, TensorArgument)]
        if (
            len(arguments) > native.MAX_ARGUMENTS
            or len(self.slots) + len(self.sizes) > native.MAX_SLOTS
            or any(len(t.shape) > native.MAX_RANK for t in tensors)
        ):
            raise Unsupported("more arguments, sizes or axes than the native path has room for")

    def _param(self, param: ParamEntry, argument: Argument) -> None:
        name = sys.intern(argument.name)
        self.keep.append(name)
        param.name = id(name)
        param.slot = self.slots.get(argument.name, -1)
        if isinstance(argument, TensorArgument):
            self._tensor(param, argument)
        else:
            self._scalar(param, argument)

    def _scalar(self, param: ParamEntry, argument: ScalarArgument) -> None:
        dtype = argument.dtype
        if dtype.is_float and dtype not in (F32, F64):
            raise Unsupported(f"scalar {argument.name} of type {dtype}")
        param.kind = native.FLOAT if dtype.is_float else native.BOOLEAN if dtype == BOOL else native.INTEGER
        param.width = dtype.bits
        param.low, param.high = dtype.low or 0, dtype.high or 0
        number = NUMPY_TYPES[dtype]
        if dtype == BOOL or dtype.bits == 8 * number.itemsize:  # every bit pattern is a value
            param.number, param.item = id(number.type), number.itemsize
        param.absent = native.REQUIRED if argument.default is None else native.DEFAULT
        if argument.default is not None:
            param.value = scalar_slot(argument.default, dtype)
        if argument.constant is not None:
            constant = scalar_slot(argument.constant, dtype)
            if argument.default is not None and param.value != constant:
                param.absent = native.REQUIRED  # a call that leaves it out means another value than this one
            param.value, param.constant = constant, 1

    def _tensor(self, param: ParamEntry, argument: TensorArgument) -> None:
        dtype, output = argument.dtype, argument.role == "output"
        align = argument.align or dtype.alignment
        if align & (align - 1) or output and align > _NUMPY_ALIGNMENT:
            raise Unsupported(f"alignment of {align} bytes for {argument.name}")
        if dtype.hasobject or not dtype.isnative:
            raise Unsupported(f"dtype {dtype} of {argument.name}")
        self.keep.append(dtype)
        param.kind = native.TENSOR
        param.dtype = id(dtype)
        param.rank, param.item = len(argument.shape), dtype.itemsize
        param.mask = align - 1
        param.flags = _ALIGNED | (_WRITEABLE if argument.role != "input" else 0)
        param.written = argument.role != "input"
        param.contiguous = argument.strides is None
        param.absent = native.ALLOCATE if output and argument.strides is None else native.REQUIRED
        param.extents = self._rules(argument.shape, forbid_binding=output)
        if argument.held is not None:
            self._buffer(param, argument.held, argument.role)
        if argument.strides is not None:
            if len(argument.strides) != len(argument.shape):
                raise ValueError(f"{argument.name}: {len(argument.shape)} extents, {len(argument.strides)} strides")
            # from the last axis to the first, as the native code meets them
            param.steps = self._rules(argument.strides, forbid_binding=output, backwards=True)

    def _buffer(self, param: ParamEntry, held: Held, role: Role) -> None:
        places = buffer_slots()
        if places is None or role != "input":
            raise Unsupported("a buffer that is written, or laid out otherwise")
        layout = sys.intern(held.layout)
        self.keep.append(layout)
        param.holder, param.layout = id(Buffer), id(layout)
        param.elements = self._numbers((len(held.shape), *held.shape))
        param.layout_at, param.shape_at, param.array_at = (places[name] for name in ("layout", "shape", "array"))

    def _rules(self, extents: tuple[Extent, ...], *, forbid_binding: bool, backwards: bool = False) -> int:
        rules = (Rule * max(1, len(extents)))()
        self.keep.append(rules)
        order = range(len(extents))
        for axis in reversed(order) if backwards else order:
            extent, rule = extents[axis], rules[axis]
            if isinstance(extent, int):
                rule.kind, rule.offset = native.CONSTANT, extent
                continue
            if extent.name not in self.sizes:
                raise ValueError(f"`{extent.name}` is no size of the kernel ({', '.join(self.sizes)})")
            rule.size, rule.scale, rule.offset = self.sizes[extent.name], extent.scale, extent.offset
            if extent.name in self.bound:
                rule.kind = native.CHECK
                if forbid_binding and not backwards and (extent.scale < 0 or extent.offset < 0):
                    raise Unsupported(f"an output extent {extent.scale} * {extent.name} + {extent.offset} may be negative")
            elif forbid_binding or extent.scale == 0:
                raise Unsupported(f"size {extent.name} is not known from the inputs")
            else:
                rule.kind = native.BIND
                self.bound.add(extent.name)
        return ctypes.addressof(rules)

    def _objects(self, objects: Sequence[object]) -> int:
        self.keep.append(tuple(objects))
        return self._array((ctypes.c_void_p * max(1, len(objects)))(*(id(o) for o in objects)))

    def _numbers(self, numbers: Sequence[int]) -> int:
        return self._array((ctypes.c_int64 * max(1, len(numbers)))(*numbers))

    def _array(self, array: ctypes.Array[Any]) -> int:
        self.keep.append(array)
        return ctypes.addressof(array)


@cache
def buffer_slots() -> dict[str, int] | None:
    """Where a `tridsl.Buffer` keeps its attributes, looked up in a live one; None where it cannot be seen."""
    probe = Buffer(dtype=U8, shape=(3, 5), array=np.zeros(1, np.uint8), layout="probe")
    words = {n: ctypes.c_void_p.from_address(id(probe) + n).value for n in range(16, Buffer.__basicsize__, 8)}
    wanted = {name: id(getattr(probe, name)) for name in ("layout", "shape", "array")}
    found = {name: [n for n, word in words.items() if word == address] for name, address in wanted.items()}
    return {name: places[0] for name, places in found.items()} if all(len(p) == 1 for p in found.values()) else None


def _is_output(argument: Argument) -> bool:
    return isinstance(argument, TensorArgument) and argument.role == "output"


def _is_constant(argument: Argument) -> bool:
    return isinstance(argument, ScalarArgument) and argument.constant is not None
