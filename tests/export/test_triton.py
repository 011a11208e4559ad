"""The Triton model repository: its layout, and its backend under a stand-in of Triton's Python utilities."""

import importlib.util
import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from hepops import export


class Utilities:
    """What triton_python_backend_utils gives a model; the rest of Triton is not needed to try one."""

    class Tensor:
        def __init__(self, name, array):
            self._name, self._array = name, array

        def name(self):
            return self._name

        def as_numpy(self):
            return self._array

    class TritonError(Exception):
        def message(self):
            return str(self)

    class InferenceResponse:
        def __init__(self, output_tensors, error=None):
            self.output_tensors, self.error = output_tensors, error

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return next((t for t in request.tensors if t.name() == name), None)


@pytest.fixture
def repository(package):
    return package.parent / "triton" / "model"


def configuration(folder):
    """The few fields of config.pbtxt that Triton hands to a model as JSON."""
    text = (folder / "config.pbtxt").read_text()
    return {
        "parameters": {"sha256": {"string_value": re.search(r'"sha256"\s+value: { string_value: "(\w+)" }', text)[1]}}
    }


@pytest.fixture
def backend(repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", Utilities)
    spec = importlib.util.spec_from_file_location("model", repository / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    arguments = {"model_config": json.dumps(configuration(repository)), "model_repository": str(repository),
                 "model_version": "1", "model_name": "model"}  # fmt: skip
    return model, arguments


def test_the_repository_has_tritons_layout(repository, package):
    assert sorted(str(p.relative_to(repository)) for p in repository.rglob("*") if p.is_file()) == [
        "1/model.pt2", "1/model.py", "config.pbtxt",
    ]  # fmt: skip
    assert (repository / "1" / "model.pt2").read_bytes() == package.read_bytes()
    text = (repository / "config.pbtxt").read_text()
    assert 'name: "model"\nbackend: "python"\nmax_batch_size: 0\n' in text
    tensors = re.findall(r'name: "(\w+)"\n    data_type: (\w+)\n    dims: \[ ([-\d, ]+) \]', text)
    assert tensors == [
        ("coordinates", "TYPE_INT64", "-1, 4"), ("charge", "TYPE_FP32", "-1"), ("logits", "TYPE_FP32", "-1, 4"),
    ]  # fmt: skip
    assert text.count("{") == text.count("}") and text.count("[") == text.count("]")
    assert export.describe(package)["sha256"] in text


def test_the_backend_answers_each_request(backend, segmenter, event):
    model, arguments = backend
    model.initialize(arguments)
    events = [event(300, 1), event(20, 2)]
    requests = [
        SimpleNamespace(tensors=[Utilities.Tensor("charge", q.numpy()), Utilities.Tensor("coordinates", c.numpy())])
        for c, q in events
    ]
    coordinates, charge = events[1]
    requests.append(
        SimpleNamespace(
            tensors=[
                Utilities.Tensor("charge", charge[:3].numpy()),
                Utilities.Tensor("coordinates", coordinates.numpy()),
            ]
        )
    )
    responses = model.execute(requests)
    for (c, q), response in zip(events, responses, strict=False):
        (logits,) = response.output_tensors
        assert logits.name() == "logits" and response.error is None
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits.as_numpy()), segmenter(c, q), rtol=0, atol=1e-6)
    assert "charge must have shape" in responses[2].error.message()  # and the others are answered


def test_the_backend_refuses_another_package(backend, repository):
    model, arguments = backend
    other = {"parameters": {"sha256": {"string_value": "0" * 64}}}
    with pytest.raises(ValueError, match="has SHA-256"):
        model.initialize(arguments | {"model_config": json.dumps(other)})


def test_versions_do_not_change_and_names_are_checked(repository, package):
    with pytest.raises(ValueError, match="is there already"):
        export.triton_repository(package, repository.parent, "model", 1)
    assert export.triton_repository(package, repository.parent, "model2", 3) == repository.parent / "model2"
    for name in ("", "a/b", "..", "a b"):
        with pytest.raises(ValueError, match="name must be"):
            export.triton_repository(package, repository.parent, name)
    with pytest.raises(ValueError, match="version must be positive"):
        export.triton_repository(package, repository.parent, "model", 0)
