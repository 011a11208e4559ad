"""Flows on a lattice: layers go from the base to the fields, and `Flow` is given the inverse of their stack."""

from hepops.core.constructors import recorded

from .conditioner import SiteNet as _SiteNet
from .continuous import continuous as continuous
from .continuous_gauge import ContinuousGauge as ContinuousGauge
from .continuous_gauge import LoopField as LoopField
from .continuous_scalar import ContinuousScalar as ContinuousScalar
from .continuous_scalar import SineField as SineField
from .evaluation import Evaluation as Evaluation
from .evaluation import acceptance as acceptance
from .evaluation import evaluate as evaluate
from .evaluation import log_weights as log_weights
from .gauge import GaugeCoupling as GaugeCoupling
from .masks import Mask as Mask
from .masks import lines as lines
from .masks import parity as parity
from .masks import sweep as sweep
from .networks import ConvNet as ConvNet
from .networks import EvenNet as EvenNet
from .networks import PeriodicConv as PeriodicConv
from .residual import Residual as Residual
from .residual import residual as residual
from .scalar import AffineCheckerboard as AffineCheckerboard
from .scalar import Checkerboards as Checkerboards
from .scalar import SplineCheckerboard as SplineCheckerboard
from .scalar import affine_flow as affine_flow
from .scalar import spline_flow as spline_flow
from .spectral import SpectralCoupling as SpectralCoupling
from .spectral import spectral as spectral
from .training import Curriculum as Curriculum
from .training import train as train
from .training import train_volumes as train_volumes
from .training import transfer as transfer
from .u1 import U1Coupling as U1Coupling
from .u1 import u1_coupling as u1_coupling

for _part in (LoopField, Curriculum, Mask, ConvNet, EvenNet, PeriodicConv, _SiteNet):
    recorded(_part)
