"""The Helm chart, rendered by Helm's own engine, and the manifests that are committed."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.commands import SETTINGS, missing_variables, parse, unknown_variables
from tests.deploy.manifests import CHART, FOLDER, ROOT, committed_values
from worker.watchdog import SETTLE_S

Object = dict[str, Any]

#: The least that works.
LEAST: Object = {"s3": {"endpoint": "https://s3.example.com"}, "workers": {"cpu": None}}
#: The oldest version that the chart allows, and the newest whose schemas there are.
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
#: What Kubernetes has only with KEDA and the Prometheus operator: the fields that we use, as the
#: definitions of both have them.
DEFINED_ELSEWHERE = {
    "ScaledObject": {
        "type": "object",
        "required": ["scaleTargetRef", "triggers"],
        "additionalProperties": False,
        "properties": {
            "scaleTargetRef": {"type": "object", "required": ["name"]},
            "minReplicaCount": {"type": "integer"},
            "maxReplicaCount": {"type": "integer"},
            "pollingInterval": {"type": "integer"},
            "cooldownPeriod": {"type": "integer"},
            "advanced": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"horizontalPodAutoscalerConfig": {"required": ["behavior"]}},
            },
            "triggers": {
                "type": "array",
                "items": {
                    "required": ["type", "metadata"],
                    "additionalProperties": False,
                    "properties": {
                        "type": {"const": "prometheus"},
                        "metricType": {"enum": ["AverageValue", "Value"]},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
            },
        },
    },
    "ServiceMonitor": {
        "type": "object",
        "required": ["selector", "endpoints"],
        "additionalProperties": False,
        "properties": {
            "selector": {"type": "object", "required": ["matchLabels"]},
            "endpoints": {
                "type": "array",
                "items": {
                    "additionalProperties": False,
                    "properties": {
                        "port": {"type": "string"},
                        "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                    },
                },
            },
        },
    },
}


def render(values: Object) -> dict[str, str]:
    """Render in a process of its own: Helm is a Go program, which takes over signal handlers."""
    return _render(json.dumps(values))


@cache
def _render(values: str) -> dict[str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.deploy.manifests", "--values", "-"],
        cwd=ROOT,
        input=values,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise ValueError(ended.stderr)
    texts: dict[str, str] = json.loads(ended.stdout)
    return texts


def objects_of(texts: dict[str, str]) -> list[Object]:
    return [item for text in texts.values() for item in yaml.safe_load_all(text) if item]


@pytest.fixture(scope="module")
def committed() -> list[Object]:
    files = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    return objects_of(files)


def pod_of(item: Object) -> Object | None:
    spec = item["spec"].get("template", {}).get("spec")
    return spec if item["kind"] in {"Deployment", "Job"} else None


def containers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    for item in objects:
        if (pod := pod_of(item)) is not None:
            for container in pod["containers"]:
                yield pod, container


def variables_of(container: Object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_committed_manifests_are_what_the_chart_gives() -> None:
    files = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert files == render(committed_values()), "run make manifests"


@pytest.mark.parametrize(
    ("values", "version"),
    [(committed_values(), OLDEST), (committed_values(), NEWEST), (LEAST, OLDEST)],
)
def test_every_object_is_one_of_kubernetes(values: Object, version: str) -> None:
    objects = objects_of(render(values))
    assert {item["kind"] for item in objects} >= {"Deployment", "Service", "Job", "NetworkPolicy"}
    for item in objects:
        if item["kind"] in DEFINED_ELSEWHERE:
            jsonschema.validate(item["spec"], DEFINED_ELSEWHERE[item["kind"]])
        else:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_least_installation_needs_nothing_but_kubernetes() -> None:
    kinds = {item["kind"] for item in objects_of(render(LEAST))}
    assert not kinds & DEFINED_ELSEWHERE.keys()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"s3": {"endpoint": ""}}, "s3.endpoint is missing"),
        ({"s3": {"endpoint": "https://s3.test", "addressing": "dns"}}, "addressing"),
        ({"workers": {}}, "workers is empty"),
        ({"workers": {"gpu": {"divice": "cuda"}}}, "divice"),
        ({"workers": {"gpu": {"models": ["SDXL"]}}}, "models"),
        ({"api": {"variables": {"LINK_TTL_S": 60}}}, "LINK_TTL_S"),
        ({"dispatcher": {"replicas": -1}}, "replicas"),
    ],
)
def test_values_that_mean_nothing_are_refused(changes: Object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        render(LEAST | changes)


def test_our_processes_understand_what_they_are_given(committed: list[Object]) -> None:
    processes = set()
    for _, container in containers(committed):
        process = container["args"][0]
        processes.add(process)
        parse(container["args"])
        assert not unknown_variables(process, variables_of(container))
        assert not missing_variables(process, variables_of(container))
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if process != "migrate":
            assert variables_of(container)["LATENTQ_METRICS_PORT"] == str(ports["metrics"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if command := container.get(probe, {}).get("exec", {}).get("command"):
                assert command[0] == "latentq"
                assert parse(command[1:])["process"] == process
    assert processes == SETTINGS.keys()


def test_the_api_is_asked_where_it_answers(committed: list[Object]) -> None:
    (api,) = [container for _, container in containers(committed) if container["name"] == "api"]
    (port,) = [port["containerPort"] for port in api["ports"] if port["name"] == "http"]
    assert parse(api["args"])["port"] == port
    assert api["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert api["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}


def test_every_pod_is_confined(committed: list[Object]) -> None:
    for pod, container in containers(committed):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"limits", "requests"}


def test_secrets_are_only_named(committed: list[Object]) -> None:
    assert "Secret" not in {item["kind"] for item in committed}
    for pod, container in containers(committed):
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (secret,) = [volume for volume in pod["volumes"] if "secret" in volume]
        for name, value in variables_of(container).items():
            if name.endswith("_FILE"):
                assert value.startswith(mounted[secret["name"]] + "/")


def test_a_worker_leaves_before_it_is_killed(committed: list[Object]) -> None:
    workers = [pair for pair in containers(committed) if pair[1]["name"] == "worker"]
    assert len(workers) == len(committed_values()["workers"])
    for pod, container in workers:
        grace_s = float(variables_of(container)["LATENTQ_GRACE_S"])
        assert pod["terminationGracePeriodSeconds"] > grace_s + SETTLE_S


def test_whatever_points_at_something_finds_it(committed: list[Object]) -> None:
    deployments = {i["metadata"]["name"]: i for i in committed if i["kind"] == "Deployment"}
    labels = [
        item["spec"]["template"]["metadata"]["labels"]
        for item in committed
        if pod_of(item) is not None
    ]
    services = [item["metadata"]["labels"] for item in committed if item["kind"] == "Service"]

    def finds(selector: Object, candidates: list[Object]) -> bool:
        return any(selector.items() <= candidate.items() for candidate in candidates)

    seen = set()
    for item in committed:
        kind, spec = item["kind"], item["spec"]
        seen.add(kind)
        if kind in {"HorizontalPodAutoscaler", "ScaledObject"}:
            target = deployments[spec["scaleTargetRef"]["name"]]
            assert "replicas" not in target["spec"]
        elif kind in {"PodDisruptionBudget", "Deployment"}:
            assert finds(spec["selector"]["matchLabels"], labels)
        elif kind == "Service":
            assert finds(spec["selector"], labels)
        elif kind == "NetworkPolicy":
            assert finds(spec["podSelector"]["matchLabels"], labels)
        elif kind == "ServiceMonitor":
            assert finds(spec["selector"]["matchLabels"], services)
    budgets = [item for item in committed if item["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == len(deployments)
    assert seen == {
        "Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy",
        "HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor",
    }  # fmt: skip


def test_workers_scale_by_the_backlog_of_their_models() -> None:
    pool = {"models": ["sd1.5", "sdxl"], "autoscaling": {"enabled": True, "backlogSeconds": 90}}
    objects = objects_of(
        render(LEAST | {"workers": {"gpu": pool, "all": {"autoscaling": {"enabled": True}}}})
    )
    scaled = {i["metadata"]["name"]: i for i in objects if i["kind"] == "ScaledObject"}
    (trigger,) = scaled["latentq-worker-gpu"]["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        "sum(max by (model) (latentq_backlog_device_seconds"
        '{namespace="latentq",model=~"sd1[.]5|sdxl"}))'
    )
    assert trigger["metadata"]["threshold"] == "90"
    (trigger,) = scaled["latentq-worker-all"]["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(max by (model) (latentq_backlog_device_seconds{namespace="latentq"}))'
    )


def test_a_store_of_ones_own_is_spoken_to_as_the_values_say() -> None:
    mounted = "/run/secrets/latentq/ca.pem"
    s3 = LEAST["s3"] | {"addressing": "virtual", "caBundle": mounted}
    processes = set()
    for _, container in containers(objects_of(render(LEAST | {"s3": s3}))):
        variables = variables_of(container)
        assert not unknown_variables(container["args"][0], variables)
        processes.add(
            (variables.get("LATENTQ_S3_ADDRESSING"), variables.get("LATENTQ_S3_CA_BUNDLE"))
        )
    # Migrations know no store.
    assert processes == {("virtual", mounted), (None, None)}


def test_models_of_ones_own_are_mounted_where_the_catalog_is() -> None:
    values = LEAST | {
        "models": {"claim": "models"},
        "workers": {"a": None, "b": {"catalog": "/models/b.toml"}},
    }
    catalogs = {}
    for pod, container in containers(objects_of(render(values))):
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in container[
            "volumeMounts"
        ]
        assert "models" in {volume["name"] for volume in pod["volumes"]}
        catalogs[" ".join(container["args"])] = variables_of(container).get("LATENTQ_CATALOG")
    assert catalogs == {
        "api --host 0.0.0.0 --port 8000": "/models/catalog.toml",
        "dispatcher": "/models/catalog.toml",
        "worker --name a": "/models/catalog.toml",
        "worker --name b": "/models/b.toml",
        "migrate": None,
    }


def test_migrations_run_before_the_new_version() -> None:
    (job,) = [item for item in objects_of(render(LEAST)) if item["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_chart_has_our_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version
