"""Training of flows: losses, a trainer that survives a kill, fits to data and to densities."""

from .ema import Average as Average
from .fitting import fit as fit
from .fitting import mean_log_prob as mean_log_prob
from .fitting import train_sampler as train_sampler
from .history import History as History
from .history import Training as Training
from .losses import alpha_divergence as alpha_divergence
from .losses import forward_kl as forward_kl
from .losses import forward_path as forward_path
from .losses import path_gradient as path_gradient
from .losses import reinforce as reinforce
from .losses import reverse_kl as reverse_kl
from .losses import variance as variance
from .order import Order as Order
from .trainer import Options as Options
from .trainer import Trainer as Trainer
