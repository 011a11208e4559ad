"""The submodules that MinkowskiEngine has, and the names under which Python finds them.

MinkowskiEngine puts its own folder on the search path, so that its files are found as ``MinkowskiOps`` as well as
``MinkowskiEngine.MinkowskiOps``; and a C++ module as ``MinkowskiEngineBackend._C``. Its submodules are here lists of
names of the modules of this package. Those called like a class (``MinkowskiConvolution``) are found by ``from
MinkowskiEngine.MinkowskiConvolution import ...``, while the attribute of the package is the class.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_ENUMS = (
    "BroadcastMode ConvolutionMode CoordinateMapType CUDAKernelMapMode GPUMemoryAllocatorType MinkowskiAlgorithm "
    "PoolingMode RegionType"
)
_COMMON = (
    "MinkowskiModuleBase StrideType convert_to_int_list convert_to_int_tensor get_minkowski_function get_postfix "
    "prep_args"
)

# Submodule of MinkowskiEngine: modules of this package, each with the names it gives, all of its own by default.
SUBMODULES: dict[str, dict[str, str]] = {
    "MinkowskiBroadcast": {"broadcast": "", "enums": "BroadcastMode"},
    "MinkowskiChannelwiseConvolution": {"convolution": "MinkowskiChannelwiseConvolution"},
    "MinkowskiCommon": {"common": _COMMON},
    "MinkowskiConvolution": {
        "convolution": "MinkowskiConvolution MinkowskiConvolutionBase MinkowskiConvolutionFunction "
        "MinkowskiConvolutionTranspose MinkowskiConvolutionTransposeFunction MinkowskiGenerativeConvolutionTranspose",
        "enums": "ConvolutionMode RegionType",
        "regions": "KernelGenerator",
    },
    "MinkowskiCoordinateManager": {
        "manager": "CoordinateManager CoordsManager set_coordinate_map_type set_gpu_allocator "
        "set_memory_manager_backend",
        "key": "CoordinateMapKey",
        "enums": "CoordinateMapType GPUMemoryAllocatorType MinkowskiAlgorithm RegionType",
    },
    "MinkowskiFunctional": {"functional": ""},
    "MinkowskiInterpolation": {"structure": "MinkowskiInterpolation MinkowskiInterpolationFunction"},
    "MinkowskiKernelGenerator": {
        "regions": "KernelGenerator KernelRegion convert_region_type get_kernel_volume save_ctx",
        "enums": "RegionType",
    },
    "MinkowskiNetwork": {"structure": "MinkowskiNetwork"},
    "MinkowskiNonlinearity": {"nonlinearity": "", "common": "MinkowskiModuleBase"},
    "MinkowskiNormalization": {"normalization": ""},
    "MinkowskiOps": {"ops": "", "common": "MinkowskiModuleBase"},
    "MinkowskiPooling": {"pooling": "", "enums": "PoolingMode"},
    "MinkowskiPruning": {"structure": "MinkowskiPruning MinkowskiPruningFunction"},
    "MinkowskiSparseTensor": {
        "tensor": "SparseTensor _get_coordinate_map_key global_coordinate_manager set_global_coordinate_manager "
        "sparse_tensor_operation_mode COORDINATE_MANAGER_DIFFERENT_ERROR COORDINATE_KEY_DIFFERENT_ERROR",
        "enums": "SparseTensorOperationMode SparseTensorQuantizationMode",
        "manager": "CoordinateManager",
    },
    "MinkowskiTensor": {
        "tensor": "Tensor COORDINATE_MANAGER_DIFFERENT_ERROR COORDINATE_KEY_DIFFERENT_ERROR "
        "set_sparse_tensor_operation_mode sparse_tensor_operation_mode global_coordinate_manager "
        "set_global_coordinate_manager clear_global_coordinate_manager",
        "enums": "SparseTensorOperationMode SparseTensorQuantizationMode",
    },
    "MinkowskiTensorField": {"field": "TensorField create_splat_coordinates"},
    "MinkowskiUnion": {"structure": "MinkowskiUnion MinkowskiUnionFunction"},
    "sparse_matrix_functions": {"spmm": "spmm spmm_average MinkowskiSPMMFunction MinkowskiSPMMAverageFunction EPS"},
    "diagnostics": {"diagnostics": "parse_nvidia_smi print_diagnostics"},
}
BACKEND = {
    "enums": _ENUMS,
    "key": "CoordinateMapKey",
    "diagnostics": "is_cuda_available cuda_version cudart_version get_gpu_memory_info",
    "utils.quantization": "quantize quantize_label",
}
PACKAGES = (
    "utils utils.collation utils.coords utils.gradcheck utils.init utils.quantization utils.summary utils.torchsummary "
    "modules modules.resnet_block modules.senet_block"
).split()
HERE = __name__.rpartition(".")[0]


def _module(name: str, parts: dict[str, str]) -> ModuleType:
    made = ModuleType(f"{HERE}.{name}", f"The names of MinkowskiEngine's {name}.")
    for part, names in parts.items():
        source = importlib.import_module(f"{HERE}.{part}")
        for each in names.split() or _own(source):
            setattr(made, each, getattr(source, each))
    return made


def _own(module: ModuleType) -> list[str]:
    """The names that a module lists, or else those of what it defines."""
    listed: list[str] | None = getattr(module, "__all__", None)
    if listed is not None:
        return listed
    return [name for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]


def make_submodules() -> None:
    """Make the submodules, so that ``import hepops.compat.minkowski.MinkowskiOps`` finds them."""
    package = sys.modules[HERE]
    for name, parts in SUBMODULES.items():
        full = f"{HERE}.{name}"
        if name == "diagnostics":  # this package has a module of the same name that holds them
            continue
        sys.modules[full] = _module(name, parts)
        if not hasattr(package, name):
            setattr(package, name, sys.modules[full])


def _backend() -> dict[str, ModuleType]:
    c = _module("MinkowskiEngineBackend._C", BACKEND)

    def absent(name: str) -> Any:
        raise AttributeError(
            f"MinkowskiEngineBackend._C.{name} is not part of hepops.compat.minkowski, which has the layers and "
            "tensors of MinkowskiEngine but not its C++ functions"
        )

    c.__getattr__ = absent  # type: ignore[method-assign]
    package = ModuleType("MinkowskiEngineBackend", "In the place of MinkowskiEngine's C++ part.")
    package.__path__ = []
    package._C = c  # type: ignore[attr-defined]
    return {"MinkowskiEngineBackend": package, "MinkowskiEngineBackend._C": c}


def install(force: bool = False) -> ModuleType:
    """Let ``import MinkowskiEngine`` and its submodules find this package in this process.

    Args:
        force: take the place of a MinkowskiEngine that is imported already; what was imported from it stays as it is.

    Returns:
        This package.

    Raises:
        RuntimeError: another MinkowskiEngine is imported already.

    Example:
        >>> # hepops.compat.minkowski.install()
        >>> # import MinkowskiEngine as ME
        >>> # import MinkowskiEngine.MinkowskiFunctional as MF
    """
    package = sys.modules[HERE]
    known = sys.modules.get("MinkowskiEngine")
    if known is not None and known is not package and not force:
        where = getattr(known, "__file__", "unknown")
        raise RuntimeError(f"MinkowskiEngine is imported already, from {where}: install() first, or force=True")
    if force:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("MinkowskiEngine", "MinkowskiEngineBackend")]:
            del sys.modules[name]
    sys.modules["MinkowskiEngine"] = package
    for name in SUBMODULES:
        module = sys.modules[f"{HERE}.{name}"]
        sys.modules[f"MinkowskiEngine.{name}"] = module
        if name != "diagnostics":  # too common a name to take at the top
            sys.modules[name] = module
    for name in PACKAGES:
        sys.modules[f"MinkowskiEngine.{name}"] = importlib.import_module(f"{HERE}.{name}")
    sys.modules.update(_backend())
    return package
