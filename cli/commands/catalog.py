"""`latentq models`, `samplers`: what can be asked for."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from cli.completion import complete_models
from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.printing import print_table


def models(
    url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False
) -> None:
    """Show which models there are, and which workers have them in memory."""
    with connect(url, api_key) as client:
        body = client.models()
    names = ("id", "makes", "takes", "prediction_type", "adapters", "in_memory", "description")
    rows = [
        model
        | {
            "makes": describe_output(model),
            "takes": describe_input(model),
            "adapters": _name_adapters(model),
            "in_memory": _name_holders(model["workers"]),
        }
        for model in body["data"]
    ]
    print_table(body, names, rows, as_json=as_json)


def samplers(
    model: Annotated[
        str | None,
        typer.Option(help="The default model if left out.", autocompletion=complete_models),
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which samplers work on which schedules, and with how many steps at most."""
    with connect(url, api_key) as client:
        body = client.samplers(model)
    names = ("sampler", "schedule", "supported", "max_steps", "deterministic", "reason", "instead")
    print_table(body, names, body["data"], as_json=as_json)


def describe_output(model: Mapping[str, Any]) -> str:
    """Say what a model makes by default, and of which size."""
    if model["duration_s"] is not None:
        return f"sound of {model['duration_s']:g} s"
    return f"{model['width']}x{model['height']} picture"


def describe_input(model: Mapping[str, Any]) -> str:
    """Say what a model is told."""
    if model["labels"] is not None:
        return f"{len(set(model['labels'].values()))} labels"
    return f"{model['max_tokens']} tokens" if model["max_tokens"] else "prompts"


def _name_adapters(model: Mapping[str, Any]) -> str:
    return ", ".join(adapter["id"] for adapter in model["adapters"])


def _name_holders(workers: Iterable[Mapping[str, str]]) -> str:
    """Name the workers of a model, with what they do if they do not run jobs of it."""
    names = (
        one["worker"] + ("" if one["state"] in {"warm", "warming"} else f" ({one['state']})")
        for one in workers
    )
    return ", ".join(names)
