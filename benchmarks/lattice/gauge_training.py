"""Trainings of gauge flows for a given processor time, their results and their curves."""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
from harness import record
from hepops.lattice.flows import Curriculum, evaluate, train
from tqdm.auto import tqdm


def options(description, **defaults):
    parser = argparse.ArgumentParser(description=description)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, type=type(value), help=f"default {value}")
    parser.add_argument("--cpu", type=float, default=300.0, help="processor time of the training in seconds")
    parser.add_argument("--steps", type=int, help="instead of --cpu")
    parser.add_argument("--samples", type=int, default=65_536, help="of the evaluation in double")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--double", action="store_true", help="train in double")
    parser.add_argument("--curve", type=Path, help="a JSON file for loss and ESS of the training")
    parser.add_argument("--weights", type=Path, help="a file for the trained weights")
    parser.add_argument("--json", nargs="?", const=True, help="merge the result into benchmarks/results")
    return parser.parse_args()


def steps_in(seconds, flow, theory, batch):
    """How many steps take so long, by ten steps of a copy."""
    trial = copy.deepcopy(flow)
    train(trial, theory, steps=3, batch=batch)
    start = time.process_time()
    train(trial, theory, steps=10, batch=batch)
    return max(int(seconds / (time.process_time() - start) * 10), 10)


def train_and_judge(name, build, theory, easy, exact, args):
    """Train, weigh fresh samples, print and record; `easy` is where the curriculum starts."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    flow = build(torch.float64 if args.double else torch.float32)
    steps = args.steps or steps_in(args.cpu, flow, theory, args.batch)
    start = time.process_time()
    with tqdm(total=steps, mininterval=10) as bar:

        def report(step, _, row):
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{row['loss']:.3f}", ess=f"{row['ess']:.3f}")

        training = train(
            flow,
            theory,
            steps=steps,
            batch=args.batch,
            lr=args.lr,
            clip=10.0,
            loss=args.loss,
            curriculum=Curriculum(easy, args.share) if args.share > 0 else None,
            seed=args.seed,
            progress=report,
        )
    spent = time.process_time() - start
    result = evaluate(flow, theory, args.samples, seed=args.seed + 1000)
    pull = (result.log_z - exact) / result.log_z_error
    print(result)
    print(f"exact ln Z  {exact:.5f}: {pull:+.2f} sigma")
    print(f"training    {steps} steps of {args.batch} in {spent:.0f} s of processor time, {args.threads} thread(s)")
    row = {"ess": result.ess, "log_z": result.log_z, "log_z_error": result.log_z_error, "exact": exact, "pull": pull}
    row |= {"acceptance": result.acceptance, "pareto_k": result.pareto_k, "seconds": spent, "steps": steps}
    row |= {"batch": args.batch, "layers": args.layers, "samples": args.samples, "threads": args.threads}
    if args.json:
        record({name: row})
    if args.curve:
        args.curve.parent.mkdir(parents=True, exist_ok=True)
        args.curve.write_text(json.dumps({"name": name, **row, "curve": curve(training, spent)}, indent=1) + "\n")
    if args.weights:
        torch.save(flow.state_dict(), args.weights)
    return result, pull


def curve(training, spent, points=200):
    """Means over equal stretches of the training, against its processor time."""
    count = len(training.history)
    width = max(math.ceil(count / points), 1)
    rows = {"seconds": [], "loss": [], "ess": []}
    for first in range(0, count, width):
        last = min(first + width, count)
        rows["seconds"].append(round(spent * last / count, 2))
        for key in ("loss", "ess"):
            rows[key].append(round(sum(training.history[key][first:last]) / (last - first), 5))
    return rows
