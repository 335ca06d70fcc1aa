"""The native dispatcher's checks of a whole call: which object is which param (`@arguments`), and whether all fit (`@fits`)."""

from __future__ import annotations

from tridsl.backends.cpu.dispatch_limits import MAX_ARGUMENTS

ARGUMENTS = """
; Give every param its object: positional, by keyword, or null. False for anything that the signature does not have.
define internal i1 @arguments(ptr %spec, ptr %args, i64 %nargs, ptr %kwnames, ptr %out.name, ptr %objects) alwaysinline {
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


FITS = f"""
; Check every param and fill the slots. `owned[i]` is set to 1 where an output is to be allocated.
define internal i1 @fits(ptr %spec, ptr %objects, ptr %slots, ptr %owned) alwaysinline {{
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
  %holder.at = getelementptr %Param, ptr %param, i32 0, i32 19
  %holder = load ptr, ptr %holder.at
  %is.plain = icmp eq ptr %holder, null
  br i1 %is.plain, label %array, label %buffer
buffer:
  %content = call ptr @held(ptr %object, ptr %param)
  store ptr %content, ptr %object.at          ; from here on the array stands for its buffer
  %other.buffer = icmp eq ptr %content, null
  br i1 %other.buffer, label %no, label %array
array:
  %array.object = load ptr, ptr %object.at
  %tensor.ok = call i1 @tensor(ptr %array.object, ptr %param, ptr %sizes, ptr %low.at, ptr %high.at)
  br i1 %tensor.ok, label %tensor.store, label %no
tensor.store:
  %data.at = getelementptr i8, ptr %array.object, i64 16
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
