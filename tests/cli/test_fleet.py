import io
from typing import Any

import pytest
from rich.console import Console

from cli.fleet import draw_fleet

WORKER: dict[str, Any] = {
    "id": "worker-1@a-host-with-a-long-name-1:4711",
    "device": "cuda NVIDIA L4",
    "models": ["demo", "other"],
    "warm_models": ["demo"],
    "running": 8,
    "slots": 8,
    "rows_per_forward": 12.34,
    "iterations_per_s": 1083.2,
    "forward_share": 0.934,
    "memory_bytes": 1229 * 2**20,
    "heard_of_ago_s": 3.4,
}
IDLE = dict.fromkeys(("rows_per_forward", "iterations_per_s", "forward_share", "memory_bytes"))
FLEET: dict[str, Any] = {
    "jobs": {
        "held": 1, "waiting": 1200, "announced": 32, "running": 16,
        "succeeded": 400, "failed": 2, "canceled": 1,
    },
    "ended_within_s": 600.0,
    "models": [
        {
            "model": "demo", "held": 1, "waiting": 1200, "announced": 32, "running": 16,
            "backlog_s": 912.3, "oldest_s": 4.2, "workers": 2, "slots": 16,
        }
    ],
    "workers": [WORKER, WORKER | IDLE],
    "silent_workers": 1,
    "dispatchers": 2,
    "webhooks": {"pending": 3, "dead": 0},
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_figure_is_cut_however_narrow_the_terminal_is(width: int) -> None:
    shown = io.StringIO()
    Console(file=shown, width=width).print(draw_fleet(FLEET))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (busy,) = (line for line in lines if "12.3" in line)
    for figure in ("8/8", "1,083.2", "93%", "1,229 MiB", "3 s ago"):
        assert f" {figure}" in busy
    (model,) = (line for line in lines if line.startswith("demo"))
    assert model.split() == ["demo", "1", "1,200", "32", "16", "15.2", "min", "4.2", "s", "2", "16"]
    assert lines[-1].split().count("-") == 4
