"""The dispatcher's machine code: proved against the running interpreter, made once per machine, kept in the artifact store."""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import cache
from typing import Any, Protocol

import numpy as np

from tridsl.backend import Binary, Signature
from tridsl.backends.cpu import dispatch_code as native
from tridsl.backends.cpu.code_memory import Code, load_object, this_machine
from tridsl.diagnostics import CheckFailed, TriError

_NUMPY_C_API_VERSION = 0x0200_0000  # NPY_VERSION of the NumPy 2 ABI
_FORMAT = b"tridsl dispatch 2\0"


class Store(Protocol):
    """Where binaries are kept between processes (`runtime.artifacts.Artifacts`)."""

    def read(self, key: bytes) -> Binary | None: ...

    def write(self, key: bytes, binary: Binary) -> None: ...


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.code: Code | None = None


_STATE = _State()


def native_dispatch(store: Store | None) -> Code | None:
    """The loaded dispatcher, the same for all ops; None where this interpreter or NumPy is laid out differently.

    `store` saves the next process from compiling it again (50 ms with LLVM's import).
    """
    if abi_problem() is not None:
        return None
    with _STATE.lock:
        if _STATE.code is None:
            _STATE.code = _load(store)
        return _STATE.code


def _load(store: Store | None) -> Code:
    text = native.dispatch_ir(tuple.__basicsize__)
    key = _FORMAT + this_machine().name.encode() + b"\0" + text.encode()
    symbols = _symbols()
    kept = store.read(key) if store else None
    if kept is not None:
        try:
            return load_object(kept.blob, symbols.get)
        except TriError:
            pass  # an object of another build of this format; it is replaced below
    blob = compile_ir(text)
    if store:
        nothing = Signature(params=(), sizes=())
        store.write(key, Binary(backend="cpu", entry=native.ENTRY, blob=blob, signature=nothing))
    return load_object(blob, symbols.get)


def compile_ir(text: str) -> bytes:
    """A position-independent object for any processor of this architecture.

    Four passes instead of LLVM's O2: measured, a call takes 68 ns instead of 64, but compiling 0.1 s instead of 0.37.
    """
    from llvmlite import binding  # heavy (50 ms), and only a cold process needs it

    llvm: Any = binding

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(f"{this_machine().name}-unknown-linux-gnu")
    machine = target.create_target_machine(opt=1, reloc="pic", codemodel="small")
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
    blob: bytes = machine.emit_object(module)
    return blob


@cache
def _numpy_api() -> ctypes.Array[ctypes.c_void_p]:
    """The head of NumPy's table of C functions and types."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    count = max(*native.NUMPY_OBJECTS.values(), *native.NUMPY_FUNCTIONS.values()) + 1
    return (ctypes.c_void_p * count).from_address(pointer(np._core._multiarray_umath._ARRAY_API, None))  # type: ignore[attr-defined]  # not in its stubs


def _symbols() -> dict[str, int]:
    """Every external name of the dispatcher's IR and its address in this process."""
    api = ctypes.pythonapi
    table = _numpy_api()
    found = {
        "PyFloat_Type": id(float), "PyLong_Type": id(int), "PyBool_Type": id(bool), "PyTuple_Type": id(tuple),
        "_Py_NoneStruct": id(None), "_Py_TrueStruct": id(True),
        "CheckFailed": id(CheckFailed),
        "PyExc_SystemError": ctypes.addressof(ctypes.c_void_p.in_dll(api, "PyExc_SystemError")),
    }  # fmt: skip
    for name in native.EXTERNAL_FUNCTIONS:
        found[name] = ctypes.cast(getattr(api, name), ctypes.c_void_p).value or 0
    for name, index in (native.NUMPY_OBJECTS | native.NUMPY_FUNCTIONS).items():
        found[name] = table[index] or 0
    return found


@cache
def abi_problem() -> str | None:
    """Why the native dispatcher cannot be used here, or None. Looks at live objects, not at version numbers alone."""
    if sys.implementation.name != "cpython" or sys.byteorder != "little" or sys.maxsize != 2**63 - 1:
        return "not a 64-bit little-endian CPython"
    if "t" in sys.abiflags or hasattr(sys, "gettotalrefcount"):
        return "a free-threaded or debug interpreter"
    pair = ("a", object())
    items = id(pair) + tuple.__basicsize__
    if [_word(id(pair) + 8), _word(id(pair) + 16), _word(items), _word(items + 8)] != [id(tuple), 2, *map(id, pair)]:
        return "tuples are laid out differently"
    return _numpy_problem()


def _numpy_problem() -> str | None:
    try:
        table = _numpy_api()
    except AttributeError:
        return "NumPy does not publish its C functions where it used to"
    version = ctypes.CFUNCTYPE(ctypes.c_uint)(table[0] or 0)() if table[0] else 0
    if version != _NUMPY_C_API_VERSION or table[native.NUMPY_OBJECTS["PyArray_Type"]] != id(np.ndarray):
        return f"NumPy's ABI version is {version:#x}"
    read_only = np.arange(30, dtype=np.int16).reshape(3, 2, 5)[::-2, :, 1:4:2]
    read_only.flags.writeable = False
    for array in (np.zeros((6, 5), np.float32)[::-2], read_only, np.array(1.0)):
        start, rank = id(array), array.ndim
        seen = [_word(start + 8), _word(start + 16), _word(start + 56)]
        want = [id(np.ndarray), array.__array_interface__["data"][0], id(array.dtype)]
        seen += [ctypes.c_int.from_address(start + 24).value, ctypes.c_int.from_address(start + 64).value]
        want += [rank, array.flags.num]
        for offset, numbers in ((32, array.shape), (40, array.strides)):
            seen += (ctypes.c_int64 * rank).from_address(_word(start + offset))[:] if rank else []
            want += numbers
        if seen != want:
            return "NumPy's arrays are laid out differently"
    for number in (np.bool_(True), np.uint8(200), np.int16(-3), np.int32(-7), np.int64(-9), np.float32(1.5), np.float64(-2.25)):
        if ctypes.string_at(id(number) + 16, number.itemsize) != number.tobytes():
            return "NumPy's scalars are laid out differently"
    return None


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value
