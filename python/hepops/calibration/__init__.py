"""The posterior of a liquid-argon TPC's parameters from its hits, by simulation.

The simulator is `hepops.lartpc`, the learning `hepops.flows.inference`. What stands here is between them: an experiment
with its noise, the score that compresses its hits to one number per parameter, and the chain from measured hits to a
posterior that was tested, beside the fit's covariance.
"""

from .experiment import Experiment as Experiment
from .experiment import Known as Known
from .experiment import Score as Score
from .posterior import Calibration as Calibration
from .posterior import calibrate as calibrate
