"""Fits of a detector's parameters to the hits that it made, and what can be asked of them afterwards.

The package is itself the function: ``hepops.lartpc.fit(sim, segments, measured)`` calls :func:`hepops.lartpc.fit.fit`,
and ``from hepops.lartpc.fit import PixelSums`` imports from it. (A module whose class has ``__call__``, which Python
provides for; see the data model, "Customizing module attribute access".)
"""

import sys
from types import ModuleType

from .combine import Combined as Combined
from .combine import combine as combine
from .coverage import Coverage as Coverage
from .coverage import Goodness as Goodness
from .coverage import coverage as coverage
from .coverage import goodness as goodness
from .curvature import hessian as hessian
from .curvature import hvp as hvp
from .curvature import sandwich as sandwich
from .driver import fit as fit
from .losses import HitLoss as HitLoss
from .losses import chamfer as chamfer
from .losses import mmd as mmd
from .losses import mmd_charge as mmd_charge
from .losses import soft_dtw as soft_dtw
from .minuit import to_minuit as to_minuit
from .nuisance import Nuisance as Nuisance
from .nuts import Samples as Samples
from .nuts import nuts as nuts
from .profile import Contour as Contour
from .profile import Profile as Profile
from .profile import contour as contour
from .profile import profile as profile
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
from .target import Target as Target
from .together import together as together


class CallableModule(ModuleType):
    """A module that is called like the function it is named after."""

    __call__ = staticmethod(fit)


sys.modules[__name__].__class__ = CallableModule
