"""Layers of sparse networks. The names in their state dicts are those of MinkowskiEngine's checkpoints."""

from hepops.core.constructors import recorded

from .activation import CELU as CELU
from .activation import ELU as ELU
from .activation import GELU as GELU
from .activation import SELU as SELU
from .activation import Activation as Activation
from .activation import Dropout as Dropout
from .activation import Hardtanh as Hardtanh
from .activation import LeakyReLU as LeakyReLU
from .activation import PReLU as PReLU
from .activation import ReLU as ReLU
from .activation import ReLU6 as ReLU6
from .activation import Sigmoid as Sigmoid
from .activation import SiLU as SiLU
from .activation import Softmax as Softmax
from .activation import Softplus as Softplus
from .activation import Tanh as Tanh
from .convolution import Convolution as Convolution
from .convolution import ConvolutionTranspose as ConvolutionTranspose
from .convolution import DepthwiseConvolution as DepthwiseConvolution
from .convolution import GenerativeConvolutionTranspose as GenerativeConvolutionTranspose
from .convolution import Linear as Linear
from .norm import BatchNorm as BatchNorm
from .norm import GroupNorm as GroupNorm
from .norm import InstanceNorm as InstanceNorm
from .norm import LayerNorm as LayerNorm
from .norm import SyncBatchNorm as SyncBatchNorm
from .pooling import AvgPool as AvgPool
from .pooling import GlobalAvgPool as GlobalAvgPool
from .pooling import GlobalMaxPool as GlobalMaxPool
from .pooling import GlobalSumPool as GlobalSumPool
from .pooling import MaxPool as MaxPool
from .pooling import PoolTranspose as PoolTranspose
from .pooling import SumPool as SumPool
from .structure import Broadcast as Broadcast
from .structure import BroadcastAdd as BroadcastAdd
from .structure import BroadcastConcatenate as BroadcastConcatenate
from .structure import BroadcastMultiply as BroadcastMultiply
from .structure import Cat as Cat
from .structure import Prune as Prune
from .structure import Union as Union

for _part in list(vars().values()):  # what a saved network may be made of (hepops.models)
    if isinstance(_part, type):
        recorded(_part)
