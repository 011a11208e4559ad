r"""The integrator: :math:`I = \int f(x)\, dx` as the mean of :math:`f/q` over samples of a learned density q."""

import inspect
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hepops.flows.random import fresh_seed

from . import storage
from .domain import Domain, Limits
from .integrand import Integrand
from .judge import result
from .plan import Plan, Prepared, pack, unpack
from .progress import Progress
from .ranks import Ranks
from .result import Result
from .run import Run, weigh
from .unweight import Events, events
from .user import Channel, UserChannel, given


class IntegrationWarning(RuntimeWarning):
    """Something about a result that its mean and error do not tell."""


class Integrator:
    r"""Integrates f by samples of a density q that it learns from f: a map, a Gaussian mixture, a flow.

    .. math:: I = \int f(x)\, dx \approx \frac1N \sum_i \frac{f(x_i)}{q(x_i)}, \quad x_i \sim q

    The samples of the estimate are other ones than those of learning, and their number is fixed before the first is
    drawn, so that the estimate has no bias. Between the two an independent look is taken for peaks that learning lost
    (see :mod:`hepops.flows.integration.honesty`); what it finds is sampled from then on.

    Args:
        f: x, shape (n, d) -> f(x), shape (n,), or (n, V) for V integrals at once. Real, of any sign; integers and
            booleans count as numbers. It is never called outside the bounds. Gradients are not asked for, whatever f
            requires.
        bounds: The dimension d of the unit cube, or (low, high) for each axis; infinite ones are mapped as
            :mod:`hepops.flows.integration.domain` says.
        discrete: Axis -> number of terms, or their weights v: the integral over that axis becomes
            :math:`\sum_k v_k f(k)`, k = 0, 1, ..., with probabilities that are learned.
        channels: Densities that f is known to resemble, see :class:`Channel`; they join the mixture with learned
            shares.
        backend: "torch" or "numpy": what f is given. Either may be returned.
        invalid: "raise" a ValueError where f is NaN or infinite, or "exclude": count such points as zero, in
            `Result.excluded`, with a warning.
        importance: What of a vector is learned: "norm", or the number of a component.
        batch: f gets at most so many points at once.
        dtype, device: Of the points f is given: float64, or float32 for an f that wants it.
        group: Ranks of torch.distributed that share the work; every rank must make the same calls. Default: all.

    The result's bits depend on the seed and the arguments of :meth:`integrate`, not on `batch` or on the number of
    ranks, as long as f(x) does not (the last bit of a matrix product may depend on the rows beside it).

    Raises:
        TypeError: f gives complex numbers, or something that is no array.
        ValueError: f gives another shape, NaN or an infinity; a bound, name or number is none.
        Whatever f raises goes through, with a note of the iteration and the samples.

    References:
        G. P. Lepage, J. Comput. Phys. 439 (2021) 110386, arXiv 2009.05112 (VEGAS+). T. Heimel et al., SciPost Phys. 15
        (2023) 141, arXiv 2212.06172 (MadNIS).

    Example:
        >>> import torch
        >>> from hepops.flows import Integrator
        >>> peak = Integrator(lambda x: torch.exp(-((x - 0.3) ** 2).sum(1) / 0.02), 2, candidates=("map",))
        >>> result = peak.integrate(20_000, seed=1)
        >>> abs(result.mean - 0.0628309) < 5 * result.sdev, result.neval <= 20_000, result.warnings
        (True, True, ())
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        bounds: Limits,
        *,
        discrete: Mapping[int, int | Sequence[float]] | None = None,
        channels: Sequence[Channel] = (),
        candidates: Sequence[str] = ("map", "mixture", "flow"),
        backend: str = "torch",
        invalid: str = "raise",
        importance: str | int = "norm",
        batch: int = 65536,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.domain = Domain(bounds, discrete)
        self.candidates = tuple(candidates)
        if channels and self.domain.weights:
            raise ValueError("channels cannot be combined with discrete axes")
        if isinstance(importance, str) and importance != "norm":
            raise ValueError(f"importance must be 'norm' or the number of a component, got {importance!r}")
        self.channels = [UserChannel(self.domain, channel, i) for i, channel in enumerate(channels)]
        self._options: dict[str, Any] = {
            "batch": batch,
            "backend": backend,
            "invalid": invalid,
            "importance": importance,
            "dtype": dtype,
            "device": device,
        }
        self.f, self.group = f, group
        self.prepared: Prepared | None = None
        self._integrand()  # refuses early

    def _integrand(self) -> Integrand:
        return Integrand(self.f, self.domain, ranks=Ranks(self.group), **self._options)

    def integrate(
        self,
        neval: int = 1_000_000,
        *,
        target_error: float | None = None,
        target_relative: float | None = None,
        seed: int | None = None,
        iterations: int = 10,
        learn: bool | None = None,
        learning_share: float = 0.45,
        probe_share: float = 0.1,
        seconds_per_evaluation: float = 1e-5,
        checkpoint: str | Path | None = None,
        time_limit: float | None = None,
        progress: bool | Callable[[int, str], None] = False,
    ) -> Result:
        """Learns, looks for lost peaks, estimates.

        Args:
            neval: Calls of f at most, in all: learning, looks and estimate.
            target_error, target_relative: The standard deviation to reach, absolute or as a share of the mean (the
                larger one counts; of every component). The number of samples then follows from a pilot, at most neval.
            seed: In [0, 2^64); drawn from torch's generator where None.
            iterations: Into how many the estimate is divided, for chi2 and for the checkpoint.
            learn: Whether to learn a proposal; by default only where there is none yet.
            learning_share, probe_share: Of neval, at most; a probe_share of 0 skips the look.
            seconds_per_evaluation: What f costs: proposals compete by effective samples per second. A number and not a
                measurement, so that the run repeats.
            checkpoint: A file to keep the state in, and to go on from if it is there: the end is the same to the bit.
            time_limit: Seconds after which no further iteration of the estimate begins (after two).
            progress: True for a bar, or what to call with (calls of f so far, what goes on).
        """
        began = time.monotonic()
        neval, iterations = whole("neval", neval), whole("iterations", iterations)
        self._check(neval, iterations, learning_share, probe_share, target_error, target_relative)
        if not 0 <= seconds_per_evaluation < math.inf:
            raise ValueError(f"seconds_per_evaluation must be finite and >= 0, got {seconds_per_evaluation}")
        if time_limit is not None and math.isnan(time_limit):
            raise ValueError(f"time_limit must be a number of seconds, got {time_limit}")
        if checkpoint is not None and (Path(checkpoint).is_dir() or not os.access(Path(checkpoint).parent, os.W_OK)):
            raise OSError(f"checkpoint: no file can be written at {checkpoint}")
        integrand = self._integrand()
        seed = self._seed(seed, checkpoint, integrand.ranks)
        fresh = learn or (learn is None and self.prepared is None)
        plan = Plan(
            neval=neval,
            seed=seed,
            iterations=iterations,
            target=target_error or 0.0,
            relative=target_relative or 0.0,
            learning=learning_share if fresh and learn is not False else 0.0,
            probing=probe_share,
            candidates=self.candidates,
            seconds_per_evaluation=seconds_per_evaluation,
        )
        before = None if fresh or self.prepared is None else self.prepared.again()
        with Progress(neval, progress if integrand.ranks.rank == 0 else False) as say:
            run = Run(integrand, plan, before, self.channels, None if checkpoint is None else Path(checkpoint), say)
            self.prepared = run(math.inf if time_limit is None else began + time_limit)
        out = result(integrand, plan, self.prepared, run.rows, run.kept, time.monotonic() - began)
        for text in out.warnings:
            warnings.warn(text, IntegrationWarning, stacklevel=_outside())
        return out

    def _seed(self, seed: int | None, checkpoint: str | Path | None, ranks: Ranks) -> int:
        if seed is None and checkpoint is not None and Path(checkpoint).exists():
            seed = storage.read(checkpoint)[0].get("plan", {}).get("seed")
        seed = fresh_seed() if seed is None else whole("seed", seed)
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be in [0, 2^64), got {seed}")
        return int(ranks.first(seed))  # type: ignore[call-overload]

    @staticmethod
    def _check(
        neval: int, iterations: int, learning: float, probing: float, target: float | None, relative: float | None
    ) -> None:
        if neval < 100:
            raise ValueError(f"neval must be at least 100, got {neval}")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        if not (0 <= learning and 0 <= probing and learning + 2 * probing <= 0.9):
            raise ValueError(
                "learning_share and twice probe_share (a find is looked behind again) must be >= 0 and at most 0.9 "
                f"together, got {learning} and {probing}"
            )
        for name, value in (("target_error", target), ("target_relative", relative)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {value}")

    def sample_unweighted(
        self,
        n: int,
        *,
        seed: int | None = None,
        quantile: float = 0.999,
        first: int = 0,
        max_candidates: int = 1 << 30,
    ) -> Events:
        """Events with weights of +-1, by accept-reject against a quantile of the weights.

        Numbered: the same seed gives the same events, and `first=events.next` those that follow.

        Args:
            n: How many.
            seed: In [0, 2^64).
            quantile: Of the non-zero |f/q|; a smaller one keeps more candidates and has more overweight events.
            first: Candidate to begin at.
            max_candidates: RuntimeError beyond.
        """
        if self.prepared is None:
            raise RuntimeError("sample_unweighted: integrate first, there is no proposal yet")
        n, first = whole("n", n), whole("first", first)
        if n < 1 or not 0 < quantile <= 1 or first < 0:
            raise ValueError(
                f"sample_unweighted: n must be positive, quantile in (0, 1], first >= 0; got {n}, {quantile}, {first}"
            )
        integrand = self._integrand()
        seed = self._seed(seed, None, integrand.ranks)
        return events(integrand, self.prepared.proposal, n, seed, quantile, first, max_candidates)

    def sample(self, n: int, *, seed: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Weighted samples first ... first + n - 1: x, shape (n, d), and f/q, shape (n,) or (n, V).

        Points that the proposal throws outside the bounds stand at the nearest bound with weight zero; excluded ones
        have weight zero too.
        """
        if self.prepared is None:
            raise RuntimeError("sample: integrate first, there is no proposal yet")
        integrand = self._integrand()
        u, log_q = self.prepared.proposal.sample(n, seed, first)
        w = weigh(integrand, u, log_q, f"samples {first} ... {first + n - 1}")[0]
        return self.domain(u.clamp(0, 1))[0], w[:, 0] if integrand.scalar else w

    def save(self, path: str | Path) -> None:
        """Writes the bounds and what was learned to one safetensors file; f and the user's channels are not in it."""
        if self.prepared is None:
            raise RuntimeError("save: integrate first, there is nothing to save yet")
        head, tensors = pack(self.prepared)
        storage.write(path, {"what": "integrator", "domain": self.domain.state(), "prepared": head}, tensors)

    @classmethod
    def load(cls, path: str | Path, f: Callable[[Any], Any], **options: Any) -> "Integrator":
        """An integrator as it was saved, for f. Nothing in the file is executed.

        Args:
            path: What :meth:`save` wrote.
            f: The integrand.
            options: As for the class; `channels` must be given again where there were any.
        """
        data, tensors = storage.read(path)
        if data.get("what") != "integrator":
            raise ValueError(f"{path}: not a saved integrator but {data.get('what')}")
        if fixed := {"bounds", "discrete"} & set(options):
            raise TypeError(f"load: {', '.join(sorted(fixed))} come from the file")
        with storage.sound(path):
            domain = Domain.from_state(data["domain"])
        integrator = cls(f, domain.limits, discrete=None, **options)
        integrator.domain.weights, integrator.domain.probabilities = domain.weights, domain.probabilities
        with storage.sound(path), given(integrator.domain, [c.channel for c in integrator.channels]):
            integrator.prepared = unpack(data["prepared"], tensors, domain.dim)
        return integrator


def whole(name: str, value: Any) -> int:
    """A whole number, 1e6 among them; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if not isinstance(value, Integral) and not float(value).is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(value)  # type: ignore[call-overload]


def _outside() -> int:
    """The stacklevel, seen from the caller of this, of the first frame that is not of this module."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        level, frame = level + 1, frame.f_back
    return level


def integrate(f: Callable[[Any], Any], bounds: Limits, neval: int = 1_000_000, **options: Any) -> Result:
    """The integral of f over the bounds: an :class:`Integrator` that is made, used once and let go.

    Args:
        f, bounds: As for :class:`Integrator`.
        neval: As for :meth:`Integrator.integrate`.
        options: Of either.

    Example:
        >>> import math, torch
        >>> from hepops.flows import integrate
        >>> gauss = integrate(lambda x: torch.exp(-x[:, 0] ** 2), [(-math.inf, math.inf)], 20_000, seed=1)
        >>> abs(gauss.mean - math.sqrt(math.pi)) < 5 * gauss.sdev
        True
    """
    own = inspect.signature(Integrator.integrate).parameters
    integrator = Integrator(f, bounds, **{k: v for k, v in options.items() if k not in own})
    return integrator.integrate(neval, **{k: v for k, v in options.items() if k in own})
