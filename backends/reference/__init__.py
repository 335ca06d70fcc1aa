"""The reference backend: the kernel oracle behind the same contract as real processors. Slow, and right."""

from tridsl.backend import Backend
from tridsl.backends.reference.build import build
from tridsl.backends.reference.driver import driver
from tridsl.backends.reference.emit import accepts, emit
from tridsl.backends.reference.lower import LOWER

BACKEND = Backend(
    name="reference",
    version="1",
    kind="reference",
    lower=LOWER,
    accepts=accepts,
    emit=emit,
    build=build,
    driver=driver,
)
