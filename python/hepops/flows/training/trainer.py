r"""A training that goes on after a kill and ends with the bits of one that was not killed.

What step t does follows from (seed, t) and the weights alone: the rows or samples, what the module draws from torch's
generator, the learning rate. A checkpoint holds the weights, the optimiser, the average, the best weights, the
history; it is whole or not there, and loading it executes nothing.

A batch may be cut into `chunks`: the gradient of each is taken alone, and they are summed in double in their order.
With `group` every rank takes chunks / ranks of them; the gradients travel in one flat bucket. So 1, 2 and 4 ranks
with the same chunks learn from the same samples and end with the same bits (on the same kind of machine).
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hepops.core import reporting

from ..random import fresh_seed
from ..weights import _gathered
from . import state
from .ema import Average
from .history import History, Training
from .interrupts import Interrupts

# objective(step, first, count): the mean loss of samples first ... first + count - 1 of the step's batch, and the
# logarithms of their weights where it has any
Objective = Callable[[int, int, int], tuple[Tensor, Tensor | None]]
Schedule = Literal["cosine", "constant"] | Callable[[Optimizer], LRScheduler]
Progress = bool | Callable[[int, int, dict[str, float]], None]


class Options(TypedDict, total=False):
    """Keywords that `fit`, `train_sampler` and `Density.fit` hand on to `Trainer`."""

    schedule: Schedule
    warmup: float
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None
    clip: float | None
    ema: float | None
    patience: int | None
    validate_every: int | None
    skip_limit: int
    chunks: int
    group: "dist.ProcessGroup | None"
    folder: str | Path | None
    save_every: int
    seconds: float | None
    progress: Progress


@dataclass(frozen=True)
class Trainer:
    """How to train.

    Args:
        steps: How many.
        batch: Samples in a step, over all ranks.
        lr: The highest learning rate.
        seed: In [0, 2^64); None draws one from torch's generator, where there is no folder.
        schedule: "cosine" falls to 0 at the last step, "constant" stays, each after the warm-up; or a factory, from the
            optimiser to one of torch's schedulers, which then alone sets the rate.
        warmup: Share of the steps in which the rate rises linearly.
        optimizer: Factory, from parameters to an optimiser; None: Adam, fused, with `lr`.
        clip: Largest norm of the gradient: a longer one is shortened to it. None: no limit.
        ema: Decay of an `Average` of the weights, which validates and is what remains; None: none.
        patience: Validations without a new best after which training ends; None: never.
        validate_every: Steps between validations; None: 100, or an epoch in `fit`.
        skip_limit: A step whose loss or gradient is not finite changes nothing and is counted; so many in a row end
            the training.
        chunks: Into how many pieces a batch is cut, see above; a multiple of the ranks.
        group: Ranks that share the work; None: this process alone. Weights of rank 0 are taken by all at the start.
        folder: For the checkpoint `training.pt`; a training that finds one there goes on. With ranks, one folder that
            all of them see, and rank 0 writes.
        save_every: Steps between checkpoints; one is written at the end, on KeyboardInterrupt and SIGTERM (which then
            act as if they came after the step), and when the objective raises.
        seconds: Stop after so long, with a checkpoint; None: no limit.
        progress: True: a bar; or a function of (step, steps, last row).

    Raises:
        ValueError: a number out of its range, named with its value.
    """

    steps: int
    batch: int = 512
    lr: float = 1e-3
    seed: int | None = 0
    schedule: Schedule = "cosine"
    warmup: float = 0.02
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    clip: float | None = None
    ema: float | None = None
    patience: int | None = None
    validate_every: int | None = None
    skip_limit: int = 10
    chunks: int = 1
    group: "dist.ProcessGroup | None" = None
    folder: str | Path | None = None
    save_every: int = 500
    seconds: float | None = None
    progress: Progress = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patience", "validate_every", "skip_limit", "chunks", "save_every"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name, high in (("lr", math.inf), ("clip", math.inf), ("seconds", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= high:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {self.warmup!r}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema!r}")
        if isinstance(self.schedule, str) and self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine', 'constant' or a factory, got {self.schedule!r}")
        ranks = 1 if self.group is None else dist.get_world_size(self.group)
        if self.chunks % ranks and self.chunks != 1:
            raise ValueError(f"chunks must be a multiple of the {ranks} ranks, got {self.chunks}")
        if max(self.chunks, ranks) > self.batch:
            raise ValueError(f"a batch of {self.batch} cannot be cut into {max(self.chunks, ranks)} chunks")

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: :math:`\\min(1, (t+1)/T_w)` times half a cosine wave after T_w."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule != "cosine":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1))) / 2

    def run(
        self,
        module: nn.Module,
        objective: Objective,
        *,
        validate: Callable[[], float] | None = None,
        mark: dict[str, Any] | None = None,
    ) -> Training:
        """Train a module in place.

        Args:
            module: Its parameters that require a gradient are trained.
            objective: From (step, first, count) to the mean loss of those samples of the step's batch, a scalar with
                a gradient, and the logarithms of their weights (count), or None.
            validate: A number, the less the better; the module is in `eval` mode and has its average in place.
            mark: What else names this training (the data): a checkpoint that differs is refused.

        Returns:
            `Training`. The module has the best weights of the validations, else the average, else the last ones.

        Raises:
            FloatingPointError: `skip_limit` steps in a row were not finite.
            ValueError: the folder's checkpoint is of another training, or unreadable.
        """
        run = Run(self, module, objective, validate, mark or {})
        run.resume()
        run.go()
        return run.result()


class Run:
    """The state of a training."""

    def __init__(
        self,
        plan: Trainer,
        module: nn.Module,
        objective: Objective,
        validate: Callable[[], float] | None,
        mark: dict[str, Any],
    ) -> None:
        self.plan, self.module, self.objective, self.validate = plan, module, objective, validate
        self.seed = named_seed(plan.seed, plan.folder)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("the module has no parameters to train")
        self.rank, self.ranks = 0, 1
        if plan.group is not None:
            self.rank, self.ranks = dist.get_rank(plan.group), dist.get_world_size(plan.group)
            state.broadcast(module, plan.group)
        self.chunks = max(plan.chunks, self.ranks)
        fused = all(p.dtype in (torch.float32, torch.float64) for p in self.parameters)
        make = plan.optimizer or (lambda p: torch.optim.Adam(p, lr=plan.lr, fused=fused))
        self.optimiser = make(self.parameters)
        self.scheduler = None if isinstance(plan.schedule, str) else plan.schedule(self.optimiser)
        self.average = None if plan.ema is None else Average(module, plan.ema)
        self.every = plan.validate_every or 100
        self.step = self.skipped = self.in_row = self.waited = self.best_step = 0
        self.best_value, self.best = math.inf, {}  # type: float, dict[str, Tensor]
        self.stopped, self.spent = "", 0.0
        self.history = History()
        self.broken = False  # within a step: weights and step do not belong together
        self.file = state.Checkpoint(plan.folder, state.signature(plan, module, mark))

    # The loop

    def go(self) -> None:
        before, self.began = self.module.training, time.monotonic() - self.spent
        with (
            self._bar() as report,
            reporting.session("training", self._told(), silent=self.rank != 0) as tell,
            Interrupts(self.plan.folder is not None) as interrupts,
        ):
            try:
                while not self.stopped:
                    self.module.train()
                    row = self.advance()
                    report(row)
                    tell(self.step, self._measured(row))
                    self.stopped = self._ends()
                    if self.stopped or interrupts.caught is not None or self.step % self.plan.save_every == 0:
                        self.save()
                    interrupts.pass_on()
            except BaseException:
                self.save()
                raise
            finally:
                self.module.train(before)

    def advance(self) -> dict[str, float]:
        """One step, and a validation where one is due."""
        self.optimiser.zero_grad(set_to_none=True)
        numbers = self._gradients()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.plan.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.plan.clip, norm)
        loss, ess, length = torch.stack([*numbers, norm.to(numbers)]).tolist()
        own = self.scheduler is None
        rate = self.plan.rate_at(self.step) if own else self.optimiser.param_groups[0]["lr"]
        self.broken = True
        if math.isfinite(loss) and math.isfinite(length):
            if own:
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
            self.optimiser.step()
            if self.average is not None:
                self.average.update()
            self.in_row = 0
        else:
            self.skipped, self.in_row = self.skipped + 1, self.in_row + 1
        self.step += 1
        value = self._validated() if self.validate is not None and self._due() else math.nan
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if not math.isnan(value):
                self.scheduler.step(value)
        elif self.scheduler is not None:
            self.scheduler.step()
        self.spent = time.monotonic() - self.began
        row = {"step": self.step, "loss": loss, "lr": rate, "norm": length, "ess": ess, "seconds": self.spent}
        self.history.append(**row)
        self.broken = False
        if self.in_row >= self.plan.skip_limit:
            raise FloatingPointError(
                f"training: loss or gradient not finite in {self.in_row} steps in a row, the last step {self.step}: "
                f"loss {loss}, norm of the gradient {length}"
            )
        return row

    def _told(self) -> dict[str, Any]:
        """The plan, for a log."""
        told = {f.name: getattr(self.plan, f.name) for f in fields(self.plan) if f.name not in ("progress", "group")}
        return {name: state.describe(v) if callable(v) else v for name, v in told.items()} | {"seed": self.seed}

    def _measured(self, row: dict[str, float]) -> dict[str, float]:
        """Of a step, for a log; what there was: effective sample sizes need weights, validations are rare."""
        numbers = {name: row[name] for name in ("loss", "lr", "norm")}
        if not math.isnan(row["ess"]):
            numbers["ess"] = row["ess"]
        if self.history.validation and self.history.validation[-1][0] == self.step:
            numbers["validation"] = self.history.validation[-1][1]
        return numbers

    def _gradients(self) -> Tensor:
        """Gradients of the batch into the parameters; its loss and effective sample size."""
        B, C = self.plan.batch, self.chunks
        flats, rows = [], []
        for chunk in range(C * self.rank // self.ranks, C * (self.rank + 1) // self.ranks):
            first, last = B * chunk // C, B * (chunk + 1) // C
            with _numbers(self.seed, self.step * C + chunk, self.parameters[0].device):
                loss, log_w = self.objective(self.step, first, last - first)
                loss = loss * ((last - first) / B)
                loss.backward()
            rows.append(torch.stack([loss.detach().double(), *_moments(log_w, loss)]))
            if C > 1:
                flats.append(self._flat())
        if C > 1:
            self._put(flats)
        if self.ranks > 1:
            assert self.plan.group is not None
            rows = list(_gathered(torch.stack(rows, -1), self.plan.group).unbind(-1))
        loss, top, first_moment, second = torch.stack(rows, -1)
        # (sum w)^2 / (N sum w^2), on one scale
        scale = (top - top.amax()).exp()
        ess = (first_moment * scale).sum().square() / ((second * scale.square()).sum() * B)
        return torch.stack([loss.cumsum(0)[-1], ess])

    def _flat(self) -> Tensor:
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self.parameters])
        self.optimiser.zero_grad(set_to_none=True)
        return flat

    def _put(self, flats: list[Tensor]) -> None:
        """The sum of all chunks' gradients, one after the other in double."""
        table = torch.stack(flats, -1)
        if self.ranks > 1:
            assert self.plan.group is not None
            table = _gathered(table, self.plan.group)
        total = torch.zeros_like(table[:, 0], dtype=torch.float64)
        for column in table.unbind(-1):
            total += column
        parts = total.to(table.dtype).split([p.numel() for p in self.parameters])
        for p, part in zip(self.parameters, parts, strict=True):
            p.grad = part.view_as(p).to(p.dtype)

    def _due(self) -> bool:
        return self.step % self.every == 0 or self.step == self.plan.steps

    def _validated(self) -> float:
        assert self.validate is not None
        self.module.eval()
        with torch.no_grad(), nullcontext() if self.average is None else self.average.in_place():
            value = float(self.validate())
            if value < self.best_value:
                self.best_value, self.best_step, self.waited = value, self.step, 0
                self.best = {name: v.detach().clone() for name, v in self.module.state_dict().items()}
            else:
                self.waited += 1
        self.history.validation.append((self.step, value))
        return value

    def _ends(self) -> str:
        if self.plan.patience is not None and self.waited >= self.plan.patience:
            return "patience"
        if self.step >= self.plan.steps:
            return "steps"
        late = self.plan.seconds is not None and self.spent > self.plan.seconds
        if self.ranks > 1 and self.plan.seconds is not None:  # one clock for all
            flag = torch.tensor(float(late))
            dist.broadcast(flag, dist.get_global_rank(self.plan.group, 0), self.plan.group)  # type: ignore[arg-type]
            late = bool(flag)
        return "seconds" if late else ""

    @contextmanager
    def _bar(self) -> Any:
        if callable(self.plan.progress):
            call = self.plan.progress
            yield lambda row: call(self.step, self.plan.steps, row)
        elif self.plan.progress and self.rank == 0:
            from tqdm.auto import tqdm

            with tqdm(total=self.plan.steps, initial=self.step) as bar:

                def report(row: dict[str, float]) -> None:
                    bar.update()
                    if self.step % 10 == 0:
                        shown = {"loss": row["loss"], "ess": row["ess"], "best": self.best_value}
                        bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items() if math.isfinite(v)})

                yield report
        else:
            yield lambda row: None

    # The checkpoint

    def save(self) -> None:
        if self.broken or self.rank != 0:
            return
        self.file.write(
            {
                "weights": self.module.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "best": self.best,
                "numbers": {name: getattr(self, name) for name in _NUMBERS},
                "columns": {k: torch.tensor(v, dtype=torch.float64) for k, v in self.history.columns.items()},
                "validation": self.history.validation,
            }
        )

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, where there is one."""
        saved = self.file.read()
        if saved is None:
            return
        self.module.load_state_dict(saved["weights"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.best = saved["best"]
        for name in _NUMBERS:
            setattr(self, name, saved["numbers"][name])
        self.stopped = "" if self.stopped == "seconds" else self.stopped
        columns = {k: v.tolist() for k, v in saved["columns"].items()}
        self.history = History(columns, [(int(s), float(v)) for s, v in saved["validation"]])

    def result(self) -> Training:
        if self.best:
            self.module.load_state_dict(self.best)
        elif self.average is not None:
            self.average.exchange()
        return Training(
            self.history,
            self.step,
            self.plan.steps,
            self.stopped,
            self.skipped,
            self.best_step if self.best else self.step,
            self.best_value if self.best else math.nan,
            self.spent,
        )


_NUMBERS = ("step", "skipped", "in_row", "waited", "best_step", "best_value", "stopped", "spent")


def named_seed(seed: int | None, folder: str | Path | None) -> int:
    """The seed, or one from torch's generator; a folder needs one that a resumption can name again."""
    if seed is None and folder is not None:
        raise ValueError("a training with a folder needs a seed, to go on from it: got seed = None")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must lie in [0, 2^64), got {seed!r}")
    return fresh_seed() if seed is None else seed


def _moments(log_w: Tensor | None, like: Tensor) -> list[Tensor]:
    """The largest ln w, and the sums of w and w^2 on its scale; NaN without weights."""
    if log_w is None:
        return [like.detach().new_full((), math.nan, dtype=torch.float64)] * 3
    log_w = log_w.detach().double()
    top = log_w.amax()
    w = (log_w - torch.where(top == -math.inf, 0.0, top)).exp()
    return [top, w.sum(), w.square().sum()]


@contextmanager
def _numbers(seed: int, number: int, device: torch.device) -> Any:
    """torch's generators begin at a state named by (seed, number), and are put back: dropout repeats."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xD1B54A32D192ED03) % (1 << 63)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(mixed)
        if devices:
            torch.cuda.manual_seed(mixed)
        yield
