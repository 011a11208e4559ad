"""Readout by planes of wires: induction and collection, images of wire against time; docs/wires.md."""

from .detector import WireDetector as WireDetector
from .detector import WireFrontEnd as WireFrontEnd
from .detector import WirePlane as WirePlane
from .detector import WireTPC as WireTPC
from .electronics import cold_response as cold_response
from .fit import WireFit as WireFit
from .fit import fit_wires as fit_wires
from .images import WireImages as WireImages
from .response import wire_potential as wire_potential
from .simulator import WireSimulator as WireSimulator
