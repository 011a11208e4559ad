"""From sums to a result: the estimate, and what is wrong with it."""

import torch
from torch import Tensor

from .integrand import Integrand
from .peaks import ALARM
from .plan import Plan, Prepared
from .result import Iteration, Result
from .sums import Moments, chi2

FEW = 1000  # effective samples, below which an error of an error exceeds some 10 %
UNLIKELY = 1e-3  # Q
HEAVY = 0.01  # of the sum of |w| in one sample


def result(
    integrand: Integrand, plan: Plan, prepared: Prepared, rows: list[Tensor], kept: list[Tensor], seconds: float
) -> Result:
    """The result of iterations' rows of blocks."""
    domain, v = integrand.domain, integrand.components or 1
    parts = [Moments.of(table, domain.dim) for table in rows]
    whole = Moments.of(torch.cat(rows), domain.dim)
    value, dof = chi2(parts, whole)
    half = torch.tensor([dof, value], dtype=torch.float64) / 2
    q = float(torch.special.gammaincc(*half)) if dof else 1.0
    head = torch.cat(kept[:4])
    samples, _ = domain(head[:, : domain.dim])
    in_cube = head[:, -1] > 0
    scalar, scale = integrand.scalar, prepared.scale
    mean, sdev = whole.mean * scale, whole.sdev * scale
    return Result(
        mean=float(mean[0]) if scalar else mean,
        sdev=float(sdev[0]) if scalar else sdev,
        covariance=whole.covariance * scale * scale,
        chi2=value,
        dof=dof,
        Q=q,
        ess=whole.ess,
        neval=integrand.count,
        count=whole.count,
        learning=prepared.learning,
        probing=prepared.probing,
        piloting=prepared.piloting,
        estimating=whole.evaluated,
        zeros=whole.zeros,
        excluded=integrand.excluded,
        max_weight=_over(whole.largest, whole.absolute / whole.count),
        max_share=_over(whole.largest, whole.absolute),
        max_at=domain(whole.at[None])[0][0],
        iterations=tuple(_iteration(integrand, part, scale) for part in parts),
        warnings=(*prepared.warnings, *_warnings(whole, q, value, dof, integrand, prepared, plan)),
        notes=tuple(prepared.notes),
        probe=prepared.report,
        proposal=prepared.name,
        why=prepared.why,
        history=tuple(prepared.history),
        seed=plan.seed,
        samples=samples[in_cube],
        weights=head[in_cube, domain.dim : domain.dim + v] * scale,
        seconds=seconds,
    )


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0


def _iteration(integrand: Integrand, part: Moments, scale: float) -> Iteration:
    return Iteration(
        part.count, part.evaluated, part.mean * scale, part.sdev * scale, part.ess,
        _over(part.largest, part.absolute / part.count), part.zeros, part.excluded,
        integrand.domain(part.at[None])[0][0],
    )  # fmt: skip


def _warnings(
    whole: Moments, q: float, value: float, dof: int, integrand: Integrand, prepared: Prepared, plan: Plan
) -> list[str]:
    found = _lost(whole, integrand, prepared)
    if whole.absolute == 0:
        found.append("f was zero at every sample of the estimate")
    elif whole.ess * whole.count < FEW:
        found.append(
            f"only {whole.ess * whole.count:.0f} effective samples (ESS {whole.ess:.2g}): the error is uncertain"
        )
    if whole.absolute > 0 and _over(whole.largest, whole.absolute) > HEAVY:
        found.append(f"one sample has {_over(whole.largest, whole.absolute):.1%} of the sum of all weights")
    if q < UNLIKELY:
        found.append(f"the iterations disagree: chi2/dof = {value:.3g}/{dof}, Q = {q:.1g}")
    if integrand.excluded:
        share = integrand.excluded / max(integrand.count, 1)
        found.append(f"{integrand.excluded} points ({share:.2g} of all) gave NaN or an infinity and count as zero")
    targets = [max(plan.target, plan.relative * abs(m)) for m in (whole.mean * prepared.scale).tolist()]
    for v, (target, sdev) in enumerate(zip(targets, (whole.sdev * prepared.scale).tolist(), strict=True)):
        if target and sdev > target:
            found.append(f"the target was missed: sdev {sdev:.2g} instead of {target:.2g} of component {v}")
    return found


def _lost(whole: Moments, integrand: Integrand, prepared: Prepared) -> list[str]:
    """Peaks that are still above the alarm, against the largest weight of all samples."""
    found = []
    for number in prepared.lost:
        assert prepared.report is not None
        peak = prepared.report.peaks[number]
        if peak.ratio * prepared.largest > ALARM * max(whole.largest * prepared.scale, prepared.largest):
            at = ", ".join(f"{x:.4g}" for x in integrand.domain(peak.at[None])[0][0].tolist())
            found.append(
                f"a peak may be lost: at x = {at} the weight would be {peak.ratio:.2g} times the largest seen; the "
                f"integral of |f| there is about {peak.mass:.2g} +- {peak.mass_error:.1g}, that of all samples "
                f"{whole.absolute / whole.count * prepared.scale:.2g}"
            )
    return found
