"""The whole library on the GPU, through every stage, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.stdlib.calling import call, prepared
from tests.stdlib.test_stdlib import EXAMPLES
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.expr import Const
from tridsl.ir.op import Scalar, Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build

RNG = np.random.default_rng(11)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


LARGER: dict[str, tuple[Any, ...]] = {
    "matmul": (normal(70, 33), normal(33, 45)),
    "softmax": (normal(3, 1000),),
    "layernorm": (normal(5, 777), normal(777), normal(777)),
    "sum": (normal(2, 5000),),
    "max": (normal(2, 5000),),
    "argmax": (normal(2, 5000),),
    "cumsum": (normal(2, 500),),
    "above": (normal(3000), 0.5),
    "saxpy": (2.0, normal(4001), normal(4001)),
    "conv2d": (normal(2, 3, 19, 17), normal(4, 3, 3, 3), 1, 1),
    "attention": (normal(4, 30, 16), normal(2, 50, 16), normal(2, 50, 8), 0.25, True),
}
CASES = [(name, arguments) for table in (EXAMPLES, LARGER) for name, arguments in table.items()]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_library_on_the_gpu(driver: VulkanDriver, device: Device, name: str, arguments: tuple[Any, ...]) -> None:
    op, given, sizes = prepared(name, arguments, {}, {})
    for param in op.inputs:
        if isinstance(param, Scalar) and param.name not in given:
            assert param.default is not None
            given[param.name] = param.default.value
    constants = tuple((p.name, given[p.name]) for p in op.inputs if isinstance(p, Scalar) and p.const)
    facts = Specialisation(sizes=tuple(sizes.items()), constants=constants)
    binary = build(op, Build(spec=device.spec, backend=BACKEND, facts=facts))
    slots: list[Any] = []
    results: dict[str, np.ndarray] = {}
    for param in binary.signature.params:
        if isinstance(param, Tensor) and param.role == "output":
            assert all(isinstance(size, Const) for size in param.shape)
            results[param.name] = np.zeros([size.value for size in param.shape], NUMPY_TYPES[param.dtype])  # type: ignore[union-attr]
            slots.append(results[param.name])
        else:
            slots.append(np.ascontiguousarray(given[param.name]) if isinstance(param, Tensor) else given[param.name])
    driver.load(binary, device)(slots, 1)
    assert driver.messages == ()
    wanted = call(name, *arguments)
    for tensor, want in zip(op.outputs, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        found = results[tensor.name]
        found = found[: int(results[tensor.length])] if tensor.length else found
        assert found.dtype == want.dtype and found.shape == want.shape
        if want.dtype.kind in "biu":
            np.testing.assert_array_equal(found, want)
        else:
            narrow = want.dtype.itemsize == 2
            np.testing.assert_allclose(
                found.astype(np.float64), want.astype(np.float64), rtol=1e-2 if narrow else 1e-5, atol=1e-5
            )
