"""`tridsl personality`: the evidence of this machine, shown, carried, decided on and checked.

`show` and `verify` look at all of it, `bundles` has diff, export, import and merge, `decisions` pin and forget. `places` says at
which fingerprints a subject's evidence is judged, `commands` how an op is named so that `tridsl tune` measures it again.
"""
