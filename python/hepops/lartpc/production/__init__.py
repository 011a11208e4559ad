"""Runs over lists of files larger than the memory: divided, interrupted, taken up again, shared by processes."""

from . import record as record
from .folder import tidy as tidy
from .hit_files import HitFiles as HitFiles
from .index import Index as Index
from .index import Source as Source
from .join import join_hits as join_hits
from .ranks import Ranks as Ranks
from .run import Done as Done
from .run import simulate_files as simulate_files
