"""Train a spectral flow of SU(2) or SU(3) in two dimensions, weigh it in double and compare ln Z with the exact one.

python benchmarks/lattice/train_sun.py --n 2 --beta 2.2 --layers 24 --cpu 130 --json --curve su2.json
python benchmarks/lattice/train_sun.py --n 3 --beta 4.0 --cpu 120 --json --curve su3.json
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from gauge_exact import log_z
from gauge_training import options, train_and_judge
from hepops.lattice import SUN
from hepops.lattice.flows import spectral

args = options(
    __doc__, n=2, extent=4, beta=2.2, start=0.5, share=0.3, layers=16, bins=8, loop="plaquette", pattern="lines",
    radius=2.5, width=32, batch=64, lr=5e-3, loss="reverse_kl",
)  # fmt: skip
shape = (args.extent, args.extent)
theory, easy = (SUN(args.n, shape, beta) for beta in (args.beta, args.start))


def build(dtype):
    return spectral(
        theory,
        args.layers,
        bins=args.bins,
        pattern=args.pattern,
        loop=args.loop.split(","),
        radius=args.radius,
        hidden=(args.width, args.width),
        dtype=dtype,
    )


exact = log_z(args.n, args.beta, theory.sites)
train_and_judge(f"SU({args.n}) {args.extent}x{args.extent}, beta {args.beta}", build, theory, easy, exact, args)
