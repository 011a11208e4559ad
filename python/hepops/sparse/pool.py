from ._plain import pool
