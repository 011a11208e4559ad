"""Normalizing flows: fused bijections, layers, training, integration and inference."""

from hepops.core.constructors import recorded

from . import inference as inference
from .affine import affine as affine
from .autoregressive import Autoregressive as Autoregressive
from .bases import Base as Base
from .bases import DiagonalNormal as DiagonalNormal
from .bases import Haar as Haar
from .bases import Mixture as Mixture
from .bases import MultivariateNormal as MultivariateNormal
from .bases import Normal as Normal
from .bases import Product as Product
from .bases import TruncatedNormal as TruncatedNormal
from .bases import Uniform as Uniform
from .bases import UniformSphere as UniformSphere
from .bases import VonMises as VonMises
from .bijections import AffineFixed as AffineFixed
from .bijections import Logit as Logit
from .bijections import Sigmoid as Sigmoid
from .bijections import Softplus as Softplus
from .bijections import Standardise as Standardise
from .bijections import Tanh as Tanh
from .bijections import Wrap as Wrap
from .circular import circular as circular
from .continuous import Continuous as Continuous
from .continuous import Field as Field
from .continuous import TimeMLP as TimeMLP
from .coupling import Coupling as Coupling
from .coupling import Pointwise as Pointwise
from .density import AnomalyScore as AnomalyScore
from .density import Density as Density
from .density_flow import Conditioner as _Conditioner
from .elementwise import Additive as Additive
from .elementwise import Affine as Affine
from .elementwise import CircularMixture as CircularMixture
from .elementwise import Elementwise as Elementwise
from .elementwise import PiecewiseLinear as PiecewiseLinear
from .elementwise import PiecewiseQuadratic as PiecewiseQuadratic
from .elementwise import SigmoidMixture as SigmoidMixture
from .elementwise import Spline as Spline
from .flow import Conditioned as Conditioned
from .flow import Flow as Flow
from .imports import Report as Report
from .imports import StateDictError as StateDictError
from .imports import from_nflows as from_nflows
from .imports import from_normflows as from_normflows
from .imports import from_zuko as from_zuko
from .integration import Channel as Channel
from .integration import IntegrationWarning as IntegrationWarning
from .integration import Integrator as Integrator
from .integration import integrate as integrate
from .made import MADE as MADE
from .manifolds import CircularSpline as CircularSpline
from .manifolds import ExponentialMap as ExponentialMap
from .manifolds import MoebiusMixture as MoebiusMixture
from .manifolds import RecursiveSphere as RecursiveSphere
from .manifolds import RecursiveTorus as RecursiveTorus
from .manifolds import Rotation as Rotation
from .manifolds import sphere as sphere
from .manifolds import torus as torus
from .masked import ConvNet as ConvNet
from .masked import MaskedCoupling as MaskedCoupling
from .masks import blocks as blocks
from .masks import checkerboard as checkerboard
from .masks import stripes as stripes
from .mixing import ActNorm as ActNorm
from .mixing import CircularShift as CircularShift
from .mixing import LULinear as LULinear
from .mixing import Permutation as Permutation
from .networks import MLP as MLP
from .networks import Periodic as Periodic
from .networks import ResidualMLP as ResidualMLP
from .orthogonal import Householder as Householder
from .orthogonal import Orthogonal as Orthogonal
from .piecewise import piecewise_linear as piecewise_linear
from .piecewise import piecewise_quadratic as piecewise_quadratic
from .ready import autoregressive_nsf as autoregressive_nsf
from .ready import circular_nsf as circular_nsf
from .ready import iaf as iaf
from .ready import maf as maf
from .ready import nsf as nsf
from .ready import realnvp as realnvp
from .sigmoid_mixture import sigmoid_mixture as sigmoid_mixture
from .spline import rational_quadratic_spline as rational_quadratic_spline
from .spline import rational_quadratic_spline_packed as rational_quadratic_spline_packed
from .squash import squash as squash
from .training import fit as fit
from .training import train_sampler as train_sampler
from .transform import Compose as Compose
from .transform import Inverse as Inverse
from .transform import Transform as Transform

# What a saved flow may be made of (hepops.models); all transforms, bases and bijections with their base classes.
# A stack is what it holds now: it may have been made from an iterator.
recorded(Compose, now=lambda stack: {"transforms": list(stack.transforms)})
for _part in (Transform, Base, Elementwise, Flow, Field, MLP, ResidualMLP, Periodic, MADE, ConvNet, _Conditioner):
    recorded(_part)
