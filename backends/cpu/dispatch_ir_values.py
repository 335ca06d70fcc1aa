"""The native dispatcher's checks of one argument: a Python or NumPy number (`@scalar`), an array (`@tensor`)."""

from __future__ import annotations

SCALAR = """
; Convert a number to its slot. Only exact float, int and bool, and NumPy's scalar of the param's own type; a subclass may mean
; something else.
define internal i1 @scalar(ptr %object, ptr %param, ptr %bits) {
  %overflow = alloca i32
  %number = alloca double
  %type.at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %type.at
  %kind.at = getelementptr %Param, ptr %param, i32 0, i32 1
  %kind = load i64, ptr %kind.at
  %is.int = icmp eq ptr %type, @PyLong_Type
  %numpy.at = getelementptr %Param, ptr %param, i32 0, i32 18
  %numpy.type = load ptr, ptr %numpy.at
  %is.numpy = icmp eq ptr %type, %numpy.type
  br i1 %is.numpy, label %numpy, label %python
numpy:
  ; the value lies behind the object's head; a type with negative values is extended by its sign
  %payload = getelementptr i8, ptr %object, i64 16
  %least.at = getelementptr %Param, ptr %param, i32 0, i32 6
  %least = load i64, ptr %least.at
  %signed = icmp slt i64 %least, 0
  %bytes.at = getelementptr %Param, ptr %param, i32 0, i32 12
  %bytes = load i64, ptr %bytes.at
  switch i64 %bytes, label %eight [ i64 1, label %one
                                    i64 2, label %two
                                    i64 4, label %four ]
one:
  %n8 = load i8, ptr %payload
  %s8 = sext i8 %n8 to i64
  %u8 = zext i8 %n8 to i64
  br label %numpy.store
two:
  %n16 = load i16, ptr %payload
  %s16 = sext i16 %n16 to i64
  %u16 = zext i16 %n16 to i64
  br label %numpy.store
four:
  %n32 = load i32, ptr %payload
  %s32 = sext i32 %n32 to i64
  %u32 = zext i32 %n32 to i64
  br label %numpy.store
eight:
  %n64 = load i64, ptr %payload
  br label %numpy.store
numpy.store:
  %extended.s = phi i64 [ %s8, %one ], [ %s16, %two ], [ %s32, %four ], [ %n64, %eight ]
  %extended.u = phi i64 [ %u8, %one ], [ %u16, %two ], [ %u32, %four ], [ %n64, %eight ]
  %numpy.bits = select i1 %signed, i64 %extended.s, i64 %extended.u
  store i64 %numpy.bits, ptr %bits
  ret i1 true
python:
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


TENSOR = """
; What a rule expects, for kinds 0 and 1.
define internal i64 @expected(ptr %rule, ptr %sizes) alwaysinline {
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
define internal i1 @follows(ptr %rule, ptr %sizes, i64 %value) alwaysinline {
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
define internal i1 @tensor(ptr %object, ptr %param, ptr %sizes, ptr %low.out, ptr %high.out) alwaysinline {
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


HELD = """
; The array in a buffer of the type, layout and shape that `param` describes, or null.
define internal ptr @held(ptr %object, ptr %param) {
  %overflow = alloca i32
  %axis.var = alloca i64
  %type.at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %type.at
  %want.type.at = getelementptr %Param, ptr %param, i32 0, i32 19
  %want.type = load ptr, ptr %want.type.at
  %type.ok = icmp eq ptr %type, %want.type
  br i1 %type.ok, label %buffer, label %no
buffer:
  %layout.offset.at = getelementptr %Param, ptr %param, i32 0, i32 22
  %layout.offset = load i64, ptr %layout.offset.at
  %layout.at = getelementptr i8, ptr %object, i64 %layout.offset
  %layout = load ptr, ptr %layout.at
  %want.layout.at = getelementptr %Param, ptr %param, i32 0, i32 20
  %want.layout = load ptr, ptr %want.layout.at
  %layout.ok = icmp eq ptr %layout, %want.layout
  %shape.offset.at = getelementptr %Param, ptr %param, i32 0, i32 23
  %shape.offset = load i64, ptr %shape.offset.at
  %shape.at = getelementptr i8, ptr %object, i64 %shape.offset
  %shape = load ptr, ptr %shape.at
  %shape.there = icmp ne ptr %shape, null          ; an attribute may have been deleted
  %array.offset.at = getelementptr %Param, ptr %param, i32 0, i32 24
  %array.offset = load i64, ptr %array.offset.at
  %array.at = getelementptr i8, ptr %object, i64 %array.offset
  %array = load ptr, ptr %array.at
  %some = and i1 %layout.ok, %shape.there
  br i1 %some, label %tuple, label %no
tuple:
  %shape.type.at = getelementptr i8, ptr %shape, i64 8
  %shape.type = load ptr, ptr %shape.type.at
  %is.tuple = icmp eq ptr %shape.type, @PyTuple_Type
  br i1 %is.tuple, label %axes, label %no
axes:
  %count.at = getelementptr i8, ptr %shape, i64 16
  %count = load i64, ptr %count.at
  %want.at = getelementptr %Param, ptr %param, i32 0, i32 21
  %want = load ptr, ptr %want.at
  %want.count = load i64, ptr %want
  %count.ok = icmp eq i64 %count, %want.count
  store i64 0, ptr %axis.var
  br i1 %count.ok, label %loop, label %no
loop:
  %axis = load i64, ptr %axis.var
  %more = icmp slt i64 %axis, %count
  %axis.next = add i64 %axis, 1
  store i64 %axis.next, ptr %axis.var
  br i1 %more, label %body, label %yes
body:
  %items = getelementptr i8, ptr %shape, i64 TUPLE_ITEMS
  %item.at = getelementptr ptr, ptr %items, i64 %axis
  %item = load ptr, ptr %item.at
  %item.type.at = getelementptr i8, ptr %item, i64 8
  %item.type = load ptr, ptr %item.type.at
  %is.int = icmp eq ptr %item.type, @PyLong_Type
  br i1 %is.int, label %compare, label %no
compare:
  %extent = call i64 @PyLong_AsLongLongAndOverflow(ptr %item, ptr %overflow)
  %expected.at = getelementptr i64, ptr %want, i64 %axis.next
  %expected = load i64, ptr %expected.at
  %same = icmp eq i64 %extent, %expected          ; an overflow gives -1, which no extent is
  br i1 %same, label %loop, label %no
yes:
  ret ptr %array
no:
  ret ptr null
}
"""
