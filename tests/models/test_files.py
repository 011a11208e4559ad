"""A saved model comes back to the last bit, from its folder alone; the folder says what it is."""

import enum
import hashlib
import inspect
import subprocess
import sys

import hepops
import numpy as np
import pytest
import torch
import yaml
from hepops.core import constructors
from hepops.models import Card, verify
from torch import nn

LATTICE = {"phi4": lambda: hepops.lattice.Phi4((4, 4), m2=-4.0, lam=8.0), "u1": lambda: hepops.lattice.U1((4, 4), 1.0)}


def flows():
    f, g = hepops.flows, hepops.lattice.flows
    phi4, u1, su3 = LATTICE["phi4"](), LATTICE["u1"](), hepops.lattice.SUN(3, (4, 4), beta=4.0)
    small = {"layers": 2, "hidden": (8,)}
    yield "nsf", f.nsf(2, **small)
    yield "nsf in double, mixed", f.nsf(3, mixing="lu", **small).double()
    yield "residual networks, conditioned", f.nsf(4, context=2, layers=2, hidden=(8, 8), residual=True)
    for name in ("realnvp", "maf", "iaf", "autoregressive_nsf", "circular_nsf"):
        yield name, getattr(f, name)(3, **small)
    yield "sphere", f.sphere(2, layers=1, hidden=(8,))
    yield "torus", f.torus(2, layers=1, hidden=(8,))
    yield (
        "composed by hand",
        f.Flow(
            f.Compose(t for t in (f.ActNorm(2), f.Permutation([1, 0]), f.Pointwise(f.Spline(4), 2).inv)), f.Normal(2)
        ),
    )
    yield "affine lattice", g.affine_flow(phi4, layers=2)
    yield "spline lattice, cast", g.spline_flow(phi4, layers=2).double()
    yield "continuous scalar", g.continuous(phi4)
    yield "U(1)", g.u1_coupling(u1, layers=2)
    yield "spectral SU(3)", g.spectral(su3, layers=2)
    yield "residual SU(3)", g.residual(su3, layers=2)
    yield "continuous SU(3)", g.continuous(su3)


def test_flows_come_back_to_the_bit(tmp_path):
    for k, (name, flow) in enumerate(flows()):
        draw = {"context": torch.ones(flow.context_size)} if flow.context_size else {}
        card = hepops.save(flow, tmp_path / str(k))
        again = hepops.load(tmp_path / str(k))
        assert card.why_not is None, name
        assert torch.equal(flow.sample(4, seed=3, **draw), again.sample(4, seed=3, **draw)), name
        state, other = flow.state_dict(), again.state_dict()
        assert state.keys() == other.keys() and all(torch.equal(state[n], other[n]) for n in state), name
        assert all(state[n].dtype == other[n].dtype for n in state), name


def test_sparse_networks_come_back(tmp_path):
    models = hepops.sparse.models
    places = torch.cat([torch.zeros(40, 1), torch.arange(120).view(40, 3)], 1).int()
    x = hepops.sparse.SparseTensor(torch.rand(40, 1), places)
    options = tmp_path / "options.yaml"
    options.write_text("filters: 4\ndepth: 2\nreps: 1\n")
    for k, network in enumerate(
        (models.UResNet({"filters": 4, "depth": 2, "reps": 1}, num_classes=3), models.UResNet(options, num_classes=3))
    ):
        network(x)  # the norms have seen something
        hepops.save(network, tmp_path / str(k))
        options.unlink(missing_ok=True)  # what stood in it is in the folder
        again = hepops.load(tmp_path / str(k))
        assert torch.equal(network.eval()(x).features, again(x).features)


def test_marked_classes_show_their_own_arguments():
    """Keeping a constructor's arguments does not hide them from help and editors."""
    assert list(inspect.signature(hepops.lartpc.Simulator).parameters)[:3] == ["detector", "parameters", "response"]
    assert "num_features" in inspect.signature(hepops.sparse.nn.BatchNorm).parameters


def test_lartpc_comes_back(tmp_path):
    from hepops.lartpc import Detector, Parameters, Simulator, Table

    detector = Detector.module0()
    assert hepops.load(_saved(tmp_path / "d", detector)) == detector
    assert hepops.load(_saved(tmp_path / "p", Parameters(lifetime=1800.0))) == Parameters(lifetime=1800.0)
    table = Table(torch.rand(25, 25, 60).double(), 0.1, 0.16, 5)
    for k, sim in enumerate((Simulator(detector, dtype=torch.float64), Simulator(detector, response=table))):
        with torch.no_grad():
            sim.lifetime.fill_(1234.5)  # fitted
        again = hepops.load(_saved(tmp_path / f"s{k}", sim))
        assert again.parameters_now == sim.parameters_now and again.detector == sim.detector
        assert again.dtype == sim.dtype
        assert (again.table is None) == (k == 0) and (k == 0 or torch.equal(again.table.current, table.current))


def test_modules_that_differ_keep_their_own_parameters(tmp_path):
    from hepops.lartpc import Detector, Simulator

    sim = Simulator(Detector.two_by_two(), per_module=["lifetime"])
    with torch.no_grad():
        sim.get_parameter("lifetime@2").fill_(777.0)
    again = hepops.load(_saved(tmp_path / "m", sim))
    assert type(again) is type(sim) and again.parameters_of(2) == sim.parameters_of(2)
    assert again.parameters_of(1) == sim.parameters_of(1) != again.parameters_of(2)


def _saved(path, model):
    hepops.save(model, path)
    return path


def test_classes_with_files_of_their_own_keep_them(tmp_path):
    segmenter = hepops.segmentation.Segmenter({"filters": 4, "depth": 2})
    path = _saved(tmp_path / "s", segmenter)
    assert sorted(p.name for p in path.iterdir()) == ["SHA256SUMS", "config.json", "model.safetensors", "model.yaml"]
    weights = segmenter.state_dict()
    for again in (hepops.load(path), type(segmenter).load(path)):
        assert all(torch.equal(x, weights[n]) for n, x in again.state_dict().items())
    rows = np.random.default_rng(1).normal(size=(200, 2))
    density = hepops.flows.Density.fit({"a": rows[:, 0], "b": rows[:, 1]}, epochs=1, layers=1, hidden=(8,), seed=1)
    again = hepops.load(_saved(tmp_path / "d", density))
    assert torch.equal(again.log_prob(rows), density.log_prob(rows))


def test_folders_of_before_stay_readable(tmp_path):
    segmenter = hepops.segmentation.Segmenter({"filters": 4, "depth": 2})
    segmenter.save(tmp_path / "old")
    with pytest.warns(UserWarning, match=r"has no model\.yaml"):
        again = hepops.load(tmp_path / "old")
    assert torch.equal(next(again.parameters()), next(segmenter.parameters()))
    with pytest.raises(ValueError, match="sha256"):
        hepops.load(tmp_path / "old", sha256="0" * 64)


def test_plain_layers_and_shared_ones(tmp_path):
    shared = hepops.flows.MLP(3, 3, hidden=(4,))
    network = nn.Sequential(nn.Linear(2, 3), shared, nn.LeakyReLU(0.2), shared, nn.Linear(3, 1, bias=False))
    again = hepops.load(_saved(tmp_path / "n", network))
    x = torch.rand(5, 2)
    assert torch.equal(network(x), again(x))
    assert again[1] is again[3], "what was used twice is used twice"
    assert not again.training


class Foreign(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f, self.layer = f, nn.Linear(2, 2)


def test_a_module_that_does_not_say_how_it_is_made_needs_the_caller(tmp_path):
    model = Foreign(torch.sin)
    with pytest.warns(UserWarning, match="make="):
        hepops.save(model, tmp_path / "m")
    with pytest.raises(ValueError, match=r"Foreign must be made by the caller, give make="):
        hepops.load(tmp_path / "m")
    again = hepops.load(tmp_path / "m", make=lambda: Foreign(torch.cos))
    assert torch.equal(again.layer.weight, model.layer.weight)
    with pytest.raises(ValueError, match=r"layer\.weight is not in the model"):
        hepops.load(tmp_path / "m", make=lambda: nn.Linear(2, 2))


def test_a_class_of_the_users_own_is_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(constructors, "_OWN", {})

    @hepops.models.register
    class Mine(nn.Module):
        def __init__(self, width, *rest, scale=1.0):
            super().__init__()
            self.layer, self.rest, self.scale = nn.Linear(width, 1), rest, scale

    model = Mine(3, 1, 2, scale=0.1)
    again = hepops.load(_saved(tmp_path / "m", model))
    assert (again.rest, again.scale) == ((1, 2), 0.1) and torch.equal(again.layer.weight, model.layer.weight)
    constructors._OWN.clear()
    with pytest.raises(ValueError, match=r"Mine' is no class that hepops makes"):
        hepops.load(tmp_path / "m")


def test_a_model_changed_after_it_was_made_is_refused(tmp_path):
    flow = hepops.flows.nsf(2, layers=2, hidden=(8,))
    flow.transform.transforms[0].network.layers[0] = nn.Linear(1, 9)
    with pytest.raises(ValueError, match=r"was changed after it was made.*network\.layers\.0\.weight"):
        hepops.save(flow, tmp_path / "m")
    assert not (tmp_path / "m").exists()


CHANGES = {
    "has hooks": lambda flow: flow.base.register_forward_hook(lambda module, given, made: made * 2),
    "another forward": lambda flow: setattr(flow.transform.transforms[0].network, "forward", lambda x, c=None: x),
    r"bijection\.bound is 2.0, and was 5.0": lambda flow: setattr(flow.transform.transforms[0].bijection, "bound", 2.0),
    "share memory": lambda flow: setattr(
        flow.transform.transforms[1].network.layers[0], "weight", flow.transform.transforms[0].network.layers[0].weight
    ),
}


@pytest.mark.parametrize("word", CHANGES)
def test_changes_that_leave_every_name_and_shape_are_refused(tmp_path, word):
    """The weights would fit, and the values that come back would be others."""
    flow = hepops.flows.nsf(2, layers=2, hidden=(8,))
    CHANGES[word](flow)
    with pytest.raises(ValueError, match=f"was changed after it was made.*{word}"):
        hepops.save(flow, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_card_says_what_a_citation_needs(tmp_path):
    data = torch.arange(4.0)
    (tmp_path / "table.csv").write_text("x\n1\n")
    hepops.seed_everything(11)
    card = hepops.save(
        hepops.flows.MLP(2, 1),
        tmp_path / "m",
        name="ring",
        licence="CC-BY-4.0",
        doi="10.5281/zenodo.1",
        authors=["A. Author"],
        metrics={"loss": torch.tensor(0.25), "by class": {"muon": 0.5}, "bad": float("nan")},
        data={"events": data, "table": tmp_path / "table.csv"},
    )
    text = (tmp_path / "m" / "model.yaml").read_text()
    read = yaml.safe_load(text)
    assert read["class"] == "hepops.flows.networks.MLP" and read["licence"] == "CC-BY-4.0" and read["seed"] == 11
    assert read["metrics"]["loss"] == 0.25 and read["metrics"]["by class"] == {"muon": 0.5}
    assert read["data"]["table"] == hashlib.sha256(b"x\n1\n").hexdigest()
    assert read["code"]["torch"] == str(torch.__version__) and read["code"]["machine"]["processor"]
    found, _ = verify(tmp_path / "m")
    assert found == Card.from_yaml(text.encode(), "x") and found.doi == card.doi == "10.5281/zenodo.1"
    assert "CC-BY-4.0" in str(card) and "10.5281/zenodo.1" in str(card)
    other = hepops.save(hepops.flows.MLP(2, 1), tmp_path / "n", data={"events": data + 1})
    assert other.data["events"] != card.data["events"]


@pytest.mark.parametrize("given", ["10.5281/zenodo.12", "doi:10.5281/zenodo.12", "https://doi.org/10.5281/zenodo.12"])
def test_a_doi_is_kept_without_its_resolver(tmp_path, given):
    assert hepops.save(hepops.flows.MLP(2, 1), tmp_path / "m", doi=given).doi == "10.5281/zenodo.12"


@pytest.mark.parametrize("given", ["javascript:alert(1)", "", "10.5281", "10.52/x", "zenodo.12", "10.5281/a b", 5])
def test_what_is_no_doi_is_refused(tmp_path, given):
    with pytest.raises(ValueError, match=r"doi must be like 10\.5281/zenodo"):
        hepops.save(hepops.flows.MLP(2, 1), tmp_path / "m", doi=given)
    assert not (tmp_path / "m").exists()


def test_sha256sum_agrees(tmp_path):
    _saved(tmp_path / "m", hepops.flows.MLP(2, 1))
    run = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "m", capture_output=True, text=True)
    assert run.returncode == 0 and "model.safetensors: OK" in run.stdout


def test_a_folder_is_not_replaced_unasked(tmp_path):
    path = _saved(tmp_path / "m", hepops.flows.MLP(2, 1))
    with pytest.raises(ValueError, match="holds a model"):
        hepops.save(hepops.flows.MLP(2, 2), path)
    hepops.save(hepops.flows.MLP(2, 2), path, overwrite=True)
    assert hepops.load(path).layers[-1].out_features == 2
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hepops.save(hepops.flows.MLP(2, 1), tmp_path / "no" / "m")
    with pytest.raises(TypeError, match="model must be"):
        hepops.save(3, tmp_path / "x")


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    import os

    def full(*a):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        hepops.save(hepops.flows.MLP(2, 1), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_are_their_own():
    """A name in a file means one class, and every marked class of hepops is found by its name."""
    for domain in constructors.DOMAINS:
        for module in constructors.DOMAINS[domain]:
            __import__(module)
    ours = [cls for cls in constructors._all() if cls.__module__.startswith("hepops.")]
    public = [
        cls for cls in ours if not cls.__name__.startswith("_") and not cls.__module__.startswith("hepops.compat")
    ]
    assert len(public) > 100
    for cls in public:
        assert constructors.find(constructors.key_of(cls)) is cls


def test_a_fresh_process_needs_the_folder_alone(tmp_path):
    flow = hepops.lattice.flows.u1_coupling(LATTICE["u1"](), layers=1)
    _saved(tmp_path / "m", flow)
    code = f"import hepops; print(hepops.load({str(tmp_path / 'm')!r}).sample(1, seed=1).sum().item())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) == flow.sample(1, seed=1).sum().item()


def test_posteriors_and_integrators(tmp_path):
    from hepops.flows import Integrator
    from hepops.flows.inference import Box, Training, npe, simulate

    made = simulate(Box([0.5], [2.0]), lambda theta, seeds: theta.repeat(1, 6), 200, seed=1)

    def embedding():
        return nn.Sequential(nn.Linear(6, 2))

    posterior = npe(made, embedding=embedding, embedded=2, training=Training(epochs=1))
    path = _saved(tmp_path / "p", posterior)
    with pytest.raises(ValueError, match="has an own embedding, give load it"):
        hepops.load(path)
    again = hepops.load(path, embedding=embedding)
    assert torch.equal(again.log_prob(made.theta, made.x), posterior.log_prob(made.theta, made.x))

    integrator = Integrator(bump, bounds=2, candidates=("map",))
    integrator.integrate(neval=2000, seed=1)
    path = _saved(tmp_path / "i", integrator)
    again = hepops.load(path, f=bump, candidates=("map",))
    assert again.integrate(neval=2000, seed=2).mean == integrator.integrate(neval=2000, seed=2).mean


def bump(x):
    return torch.exp(-((x - 0.5) ** 2).sum(1) / 0.5)


def test_copies_remember_how_they_were_made(tmp_path):
    import copy
    import pickle

    from hepops.lartpc import Detector, Simulator

    models = hepops.sparse.models
    things = (
        hepops.flows.nsf(2, layers=2, hidden=(4,)),
        models.UResNet({"filters": 4, "depth": 2}, num_classes=2),
        models.ResidualBlock(4, 4, dimension=3),
        Simulator(Detector.module0()),
    )
    for k, thing in enumerate(things):
        for way, again in (("deep", copy.deepcopy(thing)), ("pickle", pickle.loads(pickle.dumps(thing)))):
            hepops.save(again, tmp_path / f"{k}{way}")
            state = hepops.load(tmp_path / f"{k}{way}").state_dict()
            assert all(torch.equal(x, state[n]) for n, x in thing.state_dict().items())


def test_what_is_written_can_be_read(tmp_path):
    """Found when it is saved, not when it is needed."""

    class Colour(enum.StrEnum):
        RED = "red"

    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for key in (0.5, None):
        with pytest.raises(TypeError, match=r"metrics.*key must be a word or a whole number"):
            hepops.save(model, tmp_path / "keys", metrics={"efficiency": {key: 0.9}})
    for _ in range(40):
        model = torch.nn.Sequential(model)
    with pytest.raises(ValueError, match="more than 64 levels"):
        hepops.save(model, tmp_path / "deep")
    assert not list(tmp_path.iterdir())
    card = hepops.save(
        torch.nn.Linear(2, 2), tmp_path / "m", authors="Jane Doe", metrics={"of": Colour.RED, "n": {1: 2}}
    )
    hepops.load(tmp_path / "m")
    assert card.authors == ["Jane Doe"] and card.metrics == {"of": "red", "n": {1: 2}}
