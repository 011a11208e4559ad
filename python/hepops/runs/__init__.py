"""Runs: what a training or fit did, logged wherever it is wanted, and done again to the same bits.

`log` opens a run; all trainings and fits of hepops within it report to it. `start` does one from a configuration that
it saves, `repeat` does a saved one again, and `compare` says what differs.
"""

from .compare import Comparison as Comparison
from .compare import compare as compare
from .environment import environment as environment
from .loggers import CSV as CSV
from .loggers import Logger as Logger
from .loggers import TensorBoard as TensorBoard
from .loggers import read_metrics as read_metrics
from .run import Run as Run
from .run import log as log
from .services import MLflow as MLflow
from .services import WandB as WandB
from .tasks import repeat as repeat
from .tasks import start as start
