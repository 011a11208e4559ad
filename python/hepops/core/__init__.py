"""What the domains share: the operator libraries, sums, sorts, scans and random numbers."""

from . import libraries

libraries.load()

from .exclusive_scan import exclusive_scan as exclusive_scan  # noqa: E402  (the operators must be loaded first)
from .philox import philox_normal as philox_normal  # noqa: E402
from .philox import philox_uniform as philox_uniform  # noqa: E402
from .row_sum import row_sum as row_sum  # noqa: E402
from .scatter_add import scatter_add as scatter_add  # noqa: E402
from .sort_pairs import sort_pairs as sort_pairs  # noqa: E402
