"""Readouts in HDF5, as larnd-sim writes them: light_trig (op_channel, ts_s, ts_sync) and light_wvfm (16-bit ADC).

What larnd-sim's file does not hold (event, module, time to the last digit, size of a count, the first sample's time)
stands in light_event and in attributes beside it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepops.core.files import atomic, open_hdf5

from .properties import LightProperties
from .readout import LightReadout

CLOCK = 0.1  # of ts_sync, the charge's clock [us]
RESET_PERIOD = 10_000_000  # after which it begins anew [ticks]
_ATTRIBUTES = ("lsb", "sample_spacing", "before")


def write_readout(readout: LightReadout, path: str | Path) -> None:
    """Write all triggers; the file appears whole or not at all.

    ts_s is the trigger's time in seconds from the time 0 of its event, ts_sync the same in ticks of 0.1 us modulo 1e7.
    """
    import h5py

    n, channels = readout.channel.shape
    trigger = np.zeros(n, dtype=[("op_channel", "i4", (channels,)), ("ts_s", "f8"), ("ts_sync", "u8")])
    time = readout.time.cpu().numpy()
    trigger["op_channel"] = readout.channel.cpu().numpy()
    trigger["ts_s"] = time * 1e-6
    trigger["ts_sync"] = np.floor(time / CLOCK).astype(np.int64) % RESET_PERIOD
    event = np.zeros(n, dtype=[("event", "i8"), ("module", "i8"), ("time", "f8")])
    event["event"], event["module"], event["time"] = readout.event.cpu(), readout.module.cpu(), time
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("light_trig", data=trigger)
        file.create_dataset("light_wvfm", data=readout.adc.cpu().numpy().astype("i2"), compression="gzip")
        file.create_dataset("light_event", data=event)
        for name in _ATTRIBUTES:
            file.attrs[name] = getattr(readout, name)
        file.attrs["reports"] = json.dumps(readout.reports)


def read_readout(path: str | Path, properties: LightProperties | None = None) -> LightReadout:
    """Read a file of `write_readout`, exactly, or one of larnd-sim.

    Args:
        path: The file.
        properties: Of the readout; needed for larnd-sim's own files, which do not state the size of a count and the
            times of the samples. Their events and modules are unknown, -1.

    Raises:
        ValueError: not such a file, datasets that do not fit each other, or properties that are missing.
        FileNotFoundError: no such file.
    """
    with open_hdf5(path) as file:
        for name in ("light_trig", "light_wvfm"):
            if name not in file or not hasattr(file[name], "shape"):
                raise ValueError(f"{path}: has no dataset {name!r}, only {sorted(file)}")
        trigger, adc = file["light_trig"][:], file["light_wvfm"][:]
        names = trigger.dtype.names or ()
        if not {"op_channel", "ts_s"} <= set(names):
            raise ValueError(f"{path}: light_trig needs the fields op_channel and ts_s, got {list(names)}")
        if adc.ndim != 3 or adc.shape[:2] != trigger["op_channel"].shape:
            raise ValueError(
                f"{path}: light_wvfm has shape {adc.shape}, light_trig {trigger['op_channel'].shape} "
                f"(triggers, channels)"
            )
        own = "light_event" in file
        event = file["light_event"][:] if own else None
        values: dict[str, Any] = {name: file.attrs[name].item() for name in _ATTRIBUTES if name in file.attrs}
        reports = json.loads(file.attrs["reports"]) if "reports" in file.attrs else {}
    if len(values) < len(_ATTRIBUTES):
        if properties is None:
            raise ValueError(f"{path}: does not state {_ATTRIBUTES[0]}: a file of larnd-sim needs the properties")
        values = {
            "lsb": properties.lsb,
            "sample_spacing": properties.sample_spacing,
            "before": properties.trigger_window[0],
        }
    codes = torch.from_numpy(np.round(adc / values["lsb"]).astype(np.int64))
    channel = torch.from_numpy(trigger["op_channel"].astype(np.int64))
    if event is None:
        number = module = torch.full((len(trigger),), -1)
        time = torch.from_numpy(trigger["ts_s"] * 1e6)
    else:
        number, module, time = (torch.from_numpy(event[name].copy()) for name in ("event", "module", "time"))
    return LightReadout(number, module, time, channel, codes, reports=reports, **values)
