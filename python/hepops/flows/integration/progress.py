"""Who is told how an integration goes."""

from collections.abc import Callable
from typing import Any


class Progress:
    """A bar, a function, or nothing, told (calls of f, what goes on)."""

    def __init__(self, neval: int, how: bool | Callable[[int, str], None]) -> None:
        self.how, self.neval = how, neval
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, str], None]:
        if self.how is True:
            from tqdm import tqdm

            self.bar = tqdm(total=self.neval, unit=" calls", unit_scale=True)
        return self._say

    def _say(self, count: int, what: str) -> None:
        if self.bar is not None:
            self.bar.set_description(what, refresh=False)
            self.bar.update(count - self.bar.n)
        elif callable(self.how):
            self.how(count, what)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
