from ._plain import segment_broadcast as segment_broadcast, segment_reduce as segment_reduce
