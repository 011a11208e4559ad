"""Voxels of a liquid-argon TPC told apart by a network of sparse convolutions: muon, proton, delta ray, shower.

Events come from `hepops.lartpc` (gun, simulator, voxels), the network is `hepops.sparse.models.UResNet`. What stands
here is the chain between them: a sample, a training that goes on after a kill, figures, and a saved network that labels
voxels.
"""

from .figures import confusion as confusion
from .figures import curves as curves
from .figures import event_display as event_display
from .network import Segmenter as Segmenter
from .sample import CLASSES as CLASSES
from .sample import Sample as Sample
from .sample import make as make
from .score import Score as Score
from .training import Plan as Plan
from .training import train as train
