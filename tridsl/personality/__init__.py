"""What is known about this chip: evidence that persists, and what follows from it.

    here = fingerprint.here(device)                     where we are; facts by level, and their hashes
    key = evidence.Key(op=op.name, kernel=evidence.meaning(op), bucket=shapes.bucket(sizes, op.dynamic), dtypes=…, layouts=…,
                       device=device.name, fingerprint=here.hashes)
    store = Store(folder)                               the journals; in memory when the folder cannot be used, and says so
    store.know(here)                                    the facts behind the hashes, once
    store.add(Trial(key=key, candidate=candidate(schedule, point), outcome="ok", samples=(…), pairing=…, …))
    store.trials(key)                                   all evidence of the subject, from every fingerprint
    store.related(key)                                  the same kernel in other shapes: what a new shape starts from
    store.winner(key)                                   `belief.winner`, remembered: for the call layer
    store.pin(key, candidate, time); store.forget(…)    the user's decisions: records like the others
    belief.rank(store.trials(key), key.fingerprint)     candidates best first with intervals, ties, quarantine
    belief.winner(store.trials(key), key.fingerprint)   the one to use, or None
    belief.explain(store.trials(key), key.fingerprint, store.machines())   why, in sentences with numbers
    bundle.export(store, path); bundle.take(store, path)  evidence as one file; `merge`, `difference`, `read` and `report`

One trial is one candidate in one block, with the incumbent's samples of the same rounds in its `pairing`. A winner's `status` is
`pinned`, `fresh`, `suspect` (the software has changed: serve it, verify it) or `prior` (measured elsewhere: `servable` is False until
it was run here). The tuner begins with a suspect winner or a prior as its incumbent, so that it is measured first; a trial
that it adds here is the canary's result.

Inside: `machine` reads /proc and /sys, `candidate` (and `schedule.shapes`) are values of keys and trials, `lines` and `journal` the files,
`estimate` the statistics. Rules and drift will stand beside `belief`, on the same records.
"""
