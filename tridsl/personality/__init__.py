"""What is known about this chip: evidence that persists, and what follows from it.

    here = fingerprint.here(device)                     where we are
    key = evidence.Key(op=op.name, kernel=evidence.meaning(op), bucket=shapes.bucket(sizes, op.dynamic), dtypes=…, layouts=…,
                       device=device.name, fingerprint=here.hashes)
    store = Store(folder)                               the journal; in memory when the folder cannot be used, and says so
    store.know(here)                                    the facts behind the hashes, once
    store.add(Trial(key=key, candidate=candidate(schedule, point), outcome="ok", samples=(…), pairing=…, …))
    store.trials(key)                                   all evidence of the subject, from every fingerprint
    belief.rank(store.trials(key), key.fingerprint)     candidates best first, ties, quarantine, status
    belief.winner(store.trials(key), key.fingerprint)   the one to use, or None
    belief.explain(…)                                   the same as sentences with numbers
    store.winner(key)                                   belief.winner, remembered: for the call layer
    bundle.write(store, path); bundle.take(store, path) evidence as one file

A winner's `status` is `pinned`, `fresh`, `suspect` (the software has changed: serve it, verify it) or `prior` (measured elsewhere:
not to be served before it was run here, see `Winner.servable`). The tuner begins with a suspect winner as its incumbent.
"""
