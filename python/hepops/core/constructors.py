"""What an object was made with: classes marked by `recorded` keep the arguments of their constructors.

A saved model so says how to make it again (`hepops.models`), without a configuration that every class would have to
write: the arguments are taken where Python itself hands them over, in `__new__`.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=type[Any])
MADE = "_made_with"
ROOTS: list[type[Any]] = []  # marked classes; those derived from them count as well
_OWN: dict[str, type[Any]] = {}  # a user's classes, by their names

# Where the classes of a domain stand. A name in a file chooses among these, and imports nothing else.
DOMAINS: dict[str, tuple[str, ...]] = {
    "hepops.flows": ("hepops.flows", "hepops.flows.manifolds", "hepops.flows.imports"),
    "hepops.lattice": ("hepops.lattice", "hepops.lattice.flows"),
    "hepops.sparse": ("hepops.sparse", "hepops.sparse.models"),
    "hepops.lartpc": ("hepops.lartpc",),
}


def recorded(
    cls: T,
    read: Mapping[str, Callable[[Any], Any]] | None = None,
    now: Callable[[Any], Mapping[str, Any]] | None = None,
) -> T:
    """Mark a class: its instances, and those of classes derived from it, keep what they were made with.

    Args:
        cls: Any class whose instances have a `__dict__`.
        read: What is kept in place of an argument, by name, such as the content of a file in place of its path.
        now: From an object to arguments that follow what it has become; they take the place of those it was made with.

    Returns:
        The same class; as a decorator it changes nothing else.

    Example:
        >>> @recorded
        ... class Line:
        ...     def __init__(self, slope, intercept=0.0):
        ...         self.f = lambda x: slope * x + intercept
        >>> arguments(Line(2.0))
        {'slope': 2.0}
    """
    before: Any = cls.__new__

    def make(made: type[Any], /, *args: Any, **kwargs: Any) -> Any:
        self = before(made) if before is object.__new__ else before(made, *args, **kwargs)
        if read and (args or kwargs):  # without, a copy is made
            bound = _bind(type(self), args, kwargs)
            named = {name: read[name](value) if name in read else value for name, value in bound.arguments.items()}
            bound.arguments.update(named)
            args, kwargs = bound.args[1:], bound.kwargs
        vars(self)[MADE] = (args, kwargs)
        return self

    make.__signature__ = inspect.signature(cls.__init__)  # type: ignore[attr-defined]  # what help and editors show
    cls.__new__ = staticmethod(make)
    if now is not None:
        cls._construction = now
    ROOTS.append(cls)
    return cls


def _bind(cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    return inspect.signature(cls.__init__).bind(None, *args, **kwargs)


def is_recorded(thing: object) -> bool:
    return MADE in getattr(thing, "__dict__", {})


def arguments(thing: Any) -> dict[str, Any]:
    """What a recorded object was made with, by name; what it has become (`now` of `recorded`) has the last word.

    `*args` stand as a list under their name, `**kwargs` under their own names.
    """
    args, kwargs = vars(thing)[MADE]
    bound = _bind(type(thing), args, kwargs)
    named: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = value
    own = getattr(thing, "_construction", None)
    return named | (own() if own is not None else {})


def call(cls: type[Any], named: Mapping[str, Any]) -> Any:
    """The object that `arguments` described.

    Raises:
        ValueError: an argument that the class does not take.
    """
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    kinds = {p.name: p.kind for p in parameters}
    spread = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    strange = [name for name in named if name not in kinds and not takes_all]
    if strange:
        raise ValueError(f"{cls.__name__} takes no argument {strange[0]!r}")
    if spread is None or not named.get(spread):
        return cls(**{name: value for name, value in named.items() if name != spread})
    before = [p.name for p in parameters[: [p.name for p in parameters].index(spread)]]
    rest = {name: value for name, value in named.items() if name not in before and name != spread}
    return cls(*[named[name] for name in before], *named[spread], **rest)


def key_of(cls: type[Any]) -> str:
    """The name of a class in files: its domain and its own, whichever file of the domain it stands in."""
    module = cls.__module__
    domain = ".".join(module.split(".")[:2])
    return f"{domain if module.split('.')[0] == 'hepops' else module}.{cls.__qualname__}"


def register(cls: T) -> T:
    """Allow files to name a class of your own: `hepops.load` then makes it again.

    Args:
        cls: A class whose constructor takes what a configuration can hold: numbers, strings, sequences, mappings,
            dtypes, tensors, and other such objects.

    Raises:
        ValueError: another class has the name already.

    Example:
        >>> @hepops.models.register
        ... class Line(torch.nn.Module):
        ...     def __init__(self, width: int):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(width, 1)
    """
    key = key_of(cls)
    if _OWN.get(key, cls) is not cls:
        # a class that is defined anew, in a notebook, takes the place of the one of the same text
        there = _OWN[key]
        if there.__module__ != cls.__module__:
            raise ValueError(f"register: {key} is {there.__module__}.{there.__qualname__} already")
    if not any(issubclass(cls, root) for root in ROOTS):
        recorded(cls)
    _OWN[key] = cls
    return cls


def find(key: str) -> type[Any]:
    """The class of a name in a file: one of hepops that is marked, or one that was registered.

    Raises:
        ValueError: any other name.
    """
    if key in _OWN:
        return _OWN[key]
    domain = ".".join(key.split(".")[:2])
    for module in DOMAINS.get(domain, ()):
        importlib.import_module(module)
    found = [cls for cls in _all() if cls.__module__.split(".")[0] == "hepops" and key_of(cls) == key]
    if len(found) != 1:
        raise ValueError(
            f"{key!r} is no class that hepops makes from a file; hepops.models.register allows one of yours, or give "
            f"load make="
        )
    return found[0]


def _all() -> Iterator[type[Any]]:
    """Every marked class and every one derived from one, once."""
    seen: set[type[Any]] = set()
    waiting = list(ROOTS)
    while waiting:
        cls = waiting.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls
            waiting += cls.__subclasses__()
