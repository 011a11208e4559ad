"""Training that goes on after a kill, with the bits of one that was not killed.

What a step does follows from (seed, step) alone: the order of the events, their reflections and shifts, the rate. A
checkpoint holds weights, moments of the optimiser, the step, the history; it is whole or not there. Nothing in it
is a clock: `minutes` only says when to stop, and the next call goes on.

  loss = sum_i w(c_i) (-log p(c_i)) / sum_i w(c_i),    w(c) = n(c)^(-1/2), n: share of the class in the training events
"""

import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepops import models
from hepops.core import reporting
from hepops.core.files import atomic
from hepops.core.tensor_files import read_tensors

from .network import NETWORK, Segmenter
from .sample import CLASSES, Sample
from .score import Score

STATE, HISTORY, METRICS = "state.pt", "history.csv", "metrics.json"
_BLOCK = 4096  # rows of a sum, so that its order does not depend on the number of threads


@dataclass(frozen=True)
class Plan:
    """What a training does.

    Raises:
        ValueError: a number out of its range, named with its value.
    """

    epochs: int = 24
    batch: int = 8  # events per step
    rate: float = 3e-3  # the highest of the one cycle
    decay: float = 1e-2  # of AdamW
    warm: float = 0.1  # share of the steps that the rate rises
    seed: int = 0
    network: dict[str, Any] = field(default_factory=lambda: dict(NETWORK))

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, low, high in (("rate", 0.0, 1.0), ("decay", -1e-300, 1.0), ("warm", 0.0, 1.0)):
            if not low < getattr(self, name) < high:
                raise ValueError(f"{name} must lie between {max(low, 0.0):g} and {high:g}, got {getattr(self, name)}")

    def rate_at(self, step: int, steps: int) -> float:
        """One cycle: from 1/25 of the rate up to it and down to 1e-4 of it, each half a cosine wave."""
        peak = max(round(self.warm * steps), 1)
        ends, share = (
            ((1 / 25, 1.0), step / peak) if step < peak else ((1.0, 1e-4), (step - peak) / max(steps - peak, 1))
        )
        return self.rate * (ends[1] + (ends[0] - ends[1]) * (1 + math.cos(math.pi * min(share, 1.0))) / 2)


@dataclass
class History:
    """What was measured: loss and accuracy of every step, and of the events left out after every epoch."""

    steps: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def to_csv(self) -> str:
        """One row per step; the columns of the held-out events are filled at the end of an epoch."""
        names = [
            "step",
            "epoch",
            "rate",
            "loss",
            "accuracy",
            "test_loss",
            "test_accuracy",
            *(f"test_{c}" for c in CLASSES),
        ]
        ends = {int(row["step"]): row for row in self.epochs}
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        for row in self.steps:
            writer.writerow({**row, **ends.get(int(row["step"]), {})})
        return text.getvalue()


@dataclass
class Trained:
    """The end of a training, or where it stopped."""

    segmenter: Segmenter
    history: History
    score: Score  # of the events left out
    finished: bool
    step: int
    steps: int


Progress = Callable[[int, int, dict[str, float]], None]


def train(
    folder: str | Path,
    sample: Sample,
    test: Sample,
    plan: Plan | None = None,
    *,
    minutes: float | None = None,
    save_every: float = 30.0,
    progress: Progress | None = None,
) -> Trained:
    """Train a `Segmenter`, from where the folder's checkpoint stands.

    Args:
        folder: For state.pt, history.csv, metrics.json, model.safetensors and config.json.
        sample: Events to learn from.
        test: Events to measure with; they are not learnt from, and nothing is chosen by them.
        plan: What to do; None: `Plan()`. A checkpoint of another plan or sample is refused.
        minutes: Stop after so long, with a checkpoint; None: at the end of the plan.
        save_every: Seconds between checkpoints; one is written at the end of an epoch, and on an interruption too.
        progress: Called with (steps done, steps in all, what was measured last) after every step.

    Returns:
        `Trained`. The same bits for the same seed, for any number of threads, and whether it was interrupted or not.

    Raises:
        ValueError: no events, no test events, or a checkpoint that does not belong to this training.

    Example:
        >>> import tempfile
        >>> from hepops.segmentation import Plan, make, train
        >>> tiny = Plan(epochs=1, batch=1, network={"filters": 4, "depth": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(folder, make(2, seed=1), make(1, seed=2), tiny).finished
        True
    """
    plan, folder = plan or Plan(), Path(folder)
    for name, given in (("sample", sample), ("test", test)):
        if not len(given):
            raise ValueError(f"{name} must hold events with voxels, got none")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, sample, test, plan)
    run.resume()
    began = saved = time.monotonic()
    with reporting.session("training", asdict(plan)) as tell:
        try:
            while run.step < run.steps:
                last = run.advance()
                end = run.step % run.per_epoch == 0
                if end:
                    last = run.measure()
                tell(run.step, {name: last[name] for name in last if name != "step"})
                if progress is not None:
                    progress(run.step, run.steps, last)
                if end or time.monotonic() - saved > save_every:
                    run.save()
                    saved = time.monotonic()
                if minutes is not None and time.monotonic() - began > 60 * minutes:
                    break
        except KeyboardInterrupt:
            run.save()
            raise
    run.save()
    return run.result()


class _Run:
    """The state of a training."""

    def __init__(self, folder: Path, sample: Sample, test: Sample, plan: Plan) -> None:
        self.folder, self.test, self.plan = folder, test, plan
        self.events = sample.split()
        self.per_epoch = -(-len(self.events) // plan.batch)
        self.steps = self.per_epoch * plan.epochs
        self.step, self.history = 0, History()
        self.broken = False  # within a step: weights and step do not belong together
        share = sample.class_counts().double() / max(int(sample.class_counts().sum()), 1)
        weight = torch.where(share > 0, share.clamp_min(1e-12) ** -0.5, torch.zeros_like(share))
        self.weight = (weight / (weight * share).sum()).float()
        self.mark: dict[str, Any] = {"plan": asdict(plan), "sample": _fingerprint(sample), "test": _fingerprint(test)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.segmenter = Segmenter(plan.network)
        decayed = [p for p in self.segmenter.parameters() if p.ndim > 1]
        plain = [p for p in self.segmenter.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99))

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, where there is one."""
        path = self.folder / STATE
        if not path.exists():
            return
        try:
            state = read_tensors(path)
            mark = state["mark"]
        except Exception as error:
            text = " ".join(str(error).removeprefix(f"{path} ").split())[:200]
            raise ValueError(f"{path}: not a readable checkpoint ({text})") from None
        if mark != self.mark:
            other = [name for name in self.mark if mark.get(name) != self.mark[name]]
            if "plan" in other:
                mine, theirs = self.mark["plan"], mark["plan"]
                other = [f"{n} ({theirs.get(n)}, not {mine[n]})" for n in mine if theirs.get(n) != mine[n]] or other
            raise ValueError(f"{path}: belongs to another training, it differs in {', '.join(other)}")
        self.segmenter.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.history = state["step"], History(state["steps"], state["epochs"])

    def save(self) -> None:
        """Checkpoint and history, each whole or not there."""
        if self.broken:
            return
        state = {
            "mark": self.mark,
            "weights": self.segmenter.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "steps": self.history.steps,
            "epochs": self.history.epochs,
        }
        with atomic(self.folder / STATE) as part:
            torch.save(state, part)
        with atomic(self.folder / HISTORY) as part:
            part.write_text(self.history.to_csv())

    def advance(self) -> dict[str, float]:
        """One step."""
        epoch, number = divmod(self.step, self.per_epoch)
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.events))
        chosen = order[number * self.plan.batch : (number + 1) * self.plan.batch]
        rng = np.random.default_rng([self.plan.seed, epoch, number])
        coordinates, charge, label = batch([self.events[i] for i in chosen], rng)
        rate = self.plan.rate_at(self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.segmenter.train()
        logits = self.segmenter(coordinates, charge)
        loss = cross_entropy(logits, label, self.weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.broken = True
        self.optimiser.step()
        self.step += 1
        accuracy = Score.of(label, logits.detach().argmax(1)).accuracy
        measured = {"step": self.step, "epoch": epoch, "rate": rate, "loss": loss.item(), "accuracy": accuracy}
        self.history.steps.append(measured)
        self.broken = False
        return measured

    def measure(self) -> dict[str, float]:
        """Loss and accuracy of the test events."""
        score, loss = evaluate(self.segmenter, self.test, self.weight)
        by_class = {f"test_{name}": share for name, share in zip(CLASSES, score.recall, strict=True)}
        row = {"step": self.step, "test_loss": loss, "test_accuracy": score.accuracy, **by_class}
        self.history.epochs.append(row)
        return {**self.history.steps[-1], **row}

    def result(self) -> Trained:
        """Measured, and saved where the training is finished."""
        finished = self.step == self.steps
        score, _ = evaluate(self.segmenter, self.test, self.weight)
        self.segmenter.eval()
        if finished:
            with atomic(self.folder / METRICS) as part:
                part.write_text(json.dumps(score.to_dict(), indent=2) + "\n")
            models.save(
                self.segmenter,
                self.folder,
                seed=self.plan.seed,
                metrics=score.to_dict(),
                more={"training": self.mark},
                overwrite=True,
            )
            for name in (HISTORY, METRICS):
                reporting.artefact(self.folder / name)
        return Trained(self.segmenter, self.history, score, finished, self.step, self.steps)


def batch(events: list[Sample], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Events side by side, numbered 0, 1, ..., each reflected on some axes, with y and z exchanged or not, and shifted.

    These are symmetries of a detector whose drift is along x; shifts by up to 15 voxels change which voxels fall
    into one coarser voxel.
    """
    parts = []
    for number, event in enumerate(events):
        c = event.coordinates.clone()
        flips = torch.from_numpy(1 - 2 * rng.integers(0, 2, 3).astype(np.int32))
        shift = torch.from_numpy(rng.integers(0, 16, 3).astype(np.int32))
        c[:, 1:] = c[:, 1:] * flips + shift
        if rng.integers(0, 2):
            c = c[:, [0, 1, 3, 2]]
        c[:, 0] = number
        parts.append(c)
    return torch.cat(parts), torch.cat([e.charge for e in events]), torch.cat([e.label for e in events])


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """The loss above, over the voxels with a label >= 0; sums in float64, in an order that threads do not change."""
    known = label >= 0
    logs = torch.log_softmax(logits[known], 1).gather(1, label[known, None])[:, 0]
    w = weight[label[known]]
    return -ordered_sum(w * logs) / ordered_sum(w).clamp_min(1e-12)


def ordered_sum(x: Tensor) -> Tensor:
    """Sum of (n) in float64, by blocks of a fixed length: each is one thread's."""
    x = torch.nn.functional.pad(x.double(), (0, -len(x) % _BLOCK)).reshape(-1, _BLOCK)
    return x.sum(1).cumsum(0)[-1] if len(x) else x.sum()


@torch.no_grad()
def evaluate(segmenter: Segmenter, sample: Sample, weight: Tensor) -> tuple[Score, float]:
    """Score and loss of events as they are."""
    before = segmenter.training
    segmenter.eval()
    score, total, norm = Score(torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)), 0.0, 0.0
    events = sample.split()
    for first in range(0, len(events), 16):
        part = Sample.cat(events[first : first + 16])
        logits = segmenter(part.coordinates, part.charge)
        known = float(ordered_sum(weight[part.label[part.label >= 0]]))
        total, norm = total + float(cross_entropy(logits, part.label, weight)) * known, norm + known
        score = Score(score.matrix + Score.of(part.label, logits.argmax(1)).matrix)
    segmenter.train(before)
    return score, total / max(norm, 1e-12)


def _fingerprint(sample: Sample) -> str:
    """A short name for the very bits of a sample."""
    import hashlib

    digest = hashlib.sha256()
    for column in vars(sample).values():
        digest.update(column.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
