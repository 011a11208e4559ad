"""Errors of measurements: autocorrelation, jackknife, bootstrap, covariance; what weights and chains say."""

from hepops.flows.weights import effective_sample_size as effective_sample_size
from hepops.flows.weights import log_mean_exp as log_mean_exp
from hepops.flows.weights import log_normaliser as log_normaliser
from hepops.flows.weights import reweighted_mean as reweighted_mean

from .acceptance import acceptance as acceptance
from .acceptance import expected_acceptance as expected_acceptance
from .acceptance import rejection_runs as rejection_runs
from .estimate import estimate as estimate
from .gamma import Autocorrelation as Autocorrelation
from .gamma import autocorrelation as autocorrelation
from .gamma import gamma_method as gamma_method
from .measurement import Measurement as Measurement
from .measurement import short as short
from .resampling import bootstrap as bootstrap
from .resampling import correlation as correlation
from .resampling import covariance as covariance
from .resampling import jackknife as jackknife
