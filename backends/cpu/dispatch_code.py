"""The native dispatcher, as LLVM IR: the body of a Python function that recognises a call and jumps into its kernel.

`tridsl_dispatch(self, args, nargs, kwnames)` has the C signature of METH_FASTCALL | METH_KEYWORDS. It tries the
specialisations of its table in order (`@attempt`). A specialisation that does not fit changes nothing in the world; when
none fits, the fallback is called with the very same arguments. The table's layout is mirrored in `dispatch_table`.

Offsets into CPython's and NumPy's structs are constants here; `dispatch_table.abi_problem` proves them on live objects
before this code is used. LLVM removes the stack traffic that keeps this text readable (no phi nodes).
"""

from __future__ import annotations

MAX_ARGUMENTS = 24
MAX_SLOTS = 64
MAX_RANK = 16
TENSOR, FLOAT, INTEGER, BOOLEAN = range(4)
REQUIRED, DEFAULT, ALLOCATE = range(3)
CONSTANT, CHECK, BIND = range(3)

ENTRY = "tridsl_dispatch"

EXTERNAL_OBJECTS = ("PyFloat_Type", "PyLong_Type", "PyBool_Type", "PyTuple_Type", "_Py_NoneStruct", "_Py_TrueStruct",
                    "PyExc_IndexError", "PyExc_SystemError")  # fmt: skip
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
  i64,   ; 12 bytes of an element
  i64,   ; 13 1: C-contiguous, the step rules are unused
  i64,   ; 14 1: the kernel writes it
  ptr,   ; 15 rules of the extents, one per axis
  ptr,   ; 16 rules of the steps, one per axis
  i64    ; 17 1: specialised for its value, field 4
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

@unknown_status = private constant [49 x i8] c"a kernel returned an unknown status (tridsl bug)\\00"
"""

# --- scalars -----------------------------------------------------------------------------------------------------------
_SCALAR = """
; Convert a Python number to its slot. Only exact float, int and bool; a subclass may mean something else.
define internal i1 @scalar(ptr %object, ptr %param, ptr %bits) {
  %overflow = alloca i32
  %number = alloca double
  %type.at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %type.at
  %kind.at = getelementptr %Param, ptr %param, i32 0, i32 1
  %kind = load i64, ptr %kind.at
  %is.int = icmp eq ptr %type, @PyLong_Type
  switch i64 %kind, label %boolean [ i64 1, label %float
                                     i64 2, label %integer ]
float:
  %is.float = icmp eq ptr %type, @PyFloat_Type
  br i1 %is.float, label %from.float, label %float.int
from.float:
  %f = call double @PyFloat_AsDouble(ptr %object)
  store double %f, ptr %number
  br label %narrow
float.int:
  br i1 %is.int, label %from.int, label %no
from.int:
  %g = call double @PyLong_AsDouble(ptr %object)
  store double %g, ptr %number
  %failed = fcmp oeq double %g, -1.0
  br i1 %failed, label %look, label %narrow
look:
  %occurred = call ptr @PyErr_Occurred()
  %none = icmp eq ptr %occurred, null
  br i1 %none, label %narrow, label %clear
clear:
  call void @PyErr_Clear()
  ret i1 false
narrow:
  %value = load double, ptr %number
  %width.at = getelementptr %Param, ptr %param, i32 0, i32 5
  %width = load i64, ptr %width.at
  %is.double = icmp eq i64 %width, 64
  br i1 %is.double, label %double, label %single
double:
  store double %value, ptr %bits
  ret i1 true
single:
  ; a finite number that f32 cannot hold is for the fallback to judge
  %small = fptrunc double %value to float
  %wide = fpext float %small to double
  %small.size = call double @llvm.fabs.f64(double %wide)
  %size = call double @llvm.fabs.f64(double %value)
  %became.infinite = fcmp oeq double %small.size, 0x7FF0000000000000
  %was.finite = fcmp olt double %size, 0x7FF0000000000000
  %lost = and i1 %became.infinite, %was.finite
  br i1 %lost, label %no, label %single.store
single.store:
  %single.bits = bitcast float %small to i32
  %extended = zext i32 %single.bits to i64
  store i64 %extended, ptr %bits
  ret i1 true
integer:
  br i1 %is.int, label %integer.read, label %no
integer.read:
  %i = call i64 @PyLong_AsLongLongAndOverflow(ptr %object, ptr %overflow)
  %o = load i32, ptr %overflow
  %fits = icmp eq i32 %o, 0
  %low.at = getelementptr %Param, ptr %param, i32 0, i32 6
  %low = load i64, ptr %low.at
  %high.at = getelementptr %Param, ptr %param, i32 0, i32 7
  %high = load i64, ptr %high.at
  %ge = icmp sge i64 %i, %low
  %le = icmp sle i64 %i, %high
  %in.range = and i1 %ge, %le
  %good = and i1 %fits, %in.range
  store i64 %i, ptr %bits
  ret i1 %good
boolean:
  %is.bool = icmp eq ptr %type, @PyBool_Type
  br i1 %is.bool, label %boolean.read, label %no
boolean.read:
  %is.true = icmp eq ptr %object, @_Py_TrueStruct
  %b = zext i1 %is.true to i64
  store i64 %b, ptr %bits
  ret i1 true
no:
  ret i1 false
}
"""

# --- tensors -----------------------------------------------------------------------------------------------------------
_TENSOR = """
; What a rule expects, for kinds 0 and 1.
define internal i64 @expected(ptr %rule, ptr %sizes) {
  %offset.at = getelementptr %Rule, ptr %rule, i32 0, i32 3
  %offset = load i64, ptr %offset.at
  %kind = load i64, ptr %rule
  %constant = icmp eq i64 %kind, 0
  br i1 %constant, label %plain, label %computed
plain:
  ret i64 %offset
computed:
  %size.at = getelementptr %Rule, ptr %rule, i32 0, i32 1
  %size = load i64, ptr %size.at
  %value.at = getelementptr i64, ptr %sizes, i64 %size
  %value = load i64, ptr %value.at
  %scale.at = getelementptr %Rule, ptr %rule, i32 0, i32 2
  %scale = load i64, ptr %scale.at
  %product = mul i64 %value, %scale
  %sum = add i64 %product, %offset
  ret i64 %sum
}

; Does `value` follow the rule? A binding rule gives the size its value.
define internal i1 @follows(ptr %rule, ptr %sizes, i64 %value) {
  %kind = load i64, ptr %rule
  %binds = icmp eq i64 %kind, 2
  br i1 %binds, label %bind, label %compare
compare:
  %wanted = call i64 @expected(ptr %rule, ptr %sizes)
  %same = icmp eq i64 %wanted, %value
  ret i1 %same
bind:
  %offset.at = getelementptr %Rule, ptr %rule, i32 0, i32 3
  %offset = load i64, ptr %offset.at
  %scale.at = getelementptr %Rule, ptr %rule, i32 0, i32 2
  %scale = load i64, ptr %scale.at
  %scaled = sub i64 %value, %offset
  %trivial = icmp eq i64 %scale, 1
  br i1 %trivial, label %whole, label %divide
whole:
  br label %store
divide:
  %rest = srem i64 %scaled, %scale
  %divides = icmp eq i64 %rest, 0
  br i1 %divides, label %divided, label %no
divided:
  %ratio = sdiv i64 %scaled, %scale
  br label %store
store:
  %bound = phi i64 [ %scaled, %whole ], [ %ratio, %divided ]
  %natural = icmp sge i64 %bound, 0
  br i1 %natural, label %store.it, label %no
store.it:
  %size.at = getelementptr %Rule, ptr %rule, i32 0, i32 1
  %size = load i64, ptr %size.at
  %value.at = getelementptr i64, ptr %sizes, i64 %size
  store i64 %bound, ptr %value.at
  ret i1 true
no:
  ret i1 false
}

; Is `object` an array that `param` describes? Gives the bytes it covers as [low, high).
define internal i1 @tensor(ptr %object, ptr %param, ptr %sizes, ptr %low.out, ptr %high.out) {
  %axis.var = alloca i64
  %step.var = alloca i64
  %low.var = alloca i64
  %high.var = alloca i64
  %empty.var = alloca i1
  %type.at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %type.at
  %is.array = icmp eq ptr %type, @PyArray_Type
  br i1 %is.array, label %array, label %no
array:
  %descr.at = getelementptr i8, ptr %object, i64 56
  %descr = load ptr, ptr %descr.at
  %want.descr.at = getelementptr %Param, ptr %param, i32 0, i32 8
  %want.descr = load ptr, ptr %want.descr.at
  %descr.ok = icmp eq ptr %descr, %want.descr
  %rank.at = getelementptr i8, ptr %object, i64 24
  %rank32 = load i32, ptr %rank.at
  %rank = sext i32 %rank32 to i64
  %want.rank.at = getelementptr %Param, ptr %param, i32 0, i32 9
  %want.rank = load i64, ptr %want.rank.at
  %rank.ok = icmp eq i64 %rank, %want.rank
  %flags.at = getelementptr i8, ptr %object, i64 64
  %flags32 = load i32, ptr %flags.at
  %flags = sext i32 %flags32 to i64
  %want.flags.at = getelementptr %Param, ptr %param, i32 0, i32 11
  %want.flags = load i64, ptr %want.flags.at
  %common = and i64 %flags, %want.flags
  %flags.ok = icmp eq i64 %common, %want.flags
  %data.at = getelementptr i8, ptr %object, i64 16
  %data = load ptr, ptr %data.at
  %address = ptrtoint ptr %data to i64
  %mask.at = getelementptr %Param, ptr %param, i32 0, i32 10
  %mask = load i64, ptr %mask.at
  %odd = and i64 %address, %mask
  %aligned = icmp eq i64 %odd, 0
  %ok1 = and i1 %descr.ok, %rank.ok
  %ok2 = and i1 %flags.ok, %aligned
  %ok = and i1 %ok1, %ok2
  br i1 %ok, label %axes, label %no
axes:
  %shape.at = getelementptr i8, ptr %object, i64 32
  %shape = load ptr, ptr %shape.at
  %strides.at = getelementptr i8, ptr %object, i64 40
  %strides = load ptr, ptr %strides.at
  %extents.at = getelementptr %Param, ptr %param, i32 0, i32 15
  %extents = load ptr, ptr %extents.at
  %steps.at = getelementptr %Param, ptr %param, i32 0, i32 16
  %steps = load ptr, ptr %steps.at
  %item.at = getelementptr %Param, ptr %param, i32 0, i32 12
  %item = load i64, ptr %item.at
  %contiguous.at = getelementptr %Param, ptr %param, i32 0, i32 13
  %contiguous64 = load i64, ptr %contiguous.at
  %contiguous = icmp ne i64 %contiguous64, 0
  store i64 0, ptr %axis.var
  store i1 false, ptr %empty.var
  br label %extent.loop
extent.loop:
  %axis = load i64, ptr %axis.var
  %more = icmp slt i64 %axis, %rank
  br i1 %more, label %extent.body, label %extent.done
extent.body:
  %extent.at = getelementptr i64, ptr %shape, i64 %axis
  %extent = load i64, ptr %extent.at
  %rule = getelementptr %Rule, ptr %extents, i64 %axis
  %extent.ok = call i1 @follows(ptr %rule, ptr %sizes, i64 %extent)
  br i1 %extent.ok, label %extent.next, label %no
extent.next:
  %zero = icmp eq i64 %extent, 0
  %empty.old = load i1, ptr %empty.var
  %empty.new = or i1 %empty.old, %zero
  store i1 %empty.new, ptr %empty.var
  %axis.next = add i64 %axis, 1
  store i64 %axis.next, ptr %axis.var
  br label %extent.loop
extent.done:
  ; strides from the last axis to the first; an axis of one element may have any, and so may every axis of an empty array
  store i64 %item, ptr %step.var
  store i64 %address, ptr %low.var
  %first.end = add i64 %address, %item
  store i64 %first.end, ptr %high.var
  store i64 %rank, ptr %axis.var
  %empty = load i1, ptr %empty.var
  br label %stride.loop
stride.loop:
  %after = load i64, ptr %axis.var
  %left = icmp sgt i64 %after, 0
  br i1 %left, label %stride.body, label %stride.done
stride.body:
  %at = sub i64 %after, 1
  store i64 %at, ptr %axis.var
  %count.at = getelementptr i64, ptr %shape, i64 %at
  %count = load i64, ptr %count.at
  %stride.at = getelementptr i64, ptr %strides, i64 %at
  %stride = load i64, ptr %stride.at
  %single = icmp eq i64 %count, 1
  %free = or i1 %single, %empty
  br i1 %contiguous, label %stride.contiguous, label %stride.ruled
stride.contiguous:
  %step = load i64, ptr %step.var
  %step.same = icmp eq i64 %stride, %step
  %step.ok = or i1 %step.same, %free
  %step.next = mul i64 %step, %count
  store i64 %step.next, ptr %step.var
  br i1 %step.ok, label %stride.range, label %no
stride.ruled:
  %stride.rule = getelementptr %Rule, ptr %steps, i64 %at
  %rule.kind = load i64, ptr %stride.rule
  %rule.binds = icmp eq i64 %rule.kind, 2
  %skip = xor i1 %rule.binds, true
  %may.skip = and i1 %skip, %free
  br i1 %may.skip, label %stride.range, label %stride.follow
stride.follow:
  %stride.ok = call i1 @follows(ptr %stride.rule, ptr %sizes, i64 %stride)
  br i1 %stride.ok, label %stride.range, label %no
stride.range:
  %steps.taken = sub i64 %count, 1
  %reach = mul i64 %steps.taken, %stride
  %backwards = icmp slt i64 %reach, 0
  %down = select i1 %backwards, i64 %reach, i64 0
  %up = select i1 %backwards, i64 0, i64 %reach
  %low.old = load i64, ptr %low.var
  %low.new = add i64 %low.old, %down
  store i64 %low.new, ptr %low.var
  %high.old = load i64, ptr %high.var
  %high.new = add i64 %high.old, %up
  store i64 %high.new, ptr %high.var
  br label %stride.loop
stride.done:
  %low = load i64, ptr %low.var
  %high = load i64, ptr %high.var
  %low.final = select i1 %empty, i64 %address, i64 %low
  %high.final = select i1 %empty, i64 %address, i64 %high
  store i64 %low.final, ptr %low.out
  store i64 %high.final, ptr %high.out
  ret i1 true
no:
  ret i1 false
}
"""

# --- arguments to params -----------------------------------------------------------------------------------------------
_ARGUMENTS = """
; Give every param its object: positional, by keyword, or null. False for anything that the signature does not have.
define internal i1 @arguments(ptr %spec, ptr %args, i64 %nargs, ptr %kwnames, ptr %out.name, ptr %objects) {
  %i.var = alloca i64
  %j.var = alloca i64
  %fixed.var = alloca i64
  %params.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 5
  %params.n = load i64, ptr %params.n.at
  %inputs.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 6
  %inputs.n = load i64, ptr %inputs.n.at
  %outputs.n = sub i64 %params.n, %inputs.n
  %params.at = getelementptr %Spec, ptr %spec, i32 0, i32 7
  %params = load ptr, ptr %params.at
  %fixed.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 9
  %fixed.n = load i64, ptr %fixed.n.at
  %fixed.at = getelementptr %Spec, ptr %spec, i32 0, i32 10
  %fixed = load ptr, ptr %fixed.at
  store i64 0, ptr %fixed.var
  store i64 0, ptr %i.var
  %too.many = icmp sgt i64 %nargs, %params.n
  br i1 %too.many, label %no, label %copy.loop
copy.loop:
  %i = load i64, ptr %i.var
  %copying = icmp slt i64 %i, %params.n
  br i1 %copying, label %copy.body, label %keywords
copy.body:
  %slot = getelementptr ptr, ptr %objects, i64 %i
  %given = icmp slt i64 %i, %nargs
  br i1 %given, label %copy.given, label %copy.absent
copy.given:
  %arg.at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.at
  store ptr %arg, ptr %slot
  br label %copy.next
copy.absent:
  store ptr null, ptr %slot
  br label %copy.next
copy.next:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  br label %copy.loop

keywords:
  %any = icmp ne ptr %kwnames, null
  br i1 %any, label %keywords.some, label %check.fixed
keywords.some:
  %count.at = getelementptr i8, ptr %kwnames, i64 16
  %count = load i64, ptr %count.at
  store i64 0, ptr %i.var
  br label %keyword.loop
keyword.loop:
  %k = load i64, ptr %i.var
  %k.next = add i64 %k, 1
  store i64 %k.next, ptr %i.var
  %k.more = icmp slt i64 %k, %count
  br i1 %k.more, label %keyword.body, label %check.fixed
keyword.body:
  %names = getelementptr i8, ptr %kwnames, i64 TUPLE_ITEMS
  %name.at = getelementptr ptr, ptr %names, i64 %k
  %name = load ptr, ptr %name.at
  %value.index = add i64 %nargs, %k
  %value.at = getelementptr ptr, ptr %args, i64 %value.index
  %value = load ptr, ptr %value.at
  %is.out = icmp eq ptr %name, %out.name
  %has.out = icmp sgt i64 %outputs.n, 0
  %out.here = and i1 %is.out, %has.out
  br i1 %out.here, label %out, label %search
out:
  %one = icmp eq i64 %outputs.n, 1
  br i1 %one, label %out.one, label %out.many
out.one:
  %out.slot = getelementptr ptr, ptr %objects, i64 %inputs.n
  %out.old = load ptr, ptr %out.slot
  %out.twice = icmp ne ptr %out.old, null
  store ptr %value, ptr %out.slot
  br i1 %out.twice, label %no, label %keyword.loop
out.many:
  %tuple.type.at = getelementptr i8, ptr %value, i64 8
  %tuple.type = load ptr, ptr %tuple.type.at
  %is.tuple = icmp eq ptr %tuple.type, @PyTuple_Type
  br i1 %is.tuple, label %out.tuple, label %no
out.tuple:
  %length.at = getelementptr i8, ptr %value, i64 16
  %length = load i64, ptr %length.at
  %length.ok = icmp eq i64 %length, %outputs.n
  store i64 0, ptr %j.var
  br i1 %length.ok, label %out.loop, label %no
out.loop:
  %o = load i64, ptr %j.var
  %o.more = icmp slt i64 %o, %outputs.n
  br i1 %o.more, label %out.body, label %keyword.loop
out.body:
  %items = getelementptr i8, ptr %value, i64 TUPLE_ITEMS
  %item.at = getelementptr ptr, ptr %items, i64 %o
  %item = load ptr, ptr %item.at
  %o.index = add i64 %inputs.n, %o
  %o.slot = getelementptr ptr, ptr %objects, i64 %o.index
  %o.old = load ptr, ptr %o.slot
  %o.twice = icmp ne ptr %o.old, null
  store ptr %item, ptr %o.slot
  %o.next = add i64 %o, 1
  store i64 %o.next, ptr %j.var
  br i1 %o.twice, label %no, label %out.loop
search:
  store i64 0, ptr %j.var
  br label %search.loop
search.loop:
  %s = load i64, ptr %j.var
  %s.more = icmp slt i64 %s, %inputs.n
  br i1 %s.more, label %search.body, label %fixed.search
search.body:
  %s.param = getelementptr %Param, ptr %params, i64 %s
  %s.name = load ptr, ptr %s.param
  %s.same = icmp eq ptr %s.name, %name
  %s.next = add i64 %s, 1
  store i64 %s.next, ptr %j.var
  br i1 %s.same, label %search.found, label %search.loop
search.found:
  %s.slot = getelementptr ptr, ptr %objects, i64 %s
  %s.old = load ptr, ptr %s.slot
  %s.twice = icmp ne ptr %s.old, null
  store ptr %value, ptr %s.slot
  br i1 %s.twice, label %no, label %keyword.loop
fixed.search:
  store i64 0, ptr %j.var
  br label %fixed.loop
fixed.loop:
  %f = load i64, ptr %j.var
  %f.more = icmp slt i64 %f, %fixed.n
  br i1 %f.more, label %fixed.body, label %no
fixed.body:
  %f.pair = mul i64 %f, 2
  %f.name.at = getelementptr ptr, ptr %fixed, i64 %f.pair
  %f.name = load ptr, ptr %f.name.at
  %f.value.at = getelementptr ptr, ptr %f.name.at, i64 1
  %f.value = load ptr, ptr %f.value.at
  %f.same = icmp eq ptr %f.name, %name
  %f.next = add i64 %f, 1
  store i64 %f.next, ptr %j.var
  br i1 %f.same, label %fixed.found, label %fixed.loop
fixed.found:
  %matched = load i64, ptr %fixed.var
  %matched.next = add i64 %matched, 1
  store i64 %matched.next, ptr %fixed.var
  %f.equal = icmp eq ptr %f.value, %value
  br i1 %f.equal, label %keyword.loop, label %no
check.fixed:
  %all = load i64, ptr %fixed.var
  %all.ok = icmp eq i64 %all, %fixed.n
  ret i1 %all.ok
no:
  ret i1 false
}
"""

# --- one specialisation -------------------------------------------------------------------------------------------------
_FITS = f"""
; Check every param and fill the slots. `owned[i]` is set to 1 where an output is to be allocated.
define internal i1 @fits(ptr %spec, ptr %objects, ptr %slots, ptr %owned) {{
  %lows = alloca [{MAX_ARGUMENTS} x i64]
  %highs = alloca [{MAX_ARGUMENTS} x i64]
  %bits = alloca i64
  %i.var = alloca i64
  %j.var = alloca i64
  %params.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 5
  %params.n = load i64, ptr %params.n.at
  %params.at = getelementptr %Spec, ptr %spec, i32 0, i32 7
  %params = load ptr, ptr %params.at
  %first.at = getelementptr %Spec, ptr %spec, i32 0, i32 8
  %first = load i64, ptr %first.at
  %sizes = getelementptr i64, ptr %slots, i64 %first
  store i64 0, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %params.n
  br i1 %more, label %body, label %done
body:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  %param = getelementptr %Param, ptr %params, i64 %i
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %owned.at = getelementptr i8, ptr %owned, i64 %i
  store i8 0, ptr %owned.at
  %low.at = getelementptr i64, ptr %lows, i64 %i
  %high.at = getelementptr i64, ptr %highs, i64 %i
  %slot.n.at = getelementptr %Param, ptr %param, i32 0, i32 2
  %slot.n = load i64, ptr %slot.n.at
  %slot = getelementptr i64, ptr %slots, i64 %slot.n
  %value.at = getelementptr %Param, ptr %param, i32 0, i32 4
  %absent.at = getelementptr %Param, ptr %param, i32 0, i32 3
  %absent = load i64, ptr %absent.at
  %allocates = icmp eq i64 %absent, 2
  %missing = icmp eq ptr %object, null
  br i1 %missing, label %absent.kind, label %maybe.none
maybe.none:
  %is.none = icmp eq ptr %object, @_Py_NoneStruct
  %none.out = and i1 %is.none, %allocates
  br i1 %none.out, label %allocate, label %present
absent.kind:
  switch i64 %absent, label %no [ i64 1, label %default
                                  i64 2, label %allocate ]
default:
  %has.slot = icmp sge i64 %slot.n, 0
  br i1 %has.slot, label %default.store, label %loop
default.store:
  %default.bits = load i64, ptr %value.at
  store i64 %default.bits, ptr %slot
  br label %loop
allocate:
  store i8 1, ptr %owned.at
  store i64 0, ptr %low.at
  store i64 0, ptr %high.at
  br label %loop
present:
  %kind.at = getelementptr %Param, ptr %param, i32 0, i32 1
  %kind = load i64, ptr %kind.at
  %is.tensor = icmp eq i64 %kind, 0
  br i1 %is.tensor, label %tensor, label %scalar
tensor:
  %tensor.ok = call i1 @tensor(ptr %object, ptr %param, ptr %sizes, ptr %low.at, ptr %high.at)
  br i1 %tensor.ok, label %tensor.store, label %no
tensor.store:
  %data.at = getelementptr i8, ptr %object, i64 16
  %data = load ptr, ptr %data.at
  store ptr %data, ptr %slot
  br label %loop
scalar:
  %scalar.ok = call i1 @scalar(ptr %object, ptr %param, ptr %bits)
  br i1 %scalar.ok, label %scalar.use, label %no
scalar.use:
  %value = load i64, ptr %bits
  %specialised.at = getelementptr %Param, ptr %param, i32 0, i32 17
  %specialised64 = load i64, ptr %specialised.at
  %specialised = icmp ne i64 %specialised64, 0
  %constant = load i64, ptr %value.at
  %same = icmp eq i64 %constant, %value
  %unlike = xor i1 %same, true
  %refused = and i1 %specialised, %unlike
  br i1 %refused, label %no, label %scalar.accepted
scalar.accepted:
  %passed = icmp sge i64 %slot.n, 0
  br i1 %passed, label %scalar.store, label %loop
scalar.store:
  store i64 %value, ptr %slot
  br label %loop
done:
  %watch.at = getelementptr %Spec, ptr %spec, i32 0, i32 15
  %watch = load i64, ptr %watch.at
  %watching = icmp ne i64 %watch, 0
  br i1 %watching, label %overlap, label %yes

overlap:
  ; a tensor that is written must not share bytes with any other
  store i64 0, ptr %i.var
  br label %outer
outer:
  %w = load i64, ptr %i.var
  %w.more = icmp slt i64 %w, %params.n
  br i1 %w.more, label %outer.body, label %yes
outer.body:
  %w.next = add i64 %w, 1
  store i64 %w.next, ptr %i.var
  %w.param = getelementptr %Param, ptr %params, i64 %w
  %written.at = getelementptr %Param, ptr %w.param, i32 0, i32 14
  %written = load i64, ptr %written.at
  %w.owned.at = getelementptr i8, ptr %owned, i64 %w
  %w.owned = load i8, ptr %w.owned.at
  %is.written = icmp ne i64 %written, 0
  %is.given = icmp eq i8 %w.owned, 0
  %check = and i1 %is.written, %is.given
  store i64 0, ptr %j.var
  br i1 %check, label %inner, label %outer
inner:
  %r = load i64, ptr %j.var
  %r.more = icmp slt i64 %r, %params.n
  br i1 %r.more, label %inner.body, label %outer
inner.body:
  %r.next = add i64 %r, 1
  store i64 %r.next, ptr %j.var
  %r.param = getelementptr %Param, ptr %params, i64 %r
  %r.kind.at = getelementptr %Param, ptr %r.param, i32 0, i32 1
  %r.kind = load i64, ptr %r.kind.at
  %r.tensor = icmp eq i64 %r.kind, 0
  %other = icmp ne i64 %r, %w
  %compare = and i1 %r.tensor, %other
  br i1 %compare, label %inner.compare, label %inner
inner.compare:
  %w.low.at = getelementptr i64, ptr %lows, i64 %w
  %w.low = load i64, ptr %w.low.at
  %w.high.at = getelementptr i64, ptr %highs, i64 %w
  %w.high = load i64, ptr %w.high.at
  %r.low.at = getelementptr i64, ptr %lows, i64 %r
  %r.low = load i64, ptr %r.low.at
  %r.high.at = getelementptr i64, ptr %highs, i64 %r
  %r.high = load i64, ptr %r.high.at
  %begins = icmp ult i64 %w.low, %r.high
  %ends = icmp ult i64 %r.low, %w.high
  %w.some = icmp ult i64 %w.low, %w.high
  %r.some = icmp ult i64 %r.low, %r.high
  %shares1 = and i1 %begins, %ends
  %shares2 = and i1 %w.some, %r.some
  %shares = and i1 %shares1, %shares2
  br i1 %shares, label %no, label %inner
yes:
  ret i1 true
no:
  ret i1 false
}}
"""

_RUN = f"""
; Allocate the outputs that were not given. False with a Python error set; what was allocated stays in `objects`/`owned`.
define internal i1 @allocate(ptr %spec, ptr %objects, ptr %slots, ptr %owned) {{
  %shape = alloca [{MAX_RANK} x i64]
  %i.var = alloca i64
  %axis.var = alloca i64
  %params.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 5
  %params.n = load i64, ptr %params.n.at
  %inputs.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 6
  %inputs.n = load i64, ptr %inputs.n.at
  %params.at = getelementptr %Spec, ptr %spec, i32 0, i32 7
  %params = load ptr, ptr %params.at
  %first.at = getelementptr %Spec, ptr %spec, i32 0, i32 8
  %first = load i64, ptr %first.at
  %sizes = getelementptr i64, ptr %slots, i64 %first
  store i64 %inputs.n, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %params.n
  br i1 %more, label %body, label %yes
body:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  %owned.at = getelementptr i8, ptr %owned, i64 %i
  %is.owned8 = load i8, ptr %owned.at
  %is.owned = icmp ne i8 %is.owned8, 0
  store i64 0, ptr %axis.var
  br i1 %is.owned, label %axes, label %loop
axes:
  %param = getelementptr %Param, ptr %params, i64 %i
  %rank.at = getelementptr %Param, ptr %param, i32 0, i32 9
  %rank = load i64, ptr %rank.at
  %extents.at = getelementptr %Param, ptr %param, i32 0, i32 15
  %extents = load ptr, ptr %extents.at
  br label %axis.loop
axis.loop:
  %axis = load i64, ptr %axis.var
  %axis.more = icmp slt i64 %axis, %rank
  br i1 %axis.more, label %axis.body, label %make
axis.body:
  %rule = getelementptr %Rule, ptr %extents, i64 %axis
  %extent = call i64 @expected(ptr %rule, ptr %sizes)
  %extent.at = getelementptr i64, ptr %shape, i64 %axis
  store i64 %extent, ptr %extent.at
  %axis.next = add i64 %axis, 1
  store i64 %axis.next, ptr %axis.var
  br label %axis.loop
make:
  %descr.at = getelementptr %Param, ptr %param, i32 0, i32 8
  %descr = load ptr, ptr %descr.at
  call void @Py_IncRef(ptr %descr)
  %rank32 = trunc i64 %rank to i32
  %new = call ptr @PyArray_NewFromDescr(ptr @PyArray_Type, ptr %descr, i32 %rank32, ptr %shape,
                                        ptr null, ptr null, i32 0, ptr null)
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  store ptr %new, ptr %object.at
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %no, label %made
made:
  %data.at = getelementptr i8, ptr %new, i64 16
  %data = load ptr, ptr %data.at
  %slot.n.at = getelementptr %Param, ptr %param, i32 0, i32 2
  %slot.n = load i64, ptr %slot.n.at
  %slot = getelementptr i64, ptr %slots, i64 %slot.n
  store ptr %data, ptr %slot
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}}

define internal i32 @run(ptr %spec, ptr %slots) {{
  %threads.var = alloca i64
  %entry = load ptr, ptr %spec
  %threads.at = getelementptr %Spec, ptr %spec, i32 0, i32 2
  %wanted = load i64, ptr %threads.at
  store i64 %wanted, ptr %threads.var
  %inside.at = getelementptr %Spec, ptr %spec, i32 0, i32 4
  %inside = load ptr, ptr %inside.at
  %ask = icmp ne ptr %inside, null
  br i1 %ask, label %parallel, label %gil
parallel:
  %nested32 = call i32 %inside()
  %nested = icmp ne i32 %nested32, 0
  %threads.new = select i1 %nested, i64 1, i64 %wanted
  store i64 %threads.new, ptr %threads.var
  br label %gil
gil:
  %threads = load i64, ptr %threads.var
  %release.at = getelementptr %Spec, ptr %spec, i32 0, i32 3
  %release = load i64, ptr %release.at
  %free = icmp ne i64 %release, 0
  br i1 %free, label %without, label %with
without:
  %state = call ptr @PyEval_SaveThread()
  %status.free = call i32 %entry(ptr %slots, i64 %threads)
  call void @PyEval_RestoreThread(ptr %state)
  ret i32 %status.free
with:
  %status = call i32 %entry(ptr %slots, i64 %threads)
  ret i32 %status
}}

; The Python error of a kernel's status: 1 memory, 2 + n message n.
define internal void @raise(ptr %spec, i32 %status) {{
  %memory = icmp eq i32 %status, 1
  br i1 %memory, label %no.memory, label %check
no.memory:
  %ignored = call ptr @PyErr_NoMemory()
  ret void
check:
  %number32 = sub i32 %status, 2
  %number = sext i32 %number32 to i64
  %count.at = getelementptr %Spec, ptr %spec, i32 0, i32 13
  %count = load i64, ptr %count.at
  %known = icmp ult i64 %number, %count
  br i1 %known, label %message, label %unknown
message:
  %messages.at = getelementptr %Spec, ptr %spec, i32 0, i32 14
  %messages = load ptr, ptr %messages.at
  %text.at = getelementptr ptr, ptr %messages, i64 %number
  %text = load ptr, ptr %text.at
  %index.error = load ptr, ptr @PyExc_IndexError
  call void @PyErr_SetObject(ptr %index.error, ptr %text)
  ret void
unknown:
  %system.error = load ptr, ptr @PyExc_SystemError
  call void @PyErr_SetString(ptr %system.error, ptr @unknown_status)
  ret void
}}

; A new reference to what the call returns, or null with an error set.
define internal ptr @result(ptr %spec, ptr %objects) {{
  %i.var = alloca i64
  %count.at = getelementptr %Spec, ptr %spec, i32 0, i32 11
  %count = load i64, ptr %count.at
  %numbers.at = getelementptr %Spec, ptr %spec, i32 0, i32 12
  %numbers = load ptr, ptr %numbers.at
  switch i64 %count, label %several [ i64 0, label %none
                                      i64 1, label %one ]
none:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
one:
  %only = load i64, ptr %numbers
  %only.at = getelementptr ptr, ptr %objects, i64 %only
  %object = load ptr, ptr %only.at
  call void @Py_IncRef(ptr %object)
  ret ptr %object
several:
  %tuple = call ptr @PyTuple_New(i64 %count)
  %failed = icmp eq ptr %tuple, null
  store i64 0, ptr %i.var
  br i1 %failed, label %done, label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %number.at = getelementptr i64, ptr %numbers, i64 %i
  %number = load i64, ptr %number.at
  %item.at = getelementptr ptr, ptr %objects, i64 %number
  %item = load ptr, ptr %item.at
  call void @Py_IncRef(ptr %item)
  %ignored = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %item)
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  br label %loop
done:
  ret ptr %tuple
}}

; Drop our references to the outputs that we allocated (a failed allocation left null).
define internal void @release(ptr %spec, ptr %objects, ptr %owned) {{
  %i.var = alloca i64
  %params.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 5
  %params.n = load i64, ptr %params.n.at
  %inputs.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 6
  %inputs.n = load i64, ptr %inputs.n.at
  store i64 %inputs.n, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %params.n
  br i1 %more, label %body, label %done
body:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  %owned.at = getelementptr i8, ptr %owned, i64 %i
  %owned8 = load i8, ptr %owned.at
  %is.owned = icmp ne i8 %owned8, 0
  br i1 %is.owned, label %drop, label %loop
drop:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %there = icmp ne ptr %object, null
  br i1 %there, label %drop.it, label %loop
drop.it:
  call void @Py_DecRef(ptr %object)
  br label %loop
done:
  ret void
}}

; Run a specialisation whose checks have passed.
define internal ptr @perform(ptr %spec, ptr %objects, ptr %slots, ptr %owned) {{
  %result.var = alloca ptr
  %keeper.at = getelementptr %Spec, ptr %spec, i32 0, i32 1
  %keeper = load ptr, ptr %keeper.at
  call void @Py_IncRef(ptr %keeper)         ; the table may be cleared while the kernel runs
  store ptr null, ptr %result.var
  call void @clear.owned(ptr %spec, ptr %objects, ptr %owned)
  %allocated = call i1 @allocate(ptr %spec, ptr %objects, ptr %slots, ptr %owned)
  br i1 %allocated, label %call, label %end
call:
  %status = call i32 @run(ptr %spec, ptr %slots)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %success, label %failure
success:
  %made = call ptr @result(ptr %spec, ptr %objects)
  store ptr %made, ptr %result.var
  br label %end
failure:
  call void @raise(ptr %spec, i32 %status)
  br label %end
end:
  call void @release(ptr %spec, ptr %objects, ptr %owned)
  call void @Py_DecRef(ptr %keeper)
  %result = load ptr, ptr %result.var
  ret ptr %result
}}

; An output given as None is no object of ours: forget it before `release` could take it for one we allocated.
define internal void @clear.owned(ptr %spec, ptr %objects, ptr %owned) {{
  %i.var = alloca i64
  %params.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 5
  %params.n = load i64, ptr %params.n.at
  %inputs.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 6
  %inputs.n = load i64, ptr %inputs.n.at
  store i64 %inputs.n, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %params.n
  br i1 %more, label %body, label %done
body:
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  %owned.at = getelementptr i8, ptr %owned, i64 %i
  %owned8 = load i8, ptr %owned.at
  %is.owned = icmp ne i8 %owned8, 0
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  br i1 %is.owned, label %forget, label %loop
forget:
  store ptr null, ptr %object.at
  br label %loop
done:
  ret void
}}

define ptr @{ENTRY}(ptr %self, ptr %args, i64 %nargs, ptr %kwnames) {{
  %objects = alloca [{MAX_ARGUMENTS} x ptr]
  %owned = alloca [{MAX_ARGUMENTS} x i8]
  %slots = alloca [{MAX_SLOTS} x i64]
  %i.var = alloca i64
  %capsule.at = getelementptr i8, ptr %self, i64 TUPLE_ITEMS      ; self is a tuple, its first item the capsule of the table
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
  %slow = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %kwnames)
  ret ptr %slow
}}
"""


def dispatch_ir(tuple_items: int) -> str:
    """The module's text. `tuple_items`: offset of a tuple's first item (24; 32 from Python 3.14 on).

    It has no target: `dispatch_build` sets this machine's.
    """
    objects = "\n".join(f"@{name} = external global ptr" for name in (*EXTERNAL_OBJECTS, *NUMPY_OBJECTS))
    text = "\n".join((_TYPES, objects, _DECLARATIONS, _SCALAR, _TENSOR, _ARGUMENTS, _FITS, _RUN))
    return text.replace("TUPLE_ITEMS", str(tuple_items))
