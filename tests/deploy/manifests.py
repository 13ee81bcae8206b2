"""Render the Helm chart to plain manifests: `make manifests`."""

import json
import sys
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "latentq"
FOLDER = ROOT / "deploy" / "kubernetes"
EXAMPLE = ROOT / "deploy" / "helm" / "example.yaml"
NAME = NAMESPACE = "latentq"


def render(values: dict[str, Any]) -> dict[str, str]:
    """Render the chart as `helm template latentq --namespace latentq` does; texts by file name."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=NAME, namespace=NAMESPACE)
    texts = {Path(path).name: text.strip() for path, text in rendered.items()}
    return {
        name: "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"
        for name, text in sorted(texts.items())
        if text and name.endswith(".yaml")
    }


def committed_values() -> dict[str, Any]:
    """Read what the committed manifests are rendered with."""
    values: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return values


def main() -> None:
    """Write the committed manifests, or with values on standard input print theirs as JSON."""
    if sys.argv[1:] == ["--values", "-"]:
        json.dump(render(json.load(sys.stdin)), sys.stdout)
        return
    for name, text in render(committed_values()).items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
