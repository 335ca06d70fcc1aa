"""The oracle: what an `Op` means, and what a `Kernel` does."""

from tridsl.ir.evaluate_kernel import evaluate_kernel
from tridsl.ir.evaluate_op import evaluate_op, infer_sizes
from tridsl.ir.kernel_values import KernelFault

__all__ = ["KernelFault", "evaluate_kernel", "evaluate_op", "infer_sizes"]
