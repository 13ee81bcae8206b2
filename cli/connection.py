"""Where the service is and with which key: options, variables, or the `latentq up` next to us."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from latentq_client import Client
from shared.errors import ConfigurationError
from shared.settings import ClientSettings

#: What `latentq up` writes with its default data directory.
NEARBY = Path(".latentq/connection.json")

UrlOption = Annotated[
    str | None,
    typer.Option(
        help="Where the service is [LATENTQ_URL, LATENTQ_URL_FILE; else .latentq/connection.json]."
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        help="API key [LATENTQ_API_KEY, LATENTQ_API_KEY_FILE; else .latentq/connection.json]."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]


def connect(url: str | None, api_key: str | None) -> Client:
    """Connect to the service that the user means.

    Raises:
        ConfigurationError: It is not said where that is, or with which key.
    """
    if not url or not api_key:
        settings = ClientSettings.read()
        url = url or settings.url
        if not api_key and settings.api_key is not None:
            api_key = settings.api_key.get_secret_value()
    if not url or not api_key:
        hint = "set LATENTQ_URL and LATENTQ_API_KEY"
        url = url or read_nearby("base_url", otherwise=hint)
        api_key = api_key or read_nearby("api_key", otherwise=hint)
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{url!r} is no URL: it must begin with http:// or https://")
    return Client(url, api_key)


def has_variable(name: str) -> bool:
    """Tell whether a variable is set, by itself or as a file."""
    return bool({name, f"{name}_FILE"} & {*os.environ})  # noqa: TID251 - the clients' process entry


def read_nearby(name: str, *, otherwise: str) -> str:
    """Read what a `latentq up` next to us says of itself.

    Raises:
        ConfigurationError: There is none; says what to do `otherwise`.
    """
    try:
        return str(json.loads(NEARBY.read_text())[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{otherwise}, or stand where `latentq up` was started") from error
