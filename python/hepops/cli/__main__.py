"""`python -m hepops.cli`, which is what torchrun starts."""

from . import main

main()
