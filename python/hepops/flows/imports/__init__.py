"""Spline flows of other libraries, from their state dicts."""

from .nflows import from_nflows as from_nflows
from .report import Report as Report
from .report import StateDictError as StateDictError
from .zuko import from_zuko as from_zuko
