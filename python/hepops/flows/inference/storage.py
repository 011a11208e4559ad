"""Learned densities in two files: <kind>.safetensors and <kind>.json; reading them executes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import nn

from hepops.core.files import atomic

from .density import Density, FlowMaker
from .priors import Prior

Module = TypeVar("Module", bound=nn.Module)
FORMAT, VERSION = "hepops.flows.inference", 1
Kind = Literal["posterior", "likelihood"]


class Learned(Protocol):
    """What is kept: a module that holds a prior, a density and the shape of the data."""

    prior: Prior
    density: Density
    data_shape: torch.Size

    def state_dict(self) -> dict[str, Any]: ...


def save(folder: str | Path, kind: Kind, learned: Learned) -> None:
    """Each file is whole or not there; the weights are written first."""
    from safetensors.torch import save as encode

    folder, density = Path(folder), learned.density
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "prior": learned.prior.to_dict(),
        "data_shape": list(learned.data_shape),
        "features": density.features,
        "context": density.inputs,
        "members": len(density.members),
        "network": density.network,
        "own": density.own,
        "embedded": density.embedded,
    }
    weights = {name: value.contiguous() for name, value in learned.state_dict().items()}
    with atomic(folder / f"{kind}.safetensors") as part:
        part.write_bytes(encode(weights))
    with atomic(folder / f"{kind}.json") as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def load(
    folder: str | Path, kind: Kind, embedding: Callable[[], nn.Module] | None, flow: FlowMaker | None
) -> tuple[Prior, Density, torch.Size]:
    """Prior, density and shape of the data as `save` wrote them."""
    config, weights = Path(folder) / f"{kind}.json", Path(folder) / f"{kind}.safetensors"
    for path in (config, weights):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    try:
        content = json.loads(config.read_text())
    except ValueError as error:
        raise ValueError(f"{config}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("kind") != kind:
        raise ValueError(f"{config}: not a {kind} of {FORMAT}")
    if content.get("version") != VERSION:
        raise ValueError(f"{config}: version {content.get('version')} is not this library's {VERSION}")
    try:
        for what, given in (("embedding", embedding), ("flow", flow)):
            if content["own"][what] != (given is not None):
                had = "has an own" if content["own"][what] else "has no own"
                raise ValueError(f"{config}: {had} {what}, give load {'it' if given is None else 'none'}")
        density = Density(
            content["features"],
            content["context"],
            members=content["members"],
            network=content["network"],
            embedding=embedding,
            embedded=content["embedded"],
            flow=flow,
        )
        prior, shape = Prior.from_dict(content["prior"]), torch.Size(content["data_shape"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config}: incomplete or damaged ({error})") from None
    return prior, density, shape


def fill(folder: str | Path, kind: Kind, module: Module) -> Module:
    """The weights, into what was built of the description; ready to be used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = Path(folder) / f"{kind}.safetensors"
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{weights}: {' '.join(str(error).split())}") from None
    module.eval()
    return module
