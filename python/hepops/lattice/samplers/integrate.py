"""Trajectories of any theory."""

from torch import Tensor

from ..stages import stages
from ..theory import Theory


def trajectory(
    theory: Theory, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str
) -> tuple[Tensor, Tensor]:
    """Field and momenta at the end: by the theory's own form where it has one, else by its force and its move."""
    own = getattr(theory, "trajectory", None)
    if own is not None:
        return own(field, momenta, step_size, steps, integrator)
    return plain_trajectory(theory, field, momenta, step_size, steps, integrator)


def plain_trajectory(
    theory: Theory, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str
) -> tuple[Tensor, Tensor]:
    """The stages one after the other: the reference of the fused forms."""
    plan = stages(integrator, step_size, steps)

    def kicked(k: int) -> Tensor:
        at = theory.move(field, theory.force(field), -plan.bends[k]) if plan.bends[k] else field
        return momenta - plan.kicks[k] * theory.force(at)

    momenta = kicked(0)
    for k, drift in enumerate(plan.drifts, 1):
        field = theory.move(field, momenta, drift)
        momenta = kicked(k)
    return field, momenta
