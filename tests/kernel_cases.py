"""All cases: a kernel, a shape, and what its bindings hold."""

import kernel_cases_compute  # noqa: F401  (adds its cases)
import kernel_cases_products  # noqa: F401
import kernel_cases_rest  # noqa: F401
from kernel_table import CASES

__all__ = ["CASES"]
