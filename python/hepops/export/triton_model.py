"""Triton's Python backend for a package of hepops.export; written into a model repository as 1/model.py."""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from hepops.export import load


class TritonPythonModel:
    """Loads the package beside it once, and calls it for each request."""

    def initialize(self, args: dict[str, str]) -> None:
        self.utilities = importlib.import_module("triton_python_backend_utils")  # which only a server has
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self.package = load(folder / "model.pt2", sha256=config["parameters"]["sha256"]["string_value"])
        self.inputs = [x["name"] for x in self.package.description["inputs"]]
        self.outputs = [x["name"] for x in self.package.description["outputs"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        u = self.utilities
        try:
            arrays = [u.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs]
            results = self.package(*(torch.from_numpy(x) for x in arrays))
        except (TypeError, ValueError) as error:  # this request's fault, not the server's
            return u.InferenceResponse(output_tensors=[], error=u.TritonError(str(error)))
        results = (results,) if isinstance(results, torch.Tensor) else results
        named = zip(self.outputs, results, strict=True)
        return u.InferenceResponse(output_tensors=[u.Tensor(name, x.numpy()) for name, x in named])
