"""The C functions of csrc/c_api.h from Python, by ctypes: what tests compare with the operators."""

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p

import torch

Numbers = POINTER(c_double)
Integers = POINTER(c_int64)


class TPC(Structure):
    _fields_ = [("anode", c_double), ("cathode", c_double), ("y", c_double * 2), ("z", c_double * 2),
                ("nx", c_int64), ("ny", c_int64)]  # fmt: skip


class FrontEnd(Structure):
    _fields_ = (
        [("threshold", c_double)]
        + [(name, c_int64) for name in ("hold", "latency", "busy", "reset")]
        + [(name, c_double) for name in ("reset_noise", "uncorrelated_noise", "discriminator_noise")]
        + [(name, c_double) for name in ("buffer_risetime", "gain", "v_ped", "v_cm", "v_ref")]
        + [("adc_bits", c_int64)]
    )


class Parameters(Structure):
    _fields_ = [(name, c_double) for name in (
        "lifetime", "efield", "birks_a", "birks_k", "transverse_diffusion", "longitudinal_diffusion", "box_alpha",
        "box_beta", "ellipsoid_ratio", "density", "temperature", "w_ion")]  # fmt: skip


class Table(Structure):
    _fields_ = [("current", c_void_p), ("bins_x", c_int64), ("bins_y", c_int64), ("ticks", c_int64),
                ("tick", c_double), ("velocity", c_double), ("bins", c_int64), ("drift_length", c_double)]  # fmt: skip


class Config(Structure):
    _fields_ = [("size", c_size_t), ("tpcs", POINTER(TPC)), ("num_tpcs", c_int64), ("pixel_pitch", c_double),
                ("tick", c_double), ("frontend", FrontEnd), ("parameters", Parameters), ("table", POINTER(Table)),
                ("thresholds", c_void_p), ("step", c_double), ("recombination", c_int64), ("precision", c_int64),
                ("reach", c_int64), ("length", c_int64), ("lead", c_int64), ("chunk", c_int64)]  # fmt: skip


class Segments(Structure):
    _fields_ = [("count", c_int64), *((name, c_void_p) for name in ("event", "start", "end", "dE", "dEdx", "t0"))]


class Options(Structure):
    _fields_ = [("seed", c_int64)]


INTEGERS, REALS = ("event", "tpc", "ix", "iy", "row", "rank"), ("x", "y", "z", "time", "charge", "adc")
COUNTS = ("segments_outside", "energy_outside", "electrons_arriving", "electrons_lost", "rejected", "pixels")


class View(Structure):
    _fields_ = [("count", c_int64), *((name, c_void_p) for name in INTEGERS + REALS),
                *((name, c_double if name[0] == "e" else c_int64) for name in COUNTS)]  # fmt: skip


class Spline(Structure):
    _fields_ = [("bins", c_int64), ("tails", c_int64), ("convention", c_int64), ("low", c_double), ("high", c_double),
                ("inverse", c_int64)]  # fmt: skip


Body = ctypes.CFUNCTYPE(None, c_void_p, c_int64, c_int64)
ParallelFor = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64, c_int64, Body, c_void_p)
Allocate = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
Deallocate = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_size_t)


class Execution(Structure):
    _fields_ = [("user", c_void_p), ("parallel_for", ParallelFor), ("allocate", Allocate), ("deallocate", Deallocate)]


class Refused(Exception):
    """A status that is not 0: (status, message)."""


class Core:
    """The library, and one context of it."""

    def __init__(self, path, execution=None):
        self.c = ctypes.CDLL(str(path))
        for name in ("hepops_error", "hepops_load_error", "hepops_version", "hepops_cpu_level"):
            getattr(self.c, name).restype = c_char_p
        for name in ("hepops_simulator_destroy", "hepops_hits_destroy", "hepops_map_destroy", "hepops_context_destroy"):
            getattr(self.c, name).restype = None
        self.context, self.execution = c_void_p(), execution
        status = self.c.hepops_context_create(byref(execution) if execution else None, byref(self.context))
        if status:
            raise Refused(status, self.c.hepops_load_error().decode())

    def __del__(self):
        self.c.hepops_context_destroy(self.context)

    def call(self, name, *arguments):
        given = [at(x) if isinstance(x, torch.Tensor) else c_int64(x) if isinstance(x, int) else x for x in arguments]
        status = getattr(self.c, "hepops_" + name)(self.context, *given)
        if status:
            raise Refused(status, self.c.hepops_error(self.context).decode())

    def config(self, module0=False):
        made = Config()
        self.c[f"hepops_simulator_config_{'module0' if module0 else 'init'}"](byref(made))
        return made

    def simulator(self, config):
        made = c_void_p()
        self.call("simulator_create", byref(config), byref(made))
        return made

    def simulate(self, simulator, segments, seed=None, columns=True):
        """Columns of the hits by name (none where not asked for), and the counts."""
        kept = [getattr(segments, name).contiguous() for name in ("event", "start", "end", "dE", "dEdx", "t0")]
        given = Segments(len(segments), *(column.data_ptr() for column in kept))
        made, view = c_void_p(), View()
        self.call("simulate", simulator, byref(given), byref(Options(-1 if seed is None else seed)), byref(made))
        self.c.hepops_hits_read(made, byref(view))
        n = view.count if columns else 0
        hits = {name: copied(getattr(view, name), n, c_int64, torch.int64) for name in INTEGERS}
        hits |= {name: copied(getattr(view, name), n, c_double, torch.float64) for name in REALS}
        self.c.hepops_hits_destroy(made)
        return hits | {name: getattr(view, name) for name in COUNTS}


def at(x):
    assert x.is_contiguous()
    return c_void_p(x.data_ptr())


def copied(address, n, kind, dtype):
    return torch.tensor((kind * n).from_address(address)[:] if n else [], dtype=dtype)


def configure(core, sim):
    """The configuration of a hepops.lartpc.Simulator without a field map or a far field; keep what it returns."""
    detector, config = sim.detector, core.config()
    tpcs = (TPC * len(detector.tpcs))(*(TPC(t.anode, t.cathode, t.y, t.z, t.nx, t.ny) for t in detector.tpcs))
    config.tpcs, config.num_tpcs = tpcs, len(tpcs)
    config.pixel_pitch, config.tick = detector.pixel_pitch, detector.tick
    config.frontend = FrontEnd(*(getattr(detector.frontend, name) for name, _ in FrontEnd._fields_))
    config.parameters = Parameters(*(getattr(sim, name).item() for name, _ in Parameters._fields_))
    config.step, config.reach, config.length, config.lead = sim.step, sim.reach, sim.length, sim.lead
    config.recombination = ["birks", "box", "ellipsoid"].index(sim.model)
    config.precision = 32 if sim.dtype == torch.float32 else 64
    table = None
    if sim.table is not None:
        t = sim.table
        table = Table(t.current.data_ptr(), *t.current.shape, t.tick, t.velocity, t.bins, t.drift_length or 0)
        config.table = ctypes.pointer(table)
    return config, (tpcs, table)
