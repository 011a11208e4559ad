from ._plain import segment_broadcast, segment_reduce
