"""Every name of MinkowskiEngine 0.5.4 is there, has its signature, and works or says why it does not."""

import importlib
import inspect
import pickle
import subprocess
import sys
import types

import hepops.compat.minkowski as ME
import pytest
import torch
from conftest import ROOT

PACKAGE = """
MinkowskiAlgorithm CoordinateMapKey GPUMemoryAllocatorType CoordinateMapType RegionType PoolingMode BroadcastMode
is_cuda_available cuda_version cudart_version get_gpu_memory_info print_diagnostics KernelRegion KernelGenerator
convert_region_type get_kernel_volume SparseTensorOperationMode SparseTensorQuantizationMode
set_sparse_tensor_operation_mode sparse_tensor_operation_mode global_coordinate_manager set_global_coordinate_manager
clear_global_coordinate_manager SparseTensor TensorField convert_to_int_tensor MinkowskiModuleBase
set_memory_manager_backend set_gpu_allocator CoordsManager CoordinateManager MinkowskiConvolutionFunction
MinkowskiConvolution MinkowskiConvolutionTransposeFunction MinkowskiConvolutionTranspose
MinkowskiGenerativeConvolutionTranspose MinkowskiChannelwiseConvolution MinkowskiLocalPoolingFunction
MinkowskiSumPooling MinkowskiAvgPooling MinkowskiMaxPooling MinkowskiLocalPoolingTransposeFunction
MinkowskiPoolingTranspose MinkowskiGlobalPoolingFunction MinkowskiGlobalPooling MinkowskiGlobalSumPooling
MinkowskiGlobalAvgPooling MinkowskiGlobalMaxPooling MinkowskiDirectMaxPoolingFunction MinkowskiBroadcastFunction
MinkowskiBroadcastAddition MinkowskiBroadcastMultiplication MinkowskiBroadcast MinkowskiBroadcastConcatenation
MinkowskiELU MinkowskiHardshrink MinkowskiHardsigmoid MinkowskiHardtanh MinkowskiHardswish MinkowskiLeakyReLU
MinkowskiLogSigmoid MinkowskiPReLU MinkowskiReLU MinkowskiReLU6 MinkowskiRReLU MinkowskiSELU MinkowskiCELU
MinkowskiGELU MinkowskiSigmoid MinkowskiSiLU MinkowskiSoftplus MinkowskiSoftshrink MinkowskiSoftsign MinkowskiTanh
MinkowskiTanhshrink MinkowskiThreshold MinkowskiSoftmin MinkowskiSoftmax MinkowskiLogSoftmax
MinkowskiAdaptiveLogSoftmaxWithLoss MinkowskiDropout MinkowskiAlphaDropout MinkowskiSinusoidal MinkowskiBatchNorm
MinkowskiSyncBatchNorm MinkowskiInstanceNorm MinkowskiInstanceNormFunction MinkowskiStableInstanceNorm
MinkowskiPruning MinkowskiPruningFunction MinkowskiUnion MinkowskiUnionFunction MinkowskiInterpolation
MinkowskiInterpolationFunction MinkowskiNetwork MinkowskiOps MinkowskiLinear MinkowskiToSparseTensor
MinkowskiToDenseTensor MinkowskiToFeature MinkowskiStackCat MinkowskiStackSum MinkowskiStackMean MinkowskiStackVar cat
mean var to_sparse to_sparse_all dense_coordinates sum MinkowskiFunctional utils modules spmm MinkowskiSPMMFunction
MinkowskiSPMMAverageFunction __version__
"""

SUBMODULES = {
    "MinkowskiBroadcast": "MinkowskiBroadcastFunction MinkowskiBroadcastBase MinkowskiBroadcastAddition "
    "MinkowskiBroadcastMultiplication MinkowskiBroadcast MinkowskiBroadcastConcatenation",
    "MinkowskiChannelwiseConvolution": "MinkowskiChannelwiseConvolution",
    "MinkowskiCommon": "convert_to_int_list convert_to_int_tensor prep_args get_postfix MinkowskiModuleBase "
    "get_minkowski_function StrideType",
    "MinkowskiConvolution": "MinkowskiConvolutionFunction MinkowskiConvolutionTransposeFunction "
    "MinkowskiConvolutionBase MinkowskiConvolution MinkowskiConvolutionTranspose "
    "MinkowskiGenerativeConvolutionTranspose",
    "MinkowskiCoordinateManager": "set_coordinate_map_type set_gpu_allocator set_memory_manager_backend "
    "CoordsManager CoordinateManager",
    "MinkowskiFunctional": "_wrap_tensor threshold relu hardtanh hardswish relu6 elu selu celu leaky_relu prelu rrelu "
    "glu gelu logsigmoid hardshrink tanhshrink softsign softplus softmin softmax softshrink gumbel_softmax "
    "log_softmax tanh sigmoid hardsigmoid silu batch_norm normalize linear dropout alpha_dropout "
    "binary_cross_entropy binary_cross_entropy_with_logits poisson_nll_loss cross_entropy hinge_embedding_loss "
    "kl_div l1_loss mse_loss multilabel_margin_loss multilabel_soft_margin_loss multi_margin_loss nll_loss "
    "smooth_l1_loss soft_margin_loss",
    "MinkowskiInterpolation": "MinkowskiInterpolationFunction MinkowskiInterpolation",
    "MinkowskiKernelGenerator": "get_kernel_volume convert_region_type KernelGenerator KernelRegion save_ctx",
    "MinkowskiNetwork": "MinkowskiNetwork",
    "MinkowskiNonlinearity": "MinkowskiNonlinearityBase MinkowskiModuleBase MinkowskiReLU MinkowskiSinusoidal",
    "MinkowskiNormalization": "MinkowskiBatchNorm MinkowskiSyncBatchNorm MinkowskiInstanceNormFunction "
    "MinkowskiStableInstanceNorm MinkowskiInstanceNorm",
    "MinkowskiOps": "MinkowskiLinear cat _sum mean var dense_coordinates to_sparse to_sparse_all "
    "MinkowskiToSparseTensor MinkowskiToDenseTensor MinkowskiToFeature MinkowskiStackCat MinkowskiStackSum "
    "MinkowskiStackMean MinkowskiStackVar _tuple_operator",
    "MinkowskiPooling": "MinkowskiLocalPoolingFunction MinkowskiPoolingBase MinkowskiAvgPooling MinkowskiSumPooling "
    "MinkowskiMaxPooling MinkowskiLocalPoolingTransposeFunction MinkowskiPoolingTranspose "
    "MinkowskiGlobalPoolingFunction MinkowskiGlobalPooling MinkowskiGlobalSumPooling MinkowskiGlobalAvgPooling "
    "MinkowskiGlobalMaxPooling MinkowskiDirectMaxPoolingFunction",
    "MinkowskiPruning": "MinkowskiPruningFunction MinkowskiPruning",
    "MinkowskiSparseTensor": "SparseTensor _get_coordinate_map_key SparseTensorQuantizationMode",
    "MinkowskiTensor": "SparseTensorOperationMode SparseTensorQuantizationMode set_sparse_tensor_operation_mode "
    "sparse_tensor_operation_mode global_coordinate_manager set_global_coordinate_manager "
    "clear_global_coordinate_manager Tensor COORDINATE_MANAGER_DIFFERENT_ERROR COORDINATE_KEY_DIFFERENT_ERROR",
    "MinkowskiTensorField": "create_splat_coordinates TensorField",
    "MinkowskiUnion": "MinkowskiUnionFunction MinkowskiUnion",
    "diagnostics": "parse_nvidia_smi print_diagnostics",
    "modules.resnet_block": "BasicBlock Bottleneck",
    "modules.senet_block": "SELayer SEBasicBlock SEBottleneck",
    "sparse_matrix_functions": "spmm spmm_average MinkowskiSPMMFunction MinkowskiSPMMAverageFunction EPS",
    "utils": "sparse_quantize ravel_hash_vec fnv_hash_vec unique_coordinate_map SparseCollation batched_coordinates "
    "sparse_collate batch_sparse_collate kaiming_normal_ summary",
    "utils.collation": "batched_coordinates sparse_collate batch_sparse_collate SparseCollation",
    "utils.coords": "get_coords_map",
    "utils.gradcheck": "gradcheck",
    "utils.init": "_calculate_fan_in_and_fan_out _calculate_correct_fan kaiming_normal_",
    "utils.quantization": "fnv_hash_vec ravel_hash_vec quantize quantize_label sparse_quantize unique_coordinate_map",
    "utils.summary": "summary pruned_weight_sparsity_string size2list get_hash_occupancy_ratio "
    "minkowski_summary_string",
    "utils.torchsummary": "summary summary_string",
}

CONVOLUTION = "in_channels out_channels kernel_size=-1 stride=1 dilation=1 bias=False kernel_generator=None "
TENSOR = "allocator_type=None minkowski_algorithm=None requires_grad=None device=None"
POOL = "stride=1 dilation=1 kernel_generator=None dimension=None"
SIGNATURES = {
    "SparseTensor": "features coordinates=None tensor_stride=1 coordinate_map_key=None coordinate_manager=None "
    f"quantization_mode=SparseTensorQuantizationMode.RANDOM_SUBSAMPLE {TENSOR}",
    "TensorField": "features coordinates=None tensor_stride=1 coordinate_field_map_key=None coordinate_manager=None "
    f"quantization_mode=SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE {TENSOR}",
    "CoordinateManager": "D=0 num_threads=-1 coordinate_map_type=None allocator_type=None minkowski_algorithm=None",
    "KernelGenerator": "kernel_size=-1 stride=1 dilation=1 is_transpose=False region_type=RegionType.HYPER_CUBE "
    "region_offsets=None expand_coordinates=False axis_types=None dimension=-1",
    "KernelRegion": "kernel_size kernel_stride kernel_dilation region_type offset dimension",
    "MinkowskiConvolution": f"{CONVOLUTION}expand_coordinates=False convolution_mode=ConvolutionMode.DEFAULT "
    "dimension=None",
    "MinkowskiConvolutionTranspose": f"{CONVOLUTION}expand_coordinates=False "
    "convolution_mode=ConvolutionMode.DEFAULT dimension=None",
    "MinkowskiGenerativeConvolutionTranspose": f"{CONVOLUTION}convolution_mode=ConvolutionMode.DEFAULT dimension=None",
    "MinkowskiChannelwiseConvolution": "in_channels kernel_size=-1 stride=1 dilation=1 bias=False "
    "kernel_generator=None dimension=-1",
    "MinkowskiAvgPooling": f"kernel_size=-1 {POOL}",
    "MinkowskiSumPooling": f"kernel_size {POOL}",
    "MinkowskiMaxPooling": f"kernel_size {POOL}",
    "MinkowskiPoolingTranspose": "kernel_size stride dilation=1 kernel_generator=None expand_coordinates=False "
    "dimension=None",
    "MinkowskiGlobalPooling": "mode=PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX",
    "MinkowskiGlobalSumPooling": "mode=PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX",
    "MinkowskiGlobalAvgPooling": "mode=PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX",
    "MinkowskiGlobalMaxPooling": "mode=PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX",
    "MinkowskiBatchNorm": "num_features eps=1e-05 momentum=0.1 affine=True track_running_stats=True",
    "MinkowskiSyncBatchNorm": "num_features eps=1e-05 momentum=0.1 affine=True track_running_stats=True "
    "process_group=None",
    "MinkowskiInstanceNorm": "num_features",
    "MinkowskiStableInstanceNorm": "num_features",
    "MinkowskiInterpolation": "return_kernel_map=False return_weights=False",
    "MinkowskiNetwork": "D",
    "MinkowskiToSparseTensor": "remove_zeros=True coordinates=None",
    "MinkowskiToDenseTensor": "shape=None",
    "MinkowskiSinusoidal": "in_channel out_channel",
    "spmm": "rows cols vals size mat is_sorted=False cuda_spmm_alg=1",
    "to_sparse": "x format=None coordinates=None device=None",
    "to_sparse_all": "dense_tensor coordinates=None",
    "dense_coordinates": "shape",
    "get_kernel_volume": "region_type kernel_size region_offset axis_types dimension",
    "utils.sparse_quantize": "coordinates features=None labels=None ignore_label=-100 return_index=False "
    "return_inverse=False return_maps_only=False quantization_size=None device=cpu",
    "utils.batched_coordinates": "coords dtype=torch.int32 device=None",
    "utils.sparse_collate": "coords feats labels=None dtype=torch.int32 device=None",
    "utils.batch_sparse_collate": "data dtype=torch.int32 device=None",
    "utils.SparseCollation": "limit_numpoints=-1 dtype=torch.int32 device=None",
    "utils.unique_coordinate_map": "coordinates tensor_stride=1",
    "utils.kaiming_normal_": "tensor a=0 mode=fan_in nonlinearity=leaky_relu",
    "utils.summary": "model summary_input",
    "modules.resnet_block.BasicBlock": "inplanes planes stride=1 dilation=1 downsample=None bn_momentum=0.1 "
    "dimension=-1",
    "modules.resnet_block.Bottleneck": "inplanes planes stride=1 dilation=1 downsample=None bn_momentum=0.1 "
    "dimension=-1",
    "modules.senet_block.SELayer": "channel reduction=16 D=-1",
    "modules.senet_block.SEBasicBlock": "inplanes planes stride=1 dilation=1 downsample=None reduction=16 D=-1",
    "modules.senet_block.SEBottleneck": "inplanes planes stride=1 dilation=1 downsample=None D=3 reduction=16",
}

METHODS = {
    "SparseTensor": "C D F _C _D _F _manager coordinate_key coordinate_manager coordinate_map_key coordinates "
    "coordinates_and_features_at coordinates_at decomposed_coordinates decomposed_coordinates_and_features "
    "decomposed_features decomposition_permutations detach device dimension double dtype features features_at float "
    "get_device requires_grad requires_grad_ shape size tensor_stride cat_slice dense features_at_coordinates "
    "initialize_coordinates interpolate slice sparse unique_index inverse_mapping quantization_mode __iadd__ __isub__ "
    "__imul__ __itruediv__ __add__ __sub__ __mul__ __truediv__",
    "TensorField": "C D F coordinate_key coordinate_manager coordinate_field_map_key coordinates coordinates_at "
    "decomposed_coordinates decomposed_features decomposed_coordinates_and_features detach device double dtype "
    "features "
    "features_at float shape size inverse_mapping sparse splat quantization_mode __add__ __sub__ __mul__ __truediv__",
    "CoordinateManager": "D exists_field_to_sparse field_to_sparse_insert_and_map field_to_sparse_keys "
    "field_to_sparse_map get_coordinate_field get_coordinates get_field_to_sparse_map get_kernel_map "
    "get_unique_coordinate_map_key insert_and_map insert_field interpolation_map_weight kernel_map "
    "number_of_unique_batch_indices origin origin_field origin_field_map origin_map size stride stride_map union_map "
    "_get_coordinate_map_key minkowski_algorithm",
    "CoordinateMapKey": "get_coordinate_size get_key get_tensor_stride is_key_set set_key",
}

# What nobody uses says so.
REFUSED = {
    "CoordsManager": lambda: ME.CoordsManager(3),
    "MinkowskiCommon.get_minkowski_function": lambda: common().get_minkowski_function(
        "ConvolutionForward", torch.zeros(1)
    ),
    "MinkowskiNetwork.init": lambda: Net(3).init(None),
    "KernelGenerator(axis_types)": lambda: ME.KernelGenerator(3, axis_types=[0, 0], dimension=2),
    "get_kernel_volume(axis_types)": lambda: ME.get_kernel_volume(ME.RegionType.HYPER_CUBE, [3, 3], None, [0, 0], 2),
    "convert_region_type(center=False)": lambda: ME.convert_region_type(
        ME.RegionType.HYPER_CUBE, [1], [3], [1], [1], None, None, 1, center=False
    ),
    "utils.torchsummary.summary": lambda: ME.utils.torchsummary.summary(None, (1,)),
    "utils.torchsummary.summary_string": lambda: ME.utils.torchsummary.summary_string(None, (1,)),
    "utils.summary.get_hash_occupancy_ratio": lambda: submodule("utils.summary").get_hash_occupancy_ratio(None),
    "CoordinateManager.get_batch_indices": lambda: ME.CoordinateManager(2).get_batch_indices(),
}


class Net(ME.MinkowskiNetwork):
    def forward(self, x):
        return x


def submodule(name):
    return importlib.import_module(f"hepops.compat.minkowski.{name}")


def common():
    return submodule("MinkowskiCommon")


def tensor(channels=2, dtype=torch.float32):
    c = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 3, 3], [1, 2, 2]], dtype=torch.int32)
    return ME.SparseTensor(torch.rand(4, channels, dtype=dtype), c)


@pytest.mark.parametrize("name", PACKAGE.split())
def test_the_package_has(name):
    assert hasattr(ME, name)


@pytest.mark.parametrize("module", SUBMODULES)
def test_the_submodule_has(module):
    found = submodule(module)
    assert isinstance(found, types.ModuleType)
    assert [name for name in SUBMODULES[module].split() if not hasattr(found, name)] == []


def test_the_page_lists_every_name():
    page = (ROOT / "docs/minkowski.md").read_text()
    names = {name for names in (PACKAGE, *SUBMODULES.values()) for name in names.split()}
    modules = {"utils", "modules", "MinkowskiOps", "MinkowskiFunctional"}
    plain = {name for name in names - modules if not name.startswith("_")} - {"EPS", "StrideType"}
    errors = {name for name in plain if name.endswith("_ERROR")}
    assert sorted(name for name in plain - errors if f"`{name}`" not in page) == []


def test_names_are_the_same_object_everywhere():
    for module, names in SUBMODULES.items():
        for name in names.split():
            if hasattr(ME, name) and not isinstance(getattr(ME, name), types.ModuleType):
                assert getattr(submodule(module), name) is getattr(ME, name), f"{module}.{name}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    module, _, last = name.rpartition(".")
    found = getattr(submodule(module) if module else ME, last)
    parameters = [p for p in inspect.signature(found).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!s}" for p in parameters]
    assert shown == SIGNATURES[name].split()


@pytest.mark.parametrize("name", METHODS)
def test_attributes(name):
    instance = {
        "SparseTensor": tensor,
        "TensorField": lambda: ME.TensorField(torch.rand(2, 1), torch.rand(2, 3).floor()),
        "CoordinateManager": lambda: ME.CoordinateManager(2),
        "CoordinateMapKey": lambda: ME.CoordinateMapKey([1, 1]),
    }[name]()
    assert [each for each in METHODS[name].split() if not hasattr(instance, each)] == []


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name):
    with pytest.raises(NotImplementedError, match=r"hepops\.compat\.minkowski"):
        REFUSED[name]()


@pytest.mark.parametrize("name", [n for n in SUBMODULES["MinkowskiFunctional"].split()[1:33]])
def test_functions_keep_the_voxels(name):
    x = tensor(4)
    extra = {
        "threshold": (0.5, 0.0),
        "prelu": (torch.tensor([0.25]),),
        "linear": (torch.rand(3, 4),),
        "batch_norm": (torch.zeros(4), torch.ones(4)),
    }.get(name, ())
    options = {"dim": 1} if "soft" in name and name.split("_")[-1] in ("softmin", "softmax") else {}
    options |= {"training": False} if "dropout" in name else {}
    torch.manual_seed(0)
    y = getattr(ME.MinkowskiFunctional, name)(x, *extra, **options)
    torch.manual_seed(0)
    assert type(y) is ME.SparseTensor and y.coordinate_map_key == x.coordinate_map_key
    assert torch.equal(y.F, getattr(torch.nn.functional, name)(x.F, *extra, **options))


@pytest.mark.parametrize("name", SUBMODULES["MinkowskiFunctional"].split()[33:])
def test_losses_take_features_and_targets(name):
    x = tensor(3)
    target = {
        "cross_entropy": torch.tensor([0, 1, 2, 0]),
        "nll_loss": torch.tensor([0, 1, 2, 0]),
        "multi_margin_loss": torch.tensor([0, 1, 2, 0]),
        "multilabel_margin_loss": torch.tensor([[0, 1, -1]] * 4),
        "hinge_embedding_loss": torch.ones(4, 3),
        "soft_margin_loss": torch.ones(4, 3),
    }.get(name, torch.rand(4, 3).round())
    options = {"reduction": "batchmean"} if name == "kl_div" else {}
    loss = getattr(ME.MinkowskiFunctional, name)(x, target, **options)
    assert torch.equal(loss, getattr(torch.nn.functional, name)(x.F, target, **options))


ARGUMENTS = {"Threshold": (0.1, 0.0), "Softmax": (1,), "Softmin": (1,), "LogSoftmax": (1,)}


@pytest.mark.parametrize(
    "name", [n for n in PACKAGE.split() if hasattr(getattr(ME, n), "MODULE") and n[9:] in dir(torch.nn)]
)
def test_activations_are_those_of_torch(name):
    if name == "MinkowskiAdaptiveLogSoftmaxWithLoss":
        x, layer = tensor(4), ME.MinkowskiAdaptiveLogSoftmaxWithLoss(4, 6, [2, 4], div_value=1.0)
        target = torch.tensor([0, 3, 5, 1])
        assert torch.equal(layer(x, target).output, layer.module(x.F, target).output)
        return
    layer = getattr(ME, name)(*ARGUMENTS.get(name[9:], ())).eval()
    field = ME.TensorField(torch.randn(3, 2), torch.rand(3, 3).floor() + torch.tensor([0.0, 0.5, 0.25]))
    for x in (tensor(2), field):
        y = layer(x)
        assert type(y) is type(x)
        assert torch.equal(y.F, layer.module(x.F))
    assert type(pickle.loads(pickle.dumps(layer))) is getattr(ME, name)


def test_enumerations_have_their_values():
    assert [m.name for m in ME.RegionType] == ["HYPER_CUBE", "HYPER_CROSS", "CUSTOM"]
    assert [m.value for m in ME.SparseTensorQuantizationMode] == [0, 1, 2, 3, 4, 5]
    assert str(ME.RegionType.HYPER_CUBE) == "RegionType.HYPER_CUBE" and ME.RegionType(1) is ME.RegionType.HYPER_CROSS
    assert len(ME.PoolingMode) == 12 and ME.PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX == 11
    assert ME.__version__ == "0.5.4"
    assert isinstance(ME.is_cuda_available(), bool) and isinstance(ME.cuda_version(), int)
    assert ME.cudart_version() == ME.cuda_version()


def test_settings_are_taken_and_ignored():
    ME.set_gpu_allocator(ME.GPUMemoryAllocatorType.CUDA)
    ME.set_memory_manager_backend(ME.GPUMemoryAllocatorType.PYTORCH)
    submodule("MinkowskiCoordinateManager").set_coordinate_map_type(ME.CoordinateMapType.CPU)
    with pytest.raises(TypeError, match="GPUMemoryAllocatorType"):
        ME.set_gpu_allocator("pytorch")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="GPU"):
            ME.get_gpu_memory_info()


def test_diagnostics_name_what_runs(capsys):
    ME.print_diagnostics()
    assert "in the place of MinkowskiEngine" in capsys.readouterr().out


USER = """
import hepops.compat.minkowski, sys, types
{before}
hepops.compat.minkowski.install({options})
import MinkowskiEngine as ME
import MinkowskiEngine.MinkowskiFunctional as MF
import MinkowskiFunctional as MF2
import MinkowskiEngine.MinkowskiOps as ops
from MinkowskiEngine import SparseTensor, MinkowskiConvolution
from MinkowskiEngine.utils import sparse_collate, sparse_quantize
from MinkowskiEngine.utils.quantization import quantize
from MinkowskiEngine.modules.resnet_block import BasicBlock, Bottleneck
from MinkowskiEngine.modules.senet_block import SEBasicBlock
from MinkowskiEngine.MinkowskiConvolution import MinkowskiConvolutionBase
from MinkowskiEngine.MinkowskiSparseTensor import SparseTensor as S
from MinkowskiEngine.diagnostics import print_diagnostics
from MinkowskiSparseTensor import SparseTensor as S2
from MinkowskiEngineBackend._C import CoordinateMapKey, RegionType, ConvolutionMode, PoolingMode
import MinkowskiEngineBackend._C as C
assert S is S2 is SparseTensor is ME.SparseTensor and MF is MF2 is ME.MinkowskiFunctional and ops is ME.MinkowskiOps
assert issubclass(ME.MinkowskiConvolution, MinkowskiConvolutionBase) and ME.__version__ == "0.5.4"
assert ME.utils.sparse_quantize is sparse_quantize and "diagnostics" not in sys.modules and "utils" not in sys.modules
try:
    C.ConvolutionForwardCPU
except AttributeError as error:
    assert "C++ functions" in str(error)
else:
    raise AssertionError
hepops.compat.minkowski.install()  # twice is once
print("fine")
"""


def run(before="", options=""):
    code = USER.format(before=before, options=options)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_install_makes_imports_find_it():
    done = run()
    assert done.stdout.strip() == "fine", done.stderr


def test_install_does_not_displace_another_one_unasked():
    real = "sys.modules['MinkowskiEngine'] = types.ModuleType('MinkowskiEngine')"
    assert "imported already" in run(real).stderr
    done = run(real, "force=True")
    assert done.stdout.strip() == "fine", done.stderr
