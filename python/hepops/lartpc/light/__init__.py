"""Scintillation light: from energy deposits to digitised waveforms of light detectors."""

from .arrivals import light_arrivals as light_arrivals
from .impulse import Impulse as Impulse
from .noise import NoiseSpectrum as NoiseSpectrum
from .properties import LightProperties as LightProperties
from .readout import LightReadout as LightReadout
from .scintillation import Quanta as Quanta
from .scintillation import SingletShare as SingletShare
from .seen import Seen as Seen
from .simulator import LightSimulator as LightSimulator
from .sipm import SiPM as SiPM
from .sipm import photon_spectrum as photon_spectrum
from .solid_angle import Panel as Panel
from .solid_angle import SolidAngle as SolidAngle
from .solid_angle import solid_angle as solid_angle
from .table import VisibilityTable as VisibilityTable
from .waveforms import LightWaveforms as LightWaveforms
