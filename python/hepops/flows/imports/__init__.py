"""Spline flows of other libraries, from their state dicts."""

from hepops.core.constructors import recorded

from .modules import FeedForward, NflowsNet, ZukoNet
from .nflows import from_nflows as from_nflows
from .report import Report as Report
from .report import StateDictError as StateDictError
from .zuko import from_zuko as from_zuko

for _part in (NflowsNet, ZukoNet, FeedForward):
    recorded(_part)
