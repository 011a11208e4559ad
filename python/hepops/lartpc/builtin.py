"""Detectors that need no file: fields of `Detector`, numbers with their sources.

Frame and numbering are those of larnd-sim's files (x drift, y up, z beam [cm]); tests compare with these files.
"""

from typing import Any

from .detector import TPC, FrontEnd

# larnd-sim, detector_properties/2x2.yaml and ndlar-module.yaml
_CHIP_2X2 = FrontEnd(threshold=5000.0, gain=4.522e-3, v_cm=478.1, v_ref=1568.0)
_CHIP_ND = FrontEnd(threshold=5000.0, v_cm=478.0, v_ref=1568.0)
_HALF_Y, _HALF_Z, _ANODE, _DRIFT = 62.076, 31.038, 30.431, 30.27225  # pixel layout 2.4.16, of 16 tiles
_SMALL = 0.387975  # pixel layout 2.5.16


def module0() -> dict[str, Any]:
    """Layout 2.4.16 (280 and 140 pixels of 0.4434 cm), threshold and ADC references as measured."""
    chip = FrontEnd(threshold=5000.0, v_cm=284.27734375, v_ref=1282.71484375)
    return dict(name="module0", tpcs=_argoncube(1, 0.0, 0.0), pixel_pitch=0.4434, frontend=chip)


def two_by_two() -> dict[str, Any]:
    """Modules at x, z = +-33.5 cm; the third one has 160 x 320 pixels of its own pitch on (nearly) the same plane."""
    tpcs: list[TPC] = []
    for number, (x, z) in enumerate(((33.5, 33.5), (33.5, -33.5), (-33.5, 33.5), (-33.5, -33.5)), 1):
        tpcs += _argoncube(number, x, z, small=number == 3)
    return dict(name="2x2", tpcs=tuple(tpcs), pixel_pitch=0.4434, frontend=_CHIP_2X2)


def nd_lar() -> dict[str, Any]:
    """Layout 3.0.40, modules 0 ... 34 a metre apart: x from -300 to 300, z from 465.7559 to 865.7559 cm."""
    centres = [(-300.0 + 100 * i, -60.929, 465.7559 + 100 * k) for i in range(7) for k in range(5)]
    tpcs = [tpc for number, centre in enumerate(centres) for tpc in _nd_module(number, centre)]
    return dict(name="ndlar", tpcs=tuple(tpcs), pixel_pitch=0.38, frontend=_CHIP_ND)


def fsd() -> dict[str, Any]:
    """The full-scale demonstrator.

    DUNE describes it as one module of ND-LAr at full size, with its pixel planes and drift (near-detector conceptual
    design report, Instruments 5 (2021) 31). Assumed: layout 3.0.40 (40 tiles of 128 x 80 pixels of 3.8 mm), drift
    50.4 cm, front end and 0.5 kV/cm of larnd-sim's ND-LAr properties, centre at the origin. No file of its own is known
    to us: take `Detector.from_yaml` where you have one.
    """
    return dict(name="fsd", tpcs=tuple(_nd_module(1, (0.0, 0.0, 0.0))), pixel_pitch=0.38, frontend=_CHIP_ND)


def _argoncube(module: int, x: float, z: float, small: bool = False) -> tuple[TPC, ...]:
    """Two TPCs back to back around a cathode."""
    pixels = 160 if small else 140
    planes = ((x - _ANODE, x - _ANODE + _DRIFT), (x + _ANODE, x + _ANODE - _DRIFT))
    return tuple(
        TPC(
            anode=round(anode, 9),
            cathode=round(cathode, 9),
            y=(-_HALF_Y, _HALF_Y),
            z=(round(z - _HALF_Z, 9), round(z + _HALF_Z, 9)),
            ny=2 * pixels,
            nx=pixels,
            module=module,
            pitch=_SMALL if small else None,
        )
        for anode, cathode in planes
    )


def _nd_module(module: int, centre: tuple[float, float, float]) -> tuple[TPC, ...]:
    """Two TPCs of 2 x 10 tiles each, drift 50.4 cm."""
    x, y, z = centre
    return tuple(
        TPC(
            anode=round(x + anode, 9),
            cathode=round(x, 9),
            y=(round(y - 154.0, 9), round(y + 150.0, 9)),  # the layout is not centred
            z=(round(z - 48.64, 9), round(z + 48.64, 9)),
            ny=800,
            nx=256,
            module=module,
        )
        for anode in (-50.4, 50.4)
    )
