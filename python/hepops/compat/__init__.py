"""Other libraries' interfaces on top of hepops."""
