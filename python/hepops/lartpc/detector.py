"""The detector: drift volumes, pixel planes, front end and nominal constants; built in, or from larnd-sim's YAML files."""

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ._model import Record
from .parameters import Parameters


class TPC(Record):
    """One drift volume with its pixel plane, in the file's frame."""

    anode: float  # x of the pixel plane [cm]
    cathode: float  # x of the cathode [cm]; the drift runs from here to the anode
    y: tuple[float, float]  # edges of the pixel plane [cm]
    z: tuple[float, float]  # edges of the pixel plane [cm]
    ny: int  # pixels along y
    nx: int  # pixels along z (the name is larnd-sim's)
    module: int = 1  # the module that holds it


class FrontEnd(Record):
    """Constants of the LArPix front end; times in clock ticks."""

    threshold: float = 7000.0  # discriminator [e]
    hold: int = 15  # ADC hold delay [ticks]
    latency: int = 3  # further ticks of integration: it ends hold + latency ticks after the crossing
    busy: int = 9  # after a hit no trigger for so long [ticks]
    reset: int = 1  # charge is lost for so long [ticks]
    reset_noise: float = 900.0  # [e]
    uncorrelated_noise: float = 500.0  # [e]
    discriminator_noise: float = 650.0  # [e]
    buffer_risetime: float = 0.0  # exponential buffer filter [us]; 0 is none, larnd-sim's default 0.1
    gain: float = 4e-3  # [mV/e]
    v_ped: float = 580.0  # pedestal [mV]
    v_cm: float = 288.0  # common mode, the ADC's zero [mV]
    v_ref: float = 1300.0  # the ADC's full scale [mV]
    adc_bits: int = 8


class Detector(Record):
    """An immutable description of a pixelated liquid-argon TPC."""

    name: str
    tpcs: tuple[TPC, ...]
    pixel_pitch: float  # [cm]
    tick: float = 0.1  # clock period [us]
    w_ph: float = 19.5e-6  # energy per scintillation photon or ion pair [MeV]
    frontend: FrontEnd = FrontEnd()
    nominal: Parameters = Parameters()  # lifetime, field, diffusions, recombination ... as the files state them
    ignored: tuple[str, ...] = ()  # keys of the files that have no effect here
