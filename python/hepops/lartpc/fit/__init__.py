"""Fits of a detector's parameters to the hits that it made.

The package is itself the function: ``hepops.lartpc.fit(sim, segments, measured)`` calls :func:`hepops.lartpc.fit.fit`,
and ``from hepops.lartpc.fit import PixelSums`` imports from it. (A module whose class has ``__call__``, which Python
provides for; see the data model, "Customizing module attribute access".)
"""

import sys
from types import ModuleType

from .driver import fit as fit
from .losses import HitLoss as HitLoss
from .losses import chamfer as chamfer
from .losses import mmd as mmd
from .losses import mmd_charge as mmd_charge
from .losses import soft_dtw as soft_dtw
from .residuals import Likelihood as Likelihood
from .residuals import LikelihoodObject as LikelihoodObject
from .residuals import MatchedHits as MatchedHits
from .residuals import Noise as Noise
from .residuals import PixelSums as PixelSums
from .residuals import Residual as Residual
from .residuals import Residuals as Residuals
from .result import FitResult as FitResult
from .robust import Robust as Robust
from .state import Finish as Finish
from .state import Step as Step


class CallableModule(ModuleType):
    """A module that is called like the function it is named after."""

    __call__ = staticmethod(fit)


sys.modules[__name__].__class__ = CallableModule
