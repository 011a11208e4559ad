from ._plain import Index, coarsen, find, generate, index, union
