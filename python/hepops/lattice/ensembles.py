"""Ensembles on disk: one HDF5 file that grows as a run goes on, and stays readable whenever it is interrupted."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from hepops.core.files import atomic

from .samplers.chains import check_name, describe
from .theory import Theory

if TYPE_CHECKING:
    from numpy import ndarray

FORMAT, VERSION = "hepops lattice ensemble", 1
CHUNK = 1 << 20  # bytes, about, in a chunk


class EnsembleWriter:
    """An HDF5 file that takes the fields of a run.

    Datasets: `field` (measurements, chains, *event_shape), complex for links, and `step` (measurements), int64, which
    is written after the fields: a measurement counts when its step stands there. Attributes: theory and couplings,
    seed, first chain, dtype, versions of the format, hepops and torch.

    The file is in HDF5's SWMR mode: other processes may read it as it grows, and a kill at any moment leaves all that
    was appended before. (On a disk that loses what the system has not yet written, such as at a power cut, the last
    ones may be lost.) A file that was interrupted is copied once, in one step, when it is opened to go on.

    Args:
        path: Where; a file that exists goes on, if it belongs to the same theory, seed, chains and dtype.
        theory: Whose fields.
        seed: Of the run.
        first: The number of the first chain.

    Raises:
        TypeError: seed or first is no integer.
        ValueError: the file is of another ensemble (the message says in what), or no ensemble.

    Example:
        >>> import os, tempfile
        >>> theory = hepops.lattice.Phi4((4, 4), m2=-4.0, lam=8.0)
        >>> path = os.path.join(tempfile.mkdtemp(), "ensemble.h5")
        >>> with hepops.lattice.EnsembleWriter(path, theory, seed=1) as ensemble:
        ...     run = hepops.lattice.HMC(theory, 0.05, 5).run(6, chains=2, seed=1, every=3, ensemble=ensemble)
        >>> with hepops.lattice.open_ensemble(path) as saved:
        ...     len(saved), saved.steps, saved[0].shape
        (2, [3, 6], torch.Size([2, 4, 4]))
    """

    def __init__(self, path: str | Path, theory: Theory, seed: int, first: int = 0) -> None:
        self.path, self.theory = Path(path), theory
        check_name(seed, first)
        self._head = {"theory": describe(theory), "seed": seed, "first": first}
        self._file: Any = None
        if self.path.exists():
            with open_ensemble(self.path) as old:
                _same(self.path, old.head, self._head)
            self._go_on()

    def append(self, field: Tensor, step: int) -> None:
        """Add one measurement: fields of all chains, shape (B, *event_shape), and the step number.

        Raises:
            TypeError: a step that is no integer.
            ValueError: a field of another shape or dtype than those before, a step that does not follow.
        """
        self.theory.check(field)
        if isinstance(step, bool) or not isinstance(step, int):
            raise TypeError(f"{self.path}: step must be an integer, got {step!r}")
        values = field.detach().resolve_conj().cpu().numpy()
        if self._file is None and self.path.exists():  # closed since
            self._go_on()
        if self._file is None:
            self._create(values)
        data, steps = self._file["field"], self._file["step"]
        if values.shape != data.shape[1:] or values.dtype != data.dtype:
            raise ValueError(
                f"{self.path}: holds fields of {data.shape[1:]}, {data.dtype}, got {values.shape}, {values.dtype}"
            )
        n = len(steps)
        if n and step <= int(steps[n - 1]):
            raise ValueError(f"{self.path}: has step {int(steps[n - 1])} already, got {step}")
        data.resize(n + 1, axis=0)
        data[n] = values
        data.flush()
        steps.resize(n + 1, axis=0)
        steps[n] = step
        steps.flush()

    def belong(self, theory: Theory, seed: int, first: int) -> None:
        """Refuse a run whose provenance would not be the file's.

        Raises:
            ValueError: another theory, seed or first chain: the message says in what it differs.
        """
        head = json.loads(json.dumps(self._head))
        _same(self.path, head, {"theory": describe(theory), "seed": seed, "first": first})

    def rewind(self, step: int, *, forget: bool = True) -> None:
        """Forget measurements after a step: a run that goes on from a checkpoint makes them again.

        Raises:
            ValueError: there are such, and they are not to be forgotten.
        """
        if self._file is None and self.path.exists():
            self._go_on()
        if self._file is None:
            return
        steps = self._file["step"][:]
        keep = int((steps <= step).sum())
        if keep == len(steps):
            return
        if not forget:
            raise ValueError(
                f"{self.path}: holds measurements up to step {int(steps[-1])}, the chains stand at {step}: go on from "
                "the checkpoint of that run or from its chains, or write to another file"
            )
        self.close()
        self._go_on(keep)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, values: "ndarray") -> None:
        import h5py

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.path) as part, h5py.File(part, "w", libver="latest") as file:
            _lay_out(file, values.shape, values.dtype, self._head)
        self._open()

    def _open(self) -> None:
        import h5py

        self._file = h5py.File(self.path, "r+", libver="latest")
        self._file.swmr_mode = True

    def _go_on(self, keep: int | None = None) -> None:
        """Open to append. A copy takes the place of the file where it was interrupted or is cut to `keep`."""
        import h5py

        with open_ensemble(self.path) as old:
            if keep is not None or old.interrupted:
                n = len(old) if keep is None else keep
                with atomic(self.path) as part, h5py.File(part, "w", libver="latest") as file:
                    _lay_out(file, old.shape[1:], old.dtype, old.head)
                    file["field"].resize(n, axis=0)
                    file["step"].resize(n, axis=0)
                    for i in range(n):
                        file["field"][i] = old.read(i)
                    file["step"][:] = old.steps[:n]
        self._open()


class Ensemble:
    """An ensemble to read, lazily: `ensemble[i]` is measurement i, (chains, *event_shape); a slice is a stack of them.

    Attributes:
        steps: The step number of every measurement.
        head: Provenance: theory, seed, first, versions.
        shape: (measurements, chains, *event_shape).
        interrupted: Whether the file was not closed by its writer (which may still be at work).
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            try:
                self._file = h5py.File(path, "r", libver="latest")
                self.interrupted = False
            except OSError:  # open for writing, or was when its writer was killed
                self._file = h5py.File(path, "r", libver="latest", swmr=True)
                self.interrupted = True
        except OSError as error:
            raise ValueError(f"{path}: not a readable HDF5 file ({error})") from None
        try:
            if self._file.attrs.get("format") != FORMAT or self._file.attrs["version"] != VERSION:
                raise ValueError(f"{path}: is no ensemble of version {VERSION}")
            self.head: dict[str, Any] = json.loads(self._file.attrs["provenance"])
            self._field, steps = self._file["field"], self._file["step"][:].tolist()
            self.steps: list[int] = steps[: self._field.shape[0]]
        except BaseException:
            self._file.close()
            raise

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.steps), *self._field.shape[1:]))

    @property
    def dtype(self) -> Any:
        return self._field.dtype

    def __len__(self) -> int:
        return len(self.steps)

    def read(self, i: int | slice) -> "ndarray":
        return self._field[i]

    def __getitem__(self, i: int | slice) -> Tensor:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            if step < 1:
                raise IndexError(f"{self.path}: a slice must go forward, got step {step}")
            return torch.from_numpy(self.read(slice(start, max(start, stop), step)))
        if isinstance(i, bool) or not isinstance(i, int):
            raise TypeError(f"{self.path}: an index must be an integer or a slice, got {i!r}")
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.path}: has {len(self)} measurements, got {i}")
        return torch.from_numpy(self.read(i % len(self)))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def open_ensemble(path: str | Path) -> Ensemble:
    """An ensemble that `EnsembleWriter` wrote, to be read as it is needed; also one that was interrupted.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no HDF5 file, or no ensemble.
    """
    return Ensemble(path)


def _lay_out(file: Any, shape: tuple[int, ...], dtype: Any, head: dict[str, Any]) -> None:
    import hepops

    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    versions = {"hepops": hepops.__version__, "torch": torch.__version__}
    file.attrs["provenance"] = json.dumps({**head, "versions": head.get("versions", versions)})
    chains = max(1, min(shape[0], CHUNK // max(1, math.prod(shape[1:]) * dtype.itemsize)))
    file.create_dataset("field", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, chains, *shape[1:]))
    file.create_dataset("step", (0,), "i8", maxshape=(None,), chunks=(1024,))


def _same(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))
    other = [k for k in ours if theirs.get(k) != ours[k]]
    if other:
        text = ", ".join(f"{k} ({theirs.get(k)}, not {ours[k]})" for k in other)
        raise ValueError(f"{path}: belongs to another ensemble, it differs in {text}")
