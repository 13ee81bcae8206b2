"""The compose file as Docker reads it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
#: Services that run a process of ours.
OURS = ("api", "dispatcher", "worker", "worker-cpu", "migrate")
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-([^}]*))?\})")
_DURATION = re.compile(r"(\d+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def read(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read the file, with variables in place."""
    values = variables or {}

    def insert(match: re.Match[str]) -> str:
        dollar, name, default = match.groups()
        return "$" if dollar else values.get(name) or default

    document: dict[str, Any] = _map(
        yaml.safe_load(FILE.read_text()), lambda text: _VARIABLE.sub(insert, text)
    )
    return document


def seconds(duration: str) -> float:
    """Read a duration such as `1m30s`."""
    parts = _DURATION.findall(duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value
