"""The command `hepops`: simulate, calibrate, look, without writing Python.

One file per command; `app.py` gathers them and turns every error into one line.
"""

from .app import app as app
from .app import main as main
