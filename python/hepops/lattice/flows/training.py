r"""Training of flows to sample a theory, on the trainer of `hepops.flows.training`.

What step t does follows from (seed, t) and the weights alone, so that a training with a folder that is killed goes on
and ends with the bits of one that was not. The learning rate, the clipping of gradients, ranks and checkpoints are
those of :class:`hepops.flows.training.Trainer`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from hepops.flows import Flow
from hepops.flows.training import Order, Trainer, Training, forward_kl, path_gradient, reinforce, reverse_kl
from hepops.flows.training.losses import draw
from hepops.flows.training.trainer import Options, named_seed

from ..ensembles import Ensemble
from ..theory import Theory
from .evaluation import acceptance, check_fields

Loss = Literal["reverse_kl", "path", "reinforce", "forward_kl"]


@dataclass(frozen=True)
class Curriculum:
    r"""The theory that is trained on moves from an easy one to the wanted one:
    :math:`S_t = (1 - r_t)\, S_\text{start} + r_t\, S`, :math:`r_t` linear in the step up to 1.

    Only the action moves: the fields, and the base of the flow, are those of both.
    For theories that differ in :math:`\beta` (or :math:`m^2, \lambda`) alone it is a straight line in these.

    Args:
        start: A theory of the same fields.
        share: Of the steps after which r = 1, in (0, 1].

    Raises:
        TypeError: start is no theory.
        ValueError: share out of range.
    """

    start: Theory
    share: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.start, Theory):
            raise TypeError(f"Curriculum: start must be a Theory, got {type(self.start).__name__}")
        if not 0 < self.share <= 1:
            raise ValueError(f"Curriculum: share must lie in (0, 1], got {self.share!r}")

    def log_prob(self, theory: Theory, progress: float) -> Callable[[Tensor], Tensor]:
        """-S_t at a share of the steps that are done."""
        r = min(progress / self.share, 1.0)
        if r == 1.0:
            return theory.log_prob
        a, b = getattr(self.start, "beta", None), getattr(theory, "beta", None)
        if b and _but_for_beta(self.start) == _but_for_beta(theory):  # S is proportional to beta: one action is enough
            assert a is not None
            scale = ((1 - r) * a + r * b) / b
            return lambda x: scale * theory.log_prob(x)
        return lambda x: (1 - r) * self.start.log_prob(x) + r * theory.log_prob(x)


def train(
    flow: Flow,
    theory: Theory,
    *,
    steps: int,
    batch: int = 256,
    lr: float = 1e-3,
    loss: Loss = "reverse_kl",
    curriculum: Curriculum | None = None,
    ensemble: Tensor | Ensemble | None = None,
    seed: int | None = 0,
    **options: Unpack[Options],
) -> Training:
    r"""Teach a flow to sample :math:`e^{-S}/Z`, in place.

    ============ ===================================================== ==========================================
    loss         gradient                                              needs
    ============ ===================================================== ==========================================
    "reverse_kl" of :math:`\langle \ln q + S \rangle_q`, through        a differentiable action
                 samples (reparametrised)
    "path"       the same without the score, of mean 0: no noise       a differentiable action, one more pass
                 where q = p
    "reinforce"  the same by the score                                 an action, and one more pass (an inverse)
    "forward_kl" of :math:`-\langle \ln q \rangle_p`                   an ensemble of the theory
    ============ ===================================================== ==========================================

    Args:
        flow: Of the theory's fields, in the dtype to train in; :func:`evaluate` weighs it in double.
        theory: S.
        steps, batch, lr: How many, samples in each, the highest learning rate.
        loss: See above.
        curriculum: From which theory to start.
        ensemble: Configurations of the theory, (N, *event_shape), for "forward_kl"; an epoch is a permutation of them.
            What :func:`hepops.lattice.open_ensemble` gives is read as a whole, all chains of all measurements.
        seed: In [0, 2^64); None draws one, where there is no folder.
        **options: Of `Trainer`: schedule, warmup, clip, ema, folder, save_every, seconds, chunks, group, progress.
            `progress=True` shows a bar with the loss, and the ESS and the acceptance of each batch.

    Returns:
        `Training`, whose history has the loss and the effective sample size of each batch (of the theory of that step).

    Raises:
        TypeError: what is no flow, no theory, no curriculum or no ensemble.
        ValueError: another loss, an ensemble without "forward_kl" or the other way round, a curriculum with it, fields
            that do not fit, a number out of range, a checkpoint of another training.
        FloatingPointError: the loss was not finite in `skip_limit` steps in a row.

    References:
        | reverse KL: M. S. Albergo, G. Kanwar, P. E. Shanahan, arXiv:1904.12072
        | path gradients: L. Vaitl, K. A. Nicoli, S. Nakajima, P. Kessel, arXiv:2207.08219
        | REINFORCE: P. Bialas, P. Korcyl, T. Stebel, arXiv:2308.13294

    Example:
        >>> theory = hepops.lattice.U1((4, 4), beta=1.0)
        >>> flow = hepops.lattice.flows.u1_coupling(theory, layers=2)
        >>> training = train(flow, theory, steps=2, batch=16, curriculum=Curriculum(hepops.lattice.U1((4, 4), 0.5)))
        >>> len(training.history["ess"])
        2
    """
    if isinstance(ensemble, Ensemble):
        ensemble = ensemble[:].flatten(0, 1)
    _check(flow, theory, loss, curriculum, ensemble)
    seed = named_seed(seed, options.get("folder"))
    weights: list[Tensor] = []
    if loss == "forward_kl":
        assert ensemble is not None
        batch = min(batch, len(ensemble))
        objective = _of_ensemble(flow, theory, ensemble, batch, seed, weights)
    else:
        objective = _of_samples(flow, theory, loss, curriculum, steps, seed, weights)
    mark: dict[str, Any] = {"loss": loss, "theory": _described(theory), "ensemble": ensemble}
    if curriculum is not None:
        mark |= {"curriculum": _described(curriculum.start), "share": curriculum.share}
    if options.get("progress") is True:
        with _bar(steps, weights) as report:
            return _run(flow, objective, mark, steps, batch, lr, seed, {**options, "progress": report})
    return _run(flow, objective, mark, steps, batch, lr, seed, dict(options))


def transfer(trained: Flow, flow: Flow) -> Flow:
    """Put the weights of a trained flow into one of the same layers on another volume (or at another coupling).

    Networks see sites or loops nearby, and have the same weights everywhere: these do not know the volume. Those of
    :class:`ContinuousScalar`, whose kernel is as wide as the lattice, do.

    Returns:
        `flow`.

    Raises:
        ValueError: the layers differ; the first weight that does not fit is named.

    Example:
        >>> small, large = (hepops.lattice.U1((L, L), beta=1.0) for L in (4, 8))
        >>> flow = hepops.lattice.flows.u1_coupling(small, layers=8)  # and train it
        >>> larger = transfer(flow, hepops.lattice.flows.u1_coupling(large, layers=8))
    """
    ours, theirs = flow.state_dict(), trained.state_dict()
    for name in {**ours, **theirs}:
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            shapes = [tuple(s[name].shape) if name in s else None for s in (theirs, ours)]
            raise ValueError(f"transfer: {name} has shape {shapes[0]} in the trained flow and {shapes[1]} in the other")
    flow.load_state_dict(theirs)
    return flow


def train_volumes(
    build: Callable[[Any], Flow], theories: Sequence[Theory], steps: Sequence[int], **options: Any
) -> tuple[Flow, list[Training]]:
    """A curriculum in the volume: flows of growing lattices, each of which begins with the weights of the one before.

    Args:
        build: From a theory to a fresh flow.
        theories: In the order of training, the last one is wanted.
        steps: Of each.
        **options: Of :func:`train`; with a `folder`, each volume has a folder of its own in it.

    Returns:
        The last flow, and what came of each training.

    Raises:
        ValueError: as many steps as theories, and at least one, are wanted; as :func:`train` and :func:`transfer`.
    """
    if not theories or len(theories) != len(steps):
        raise ValueError(f"train_volumes: steps must be one for each theory, got {len(steps)} for {len(theories)}")
    flow, trainings = None, []
    folder = options.pop("folder", None)
    for number, (theory, count) in enumerate(zip(theories, steps, strict=True)):
        fresh = build(theory)
        flow = fresh if flow is None else transfer(flow, fresh)
        if folder is not None:
            options["folder"] = f"{folder}/{number}"
        trainings.append(train(flow, theory, steps=count, **options))
    assert flow is not None
    return flow, trainings


def _check(flow: Flow, theory: Theory, loss: str, curriculum: Curriculum | None, ensemble: Tensor | None) -> None:
    if loss not in ("reverse_kl", "path", "reinforce", "forward_kl"):
        raise ValueError(f"train: loss must be 'reverse_kl', 'path', 'reinforce' or 'forward_kl', got {loss!r}")
    check_fields("train", flow, theory)
    if (ensemble is None) == (loss == "forward_kl"):
        got = "none" if ensemble is None else "one"
        raise ValueError(f"train: an ensemble goes with loss='forward_kl', got {got} with loss={loss!r}")
    if curriculum is not None and not isinstance(curriculum, Curriculum):
        raise TypeError(f"train: curriculum must be a Curriculum, got {type(curriculum).__name__}")
    if curriculum is not None and curriculum.start.event_shape != theory.event_shape:
        shapes = tuple(curriculum.start.event_shape), tuple(theory.event_shape)
        raise ValueError(f"train: the curriculum must start from fields {shapes[1]}, got {shapes[0]}")
    if curriculum is not None and loss == "forward_kl":
        raise ValueError("train: an ensemble is of one theory, curriculum must be None with loss='forward_kl'")
    if ensemble is not None:
        theory.check(ensemble, "ensemble")
        if not len(ensemble) or not bool(ensemble.isfinite().all()):
            finite = int(ensemble.flatten(1).isfinite().all(1).sum())
            raise ValueError(f"train: ensemble must hold finite configurations, got {finite} of {len(ensemble)}")


Objective = Callable[[int, int, int], tuple[Tensor, Tensor | None]]


def _of_samples(
    flow: Flow, theory: Theory, loss: str, curriculum: Curriculum | None, steps: int, seed: int, weights: list[Tensor]
) -> Objective:
    def objective(step: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        names: Any = {"seed": seed, "first": first, "step": step}
        log_p = theory.log_prob if curriculum is None else curriculum.log_prob(theory, step / steps)
        if loss == "path":
            value, log_w = path_gradient(flow, log_p, count, **names)
        elif loss == "reinforce":
            with torch.no_grad():
                x, _ = draw(flow, count, None, **names)
                target = log_p(x)
            log_q = flow.log_prob(x)
            value, log_w = reinforce(log_q, target), target - log_q.detach()
        else:
            x, log_q = draw(flow, count, None, **names)
            target = log_p(x)
            value, log_w = reverse_kl(log_q, target), (target - log_q).detach()
        weights[:] = [log_w]
        return value, log_w

    return objective


def _of_ensemble(
    flow: Flow, theory: Theory, ensemble: Tensor, batch: int, seed: int, weights: list[Tensor]
) -> Objective:
    reference = flow.base.reference
    order, ensemble = Order(len(ensemble), batch, seed), ensemble.to(reference.device, flow.base.dtype)

    def objective(step: int, first: int, count: int) -> tuple[Tensor, None]:
        x = ensemble[order.rows(step, first, count).to(reference.device)]
        return forward_kl(flow.log_prob(x)), None

    return objective


def _run(
    flow: Flow, objective: Objective, mark: dict[str, Any], steps: int, batch: int, lr: float, seed: int, options: Any
) -> Training:
    before, flow.validate = flow.validate, False  # a step that is not finite is skipped and counted
    try:
        return Trainer(steps=steps, batch=batch, lr=lr, seed=seed, **options).run(flow, objective, mark=mark)
    finally:
        flow.validate = before


@contextmanager
def _bar(steps: int, weights: list[Tensor]) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    from tqdm.auto import tqdm

    with tqdm(total=steps) as bar:

        def report(step: int, _steps: int, row: dict[str, float]) -> None:
            bar.update(step - bar.n)
            if step % 10 == 0:
                shown = {"loss": row["loss"], "ess": row["ess"]}
                if weights:
                    shown["acceptance"] = float(acceptance(weights[0]))
                bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items() if v == v})

        yield report


def _but_for_beta(theory: Theory) -> tuple[type[Theory], dict[str, Any]]:
    return type(theory), {k: v for k, v in vars(theory).items() if k != "beta"}


def _described(theory: Theory) -> str:
    plain = {k: v for k, v in sorted(vars(theory).items()) if isinstance(v, (int, float, str, tuple))}
    return f"{type(theory).__name__} {plain}"
