"""Connections to PostgreSQL."""

import time
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

#: What a statement raises when PostgreSQL is away, or holds up all connections that there are.
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
#: How long a new connection may take, in seconds.
CONNECT_TIMEOUT_S = 3
#: A connection that was not used for so long is asked whether it lives, in seconds. Sooner, the one
#: statement that finds it dead costs less than to ask before each.
IDLE_S = 0.2
#: No statement of ours takes longer unless something is wrong, in milliseconds.
STATEMENT_TIMEOUT_MS = 15_000


def make_engine(url: str, *, pool_size: int = 5) -> sa.Engine:
    """Make the engine of one process.

    Parameters never show in errors or logs: rows hold prompts.
    """
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS}",
            # A host that vanished without a word is noticed within about 15 seconds.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": 15_000,
        },
    )
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", _check_life)
    return engine


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _check_life(connection: Any, record: Any, _proxy: Any) -> None:
    """Ask a connection that lay idle; the pool replaces one that does not answer."""
    if time.monotonic() - record.info.get("used_at", time.monotonic()) < IDLE_S:
        return
    try:
        connection.autocommit = True
        connection.execute("SELECT 1")
        connection.autocommit = False
    except psycopg.Error as error:
        raise DisconnectionError("the connection is dead") from error
