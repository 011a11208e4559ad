"""Summaries of dense networks, which are not part of this."""

from __future__ import annotations

from typing import Any, NoReturn

from ..common import absent


def summary(*args: Any, **kwargs: Any) -> NoReturn:
    raise absent(
        "utils.torchsummary.summary", "for sparse networks use utils.summary, for dense ones the package torchsummary"
    )


def summary_string(*args: Any, **kwargs: Any) -> NoReturn:
    raise absent("utils.torchsummary.summary_string", "for sparse networks use utils.summary.minkowski_summary_string")
