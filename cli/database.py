"""The database itself, for the few commands that ask it without the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from latentq_client import ServiceUnreachable

if TYPE_CHECKING:
    import sqlalchemy as sa


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
