"""Names that the shell completes by asking the service."""

from collections.abc import Callable, Mapping
from typing import Any

from cli.connection import connect
from latentq_client import Client, ClientError
from shared.errors import ConfigurationError


def complete_models(incomplete: str) -> list[str]:
    """Return the models that begin so."""
    return _complete(incomplete, lambda client: client.models(), "id")


def complete_presets(incomplete: str) -> list[str]:
    """Return the presets that begin so."""
    return _complete(incomplete, lambda client: client.presets(), "name")


def _complete(
    incomplete: str, read: Callable[[Client], Mapping[str, Any]], member: str
) -> list[str]:
    try:
        with connect(None, None) as client:
            names = [str(one[member]) for one in read(client)["data"]]
    except (ClientError, ConfigurationError):
        return []  # a shell in the middle of a line has no place for what is wrong
    return [name for name in names if name.startswith(incomplete)]
