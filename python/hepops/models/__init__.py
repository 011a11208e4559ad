"""Models that can be found again: saved with their description, verified when loaded, kept in registries.

`hepops.save` and `hepops.load` write and read one folder; `Registry` keeps many, with versions and tags.
"""

from hepops.core.constructors import register as register

from .card import Card as Card
from .files import load as load
from .files import save as save
from .files import verify as verify
from .registry import Entry as Entry
from .registry import Registry as Registry
