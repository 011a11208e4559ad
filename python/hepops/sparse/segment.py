from ._plain import segment_broadcast as segment_broadcast
from ._plain import segment_reduce as segment_reduce
