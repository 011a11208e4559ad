"""hepops merge: the shards of a simulation, joined."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .provenance import check_output, provenance


def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="Files of hits, one per shard, in any order.", show_default=False)
    ],
    output: o.Output,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
) -> None:
    """Join the shards of a simulation.

    The hits are those of the whole, to the last bit.
    """
    from hepops.lartpc import read_config
    from hepops.lartpc.production import join_hits

    check_output(output, overwrite, shards)
    configs = [read_config(path) for path in shards]
    order = _order(shards, configs)
    config = configs[order[0]]
    runs = [configs[k].get("run") for k in order]
    config["source"] = {**config["source"], "shard": None, "merged": [str(shards[k]) for k in order]}
    hits = join_hits(
        [shards[k] for k in order], output, {**config, "provenance": provenance(), "run": {"shards": runs}}
    )
    if not quiet:
        typer.echo(f"{hits} hits of {len(shards)} shards -> {output}")


def _order(paths: list[Path], configs: list[dict[str, Any]]) -> list[int]:
    """Shards 0 ... n-1, each once, all of one simulation."""
    found: dict[int, int] = {}
    first = _whole(configs[0])
    for k, (path, config) in enumerate(zip(paths, configs, strict=True)):
        text = config.get("source", {}).get("shard")
        if text is None:
            raise ValueError(f"{path}: not a shard, `hepops simulate --shard i/n` makes them")
        i, n = o.parse_shard(text)
        if n != len(paths):
            raise ValueError(f"{path}: is shard {text}, but {len(paths)} files were given")
        if i in found:
            raise ValueError(f"{path}: is shard {text}, and so is {paths[found[i]]}")
        different = [name for name, value in _whole(config).items() if first.get(name) != value]
        if different:
            raise ValueError(f"{path}: made with another {', '.join(different)} than {paths[0]}")
        found[i] = k
    return [found[i] for i in range(len(paths))]


def _whole(config: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for all shards."""
    source = {name: value for name, value in config.get("source", {}).items() if name != "shard"}
    return {**{k: v for k, v in config.items() if k not in ("provenance", "run")}, "source": source}
