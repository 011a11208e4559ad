"""Train a U(1) flow in two dimensions, weigh it in double and compare ln Z with the exact one.

python benchmarks/lattice/train_u1.py --cpu 240 --json --curve u1.json
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from gauge_exact import log_z
from gauge_training import options, train_and_judge
from hepops.lattice import U1
from hepops.lattice.flows import u1_coupling

args = options(
    __doc__, extent=8, beta=2.0, start=0.5, share=0.3, layers=24, bijection="spline", bins=8, loop="plaquette",
    pattern="lines", radius=2.5, width=32, batch=128, lr=5e-3, loss="reverse_kl",
)  # fmt: skip
shape = (args.extent, args.extent)
theory = U1(shape, args.beta)


def build(dtype):
    return u1_coupling(
        theory,
        args.layers,
        args.bijection,
        bins=args.bins,
        pattern=args.pattern,
        loop=args.loop.split(","),
        radius=args.radius,
        hidden=(args.width, args.width),
        dtype=dtype,
    )


exact = log_z(1, args.beta, theory.sites)
train_and_judge(
    f"U(1) {args.extent}x{args.extent}, beta {args.beta}", build, theory, U1(shape, args.start), exact, args
)
