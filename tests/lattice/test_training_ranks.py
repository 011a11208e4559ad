"""A lattice flow over ranks has the bits of one alone; ensembles from files; what a curriculum may leave out."""

import pytest
import torch
from hepops.lattice import SUN, U1, EnsembleWriter, Phi4, open_ensemble
from hepops.lattice.flows import Curriculum, affine_flow, train, u1_coupling
from torch import multiprocessing as mp

PHI, ANGLES = Phi4((4, 4), -4.0, 8.0), U1((4, 4), 1.0)
OPTIONS = {"steps": 4, "batch": 16, "lr": 3e-3, "clip": 10.0, "chunks": 4, "seed": 5}


def flows(seed):
    torch.manual_seed(seed)
    return {"phi": affine_flow(PHI, 2, (4,)), "angles": u1_coupling(ANGLES, 2, hidden=(4,), dtype=torch.float32)}


RUNS = {
    "phi": lambda flow, **o: train(flow, PHI, loss="path", **OPTIONS, **o),
    "angles": lambda flow, **o: train(flow, ANGLES, curriculum=Curriculum(U1((4, 4), 0.2)), **OPTIONS, **o),
}


def bits(flow):
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


def one_rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for name, flow in flows(rank).items():  # rank 0's weights are taken
        training = RUNS[name](flow, group=torch.distributed.group.WORLD)
        torch.save([bits(flow), training.history["loss"], training.history["ess"]], f"{folder}/{name}{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_same_bits_on_one_rank_and_two(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mp.start_processes(one_rank, (2, str(tmp_path)), nprocs=2, start_method="fork")
        for name, flow in flows(0).items():
            alone = RUNS[name](flow)
            for rank in range(2):
                weights, loss, ess = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=False)
                assert torch.equal(weights, bits(flow))
                assert loss == alone.history["loss"] and ess == alone.history["ess"]
            assert not torch.equal(bits(flow), bits(flows(0)[name]))
    finally:
        torch.set_num_threads(threads)


def test_forward_kl_of_an_ensemble_file(tmp_path):
    """All chains of all measurements, as the tensor of them."""
    field = ANGLES.random(12, seed=2)
    with EnsembleWriter(tmp_path / "e.h5", ANGLES, seed=2) as writer:
        for step in (1, 2, 3):
            writer.append(field[4 * step - 4 : 4 * step], step)
    options = {"steps": 3, "batch": 8, "loss": "forward_kl"}
    with open_ensemble(tmp_path / "e.h5") as saved:
        of_file, of_tensor = flows(0)["angles"], flows(0)["angles"]
        train(of_file, ANGLES, ensemble=saved, **options)
    train(of_tensor, ANGLES, ensemble=field, **options)
    assert torch.equal(bits(of_file), bits(of_tensor))


@pytest.mark.parametrize("c1", [0.0, -1 / 12])
def test_a_curriculum_between_actions_that_differ_in_more_than_beta(c1):
    """The one of another c1 is not a multiple of the wanted one."""
    start, theory = SUN(2, (4, 4), 1.0, c1=c1), SUN(2, (4, 4), 2.0, c1=-1 / 12)
    U = theory.random(3, seed=1)
    mixed = Curriculum(start, share=1.0).log_prob(theory, 0.25)(U)
    torch.testing.assert_close(mixed, 0.75 * start.log_prob(U) + 0.25 * theory.log_prob(U), rtol=1e-12, atol=1e-12)
