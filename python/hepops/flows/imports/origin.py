"""Whose names a state dict has, where it does not fit the library that it is said to be from."""

from collections.abc import Sequence

ROOTS = {  # what a library's keys begin with; the first is in every flow of it
    "zuko": ("transform", "base"),
    "nflows": ("_transform", "_distribution", "_embedding_net"),
    "normflows": ("flows", "q0", "p"),
}


def hint(keys: Sequence[str], library: str) -> str:
    """The argument or the function that these keys ask for; empty where they begin as the library's own do."""
    if any(key.split(".")[0] == ROOTS[library][0] for key in keys):
        return ""
    for other in (library, *(name for name in ROOTS if name != library)):
        root = ROOTS[other][0]
        prefix = next((p for p in (_before(key, root) for key in keys) if p is not None), None)
        if prefix is None:
            continue
        argument = f", prefix={prefix!r}" if prefix else ""
        rest = sum(not key.startswith(prefix) for key in keys)
        alone = f"; leave out the {rest} keys that do not begin so" if rest else ""
        return f"the names are those of {other}: from_{other}(state{argument}, ...){alone}"
    return ""


def _before(key: str, root: str) -> str | None:
    """What stands before `root`, if that is one of the key's parts."""
    parts = key.split(".")
    return ".".join([*parts[: parts.index(root)], ""]) if root in parts[:-1] else None
