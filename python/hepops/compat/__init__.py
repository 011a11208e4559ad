"""Stand-ins for other packages, made of hepops: `hepops.compat.minkowski`, `hepops.compat.spine`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hepops.compat import minkowski as minkowski
    from hepops.compat import spine as spine

_MODULES = ("minkowski", "spine")

if not TYPE_CHECKING:  # to a type checker that sees it, every name is a module

    def __getattr__(name: str) -> ModuleType:
        if name in _MODULES:  # loaded when asked for: most programs need none of them
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
