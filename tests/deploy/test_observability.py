"""Dashboard, alerts and runbook name what there is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from dispatcher.checks import CHECKS
from evals.metrics_page import list_metrics
from tests.fixtures.stack import Stack

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
RUNBOOK = ROOT / "docs" / "operations" / "runbook.md"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
#: Prometheus makes it of every target, with these labels on all that it scrapes.
OF_PROMETHEUS = {"up"}
TARGET_LABELS = {"job", "instance"}
FUNCTIONS = {"absent", "clamp_min", "histogram_quantile", "increase", "max", "rate", "sum"}
WORDS = {"and", "by", "or"}


def rules() -> Iterator[dict[str, Any]]:
    for group in ALERTS["groups"]:
        yield from group["rules"]


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> dict[str, str]:
    """Every query, by where it stands."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            metric = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
            assert metric is not None, query
            found[f"variable {variable['name']}"] = f"sum by ({metric[2]}) ({metric[1]})"
    return found


EXPRESSIONS = expressions()


def words_of(expression: str) -> set[str]:
    """Every name of a query, label values and ranges left out."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    return set(re.findall(r"[a-zA-Z_]\w*", bare))


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of a query with the labels that it is selected by."""
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
        yield name, set(re.findall(r"(\w+)\s*=", matchers))


def grouped_by(expression: str) -> set[str]:
    """Return the labels that a query's results have by its own word."""
    return {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}


def labels_of() -> dict[str, set[str]]:
    """The labels of each series, by the name that it is queried by."""
    labels: dict[str, set[str]] = {name: set() for name in OF_PROMETHEUS}
    for metrics in list_metrics().values():
        for metric in metrics:
            own = set(metric.labels)
            if metric.kind == "histogram":
                labels[f"{metric.name}_bucket"] = own | {"le"}
                labels[f"{metric.name}_sum"] = labels[f"{metric.name}_count"] = own
            else:
                labels[metric.name] = own
    return labels | {check.metric: set() for check in CHECKS}


LABELS = labels_of()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_a_query_has_names_that_mean_something(expression: str) -> None:
    assert expression.count("(") == expression.count(")")
    grouped = grouped_by(expression)
    matched = {label for _, names in selectors(expression) for label in names}
    metrics = words_of(expression) - FUNCTIONS - WORDS - grouped - matched
    assert metrics
    assert metrics <= LABELS.keys()
    known = set().union(*(LABELS[name] for name in metrics)) | TARGET_LABELS
    assert grouped <= known
    for name, matchers in selectors(expression):
        assert matchers <= LABELS[name] | TARGET_LABELS
    # A rate of what may fall is none, and a counter by itself says how old a process is.
    for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
        assert name.endswith(("_total", "_bucket", "_sum", "_count"))
    for name in metrics:
        is_counter = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert not is_counter or re.search(rf"(?:rate|increase)\({name}", expression)


def test_every_metric_that_is_named_is_shown_by_a_process(stack: Stack) -> None:
    shown = set(OF_PROMETHEUS)
    for page in stack.metrics().values():
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE):
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            shown |= {f"{name}{suffix}" for suffix in suffixes}
    for place, expression in EXPRESSIONS.items():
        named = {word for word in words_of(expression) if word in LABELS}
        assert named <= shown, place


def test_every_metric_is_drawn_or_watched() -> None:
    named = set().union(*(words_of(expression) for expression in EXPRESSIONS.values()))
    drawn = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    listed = {metric.name for metrics in list_metrics().values() for metric in metrics}
    ours = {name for name in listed if name.startswith("latentq_")}
    # Which version runs is looked up, not drawn.
    assert ours - drawn == {"latentq_build_info"}


def test_every_bad_state_has_an_alert() -> None:
    watched = set().union(*(words_of(rule["expr"]) for rule in rules()))
    states = {check.metric for check in CHECKS}
    # By model there is a better gauge.
    assert states - watched == {"latentq_models_without_worker"}


def test_alerts_are_what_prometheus_takes() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 20
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Latentq[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "runbook_url"}
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = grouped_by(rule["expr"])
        assert shown <= grouped | (TARGET_LABELS if "by (" not in rule["expr"] else set())
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    assert jobs == ["latentq-api", "latentq-dispatcher", "latentq-worker"]


def test_each_alert_leads_to_its_section_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    for rule in rules():
        url = rule["annotations"]["runbook_url"]
        assert url == f"docs/operations/runbook.md#{rule['alert'].lower()}"


def test_each_section_says_what_it_means_where_to_look_and_what_to_do() -> None:
    for section in RUNBOOK.read_text().split("\n## ")[1:]:
        leads = re.findall(r"^\*\*([\w ]+):\*\*", section, re.MULTILINE)
        assert leads == ["Means", "Look at", "Do"], section


def test_each_command_of_the_pages_exists() -> None:
    pages = [*RUNBOOK.parent.glob("*.md")]
    commands = {c for page in pages for c in re.findall(r"`latentq ([^`]+)`", page.read_text())}
    assert len(commands) > 8
    for command in commands:
        found: Any = typer.main.get_command(app)
        for word in command.split():
            if word.startswith("--"):
                assert word in {name for p in found.params for name in p.opts}, command
            elif hasattr(found, "commands"):
                assert word in found.commands, command
                found = found.commands[word]


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
