"""YAML as data alone: no tags, no aliases, no key twice, bounded in depth and size.

PyYAML's safe loader executes nothing, but it takes the second of two equal keys without a word, and a few lines of
aliases make it hold 10^9 entries. What a person reads in the file must be what the program reads.
"""

from collections.abc import Mapping
from typing import Any

LARGEST, DEEPEST = 64 << 20, 64  # bytes, levels
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq", "timestamp")}


def dump(content: Mapping[str, Any]) -> str:
    """The text, keys in their order; a float keeps every digit."""
    import yaml

    return yaml.dump(
        dict(content), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Dumper


def parse(text: bytes, name: str) -> Any:
    """The content of a text.

    Args:
        text: UTF-8.
        name: Of the file, for errors.

    Raises:
        ValueError: a tag, an alias, a key twice or one that is no word, too deep or too long, or no YAML.
    """
    import yaml

    if len(text) > LARGEST:
        raise ValueError(f"{name}: has {len(text)} bytes, at most {LARGEST} are read")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        words = text.decode()
        _check(yaml.parse(words, Loader=loader), name)
        node = yaml.compose(words, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{name}: not YAML ({' '.join(str(error).split())[:200]})") from None
    return None if node is None else _content(node, yaml.constructor.SafeConstructor(), name)


def _check(events: Any, name: str) -> None:
    """Before anything is put together: what a person cannot read, or a program not hold."""
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{name}: line {line}: aliases are not read")
        if (tag := getattr(event, "tag", None)) not in (None, "!"):
            raise ValueError(f"{name}: line {line}: the tag {tag} is refused, files hold plain data only")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"{name}: line {line}: more than {DEEPEST} levels")


def _content(node: Any, scalars: Any, name: str) -> Any:
    line = node.start_mark.line + 1
    if node.tag not in _PLAIN:
        raise ValueError(f"{name}: line {line}: {node.tag.removeprefix('tag:yaml.org,2002:')} is refused")
    if isinstance(node.value, str):
        return node.value if node.tag.endswith(("str", "timestamp")) else _scalar(node, scalars, name, line)
    if node.tag.endswith("seq"):
        return [_content(part, scalars, name) for part in node.value]
    out: dict[Any, Any] = {}
    for key_node, value in node.value:
        key = _content(key_node, scalars, name)
        if not isinstance(key, (str, int)):
            raise ValueError(f"{name}: line {line}: a key must be a word or a number, got {key!r}")
        if key in out:
            raise ValueError(f"{name}: line {key_node.start_mark.line + 1}: {key!r} stands there twice")
        out[key] = _content(value, scalars, name)
    return out


def _scalar(node: Any, scalars: Any, name: str, line: int) -> Any:
    if ":" in node.value:  # 12:30 is a number of base 60 in YAML 1.1, and a long one takes its square in time
        raise ValueError(f"{name}: line {line}: {node.value[:40]!r} is neither a word (in quotes) nor a plain number")
    try:
        return scalars.construct_object(node)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: line {line}: {node.value[:40]!r} is no value ({error})") from None


def _key(key: Any, where: str) -> Any:
    key = plain(key, where)
    if not isinstance(key, (int, str)):
        raise TypeError(f"{where}: a key must be a word or a whole number, got {key!r}")
    return key


def plain(value: Any, where: str) -> Any:
    """Numbers, words, lists and mappings, as YAML keeps them; tensors and arrays of one number are numbers.

    Raises:
        TypeError: something else, named by where it stands.
    """
    if hasattr(value, "item") and getattr(value, "size", None) is not None and not isinstance(value, Mapping):
        count = value.numel() if hasattr(value, "numel") else value.size
        if count == 1:
            value = value.item()
    for kind in (bool, int, float, str):  # YAML writes these, but none derived from them, such as an enumeration
        if isinstance(value, kind):
            return kind(value) if type(value) is not kind else value
    if value is None:
        return value
    if isinstance(value, Mapping):
        return {_key(k, where): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise TypeError(f"{where} must be numbers, words, lists and mappings of them, got {type(value).__name__}")
