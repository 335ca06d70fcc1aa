"""An op in a file of its own, called from Python: NumPy in, NumPy out.

From the shell: `tridsl run examples/01_hello.tri --shape N=8 --set a=1.5,b=-0.25`.
"""

from pathlib import Path

import numpy as np

import tridsl

ops = tridsl.load(Path(__file__).with_name("01_hello.tri"))
x = np.linspace(0, 1, 11, dtype=np.float32)

y, clipped = ops.levels(1.5, x, -0.25)
print("y =", np.round(y, 3))
print("clipped:", int(clipped))

# The reference interpreter is the judge of every compiled kernel.
expected, count = ops.levels.reference(1.5, x, -0.25)
np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
assert clipped == count

# Everything a user can get wrong is one exception, with the place and what to write instead.
try:
    tridsl.compile("op twice(x: f32[N]) -> y: f32[N] { y[i] = 2 * z[i] }")
except tridsl.TriError as problem:
    print(problem)
