"""Networks as files that run without Python: torch.export and AOTInductor, with a signature and checksums.

`export` compiles a model into a `.pt2` package; `load` verifies one and runs it, `describe` verifies and tells what it
is. C++ programs load the same file (docs/export.md). A package holds machine code, which loading executes: `load`
compares every byte with the checksums first, and refuses what does not fit by name; that it was made by somebody you
trust only its SHA-256, told another way, can say.
"""

from .files import label_file as label_file
from .files import read_voxels as read_voxels
from .package import describe as describe
from .package import export as export
from .run import Exported as Exported
from .run import load as load
from .triton import triton_repository as triton_repository
