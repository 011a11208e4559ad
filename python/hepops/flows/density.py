r"""A density fitted to a table, and how improbable an event is under it.

.. math:: \ln p(x) = \ln q(u(x)) + \sum_c \ln |du_c / dx_c|

with the columns' own u (`hepops.flows.columns`) and a flow q. The density of an event is no probability: it depends on
the units. The share of events whose density is lower is one, and does not change with x -> u for a given q(u(x)):

.. math:: P(x) = \mathrm{Prob}_{x'}[\, p(x') \le p(x) \,], \qquad \hat P = \frac{k + 1}{n + 1}

with k of n reference events at or below. Where x is exchangeable with the reference events, :math:`\hat P` is uniform
on {1, ..., n + 1}/(n + 1), whatever the quality of the fit.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic

from .columns import Column, Kind, cell_points, make_columns, noise
from .density_flow import density_flow
from .flow import Flow
from .tables import Table, read_table
from .training import Options, Training, fit
from .training.order import SPLIT, permutation
from .weights import ordered_sum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT, VERSION = "hepops.flows.density", 1
_ROWS = 8192  # at a time
_FARTHEST = 1e9  # |u|: widths of the data
_CELL = 16  # points that a cell of integer columns is integrated on


class AnomalyScore(NamedTuple):
    """Tail probabilities and their binomial uncertainties, float64 (N)."""

    p: Tensor
    error: Tensor


@dataclass(frozen=True)
class Reference:
    """Log-densities of events that were not learnt from, ascending, and their weights."""

    log_prob: Tensor
    weights: Tensor

    def score(self, log_prob: Tensor) -> AnomalyScore:
        total, n = self.weights.sum(), self.weights.sum().square() / self.weights.square().sum()
        below = torch.cat([self.weights.new_zeros(1), self.weights.cumsum(0)])
        k = below[torch.searchsorted(self.log_prob, log_prob, right=True)] / total * n
        p = ((k + 1) / (n + 1)).clamp(max=1)
        return AnomalyScore(p, (p * (1 - p) / n).sqrt())


def _far(u: Tensor) -> Tensor:
    """Networks of float32 overflow far outside of all data: what lies farther counts as here."""
    return u.clamp(-_FARTHEST, _FARTHEST)


class Density:
    """A probability density of the rows of a table; made by :meth:`fit` or :meth:`load`.

    Args:
        columns: With what was learnt of each.
        flow: Density of u, shape (len(columns)).
        options: Of `density_flow`, to build it again; None for a flow of another make.
        reference: Events that calibrate `anomaly_score`.
        training: What came of the fit.
        dropped: Rows left out, since they had NaN or infinite values.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        flow: Flow,
        *,
        options: dict[str, Any] | None = None,
        reference: Reference | None = None,
        training: Training | None = None,
        dropped: int = 0,
    ) -> None:
        self.columns, self.flow, self.options = tuple(columns), flow.eval(), options
        self.reference, self.training, self.dropped = reference, training, dropped

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @classmethod
    def fit(
        cls,
        table: Any,
        columns: Sequence[str] | None = None,
        *,
        kinds: Mapping[str, Kind] | None = None,
        weights: str | np.ndarray | Tensor | None = None,
        key: str | None = None,
        missing: Literal["refuse", "drop"] = "refuse",
        flow: Callable[[int], Flow] | None = None,
        layers: int = 6,
        bins: int = 8,
        hidden: Sequence[int] = (64, 64),
        device: torch.device | str = "cpu",
        validation: float = 0.1,
        calibration: float = 0.1,
        steps: int | None = None,
        epochs: float | None = None,
        batch: int = 512,
        lr: float = 3e-3,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> Self:
        """Fit to a table by maximum likelihood.

        Args:
            table: Whatever `read_table` takes: array, dictionary, data frame, path of an HDF5 or ROOT file.
            columns: Names of those to take; None: all (but that of the weights).
            kinds: What columns are, by name: "real" (default), "positive", ("bounded", low, high), ("periodic", low,
                high), "integer".
            weights: Of events, not negative: a column's name, or numbers (N).
            key: Group or tree of a file.
            missing: Rows with NaN or infinite values: a ValueError that counts them, or left out and counted in
                `dropped`.
            flow: From the number of columns to a flow to be trained; periodic ones come in (-pi, pi). None: couplings
                of splines, `density_flow`, of the `layers`, `bins` and `hidden` given.
            device: Where to train.
            validation, steps, epochs, batch, lr, seed, **options: Of `hepops.flows.training.fit`.
            calibration: Share of the rows that is kept for `anomaly_score`: neither learnt from nor chosen by.

        Returns:
            The density. The same bits for the same seed and number of threads.

        Raises:
            ValueError: rows with NaN, a constant column, values outside a column's domain, negative weights, each by
                name and with their count; columns, kinds or shares that do not fit.

        Example:
            >>> x = torch.randn(400, 2, dtype=torch.float64)
            >>> density = Density.fit({"a": x[:, 0], "b": x[:, 1].exp()}, kinds={"b": "positive"}, epochs=1, layers=1)
            >>> density.log_prob({"a": [0.0], "b": [-1.0]})
            tensor([-inf], dtype=torch.float64)
            >>> sorted(density.sample(3, seed=1))
            ['a', 'b']
        """
        if not 0 <= calibration < 1:
            raise ValueError(f"calibration must lie in [0, 1), got {calibration!r}")
        read, v = _read(table, columns, weights, key)
        learnt = make_columns(read.columns, kinds)
        x, v, dropped = _finite(read, v, missing)
        order = permutation(len(x), seed, 1, SPLIT)
        held = round(calibration * len(x))
        kept, rest = order[held:], order[:held]
        if len(kept) < 2:
            raise ValueError(f"table: {len(kept)} rows are left to learn from, of {len(x)}")
        if v is not None:
            for name, part in (("learn from", kept), ("calibrate with", rest)):
                if len(part) and not bool((v[part] > 0).any()):
                    raise ValueError(f"weights: all {len(part)} of the rows to {name} are 0")
        learnt = [c.learnt(x[kept, i], None if v is None else v[kept]) for i, c in enumerate(learnt)]
        for i, c in enumerate(learnt):
            bad = int(c.outside(x[rest, i]).sum())
            if bad:
                c.learnt(x[:, i], v)  # says how many of all
        built: dict[str, Any] | None = None
        if flow is None:
            built = {"layers": layers, "bins": bins, "hidden": list(hidden)}
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed % (1 << 63))
                model = density_flow([c.periodic for c in learnt], **built)
        else:
            model = flow(len(learnt))
        density = cls(learnt, model.to(device), options=built, dropped=dropped)
        noisy = x.clone()
        for i, c in enumerate(learnt):
            if c.kind == "integer":
                noisy[:, i] += noise(len(x), i, seed)
        u, _ = density._forward(noisy[kept])
        options.setdefault("clip", 5.0)
        density.training = fit(
            model,
            u,
            weights=None if v is None else v[kept],
            validation=validation,
            steps=steps,
            epochs=epochs,
            batch=batch,
            lr=lr,
            seed=seed,
            **options,
        )
        model.eval()
        if held:
            log_prob, sequence = density._log_prob(x[rest]).sort()
            held_v = torch.ones(held, dtype=torch.float64) if v is None else v[rest][sequence]
            density.reference = Reference(log_prob, held_v)
        return density

    # Density, samples, score

    def log_prob(self, table: Any) -> Tensor:
        """ln p of each row in the columns' own units, float64 (N), on the CPU.

        Args:
            table: As of `fit`; an array has the columns of the fit in their order.

        Returns:
            -inf outside a bounded or positive column's domain, and for an integer column that is not whole; of
            integer columns a probability, integrated over the cell on 16 points, not a density. A value farther than
            1e9 widths from the data counts as there.

        Raises:
            ValueError: columns that are missing, rows with NaN or infinite values, with their count.
        """
        return self._log_prob(self._rows(table))

    def sample(
        self, n: int, *, seed: int | None = None, first: int = 0, form: Literal["dict", "numpy", "pandas"] = "dict"
    ) -> Any:
        """Rows of the density.

        Args:
            n: How many.
            seed: In [0, 2^64); None draws one. Row i is named by (seed, first + i).
            first: Number of the first row.
            form: A dictionary of arrays (n), an array (n, columns), or a pandas data frame.

        Raises:
            ValueError: n below 1, or another form.
        """
        if n < 1 or form not in ("dict", "numpy", "pandas"):
            raise ValueError(f"n must be at least 1 and form 'dict', 'numpy' or 'pandas', got {n!r} and {form!r}")
        seed = int(torch.randint(1 << 62, ()).item()) if seed is None else seed
        parts = []
        with torch.no_grad():
            for start in range(0, n, _ROWS):
                u, _ = self.flow.rsample_and_log_prob(min(_ROWS, n - start), seed=seed, first=first + start)
                u = u.double().cpu()
                parts.append(torch.stack([c.inverse(u[:, i]) for i, c in enumerate(self.columns)], 1))
        x = torch.cat(parts).numpy()
        if form == "numpy":
            return x
        table = {c.name: x[:, i].copy() for i, c in enumerate(self.columns)}
        if form == "dict":
            return table
        import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]

        return pd.DataFrame(table)

    def anomaly_score(
        self, table: Any, *, against: Literal["held-out", "model"] = "held-out", samples: int = 100_000, seed: int = 0
    ) -> AnomalyScore:
        r"""Tail probability of each row: the share of events whose density is not above the row's.

        Args:
            table: As of `log_prob`.
            against: "held-out": the rows that `fit` kept for this, so that it is uniform on data like them even where
                the fit is poor; it reaches down to 1/(n + 1). "model": samples of the density, which reach deeper
                and are right as far as the fit is.
            samples: How many of the model.
            seed: Of these.

        Returns:
            `AnomalyScore(p, error)`: :math:`\hat P = (k + 1)/(n + 1)` and :math:`\sqrt{\hat P (1 - \hat P)/n}`; with
            weights k and n count as :math:`(\sum v)^2/\sum v^2` events. Small is anomalous.

        Raises:
            ValueError: as of `log_prob`; or no rows were held out.

        References:
            | V. Vovk, A. Gammerman, G. Shafer, Algorithmic learning in a random world, Springer 2005: the p-value
        """
        if against == "held-out":
            if self.reference is None:
                raise ValueError("anomaly_score: no rows were held out (calibration = 0): against must be 'model'")
            reference = self.reference
        elif against == "model":
            drawn = torch.from_numpy(self.sample(samples, seed=seed, form="numpy"))
            reference = Reference(self._log_prob(drawn).sort().values, torch.ones(samples, dtype=torch.float64))
        else:
            raise ValueError(f"against must be 'held-out' or 'model', got {against!r}")
        return reference.score(self.log_prob(table))

    def __str__(self) -> str:
        lines = [f"density of  {', '.join(f'{c.name} ({c.kind})' for c in self.columns)}"]
        if self.dropped:
            lines.append(f"dropped     {self.dropped} rows with NaN or infinite values")
        if self.reference is not None:
            mean = float(ordered_sum(self.reference.log_prob * self.reference.weights) / self.reference.weights.sum())
            lines.append(f"held out    {len(self.reference.log_prob)} rows, mean ln p {mean:.6g}")
        return "\n".join([*lines, *([] if self.training is None else [str(self.training)])])

    # Files

    def save(self, path: str | Path) -> None:
        """One safetensors file, with the columns as JSON in its head; whole or not there."""
        from safetensors.torch import save_file

        tensors = {f"flow.{n}": t.detach().cpu().contiguous() for n, t in self.flow.state_dict().items()}
        if self.reference is not None:
            tensors |= {f"reference.{n}": t.contiguous() for n, t in vars(self.reference).items()}
        head = {
            "format": FORMAT,
            "version": VERSION,
            "columns": [{k: v if not _infinite(v) else None for k, v in asdict(c).items()} for c in self.columns],
            "options": self.options,
            "dropped": self.dropped,
        }
        with atomic(path) as part:
            save_file(tensors, str(part), {"hepops": json.dumps(head)})

    @classmethod
    def load(cls, path: str | Path, *, flow: Flow | None = None, device: torch.device | str = "cpu") -> Self:
        """What `save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            flow: One of the shape that was fitted, where that was not the default one; it takes the weights.
            device: Where to.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another file, a truncated one, or a flow that is missing or has another shape.
        """
        from safetensors import safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            with safe_open(str(path), "pt") as file:
                head = json.loads((file.metadata() or {})["hepops"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if head["format"] != FORMAT:
                raise KeyError(head["format"])
            rows = [{k: v for k, v in row.items() if v is not None} for row in head["columns"]]
            columns, options = [Column(**row) for row in rows], head["options"]
        except Exception as error:
            raise ValueError(f"{path}: not a density that can be read ({' '.join(str(error).split())[:200]})") from None
        if head["version"] != VERSION:
            raise ValueError(f"{path}: has version {head['version']}, this program reads {VERSION}")
        if flow is None and options is None:
            raise ValueError(f"{path}: was fitted with a flow of the caller's: give one of its shape as flow")
        try:
            model = density_flow([c.periodic for c in columns], **options) if flow is None else flow
            model.load_state_dict({n.removeprefix("flow."): t for n, t in tensors.items() if n.startswith("flow.")})
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"{path}: does not fit the flow ({' '.join(str(error).split())[:200]})") from None
        reference = None
        if "reference.log_prob" in tensors:
            reference = Reference(tensors["reference.log_prob"], tensors["reference.weights"])
        return cls(columns, model.to(device), options=options, reference=reference, dropped=head["dropped"])

    # Figures

    def plot_corner(self, table: Any = None, **keywords: Any) -> "Figure":
        """Every column and every pair, samples over data: `hepops.flows.density_plots.corner`."""
        from .density_plots import corner

        return corner(self, table, **keywords)

    def plot_log_prob(self, tables: Mapping[str, Any] | None = None, **keywords: Any) -> "Figure":
        """ln p of samples, of the held-out rows, and of other tables by name."""
        from .density_plots import log_prob_histogram

        return log_prob_histogram(self, tables, **keywords)

    def plot_roc(self, table: Any, labels: Any) -> "Figure":
        """How well small densities find the rows with labels of 1."""
        from .density_plots import roc

        return roc(self, table, labels)

    # Within

    def _rows(self, table: Any) -> Tensor:
        read = read_table(table, self.names)
        return _finite(read, None, None)[0]

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """u in the flow's dtype, and the sum of ln |du/dx|, float64."""
        parts = [c.forward(x[:, i]) for i, c in enumerate(self.columns)]
        u = _far(torch.stack([u for u, _ in parts], 1))
        like = next(self.flow.parameters())
        return u.to(device=like.device, dtype=like.dtype), torch.stack([d for _, d in parts], 1).sum(1)

    @torch.no_grad()
    def _log_prob(self, x: Tensor) -> Tensor:
        whole = [i for i, c in enumerate(self.columns) if c.kind == "integer"]
        outside = torch.stack([c.outside(x[:, i]) for i, c in enumerate(self.columns)], 1).any(1)
        inside = x[~outside]
        points = cell_points(_CELL, len(whole)) if whole else torch.zeros(1, 0, dtype=torch.float64)
        values = []
        for rows in inside.split(max(_ROWS // len(points), 1)):
            spread = rows[:, None, :].repeat(1, len(points), 1)
            spread[..., whole] += points
            u, slope = self._forward(spread.flatten(0, 1))
            log_p = (self.flow.log_prob(u).cpu() + slope).view(len(rows), len(points))
            values.append(log_p.logsumexp(1) - math.log(len(points)))
        out = torch.full((len(x),), -math.inf, dtype=torch.float64)
        out[~outside] = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
        return out


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _read(
    table: Any, columns: Sequence[str] | None, weights: str | np.ndarray | Tensor | None, key: str | None
) -> tuple[Table, Tensor | None]:
    """The columns, and the weights, which may be one of them."""
    if not isinstance(weights, str):
        read = read_table(table, columns, key=key)
        if isinstance(weights, np.ma.MaskedArray):
            weights = np.ma.filled(weights.astype(np.float64), np.nan)
        v = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        if v is not None and v.shape != (len(read),):
            raise ValueError(f"weights must have shape ({len(read)}), got {tuple(v.shape)}")
        return read, v
    names = None if columns is None else [c for c in columns if c != weights] + [weights]
    read = read_table(table, names, key=key)
    if weights not in read.columns:
        raise ValueError(f"weights: no column {weights} among {', '.join(read.columns)}")
    rest = [c for c in read.columns if c != weights]
    return read_table(read, rest), torch.from_numpy(read[weights].copy())


def _finite(read: Table, v: Tensor | None, missing: str | None) -> tuple[Tensor, Tensor | None, int]:
    """The rows that are finite, their weights, and how many were not; with None there is no choice."""
    if missing not in ("refuse", "drop", None):
        raise ValueError(f"missing must be 'refuse' or 'drop', got {missing!r}")
    x = torch.from_numpy(np.ascontiguousarray(read.values))
    bad = ~x.isfinite()
    if v is not None:
        negative = int((v < 0).sum())
        if negative:
            raise ValueError(f"weights: {negative} of {len(v)} are negative: the likelihood would have no maximum")
        bad = torch.cat([bad, ~v.isfinite()[:, None]], 1)
    rows = bad.any(1)
    count = int(rows.sum())
    if count and missing != "drop":
        names = [*read.columns, "weights"]
        which = ", ".join(f"{names[i]}: {int(bad[:, i].sum())}" for i in range(bad.shape[1]) if bad[:, i].any())
        hint = "; missing='drop' fits the rest" if missing else ""
        raise ValueError(f"table: {count} of {len(x)} rows have NaN or infinite values ({which}){hint}")
    return (x[~rows], None if v is None else v[~rows], count) if count else (x, v, 0)
