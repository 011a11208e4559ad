"""A value with its error."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def short(value: float, error: float) -> str:
    """value(error) with two digits of the error where its first is 1, else one: 1.2340(15), 1.234(5), 1230(50).

    Example:
        >>> short(1.23412, 0.0051), short(-0.5, 0.0123), short(1234.0, 52.0), short(2.0, 0.0)
        ('1.234(5)', '-0.500(12)', '1230(50)', '2.0(0)')
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return f"{value:.10g}(0)" if error == 0 and value != int(value) else f"{value}({error:.2g})"
    place = math.floor(math.log10(error))
    digits = 1 if error / 10**place < 1.95 else 0  # further digits of the error
    if round(error / 10 ** (place - digits)) >= 10 ** (digits + 1) and digits == 0:
        place += 1  # 0.096 is 0.10
        digits = 1
    last = place - digits
    count = round(error / 10**last)
    if last >= 0:
        return f"{round(value / 10**last) * 10**last:.0f}({count * 10**last:.0f})"
    if place >= 0:
        return f"{value:.{-last}f}({count * 10**last:.{-last}f})"
    return f"{value:.{-last}f}({count})"


@dataclass(frozen=True)
class Measurement:
    """An estimate and its standard error; of one number, or of many in the same shape.

    Attributes:
        value: float64.
        error: Standard error, the shape of value.
        error_of_error: Its own standard error, where the method knows it.
        tau: Integrated autocorrelation time, where the method knows it; 0.5 of independent samples.
        tau_error: Standard error of tau.
        window: Where the sum of the autocorrelation function stopped.
        samples: How many configurations.
        method: "gamma", "jackknife" or "bootstrap".

    Example:
        >>> print(hepops.lattice.statistics.Measurement(torch.tensor(1.23412), torch.tensor(0.0051)))
        1.234(5)
    """

    value: Tensor
    error: Tensor
    error_of_error: Tensor | None = None
    tau: Tensor | None = None
    tau_error: Tensor | None = None
    window: Tensor | None = None
    samples: int = 0
    method: str = ""

    def __str__(self) -> str:
        pairs = zip(self.value.reshape(-1).tolist(), self.error.reshape(-1).tolist(), strict=True)
        texts = [short(v, e) for v, e in pairs]
        return texts[0] if self.value.dim() == 0 else "[" + ", ".join(texts) + "]"

    def __getitem__(self, index: object) -> "Measurement":
        """The part at an index, of a measurement of many numbers."""

        def part(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]  # type: ignore[index]

        value, error = part(self.value), part(self.error)
        assert value is not None and error is not None
        own, tau, tau_error, window = (part(x) for x in (self.error_of_error, self.tau, self.tau_error, self.window))
        return Measurement(value, error, own, tau, tau_error, window, self.samples, self.method)

    def sigmas(self, exact: Tensor | float) -> Tensor:
        """(value - exact) / error: how many standard errors lie between."""
        return (self.value - torch.as_tensor(exact, dtype=self.value.dtype, device=self.value.device)) / self.error
