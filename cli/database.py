"""The stores themselves, for the few commands that ask them without the service."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cli.connection import has_variable, read_nearby
from latentq_client import ServiceUnreachable
from shared.environment import PREFIX, Settings
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    import sqlalchemy as sa

SettingsT = TypeVar("SettingsT", bound=Settings)


def find_database() -> str:
    """Return the URL of LATENTQ_DATABASE_URL, else of the database of the `latentq up` next to us.

    Raises:
        ConfigurationError: There is neither.
    """
    variable = f"{PREFIX}DATABASE_URL"
    if has_variable(variable):
        return DatabaseSettings.read().database_url.get_secret_value()
    return read_nearby("database_url", otherwise=f"set {variable}")


def read_settings(cls: type[SettingsT], names: Iterable[str]) -> SettingsT:
    """Read settings from LATENTQ_... variables, else those of the `latentq up` next to us, by name.

    Raises:
        ConfigurationError: There are neither.
    """
    if has_variable(f"{PREFIX}DATABASE_URL"):
        return cls.read()
    hint = f"set the {PREFIX}... variables of the service"
    return cls.model_validate({name: read_nearby(name, otherwise=hint) for name in names})


@contextmanager
def open_database(url: str) -> Iterator["sa.Engine"]:
    """Open a database for a moment.

    Raises:
        ServiceUnreachable: It does not answer.
    """
    # Not at the top: client commands start without it.
    from sqlalchemy.exc import OperationalError

    from shared.db.session import explain_away, make_engine

    engine = make_engine(url)
    try:
        yield engine
    except OperationalError as error:
        raise ServiceUnreachable(explain_away(error)) from error
    finally:
        engine.dispose()
