"""AMD NPUs (XDNA): kernels for AI Engine cores, and the design that feeds them. `npu:sim` runs both on this machine.

Nothing here has been compiled by Peano or run on an NPU. What the simulator answers is *simulated*, what the cost model says is *predicted*.
"""

from tridsl.backend import Backend
from tridsl.backends.npu.build import build
from tridsl.backends.npu.driver import process_driver
from tridsl.backends.npu.emit import accepts, emit
from tridsl.backends.npu.lower import LOWER

BACKEND = Backend(
    name="npu",
    version="1",
    kind="npu",
    lower=LOWER,
    accepts=accepts,
    emit=emit,
    build=build,
    driver=process_driver,
    shared=False,
)
