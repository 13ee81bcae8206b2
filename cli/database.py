"""The database itself, for the few commands that ask it without the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.connection import has_variable, read_nearby
from latentq_client import ServiceUnreachable
from shared.environment import PREFIX
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    import sqlalchemy as sa


def find_database() -> str:
    """Return the URL of LATENTQ_DATABASE_URL, else of the database of the `latentq up` next to us.

    Raises:
        ConfigurationError: There is neither.
    """
    variable = f"{PREFIX}DATABASE_URL"
    if has_variable(variable):
        return DatabaseSettings.read().database_url.get_secret_value()
    return read_nearby("database_url", otherwise=f"set {variable}")


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
