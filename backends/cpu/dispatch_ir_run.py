"""The native dispatcher once a call is recognised: outputs, the kernel, the result or the error (`@perform`)."""

from __future__ import annotations

from tridsl.backends.cpu.dispatch_limits import MAX_RANK

RUN = f"""
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

define internal i32 @run(ptr %spec, ptr %slots) alwaysinline {{
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
  call void @PyErr_SetObject(ptr @CheckFailed, ptr %text)
  ret void
unknown:
  %system.error = load ptr, ptr @PyExc_SystemError
  call void @PyErr_SetString(ptr %system.error, ptr @unknown_status)
  ret void
}}

; A new reference to what the call returns, or null with an error set.
define internal ptr @result(ptr %spec, ptr %objects) alwaysinline {{
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
define internal ptr @perform(ptr %spec, ptr %objects, ptr %slots, ptr %owned) alwaysinline {{
  %result.var = alloca ptr
  %keeper.at = getelementptr %Spec, ptr %spec, i32 0, i32 1
  %keeper = load ptr, ptr %keeper.at
  call void @Py_IncRef(ptr %keeper)         ; the table may be cleared while the kernel runs
  store ptr null, ptr %result.var
  call void @clear.owned(ptr %spec, ptr %objects, ptr %owned)
  call void @hold(ptr %spec, ptr %objects, i1 true)
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
  call void @hold(ptr %spec, ptr %objects, i1 false)
  call void @Py_DecRef(ptr %keeper)
  %result = load ptr, ptr %result.var
  ret ptr %result
}}

; Take (or give back) a reference to each array that a buffer holds: another thread may put another one there meanwhile.
define internal void @hold(ptr %spec, ptr %objects, i1 %take) {{
  %i.var = alloca i64
  %inputs.n.at = getelementptr %Spec, ptr %spec, i32 0, i32 6
  %inputs.n = load i64, ptr %inputs.n.at
  %params.at = getelementptr %Spec, ptr %spec, i32 0, i32 7
  %params = load ptr, ptr %params.at
  store i64 0, ptr %i.var
  br label %loop
loop:
  %i = load i64, ptr %i.var
  %more = icmp slt i64 %i, %inputs.n
  %i.next = add i64 %i, 1
  store i64 %i.next, ptr %i.var
  br i1 %more, label %body, label %done
body:
  %param = getelementptr %Param, ptr %params, i64 %i
  %holder.at = getelementptr %Param, ptr %param, i32 0, i32 19
  %holder = load ptr, ptr %holder.at
  %held = icmp ne ptr %holder, null
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %there = icmp ne ptr %object, null
  %both = and i1 %held, %there
  br i1 %both, label %count, label %loop
count:
  br i1 %take, label %up, label %down
up:
  call void @Py_IncRef(ptr %object)
  br label %loop
down:
  call void @Py_DecRef(ptr %object)
  br label %loop
done:
  ret void
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
"""
