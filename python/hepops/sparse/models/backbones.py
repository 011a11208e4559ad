"""Encoders and decoders over several resolutions.

An encoder has `depth` levels. On each: `reps` blocks; then norm, activation and a convolution of kernel 2 and stride 2
to the next. A decoder goes back: norm, activation, transposed convolution onto the voxels of the encoder's level, that
level's features beside them, `reps` blocks. Names of the parts are SPINE's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from .. import functional as F
from .. import nn as snn
from ..kernel import Size, per_axis
from ..tensor import SparseTensor
from ._units import Following, make_activation, make_norm, norm_act_conv
from .blocks import BOTTLENECKS, MBResConv, MBResConvSE, ResidualBlock, ResNeXtBlock, SEResNetBlock
from .configuration import Configuration, Source, canonical, component, read


class Encoded(TypedDict):
    """What an encoder returns, under SPINE's names."""

    encoder_tensors: list[SparseTensor]  # after the input layer, and after the blocks of each level, finest first
    final_tensor: SparseTensor  # the coarsest


class Planes(Encoded):
    """What a backbone returns."""

    decoder_tensors: list[SparseTensor]  # coarsest first


def _with_decoded(encoded: Encoded, decoded: list[SparseTensor]) -> Planes:
    return {
        "encoder_tensors": encoded["encoder_tensors"],
        "final_tensor": encoded["final_tensor"],
        "decoder_tensors": decoded,
    }


class LatticePhase(nn.Module):
    """In training, shifts each event by a random number of voxels along each axis, 0 ... period - 1.

    Which voxels fall into one coarser voxel then changes from step to step, and the network does not learn the lattice.

    Args:
        dimension: D.
        period: number of phases, one or one for each axis; the coarsest stride has them all.
    """

    def __init__(self, dimension: int, period: Size) -> None:
        super().__init__()
        self.period = per_axis("period", period, dimension)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if not self.training or len(x) == 0:
            return x
        c, segments = x.coordinates, x.segments
        shape = (len(segments.batches), 1)
        phase = torch.cat([torch.randint(p, shape, device=c.device, dtype=c.dtype) for p in self.period], 1)
        shift = torch.cat([phase.new_zeros(shape), phase], 1)
        return SparseTensor(
            x.features, c + shift[segments.row_batch], x.stride, batch_size=x.coordinate_manager.batch_size
        )


def run_blocks(blocks: Iterable[nn.Module], x: SparseTensor, then: Following | None) -> SparseTensor:
    """One block after another; each is told what its result will meet, where that is a norm at once."""
    sequence = list(blocks)
    for block, following in zip(sequence, [*sequence[1:], None], strict=True):
        if isinstance(block, ResidualBlock) and not block._forward_hooks:
            entry = following.entry if isinstance(following, ResidualBlock) else None
            x = block(x, then if following is None else entry)
        else:
            x = block(x)
    return x


class Encoding(nn.Module):
    """The levels of an encoder: `input_layer`, `encoding_block`, `encoding_conv`."""

    def _make_encoder(self, config: Configuration) -> None:
        self.config = config
        self.num_filters, self.num_planes, self.dimension = config.filters, config.planes, config.data_dim
        self.lattice: nn.Module = nn.Identity()
        if config.lattice is not None:
            unknown = sorted(set(config.lattice) - {"period"})
            if unknown or "period" not in config.lattice:
                raise ValueError(f"lattice needs period and nothing else, got {dict(config.lattice)!r}")
            period = config.lattice["period"]
            self.lattice = LatticePhase(self.dimension, 2 ** (config.depth - 1) if period == "auto" else period)
        self.input_layer = snn.Convolution(
            config.num_input, config.filters, config.input_kernel, bias=config.allow_bias, dimension=self.dimension
        )
        blocks, convolutions = [], []
        for level, width in enumerate(config.planes):
            blocks.append(nn.Sequential(*[self._block(width, width, level, True) for _ in range(config.reps)]))
            last = level == config.depth - 1
            convolutions.append(nn.Sequential(*([] if last else self._down(width, config.planes[level + 1]))))
        self.encoding_conv = nn.Sequential(*convolutions)
        self.encoding_block = nn.Sequential(*blocks)
        if config.bottleneck is not None:
            name, arguments = component(config.bottleneck)
            if name not in BOTTLENECKS:
                raise ValueError(f"bottleneck must be one of {', '.join(BOTTLENECKS)}, got {name!r}")
            wide = config.planes[-1]
            self.bottleneck = BOTTLENECKS[name](wide, wide, dimension=self.dimension, **arguments)

    def _block(self, in_features: int, out_features: int, level: int, encoding: bool) -> nn.Module:
        config = self.config
        return ResidualBlock(
            in_features,
            out_features,
            dilation=config.dilation(level),
            dimension=config.data_dim,
            activation=config.activation,
            normalization=config.norm_layer,
            bias=config.allow_bias,
            kernel_size=config.kernel_size,
        )

    def _down(self, width: int, wider: int) -> list[nn.Module]:
        config = self.config
        return [
            make_norm(config.norm_layer, width),
            make_activation(config.activation),
            snn.Convolution(width, wider, 2, 2, bias=config.allow_bias, dimension=config.data_dim),
        ]

    def encode(self, x: SparseTensor) -> Encoded:
        """The features of each level.

        Raises:
            ValueError: the input has not `num_input` channels or `data_dim` axes.
        """
        if x.dimension != self.dimension:
            raise ValueError(f"the network has data_dim {self.dimension}, input has {x.dimension} axes")
        x = self.input_layer(self.lattice(x))
        tensors = [x]
        for block, down in zip(self.encoding_block, self.encoding_conv, strict=True):
            steps = tuple(down.children())  # norm, activation, convolution; none on the coarsest level
            x = run_blocks(block.children(), x, (steps[0], steps[1]) if steps else None)
            tensors.append(x)
            if steps:
                x = norm_act_conv(steps[0], steps[1], steps[2], x)
        if self.config.bottleneck is not None:
            x = self.bottleneck(x)
        return {"encoder_tensors": tensors, "final_tensor": x}


class Decoding(nn.Module):
    """The levels of a decoder: `decoding_conv`, `decoding_block`."""

    joined = True  # whether the encoder's features stand beside the decoder's, or are added to them

    config: Configuration

    def _make_decoder(self) -> None:
        config, planes = self.config, self.config.planes
        blocks, convolutions = [], []
        for level in reversed(range(config.depth - 1)):
            convolutions.append(nn.Sequential(*self._up(planes[level + 1], planes[level])))
            width = planes[level]
            widths = [2 * width if self.joined else width, *[width] * (config.reps - 1)]
            blocks.append(nn.Sequential(*[self._block(w, width, level, False) for w in widths]))
        self.decoding_block = nn.Sequential(*blocks)
        self.decoding_conv = nn.Sequential(*convolutions)

    def _block(self, in_features: int, out_features: int, level: int, encoding: bool) -> nn.Module:
        raise NotImplementedError

    def _up(self, width: int, narrower: int) -> list[nn.Module]:
        config = self.config
        return [
            make_norm(config.norm_layer, width),
            make_activation(config.activation),
            snn.ConvolutionTranspose(width, narrower, 2, 2, bias=config.allow_bias, dimension=config.data_dim),
        ]

    def _join(self, index: int, skip: SparseTensor, x: SparseTensor) -> SparseTensor:
        return F.cat(skip, x)

    def decode(
        self, final: SparseTensor, encoder_tensors: Sequence[SparseTensor], then: Following | None = None
    ) -> list[SparseTensor]:
        """From the coarsest features back to the finest, which will meet the norm and the activation `then`.

        Raises:
            ValueError: there are not depth + 1 encoder tensors.
        """
        if len(encoder_tensors) != self.config.depth + 1:
            raise ValueError(f"encoder_tensors must be {self.config.depth + 1}, got {len(encoder_tensors)}")
        x, tensors = final, []
        for index, (up, block) in enumerate(zip(self.decoding_conv, self.decoding_block, strict=True)):
            norm, act, conv = up.children()
            x = norm_act_conv(norm, act, conv, x)
            following = tuple(self.decoding_conv[index + 1].children()) if index + 1 < len(self.decoding_conv) else None
            x = self._join(index, encoder_tensors[-index - 2], x)
            x = run_blocks(block.children(), x, then if following is None else (following[0], following[1]))
            tensors.append(x)
        return tensors


class UResNetEncoder(Encoding):
    """Residual encoder.

    Args:
        config: mapping, YAML file, or None; keyword arguments go on top. See `Configuration`.

    Returns:
        forward(x) is {"encoder_tensors": [...], "final_tensor": ...}: depth + 1 planes, the first that of the input
        layer, and the coarsest features.
    """

    def __init__(self, config: Source | Configuration = None, **options: Any) -> None:
        super().__init__()
        self._make_encoder(Configuration.of(config, **options))

    def forward(self, x: SparseTensor) -> Encoded:
        return self.encode(x)


class UResNetDecoder(Decoding):
    """Residual decoder with the encoder's features beside its own."""

    def __init__(self, config: Source | Configuration = None, **options: Any) -> None:
        super().__init__()
        self.config = Configuration.of(config, **options)
        self._make_decoder()

    _block = Encoding._block

    def forward(
        self, final: SparseTensor, encoder_tensors: Sequence[SparseTensor], then: Following | None = None
    ) -> list[SparseTensor]:
        return self.decode(final, encoder_tensors, then)


class UResNetBackbone(nn.Module):
    """UResNet without its last layers: `encoder` and `decoder`.

    Args:
        config: mapping, YAML file, or None; keyword arguments go on top. See `Configuration`.

    Example:
        >>> backbone = UResNetBackbone(filters=4, depth=2, reps=1, data_dim=2)
        >>> planes = backbone(SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0, 0], [0, 0, 1]])))
        >>> [tuple(x.shape) for x in planes["encoder_tensors"]], planes["decoder_tensors"][-1].shape
        ([(2, 4), (2, 4), (1, 8)], torch.Size([2, 4]))
    """

    def __init__(self, config: Source | Configuration = None, **options: Any) -> None:
        super().__init__()
        self.config = Configuration.of(config, **options)
        self.encoder = UResNetEncoder(self.config)
        self.decoder = UResNetDecoder(self.config)
        self.num_filters, self.num_planes, self.dimension = (
            self.config.filters, self.config.planes, self.config.data_dim,
        )  # fmt: skip

    def forward(self, x: SparseTensor, then: Following | None = None) -> Planes:
        """`then`: the norm and the activation that the finest decoder features will meet, if they are known."""
        encoded = self.encoder(x)
        decoded = self.decoder(encoded["final_tensor"], encoded["encoder_tensors"], then)
        return _with_decoded(encoded, decoded)


class _Flat(Encoding, Decoding):
    """Encoder and decoder in one module, without the prefixes `encoder.` and `decoder.` in the state dict."""

    def _build(self, config: Source | Configuration, options: Mapping[str, Any]) -> None:
        self._make_encoder(Configuration.of(config, **options))
        self._make_decoder()

    def forward(self, x: SparseTensor, then: Following | None = None) -> Planes:
        encoded = self.encode(x)
        return _with_decoded(encoded, self.decode(encoded["final_tensor"], encoded["encoder_tensors"], then))


class UResNeXt(_Flat):
    """UResNet of ResNeXtBlock.

    Args:
        config, options: as `Configuration`.
        cardinality: paths in a block; it must divide every level's width.
        path_dilations: of each path; by default 1, 1, 2, 2, 4, 4, ... up to 4. In a dictionary, `dilations`, as SPINE.
    """

    def __init__(
        self,
        config: Source | Configuration = None,
        cardinality: int = 8,
        path_dilations: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if cardinality < 1:
            raise ValueError(f"cardinality must be at least 1, got {cardinality}")
        self.cardinality = cardinality
        self.path_dilations = list(path_dilations or [2 ** min(i // 2, 2) for i in range(cardinality)])
        self._build(config, options)

    def _block(self, in_features: int, out_features: int, level: int, encoding: bool) -> nn.Module:
        config = self.config
        return ResNeXtBlock(
            in_features,
            out_features,
            config.data_dim,
            self.cardinality,
            dilations=self.path_dilations,
            activation=config.activation,
            normalization=config.norm_layer,
        )


class SENet(_Flat):
    """UResNet of SEResNetBlock.

    Args:
        config, options: as `Configuration`.
        se_ratio: channels over those between the two linear layers of a gate.
    """

    def __init__(self, config: Source | Configuration = None, se_ratio: int = 8, **options: Any) -> None:
        super().__init__()
        self.se_ratio = se_ratio
        self._build(config, options)

    def _block(self, in_features: int, out_features: int, level: int, encoding: bool) -> nn.Module:
        config = self.config
        return SEResNetBlock(
            in_features,
            out_features,
            self.se_ratio,
            dilation=config.dilation(level),
            dimension=config.data_dim,
            activation=config.activation,
            normalization=config.norm_layer,
        )


class MobileNetV3(_Flat):
    """UResNet of inverted bottlenecks: MBResConvSE in the encoder, MBResConv in the decoder."""

    def __init__(self, config: Source | Configuration = None, **options: Any) -> None:
        super().__init__()
        self._build(config, options)

    def _block(self, in_features: int, out_features: int, level: int, encoding: bool) -> nn.Module:
        config = self.config
        return (MBResConvSE if encoding else MBResConv)(
            in_features,
            out_features,
            dimension=config.data_dim,
            dilation=config.dilation(level),
            kernel_size=config.kernel_size,
            activation=config.activation,
            normalization=config.norm_layer,
            bias=config.allow_bias,
        )


class FPN(_Flat):
    """Feature pyramid: the encoder's features, through a linear layer, are added to the decoder's."""

    joined = False

    def __init__(self, config: Source | Configuration = None, **options: Any) -> None:
        super().__init__()
        self._build(config, options)
        self.lateral = nn.Sequential(*[snn.Linear(width, width) for width in reversed(self.config.planes[:-1])])

    def _join(self, index: int, skip: SparseTensor, x: SparseTensor) -> SparseTensor:
        lateral: SparseTensor = self.lateral[index](skip)
        return x + lateral


BACKBONES: dict[str, type[nn.Module]] = {
    "uresnet": UResNetBackbone, "uresnext": UResNeXt, "senet": SENet, "mobilenet": MobileNetV3, "fpn": FPN,
}  # fmt: skip


def make_backbone(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A backbone by its name, with the options of its class.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
    return BACKBONES[name](**options)


def split(source: Source, options: Mapping[str, Any], own: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network's own options, and those it hands on to its backbone."""
    given = {**canonical(read(source)), **canonical(options)}
    own = set(own)
    return {k: v for k, v in given.items() if k in own}, {k: v for k, v in given.items() if k not in own}
