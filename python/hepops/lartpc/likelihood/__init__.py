"""The exact likelihood of what self-triggering chips measured: docs/likelihood.md derives it."""

from .chip import FITTED as FITTED
from .chip import Chip as Chip
from .formula import Clock as Clock
from .formula import formula as formula
from .matching import Match as Match
from .matching import match as match
from .matching import trigger_tick as trigger_tick
from .model import HitLikelihood as HitLikelihood
from .model import Intervals as Intervals
