"""The script of docs/many-gpus.md, as torchrun starts it: two ranks say what one says."""

import contextlib
import io
import re
import uuid
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

PAGE = Path(__file__).parent.parent / "docs" / "many-gpus.md"


def run(_=None):
    """What the page's script prints, in this process."""
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(script, str(PAGE), "exec"), {"__name__": "ranks"})
    return said.getvalue()


def test_two_ranks_say_what_one_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # torchrun's own agent; a fork would not survive the autograd of tests that ran before
    config = LaunchConfig(1, 1, 2, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          start_method="spawn", monitor_interval=0.1, max_restarts=0)  # fmt: skip
    both = elastic_launch(config, run)(None)
    numbers, gradient = run().splitlines()
    assert both[1] == ""  # one speaks for all
    assert both[0].splitlines()[0] == numbers  # weights of the flow, effective sample size, integral: the same bits
    ours, theirs = (float(line.removeprefix("gradient")) for line in (gradient, both[0].splitlines()[1]))
    assert abs(ours - theirs) < 1e-6 * ours  # float32, added in another order
