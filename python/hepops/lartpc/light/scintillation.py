"""How much light a deposit makes, and which share of it is prompt.

Energy goes into quanta, dE / W_ph = excitons + ion pairs; an electron that recombines becomes a photon, so

    n_ph + n_e = dE / W_ph        photons and electrons are anticorrelated to the last one

W_ph = 19.5 eV: T. Doke et al., Jpn. J. Appl. Phys. 41 (2002) 1538; n_e is that of `recombine`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

# A. Hitachi et al., Phys. Rev. B 27 (1983) 5279, table I: I_s / I_t = 0.3 (electrons), 1.3 (alphas), 3 (fission
# fragments), as shares of the sum.
ELECTRON, ALPHA, FRAGMENT = 0.3 / 1.3, 1.3 / 2.3, 3.0 / 4.0
# LArSoft's larproperties (after the same and after WArP): protons lie a little above muons.
PROTON = 0.29
# H. W. Lippincott et al., Phys. Rev. C 78 (2008) 035801: nuclear recoils above 50 keV have the prompt share of
# fragments, about .7.
RECOIL = 0.7

ALPHAS = (1000020040, 1000020030)  # alpha and helium-3
HYDROGENS = (2212, 1000010020, 1000010030)  # proton, deuteron, triton
NEUTRON = 2112  # what is booked under it are recoils that were not followed
# Lightly ionising: e, mu, tau, photons (their electrons), pions, kaons, strange baryons.
LIGHT = (11, 13, 15, 22, 111, 130, 211, 310, 311, 321, 3112, 3122, 3212, 3222, 3312, 3322, 3334)

# Where the three shares were measured: the mean dE/dx of a 1 MeV electron, of a 5.3 MeV alpha (range 45 um) and of a
# fission fragment (80 MeV in 20 um) [MeV/cm]. Between them the share is taken as linear in ln(dE/dx): an interpolation,
# not a law.
DEDX = ((2.1, ELECTRON), (1.2e3, ALPHA), (4.0e4, FRAGMENT))


@dataclass(frozen=True)
class Quanta:
    """What deposits make before anything is lost on the way: electrons and photons."""

    electrons: Tensor  # float64 (N) that escape recombination
    photons: Tensor  # float64 (N)
    share: Tensor  # float64 (N) of the photons by the singlet


class SingletShare:
    """The singlet's share of the light of every deposit.

    Args:
        policy: A number for all; "particle" (a table by particle, below); "dedx" (interpolated in ln dE/dx, which is
            differentiable); or a mapping from particle codes to shares.
        unknown: What becomes of a code that the table has not: "refuse", or a share.

    The table: electrons, muons, pions, kaons .231, protons and other hydrogen .29, alphas and helium-3 .565, heavier
    nuclei and what is booked under neutrons (recoils) .7; the sources stand in the module. Antiparticles are as their
    particles.

    Raises:
        ValueError: a share outside [0, 1], an unknown policy, or (when called) an unknown particle.
    """

    def __init__(
        self, policy: "float | str | Mapping[int, float] | Tensor" = 0.3, unknown: "float | str" = "refuse"
    ) -> None:
        self.policy, self.unknown = policy, unknown
        if isinstance(policy, str) and policy not in ("particle", "dedx"):
            raise ValueError(f"singlet: must be a share, 'particle', 'dedx' or a mapping, got {policy!r}")
        if isinstance(unknown, str) and unknown != "refuse":
            raise ValueError(f"singlet: unknown must be 'refuse' or a share, got {unknown!r}")
        shares: list[Any] = list(policy.values()) if isinstance(policy, Mapping) else []
        shares += [policy] if isinstance(policy, (int, float)) else []
        shares += [unknown] if isinstance(unknown, (int, float)) else []
        for share in shares:
            if not 0 <= share <= 1:
                raise ValueError(f"singlet: a share must lie in [0, 1], got {share}")

    def __call__(self, pdg: Tensor, dEdx: Tensor) -> Tensor:
        """float64 (N), of particle codes int64 (N) and dE/dx (N) [MeV/cm]."""
        if isinstance(self.policy, Mapping):
            return self._by_code(pdg, dict(self.policy)).to(dEdx)
        if self.policy == "particle":
            nuclei = pdg.abs() >= 1_000_000_000
            heavy = nuclei & ((pdg.abs() // 10_000) % 1000 > 2)  # 10LZZZAAAI
            table = dict.fromkeys(ALPHAS, ALPHA) | dict.fromkeys(HYDROGENS, PROTON) | dict.fromkeys(LIGHT, ELECTRON)
            table[NEUTRON] = RECOIL
            shares = self._by_code(torch.where(heavy, 11, pdg.abs()), table).to(dEdx)
            return torch.where(heavy, RECOIL, shares)
        if self.policy == "dedx":
            return _interpolate(dEdx)
        return torch.as_tensor(self.policy, dtype=dEdx.dtype, device=dEdx.device).expand(dEdx.shape)

    def _by_code(self, pdg: Tensor, table: dict[int, float]) -> Tensor:
        codes, which = torch.unique(pdg, return_inverse=True)
        values = []
        for code in codes.tolist():
            if code not in table and self.unknown == "refuse":
                raise ValueError(f"singlet: no share for particle {code}; the table knows {sorted(table)}")
            values.append(table.get(code, self.unknown))
        return torch.tensor(values, dtype=torch.float64, device=pdg.device)[which]


def _interpolate(dEdx: Tensor) -> Tensor:
    """Between the points of DEDX, linear in the logarithm, and constant beyond them."""
    x = dEdx.clamp(DEDX[0][0], DEDX[-1][0]).log()
    share = torch.full_like(x, DEDX[0][1])
    for (x0, s0), (x1, s1) in pairwise(DEDX):
        ends = torch.tensor([x0, x1], dtype=torch.float64).log().tolist()
        part = ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
        share = share + (s1 - s0) * part
    return share
