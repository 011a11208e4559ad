"""MinkowskiEngine 0.5.4's names, made of hepops.sparse: networks written for it run as they are.

`install()` lets ``import MinkowskiEngine as ME`` find this package; without it, ``import hepops.compat.minkowski as
ME``. The page minkowski.md of the documentation lists every name and every difference.

Example:
    >>> import hepops.compat.minkowski as ME
    >>> x = ME.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0, 0], [0, 0, 1]]).int())
    >>> ME.MinkowskiConvolution(1, 4, kernel_size=3, dimension=2)(x).shape
    torch.Size([2, 4])
"""

from . import modules as modules
from . import utils as utils
from .aliases import install as install
from .aliases import make_submodules as _make_submodules
from .broadcast import MinkowskiBroadcast as MinkowskiBroadcast
from .broadcast import MinkowskiBroadcastAddition as MinkowskiBroadcastAddition
from .broadcast import MinkowskiBroadcastConcatenation as MinkowskiBroadcastConcatenation
from .broadcast import MinkowskiBroadcastFunction as MinkowskiBroadcastFunction
from .broadcast import MinkowskiBroadcastMultiplication as MinkowskiBroadcastMultiplication
from .common import MinkowskiModuleBase as MinkowskiModuleBase
from .common import convert_to_int_list as convert_to_int_list
from .common import convert_to_int_tensor as convert_to_int_tensor
from .convolution import MinkowskiChannelwiseConvolution as MinkowskiChannelwiseConvolution
from .convolution import MinkowskiConvolution as MinkowskiConvolution
from .convolution import MinkowskiConvolutionFunction as MinkowskiConvolutionFunction
from .convolution import MinkowskiConvolutionTranspose as MinkowskiConvolutionTranspose
from .convolution import MinkowskiConvolutionTransposeFunction as MinkowskiConvolutionTransposeFunction
from .convolution import MinkowskiGenerativeConvolutionTranspose as MinkowskiGenerativeConvolutionTranspose
from .diagnostics import cuda_version as cuda_version
from .diagnostics import cudart_version as cudart_version
from .diagnostics import get_gpu_memory_info as get_gpu_memory_info
from .diagnostics import is_cuda_available as is_cuda_available
from .diagnostics import print_diagnostics as print_diagnostics
from .enums import BroadcastMode as BroadcastMode
from .enums import ConvolutionMode as ConvolutionMode
from .enums import CoordinateMapType as CoordinateMapType
from .enums import CUDAKernelMapMode as CUDAKernelMapMode
from .enums import GPUMemoryAllocatorType as GPUMemoryAllocatorType
from .enums import MinkowskiAlgorithm as MinkowskiAlgorithm
from .enums import PoolingMode as PoolingMode
from .enums import RegionType as RegionType
from .enums import SparseTensorOperationMode as SparseTensorOperationMode
from .enums import SparseTensorQuantizationMode as SparseTensorQuantizationMode
from .field import TensorField as TensorField
from .key import CoordinateMapKey as CoordinateMapKey
from .manager import CoordinateManager as CoordinateManager
from .manager import CoordsManager as CoordsManager
from .manager import set_gpu_allocator as set_gpu_allocator
from .manager import set_memory_manager_backend as set_memory_manager_backend
from .nonlinearity import MinkowskiAdaptiveLogSoftmaxWithLoss as MinkowskiAdaptiveLogSoftmaxWithLoss
from .nonlinearity import MinkowskiAlphaDropout as MinkowskiAlphaDropout
from .nonlinearity import MinkowskiCELU as MinkowskiCELU
from .nonlinearity import MinkowskiDropout as MinkowskiDropout
from .nonlinearity import MinkowskiELU as MinkowskiELU
from .nonlinearity import MinkowskiGELU as MinkowskiGELU
from .nonlinearity import MinkowskiHardshrink as MinkowskiHardshrink
from .nonlinearity import MinkowskiHardsigmoid as MinkowskiHardsigmoid
from .nonlinearity import MinkowskiHardswish as MinkowskiHardswish
from .nonlinearity import MinkowskiHardtanh as MinkowskiHardtanh
from .nonlinearity import MinkowskiLeakyReLU as MinkowskiLeakyReLU
from .nonlinearity import MinkowskiLogSigmoid as MinkowskiLogSigmoid
from .nonlinearity import MinkowskiLogSoftmax as MinkowskiLogSoftmax
from .nonlinearity import MinkowskiPReLU as MinkowskiPReLU
from .nonlinearity import MinkowskiReLU as MinkowskiReLU
from .nonlinearity import MinkowskiReLU6 as MinkowskiReLU6
from .nonlinearity import MinkowskiRReLU as MinkowskiRReLU
from .nonlinearity import MinkowskiSELU as MinkowskiSELU
from .nonlinearity import MinkowskiSigmoid as MinkowskiSigmoid
from .nonlinearity import MinkowskiSiLU as MinkowskiSiLU
from .nonlinearity import MinkowskiSinusoidal as MinkowskiSinusoidal
from .nonlinearity import MinkowskiSoftmax as MinkowskiSoftmax
from .nonlinearity import MinkowskiSoftmin as MinkowskiSoftmin
from .nonlinearity import MinkowskiSoftplus as MinkowskiSoftplus
from .nonlinearity import MinkowskiSoftshrink as MinkowskiSoftshrink
from .nonlinearity import MinkowskiSoftsign as MinkowskiSoftsign
from .nonlinearity import MinkowskiTanh as MinkowskiTanh
from .nonlinearity import MinkowskiTanhshrink as MinkowskiTanhshrink
from .nonlinearity import MinkowskiThreshold as MinkowskiThreshold
from .normalization import MinkowskiBatchNorm as MinkowskiBatchNorm
from .normalization import MinkowskiInstanceNorm as MinkowskiInstanceNorm
from .normalization import MinkowskiInstanceNormFunction as MinkowskiInstanceNormFunction
from .normalization import MinkowskiStableInstanceNorm as MinkowskiStableInstanceNorm
from .normalization import MinkowskiSyncBatchNorm as MinkowskiSyncBatchNorm
from .ops import MinkowskiLinear as MinkowskiLinear
from .ops import MinkowskiStackCat as MinkowskiStackCat
from .ops import MinkowskiStackMean as MinkowskiStackMean
from .ops import MinkowskiStackSum as MinkowskiStackSum
from .ops import MinkowskiStackVar as MinkowskiStackVar
from .ops import MinkowskiToDenseTensor as MinkowskiToDenseTensor
from .ops import MinkowskiToFeature as MinkowskiToFeature
from .ops import MinkowskiToSparseTensor as MinkowskiToSparseTensor
from .ops import _sum as sum  # noqa: F401
from .ops import cat as cat
from .ops import dense_coordinates as dense_coordinates
from .ops import mean as mean
from .ops import to_sparse as to_sparse
from .ops import to_sparse_all as to_sparse_all
from .ops import var as var
from .pooling import MinkowskiAvgPooling as MinkowskiAvgPooling
from .pooling import MinkowskiDirectMaxPoolingFunction as MinkowskiDirectMaxPoolingFunction
from .pooling import MinkowskiGlobalAvgPooling as MinkowskiGlobalAvgPooling
from .pooling import MinkowskiGlobalMaxPooling as MinkowskiGlobalMaxPooling
from .pooling import MinkowskiGlobalPooling as MinkowskiGlobalPooling
from .pooling import MinkowskiGlobalPoolingFunction as MinkowskiGlobalPoolingFunction
from .pooling import MinkowskiGlobalSumPooling as MinkowskiGlobalSumPooling
from .pooling import MinkowskiLocalPoolingFunction as MinkowskiLocalPoolingFunction
from .pooling import MinkowskiLocalPoolingTransposeFunction as MinkowskiLocalPoolingTransposeFunction
from .pooling import MinkowskiMaxPooling as MinkowskiMaxPooling
from .pooling import MinkowskiPoolingTranspose as MinkowskiPoolingTranspose
from .pooling import MinkowskiSumPooling as MinkowskiSumPooling
from .regions import KernelGenerator as KernelGenerator
from .regions import KernelRegion as KernelRegion
from .regions import convert_region_type as convert_region_type
from .regions import get_kernel_volume as get_kernel_volume
from .spmm import MinkowskiSPMMAverageFunction as MinkowskiSPMMAverageFunction
from .spmm import MinkowskiSPMMFunction as MinkowskiSPMMFunction
from .spmm import spmm as spmm
from .structure import MinkowskiInterpolation as MinkowskiInterpolation
from .structure import MinkowskiInterpolationFunction as MinkowskiInterpolationFunction
from .structure import MinkowskiNetwork as MinkowskiNetwork
from .structure import MinkowskiPruning as MinkowskiPruning
from .structure import MinkowskiPruningFunction as MinkowskiPruningFunction
from .structure import MinkowskiUnion as MinkowskiUnion
from .structure import MinkowskiUnionFunction as MinkowskiUnionFunction
from .tensor import SparseTensor as SparseTensor
from .tensor import clear_global_coordinate_manager as clear_global_coordinate_manager
from .tensor import global_coordinate_manager as global_coordinate_manager
from .tensor import set_global_coordinate_manager as set_global_coordinate_manager
from .tensor import set_sparse_tensor_operation_mode as set_sparse_tensor_operation_mode
from .tensor import sparse_tensor_operation_mode as sparse_tensor_operation_mode

__version__ = "0.5.4"  # the MinkowskiEngine that these names are those of

_make_submodules()
