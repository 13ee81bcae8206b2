"""The fields of a job as options, for every command that takes some of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.completion import complete_models, complete_presets
from latentq_client import Client
from shared.errors import ConfigurationError
from shared.vocab import Determinism, OutputFormat, Sampler, Schedule, ServiceClass

#: By the field's name; each is None where it is not given.
OPTIONS: dict[str, Any] = {
    "negative_prompt": Annotated[str | None, typer.Option(help="What it shall not show.")],
    "class_label": Annotated[
        str | None, typer.Option(help="Name or number, for models that take no prompt.")
    ],
    "model": Annotated[
        str | None, typer.Option(help="Catalog id.", autocompletion=complete_models)
    ],
    "preset": Annotated[
        str | None, typer.Option(help="NAME or NAME@VERSION.", autocompletion=complete_presets)
    ],
    "sampler": Annotated[Sampler | None, typer.Option(help="Stepping rule.")],
    "schedule": Annotated[Schedule | None, typer.Option(help="Noise levels to visit.")],
    "steps": Annotated[int | None, typer.Option(help="Denoising steps.")],
    "guidance": Annotated[float | None, typer.Option(help="1 means none.")],
    "guidance_rescale": Annotated[float | None, typer.Option(help="0 to 1.")],
    "seed": Annotated[int | None, typer.Option(help="Random if left out.")],
    "width": Annotated[int | None, typer.Option(help="In pixels.")],
    "height": Annotated[int | None, typer.Option(help="In pixels.")],
    "duration_s": Annotated[
        float | None, typer.Option("--duration", help="Of a sound, in seconds.")
    ],
    "init_image": Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Picture to start from: PNG, JPEG, WebP."),
    ],
    "mask": Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="White where the picture is made anew."),
    ],
    "strength": Annotated[
        float | None, typer.Option(help="How much of --init-image changes, up to 1.")
    ],
    "adapters": Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="ID[:WEIGHT]", help="Adapter of the model, repeatable."),
    ],
    "num_outputs": Annotated[int | None, typer.Option(help="1 to 8 pictures or sounds.")],
    "output_format": Annotated[OutputFormat | None, typer.Option("--format", help="File format.")],
    "allow_undistilled": Annotated[
        bool | None, typer.Option("--allow-undistilled", help="lcm and tcd on any model.")
    ],
    "determinism": Annotated[
        Determinism | None, typer.Option(help="exact: equal bytes in any company.")
    ],
    "service_class": Annotated[ServiceClass | None, typer.Option(help="Which queue.")],
    "priority": Annotated[int | None, typer.Option(help="0 to 9, 9 first.")],
    "deadline_s": Annotated[int | None, typer.Option(help="Seconds for queue and run together.")],
    "not_before": Annotated[
        str | None, typer.Option(help="Wait until then: 2030-01-31T12:00:00Z.")
    ],
    "metadata": Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")],
}


def with_fields(names: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of some fields, where its parameter `fields` stands.

    The command gets those that were given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            taken = {name: values.pop(name) for name in names}
            # What may stand more than once is an empty list where it does not stand at all.
            given = {name: value for name, value in taken.items() if value not in (None, [])}
            command(**values, fields=given)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == "fields":
                parameters += [
                    inspect.Parameter(name, parameter.kind, default=None, annotation=OPTIONS[name])
                    for name in names
                ]
            else:
                parameters.append(parameter)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def name_subject(prompt: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put a prompt beside other fields.

    Raises:
        ConfigurationError: There is none, nor a label instead.
    """
    if prompt is None and "class_label" not in fields:
        raise ConfigurationError(
            "Missing argument PROMPT, or --class-label where a model has labels"
        )
    return {"prompt": prompt, **fields}


def send_pictures(client: Client, fields: dict[str, Any]) -> dict[str, Any]:
    """Store the pictures that fields name, and return the fields as the service takes them.

    Raises:
        ConfigurationError: Metadata is not written as KEY=VALUE, or an adapter as ID[:WEIGHT].
        ServiceRefused: A picture is none.
    """
    sent = dict(fields)
    if "metadata" in sent:
        sent["metadata"] = _read_metadata(sent["metadata"])
    if "adapters" in sent:
        sent["adapters"] = [_read_adapter(text) for text in sent["adapters"]]
    for name in ("init_image", "mask"):
        if name in sent:
            sent[name] = client.upload(sent[name]).id
    return sent


def _read_adapter(text: str) -> dict[str, str | float]:
    adapter_id, colon, weight = text.partition(":")
    if not colon:
        return {"id": adapter_id}
    try:
        return {"id": adapter_id, "weight": float(weight)}
    except ValueError as error:
        raise ConfigurationError("--adapter takes ID or ID:WEIGHT, such as pastel:0.8") from error


def _read_metadata(pairs: Sequence[str]) -> dict[str, str]:
    metadata = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(metadata) != len(pairs):
        raise ConfigurationError("--metadata takes KEY=VALUE, each key once")
    return metadata
