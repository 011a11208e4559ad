"""How to make a model again, as plain data: classes by name, arguments by name, one inside the other.

    class: hepops.flows.Flow
    arguments:
      transform: {class: hepops.flows.Compose, arguments: {transforms: [...]}}
      base: {class: hepops.flows.Normal, arguments: {shape: 2}}

Tensors stand in the text where they are short, else in `arguments.safetensors`. What is used twice is made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hepops.core import constructors

if TYPE_CHECKING:
    from torch import Tensor, nn

RESERVED = {"class", "arguments", "values", "tensor", "dtype", "id", "same", "mapping", "shape", "buffers"}
SHORT = 64  # numbers of a tensor that stand in the text

# torch's own layers, by the attributes that are arguments of the same names
LAYERS: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features"),
    "Identity": (),
    "ReLU": (),
    "Tanh": (),
    "Sigmoid": (),
    "SiLU": (),
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "GELU": ("approximate",),
    "Softplus": ("beta", "threshold"),
    "Dropout": ("p",),
    "Flatten": ("start_dim", "end_dim"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "BatchNorm2d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "Conv1d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    "Conv3d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
}
BIASED = {"Linear", "Conv1d", "Conv2d", "Conv3d"}


class NotRecorded(TypeError):
    """Something does not say how it is made."""


class Encoder:
    """Objects to plain data; tensors that are long to `tensors`."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.nodes: dict[int, dict[str, Any]] = {}
        self.kept: list[Any] = []  # alive, so that no two of them have one id

    def encode(self, thing: Any, where: str) -> Any:
        """Plain data of anything that a configuration can hold.

        Raises:
            NotRecorded: a function, or an object of a class that is not recorded; `where` says where it stands.
        """
        import numpy as np
        import torch

        if isinstance(thing, np.generic):
            thing = thing.item()
        if thing is None or isinstance(thing, (bool, int, float, str)):
            return thing
        if isinstance(thing, torch.dtype):
            return {"dtype": str(thing).removeprefix("torch.")}
        if isinstance(thing, torch.Size):
            return {"shape": list(thing)}
        if isinstance(thing, (tuple, list)):
            return [self.encode(part, f"{where}[{i}]") for i, part in enumerate(thing)]
        if isinstance(thing, Mapping):
            return self._mapping(thing, where)
        if isinstance(thing, np.ndarray):
            return {**self._tensor(torch.from_numpy(np.ascontiguousarray(thing))), "id": "array"}
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing.detach())
        return self._object(thing, where)

    def _mapping(self, thing: Mapping[Any, Any], where: str) -> dict[str, Any]:
        content = {name: self.encode(part, f"{where}.{name}") for name, part in thing.items()}
        return {"mapping": content} if RESERVED & content.keys() else content

    def _tensor(self, x: Tensor) -> dict[str, Any]:
        dtype = str(x.dtype).removeprefix("torch.")
        if x.dim() <= 1 and x.numel() <= SHORT and not x.is_complex() and bool(x.isfinite().all()):
            return {"tensor": x.tolist(), "dtype": dtype}
        name = f"argument.{len(self.tensors)}"
        self.tensors[name] = x
        return {"tensor": name, "dtype": dtype}

    def _object(self, thing: Any, where: str) -> dict[str, Any]:
        if id(thing) in self.nodes:
            node = self.nodes[id(thing)]
            node.setdefault("id", 1 + sum("id" in other for other in self.nodes.values()))
            return {"same": node["id"]}
        self.kept.append(thing)
        node = self.nodes[id(thing)] = {}
        node |= self._described(thing, where)
        return node

    def _described(self, thing: Any, where: str) -> dict[str, Any]:
        from torch import nn

        cls = type(thing)
        if constructors.is_recorded(thing):
            named = constructors.arguments(thing)
            constructors.find(constructors.key_of(cls))  # what cannot be read again is not written
        elif hasattr(thing, "to_dict") and _is_record(thing):
            return {"class": constructors.key_of(cls), "values": thing.to_dict()}
        elif cls is nn.Sequential:
            return {
                "class": "torch.nn.Sequential",
                "arguments": [self.encode(p, f"{where}[{i}]") for i, p in enumerate(thing)],
            }
        elif cls.__module__.startswith("torch.nn.") and cls.__name__ in LAYERS and cls is getattr(nn, cls.__name__):
            named = {name: getattr(thing, name) for name in LAYERS[cls.__name__]}
            named |= {"bias": thing.bias is not None} if cls.__name__ in BIASED else {}
            content = {name: self.encode(value, f"{where}.{name}") for name, value in named.items()}
            return {"class": f"torch.nn.{cls.__name__}", "arguments": content}
        else:
            kind = "a function" if callable(thing) and not isinstance(thing, nn.Module) else f"a {cls.__qualname__}"
            raise NotRecorded(f"{where} is {kind}, which does not say how it is made")
        content = {name: self.encode(value, f"{where}.{name}") for name, value in named.items()}
        return {"class": constructors.key_of(cls), "arguments": content}


def _is_record(thing: Any) -> bool:
    from hepops.lartpc._model import Record

    return isinstance(thing, Record)


class Decoder:
    """Plain data to objects, of classes that are allowed alone."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.made: dict[int, Any] = {}

    def decode(self, node: Any) -> Any:
        """The object.

        Raises:
            ValueError: a class that is not allowed, or what is no description.
        """
        if isinstance(node, list):
            return tuple(self.decode(part) for part in node)
        if not isinstance(node, dict):
            return node
        if "same" in node:
            if node["same"] not in self.made:
                raise ValueError(f"configuration: nothing was made as number {node['same']!r}")
            return self.made[node["same"]]
        if "class" in node:
            made = self._make(node)
            if "id" in node:
                self.made[node["id"]] = made
            return made
        if "tensor" in node:
            return self._tensor(node)
        if "shape" in node:
            return _shape(node["shape"])
        if "dtype" in node:
            return dtype_of(node["dtype"])
        content = node.get("mapping", node)
        if not isinstance(content, dict):
            raise ValueError(f"configuration: a mapping was expected, got {content!r}")
        return {name: self.decode(part) for name, part in content.items()}

    def _make(self, node: dict[str, Any]) -> Any:
        from torch import nn

        key = node["class"]
        if not isinstance(key, str):
            raise ValueError(f"configuration: class must be a name, got {key!r}")
        if "values" in node:
            return record_class(key).from_dict(node["values"])
        given = node.get("arguments", {})
        if key == "torch.nn.Sequential":
            return nn.Sequential(*[self.decode(part) for part in given])
        name = key.removeprefix("torch.nn.")
        named = {k: self.decode(v) for k, v in given.items()}
        if key.startswith("torch.nn.") and name in LAYERS:
            if strange := named.keys() - {*LAYERS[name], *(["bias"] if name in BIASED else [])}:
                raise ValueError(f"{key} takes no argument {sorted(strange)[0]!r}")
            return getattr(nn, name)(**named)
        return constructors.call(constructors.find(key), named)

    def _tensor(self, node: dict[str, Any]) -> Any:
        import torch

        if isinstance(node["tensor"], str):
            if node["tensor"] not in self.tensors:
                raise ValueError(f"configuration: there is no tensor {node['tensor']!r} among the arguments")
            made = self.tensors[node["tensor"]]
        else:
            made = torch.tensor(node["tensor"], dtype=dtype_of(node["dtype"]))
        return made.numpy() if node.get("id") == "array" else made


def record_class(key: str) -> Any:
    """One of the immutable records of `hepops.lartpc`, by its name in files."""
    import hepops.lartpc as lartpc
    from hepops.lartpc._model import Record

    cls = getattr(lartpc, key.removeprefix("hepops.lartpc."), None)
    if not isinstance(cls, type) or not issubclass(cls, Record) or constructors.key_of(cls) != key:
        raise ValueError(f"{key!r} is no record of hepops.lartpc")
    return cls


def _shape(sizes: Any) -> Any:
    import torch

    if not isinstance(sizes, list) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ValueError(f"configuration: a shape must be a list of sizes, got {sizes!r:.80}")
    return torch.Size(sizes)


def dtype_of(name: Any) -> Any:
    import torch

    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"configuration: {name!r} is no dtype")
    return found


def make(tree: Any, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model of a description; what it draws as it is made does not move torch's generator.

    Raises:
        ValueError: a description that gives none, whatever a constructor says to its arguments.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            made: nn.Module = Decoder(tensors).decode(tree)
        for name, dtype in tree.get("buffers", {}).items() if isinstance(tree, dict) else ():
            _cast(made, name, dtype_of(dtype))
    except _REFUSALS as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"configuration gives no model ({type(error).__name__}: {said})") from error
    return made


# What Python and torch answer to arguments that are none; an own ValueError passes as it is
_REFUSALS = (TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError, MemoryError)


def other_buffers(model: nn.Module, made: nn.Module) -> dict[str, str]:
    """Buffers that no state dict holds, and that `made` has in another dtype: name to dtype.

    Raises:
        ValueError: such a buffer has other values: no file would give them again.
    """
    import torch

    saved, own = model.state_dict(), dict(made.named_buffers())
    found: dict[str, str] = {}
    for name, x in model.named_buffers():
        if name in saved:
            continue
        if name not in own or not torch.equal(own[name].to(x), x):
            raise ValueError(f"the buffer {name}, which a state dict does not hold, was changed")
        if own[name].dtype != x.dtype:
            found[name] = str(x.dtype).removeprefix("torch.")
    return found


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the places of their names, in the dtypes that they have.

    Raises:
        ValueError: names or shapes that do not fit, each named.
    """
    own = model.state_dict()
    strange = [f"{n} is not in the model" for n in tensors if n not in own]
    strange += [f"{n} is missing" for n in own if n not in tensors]
    strange += [
        f"{n}: shape expected {tuple(own[n].shape)}, got {tuple(x.shape)}"
        for n, x in tensors.items()
        if n in own and own[n].shape != x.shape
    ]
    if strange:
        raise ValueError("; ".join(sorted(strange)[:8]) + (f" and {len(strange) - 8} more" if len(strange) > 8 else ""))
    for name, x in tensors.items():
        if own[name].dtype != x.dtype:
            _cast(model, name, x.dtype)
    model.load_state_dict(dict(tensors))


def _cast(model: nn.Module, name: str, dtype: Any) -> None:
    """The parameter or buffer of a name, in another dtype; a parameter stays the same object, for who else has it."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    held = getattr(module, last)
    if last in module._parameters:
        held.data = held.data.to(dtype)
    else:
        setattr(module, last, held.to(dtype))
