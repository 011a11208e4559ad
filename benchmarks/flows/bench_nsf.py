"""A neural spline flow trained by maximum likelihood, and sampled: against zuko, nflows and normflows.

A step is log_prob, backward and Adam on a batch of 1024 events, with the same networks for all: 4 couplings of 8 bins,
two hidden layers of 64. zuko and nflows have plain networks, normflows a residual one of one block, and ours both.
zuko's default, autoregressive, stands against ours. Every flow is first checked to have a normalised density or, for
the rivals, to learn.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops import flows

BATCH, LAYERS, BINS, HIDDEN = 1024, 4, 8, (64, 64)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def rivals(D):
    """Log densities of rivals that are installed; 'residual' and 'autoregressive' name their sort."""
    found = {}
    try:
        import zuko

        more = {"bins": BINS, "transforms": LAYERS, "hidden_features": HIDDEN}
        found["zuko"] = zuko.flows.NSF(D, passes=2, **more), lambda f, x: f().log_prob(x)
        found["zuko, autoregressive"] = zuko.flows.NSF(D, **more), lambda f, x: f().log_prob(x)
    except ImportError:
        print("zuko is not installed")
    try:
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.nn.nets import MLP
        from nflows.transforms import CompositeTransform, PiecewiseRationalQuadraticCouplingTransform

        class Network(MLP):
            def forward(self, x, context=None):
                return super().forward(x)

        layers = [
            PiecewiseRationalQuadraticCouplingTransform(
                (torch.arange(D) + i) % 2,
                lambda a, b: Network((a,), (b,), list(HIDDEN)),
                num_bins=BINS,
                tails="linear",
                tail_bound=5.0,
            )
            for i in range(LAYERS)
        ]
        found["nflows"] = Flow(CompositeTransform(layers), StandardNormal([D])), lambda f, x: f.log_prob(x)
    except ImportError:
        print("nflows is not installed")
    try:
        import normflows

        layers = [
            normflows.flows.CoupledRationalQuadraticSpline(
                D, 1, HIDDEN[0], num_bins=BINS, tail_bound=5.0, reverse_mask=bool(i % 2)
            )
            for i in range(LAYERS)
        ]
        base = normflows.distributions.DiagGaussian(D, trainable=False)
        found["normflows, residual"] = normflows.NormalizingFlow(base, layers), lambda f, x: f.log_prob(x)
    except ImportError:
        print("normflows is not installed")
    return found


def ours(D):
    more = {"layers": LAYERS, "bins": BINS}
    return {
        "hepops": flows.nsf(D, hidden=HIDDEN, **more),
        "hepops, autoregressive": flows.autoregressive_nsf(D, hidden=HIDDEN, **more),
        "hepops, residual": flows.nsf(D, hidden=HIDDEN[:1], residual=True, **more),
    }


def step(flow, log_prob, x):
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3, fused=True)

    def run():
        loss = -log_prob(flow, x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def train(D):
    x = torch.randn(BATCH, D, device=device) * 0.5 + torch.randn(BATCH, 1, device=device)
    candidates = {n: (f, lambda f, x: f.log_prob(x)) for n, f in ours(D).items()} | rivals(D)
    weights = {n: sum(p.numel() for p in f.parameters()) for n, (f, _) in candidates.items()}
    steps = {n: step(f.to(device), log_prob, x) for n, (f, log_prob) in candidates.items()}
    first = {n: run() for n, run in steps.items()}
    medians = seconds(steps, 30)
    for name, run in steps.items():
        assert run() < first[name], f"{name} does not learn"
    rows = {}
    for name, s in medians.items():
        sort = name.partition(", ")[2]
        reference = medians["hepops, " + sort if sort else "hepops"]
        print(f"D {D:2}  {name:26} {weights[name]:7} weights {1e3 * s:8.2f} ms a step {s / reference:6.1f} x")
        rows[f"step D={D} {name}"] = {"seconds": s, "of_ours": round(s / reference, 2), "threads": 1}
    record(rows)


def sample(n=100_000):
    """Sampling with log_prob, 4 features, 2 couplings."""
    q = flows.nsf(4, layers=2, bins=BINS, hidden=HIDDEN).to(device)
    torch.nn.init.normal_(q.transform[0].network.last.weight, std=0.1)
    x, log_q = q.sample_and_log_prob(1000, seed=1)
    assert (q.log_prob(x) - log_q).abs().max() < 1e-4
    candidates = {"hepops": lambda: q.sample_and_log_prob(n, seed=1)}
    try:
        import zuko

        rival = zuko.flows.NSF(4, bins=BINS, transforms=2, hidden_features=HIDDEN, passes=2).to(device)

        @torch.no_grad()
        def run():
            return rival().rsample_and_log_prob((n,))

        candidates["zuko"] = run
    except ImportError:
        print("zuko is not installed")
    for name, s in (medians := seconds(candidates, 10)).items():
        print(f"sample and log_prob, 4 features, 2 couplings: {name:8} {1e6 * s / n:6.3f} us a point")
    record({f"sample {n} {k}": {"seconds": s, "us_a_point": 1e6 * s / n, "threads": 1} for k, s in medians.items()})


if __name__ == "__main__":
    sample()
    for D in (2, 4, 8, 16):
        train(D)
