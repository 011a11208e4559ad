"""What is not known of the detector, carried to what is measured: docs/systematics.md."""

from .bands import Covariance as Covariance
from .bands import Envelope as Envelope
from .bands import covariance as covariance
from .bands import envelope as envelope
from .bands import spread as spread
from .linear import Linear as Linear
from .linear import Validity as Validity
from .observables import charge_histogram as charge_histogram
from .observables import hits_per_pixel as hits_per_pixel
from .observables import time_histogram as time_histogram
from .observables import total_charge as total_charge
from .plot import band_plot as band_plot
from .plot import correlation_plot as correlation_plot
from .reweight import Weights as Weights
from .reweight import gaussian_log_density as gaussian_log_density
from .reweight import reweight as reweight
from .throws import knob_table as knob_table
from .throws import knobs as knobs
from .throws import throws as throws
