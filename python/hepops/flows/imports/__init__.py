"""Flows of other libraries, from their state dicts."""

from hepops.core.constructors import recorded

from .bijections import ForeignAffine, ForeignShift, NormflowsSpline, ZukoCircular  # noqa: F401
from .modules import (
    Alone,
    Block,
    Dense,
    Embedded,  # noqa: F401
    FeedForward,
    FromContext,  # noqa: F401
    MaskedPair,
    NflowsNet,
    Norm,
    Passes,  # noqa: F401
    PeriodicFeatures,
    Rescale,  # noqa: F401
    Residual,
    ZukoNet,
)
from .nflows import from_nflows as from_nflows
from .normflows import from_normflows as from_normflows
from .normflows_base import Reordered  # noqa: F401
from .report import Report as Report
from .report import StateDictError as StateDictError
from .zuko import from_zuko as from_zuko

for _part in (Alone, Block, Dense, FeedForward, MaskedPair, NflowsNet, Norm, PeriodicFeatures, Residual, ZukoNet):
    recorded(_part)
