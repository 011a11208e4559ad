"""A million data packets written and read: with and without truth, by time windows, in parts; packets per second."""

import resource
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import h5py
import numpy as np
import torch
from harness import record, seconds
from hepops.lartpc import ChannelMap, Detector, EventRule, Hits, Truth, iterate_packets, read_packets, write_packets

n, events = 1_000_000, 1000
torch.set_num_threads(1)
detector = Detector.module0()
channel_map = ChannelMap.builtin(detector)
random = torch.Generator().manual_seed(1)
event = torch.sort(torch.randint(0, events, (n,), generator=random)).values
tpc, ix, iy = detector.pixel_from_id(torch.randint(0, detector.num_pixels, (n,), generator=random))
_, y, z = detector.pixel_centre(tpc, ix, iy).unbind(-1)
hits = Hits(
    event=event, tpc=tpc, ix=ix, iy=iy, x=y, y=y, z=z,
    time=torch.randint(1, 2000, (n,), generator=random).double() * 0.1,
    charge=2e4 * torch.rand(n, generator=random), adc=torch.randint(75, 256, (n,), generator=random),
    row=torch.arange(n), rank=torch.zeros(n, dtype=torch.int64),
    truth=Truth(
        torch.arange(n).repeat_interleave(3), torch.randint(0, 50_000, (3 * n,), generator=random),
        torch.rand(3 * n, generator=random),
    ),
)  # fmt: skip

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "packets.h5"
    write_packets(path, hits, channel_map)
    again, sorted_hits = read_packets(path, channel_map), hits.sort()
    assert all(torch.equal(getattr(again, c), getattr(sorted_hits, c)) for c in ("event", "tpc", "ix", "iy", "time"))
    with h5py.File(path) as file:
        size = {name: file[name].dtype.itemsize * len(file[name]) for name in ("packets", "mc_packets_assn")}

    def raw() -> np.ndarray:
        """The rival: h5py alone, which reads and does nothing."""
        with h5py.File(path) as file:
            return file["packets"][:]

    def parts() -> int:
        return sum(len(part) for part in iterate_packets(path, channel_map, truth=False))

    timed = seconds(
        {
            "h5py reads the packets": raw,
            "read_packets, event ids": lambda: read_packets(path, channel_map, truth=False),
            "read_packets, gaps in time": lambda: read_packets(
                path, channel_map, truth=False, events=EventRule(how="gap")
            ),
            "read_packets, with truth": lambda: read_packets(path, channel_map),
            "iterate_packets": parts,
            "write_packets, without truth": lambda: write_packets(
                path.with_name("a.h5"), Hits(**hits.columns()), channel_map
            ),
            "write_packets, with truth": lambda: write_packets(path.with_name("a.h5"), hits, channel_map),
        },
        3,
    )
    print(f"{n} data packets, {size['packets'] / 1e6:.0f} MB, truth {size['mc_packets_assn'] / 1e6:.0f} MB")
    for name, t in timed.items():
        print(f"{name:32} {t:6.2f} s {1e-6 * n / t:8.2f} M packets/s")
    record({name: {"seconds": t, "packets": n, "threads": 1} for name, t in timed.items()})
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
