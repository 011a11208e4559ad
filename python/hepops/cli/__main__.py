"""`python -m hepops.cli`, which is what torchrun starts."""

from . import main

if __name__ == "__main__":
    main()
