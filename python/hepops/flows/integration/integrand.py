"""The integrand as the rest of the integrator sees it: numbers at points of the cube, checked and counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .domain import Domain
from .proposal import BLOCK
from .ranks import Ranks, total_of_rows


class Integrand:
    r"""Calls f and judges what comes back: :math:`f(x(u)) J(u)`, float64, shape (n, V).

    Args:
        f: x, shape (n, d) -> shape (n,) or (n, V), a tensor or an array.
        domain: The axes.
        batch: At most so many points in one call of f.
        backend: "torch" or "numpy": what f is given.
        invalid: "raise" or "exclude": what becomes of NaN and infinite values.
        importance: What the proposals learn of a vector: "norm", :math:`\sqrt{\sum_v f_v^2}`, or a component's number.
        dtype, device: Of the points that f is given.
        ranks: Who evaluates what.

    Attributes:
        count: Points that f was called on, by all ranks.
        excluded: How many of them gave NaN or an infinity.
        components: V, None until f was called.
        scalar: Whether f gives shape (n,).
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        domain: Domain,
        *,
        batch: int = 65536,
        backend: str = "torch",
        invalid: str = "raise",
        importance: str | int = "norm",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if not callable(f):
            raise TypeError(f"f must be callable, got {type(f).__name__}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        for name, value, known in (
            ("backend", backend, ("torch", "numpy")),
            ("invalid", invalid, ("raise", "exclude")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        self.f, self.domain, self.batch, self.backend, self.invalid = f, domain, batch, backend, invalid
        self.importance, self.dtype, self.device = importance, dtype, device
        self.ranks = ranks or Ranks()
        self.gradients = torch.is_grad_enabled()
        self.count = self.excluded = 0
        self.components: int | None = None
        self.scalar = True

    def local(self, u: Tensor, where: str, first: int = 0) -> Tensor:
        """Shape (n, V), on this rank: NaN marks an excluded point. `where` and `first` name the samples in errors."""
        values = []
        for start in range(0, len(u), self.batch):
            part = u[start : start + self.batch]
            label = f"{where}, samples {first + start} ... {first + start + len(part) - 1}"
            values.append(self._call(part, label))
        return torch.cat(values) if values else u.new_zeros(0, self.components or 1)

    def _call(self, u: Tensor, label: str) -> Tensor:
        x, jacobian = self.domain(u)
        given = x.to(self.dtype).to(self.device) if self.device else x.to(self.dtype)
        try:
            with torch.set_grad_enabled(self.gradients):  # as the caller had it, whatever asks for f
                raw = self.f(given.numpy() if self.backend == "numpy" else given)
        except Exception as error:
            hint = "; f is given torch tensors, backend='numpy' would give it arrays" if self.backend == "torch" else ""
            error.add_note(f"raised by the integrand in {label} (checkpoint= lets a run be taken up again){hint}")
            raise
        values = self._checked(raw, len(u), label).to(u.device)
        bad = ~values.isfinite().all(1)
        if self.invalid == "raise" and bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            place = self.domain(u[row][None])[0][0].tolist()  # f may have written into x
            raise ValueError(
                f"the integrand gave {values[row].tolist()} at x = {place} in {label}, one of "
                f"{int(bad.sum())} such points of this batch; invalid='exclude' counts them as zero, with a warning"
            )
        values = values * jacobian[:, None]
        values[bad | ~values.isfinite().all(1)] = torch.nan
        return values

    def _checked(self, raw: Any, n: int, label: str) -> Tensor:
        try:
            if isinstance(raw, np.ndarray) and raw.dtype.kind == "f":  # of any byte order, stride and precision
                raw = np.ascontiguousarray(raw, np.float64)
            values = torch.as_tensor(raw).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"the integrand must give a tensor or an array of numbers, got {_kind(raw)} in {label}"
            ) from None
        if values.is_complex():
            raise TypeError(f"the integrand gave {values.dtype} in {label}: give real and imaginary part as a vector")
        if values.dim() not in (1, 2) or len(values) != n or not values.numel():
            raise ValueError(f"the integrand must give shape ({n},) or ({n}, V), got {tuple(values.shape)} in {label}")
        columns = 1 if values.dim() == 1 else values.shape[1]
        if self.components is None:
            self.components, self.scalar = columns, values.dim() == 1
            if isinstance(self.importance, int) and not 0 <= self.importance < columns:
                raise ValueError(f"importance must name one of {columns} components, got {self.importance}")
        elif (self.components, self.scalar) != (columns, values.dim() == 1):
            raise ValueError(f"the integrand gave another shape than before, {tuple(values.shape)}, in {label}")
        return values.to(torch.float64).reshape(n, columns)

    def size(self, values: Tensor) -> Tensor:
        """What the proposals learn, shape (n,): |f J|, of a vector the norm or one component; 0 where excluded."""
        if isinstance(self.importance, int):
            size = values[:, self.importance].abs()
        else:
            largest = values.abs().amax(1, keepdim=True).clamp(min=1e-300)
            size = values.abs()[:, 0] if values.shape[1] == 1 else (values / largest).norm(dim=1) * largest[:, 0]
        return size.nan_to_num(0.0)

    def everywhere(self, u: Tensor, where: str) -> Tensor:
        """Shape (n, V) on every rank, of points u that every rank holds: each evaluates its blocks of them."""
        blocks = -(-len(u) // BLOCK)
        index = torch.cat([torch.arange(b * BLOCK, min(len(u), (b + 1) * BLOCK)) for b in self.ranks.mine(blocks)] or
                          [torch.arange(0)]).to(u.device)  # fmt: skip
        error: Exception | None = None
        values = u.new_zeros(0, 1)
        try:
            values = self.local(u[index], where)
        except Exception as failure:
            error = failure
        self.settle(error)
        if not len(index):
            values = u.new_zeros(0, self.components or 1)
        bad = torch.isnan(values).any(1)
        flags = total_of_rows(self.ranks, bad.to(torch.float64), index, len(u)) > 0
        values = total_of_rows(self.ranks, values.nan_to_num(0.0), index, len(u))
        self.count += len(u)
        self.excluded += int(flags.sum())
        values[flags] = torch.nan
        return values

    def settle(self, error: Exception | None) -> None:
        """After each rank's part: all know the shape of f, or all raise."""
        self.ranks.agree(error)
        if self.ranks.count > 1 and self.ranks.total(torch.tensor(float(self.components is None))) > 0:
            known = next((item for item in self.ranks.all((self.components, self.scalar)) if item[0]), (None, True))  # type: ignore[index]
            self.components, self.scalar = known  # type: ignore[misc]


def _kind(raw: Any) -> str:
    return f"{type(raw).__name__} of {raw.dtype}" if isinstance(raw, np.ndarray) else type(raw).__name__
