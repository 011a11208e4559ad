"""Quantization, collation, initialisation and summaries, as MinkowskiEngine.utils."""

from . import coords as coords
from . import gradcheck as gradcheck
from . import torchsummary as torchsummary
from .collation import SparseCollation as SparseCollation
from .collation import batch_sparse_collate as batch_sparse_collate
from .collation import batched_coordinates as batched_coordinates
from .collation import sparse_collate as sparse_collate
from .init import kaiming_normal_ as kaiming_normal_
from .quantization import fnv_hash_vec as fnv_hash_vec
from .quantization import ravel_hash_vec as ravel_hash_vec
from .quantization import sparse_quantize as sparse_quantize
from .quantization import unique_coordinate_map as unique_coordinate_map
from .summary import summary as summary
