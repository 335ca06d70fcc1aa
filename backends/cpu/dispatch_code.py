"""The native dispatcher, as LLVM IR: the body of a Python function that recognises a call and jumps into its kernel.

`tridsl_dispatch(self, args, nargs, kwnames)` has the C signature of METH_FASTCALL | METH_KEYWORDS, `tridsl_vectorcall` that of
a vectorcall; `self` and the instance lead to the owner, a tuple whose first item is the table's capsule. They try the
specialisations of its table in order (`@attempt`). A specialisation that does not fit changes nothing in the world; when
none fits, the fallback is called with the very same arguments. The table's layout is mirrored in `dispatch_table`.

Offsets into CPython's and NumPy's structs are constants here; `dispatch_table.abi_problem` proves them on live objects
before this code is used. LLVM removes the stack traffic that keeps this text readable (no phi nodes).
"""

from __future__ import annotations

from tridsl.backends.cpu.dispatch_limits import MAX_ARGUMENTS, MAX_SLOTS

ENTRY = "tridsl_dispatch"
VECTORCALL = "tridsl_vectorcall"

EXTERNAL_OBJECTS = ("PyFloat_Type", "PyLong_Type", "PyBool_Type", "PyTuple_Type", "_Py_NoneStruct", "_Py_TrueStruct",
                    "CheckFailed", "PyExc_SystemError")  # fmt: skip
EXTERNAL_FUNCTIONS = ("Py_IncRef", "Py_DecRef", "PyFloat_AsDouble", "PyLong_AsDouble", "PyLong_AsLongLongAndOverflow",
                      "PyErr_Occurred", "PyErr_Clear", "PyErr_SetObject", "PyErr_SetString", "PyErr_NoMemory",
                      "PyEval_SaveThread", "PyEval_RestoreThread", "PyTuple_New", "PyTuple_SetItem",
                      "PyObject_Vectorcall", "PyCapsule_GetPointer")  # fmt: skip
NUMPY_OBJECTS = {"PyArray_Type": 2}
"""Index in NumPy's C API table (numpy/_core/include/numpy/__multiarray_api.h)."""
NUMPY_FUNCTIONS = {"PyArray_NewFromDescr": 94}

_TYPES = """
; How one axis' extent or byte step is checked. expected = size * scale + offset; kind: 0 constant offset, 1 check, 2 bind
%Rule = type { i64, i64, i64, i64 }            ; kind, size, scale, offset
%Param = type {
  ptr,   ;  0 name, an interned str
  i64,   ;  1 kind: 0 tensor, 1 float, 2 integer, 3 bool
  i64,   ;  2 slot, -1 for a constant that the kernel does not take
  i64,   ;  3 absent: 0 required, 1 default, 2 allocate
  i64,   ;  4 default or specialised value, as its slot
  i64,   ;  5 width of a float in bits, 32 or 64
  i64,   ;  6 least integer
  i64,   ;  7 greatest integer
  ptr,   ;  8 dtype, a PyArray_Descr
  i64,   ;  9 rank
  i64,   ; 10 alignment - 1
  i64,   ; 11 NumPy flags that must be set
  i64,   ; 12 bytes of an element, or of a scalar as NumPy has it
  i64,   ; 13 1: C-contiguous, the step rules are unused
  i64,   ; 14 1: the kernel writes it
  ptr,   ; 15 rules of the extents, one per axis
  ptr,   ; 16 rules of the steps, one per axis
  i64,   ; 17 1: specialised for its value, field 4
  ptr,   ; 18 NumPy's type of such a scalar, null for a tensor
  ptr,   ; 19 type of the object that holds the array, null where the argument is the array itself
  ptr,   ; 20 the holder's layout, an interned str
  ptr,   ; 21 the holder's shape: number of axes, extents
  i64,   ; 22 where in a holder its layout is
  i64,   ; 23 … its shape
  i64    ; 24 … its array
}
%Spec = type {
  ptr,   ;  0 entry of the kernel
  ptr,   ;  1 the Python object that keeps all of this alive
  i64,   ;  2 threads
  i64,   ;  3 1: release the GIL
  ptr,   ;  4 i32 omp_in_parallel(), null for a kernel of one thread
  i64,   ;  5 number of params: inputs, then outputs
  i64,   ;  6 number of inputs
  ptr,   ;  7 params
  i64,   ;  8 first slot of the sizes
  i64,   ;  9 number of keywords with a fixed value
  ptr,   ; 10 their names and values, alternating
  i64,   ; 11 number of results
  ptr,   ; 12 param number of each result
  i64,   ; 13 number of messages
  ptr,   ; 14 messages, each a str
  i64    ; 15 1: a tensor may be written, so overlaps are looked for
}
%Control = type { i64, ptr, ptr, ptr }         ; number of specialisations, them, fallback, the str "out"
"""

_DECLARATIONS = """
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare double @PyFloat_AsDouble(ptr)
declare double @PyLong_AsDouble(ptr)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Clear()
declare void @PyErr_SetObject(ptr, ptr)
declare void @PyErr_SetString(ptr, ptr)
declare ptr @PyErr_NoMemory()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyCapsule_GetPointer(ptr, ptr)
declare ptr @PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare { i64, i1 } @llvm.smul.with.overflow.i64(i64, i64)
declare double @llvm.fabs.f64(double)

@no_owner = private constant [29 x i8] c"called while being torn down\\00"
@unknown_status = private constant [49 x i8] c"a kernel returned an unknown status (tridsl bug)\\00"
"""

_ENTRY = f"""
define internal ptr @dispatch(ptr %owner, ptr %args, i64 %nargs, ptr %kwnames) {{
  %objects = alloca [{MAX_ARGUMENTS} x ptr]
  %owned = alloca [{MAX_ARGUMENTS} x i8]
  %slots = alloca [{MAX_SLOTS} x i64]
  %i.var = alloca i64
  %capsule.at = getelementptr i8, ptr %owner, i64 TUPLE_ITEMS      ; the first item of the owner is the table's capsule
  %capsule = load ptr, ptr %capsule.at
  %control = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr null)
  %count = load i64, ptr %control
  %specs.at = getelementptr %Control, ptr %control, i32 0, i32 1
  %specs = load ptr, ptr %specs.at
  %fallback.at = getelementptr %Control, ptr %control, i32 0, i32 2
  %out.name.at = getelementptr %Control, ptr %control, i32 0, i32 3
  %out.name = load ptr, ptr %out.name.at
  store i64 0, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %count
  br i1 %more, label %try, label %miss
try:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  %spec.at = getelementptr ptr, ptr %specs, i64 %i
  %spec = load ptr, ptr %spec.at
  %bound = call i1 @arguments(ptr %spec, ptr %args, i64 %nargs, ptr %kwnames, ptr %out.name, ptr %objects)
  br i1 %bound, label %check, label %loop
check:
  %fit = call i1 @fits(ptr %spec, ptr %objects, ptr %slots, ptr %owned)
  br i1 %fit, label %hit, label %loop
hit:
  %result = call ptr @perform(ptr %spec, ptr %objects, ptr %slots, ptr %owned)
  ret ptr %result
miss:
  %fallback = load ptr, ptr %fallback.at
  call void @Py_IncRef(ptr %fallback)       ; it may replace its owner
  %slow = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %kwnames)
  call void @Py_DecRef(ptr %fallback)
  ret ptr %slow
}}

; The body of a built-in function, METH_FASTCALL | METH_KEYWORDS.
define ptr @{ENTRY}(ptr %self, ptr %args, i64 %nargs, ptr %kwnames) {{
  %result = tail call ptr @dispatch(ptr %self, ptr %args, i64 %nargs, ptr %kwnames)
  ret ptr %result
}}

; The vectorcall of an instance of `dispatch_type`: its owner stands behind the pointer to this function.
define ptr @{VECTORCALL}(ptr %instance, ptr %args, i64 %nargs.flagged, ptr %kwnames) {{
  %type.at = getelementptr i8, ptr %instance, i64 8
  %type = load ptr, ptr %type.at
  %offset.at = getelementptr i8, ptr %type, i64 56          ; PyTypeObject.tp_vectorcall_offset
  %offset = load i64, ptr %offset.at
  %owner.offset = add i64 %offset, 8
  %owner.at = getelementptr i8, ptr %instance, i64 %owner.offset
  %owner = load ptr, ptr %owner.at
  %gone = icmp eq ptr %owner, null          ; the garbage collector took it: part of a dead cycle
  br i1 %gone, label %dead, label %alive
dead:
  %system.error = load ptr, ptr @PyExc_SystemError
  call void @PyErr_SetString(ptr %system.error, ptr @no_owner)
  ret ptr null
alive:
  %nargs = and i64 %nargs.flagged, 9223372036854775807      ; without PY_VECTORCALL_ARGUMENTS_OFFSET
  %result = tail call ptr @dispatch(ptr %owner, ptr %args, i64 %nargs, ptr %kwnames)
  ret ptr %result
}}
"""


def dispatch_ir(tuple_items: int) -> str:
    """The module's text. `tuple_items`: offset of a tuple's first item (24; 32 from Python 3.14 on).

    It has no target: `dispatch_build` sets this machine's.
    """
    from tridsl.backends.cpu.dispatch_ir_arguments import (  # start-up time: the first call is dispatched by Python
        ARGUMENTS,
        FITS,
    )
    from tridsl.backends.cpu.dispatch_ir_run import RUN
    from tridsl.backends.cpu.dispatch_ir_values import HELD, SCALAR, TENSOR

    objects = "\n".join(f"@{name} = external global ptr" for name in (*EXTERNAL_OBJECTS, *NUMPY_OBJECTS))
    parts = (_TYPES, objects, _DECLARATIONS, SCALAR, TENSOR, HELD, ARGUMENTS, FITS, RUN, _ENTRY)
    return "\n".join(parts).replace("TUPLE_ITEMS", str(tuple_items))
