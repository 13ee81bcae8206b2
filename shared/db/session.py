"""Connections to PostgreSQL."""

import re
import time
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import ConfigurationError

#: What a statement raises when PostgreSQL is away, or holds up all connections that there are.
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
#: How long a new connection may take, in seconds.
CONNECT_TIMEOUT_S = 3
#: A connection that was not used for so long is asked whether it lives, in seconds. Sooner, the one
#: statement that finds it dead costs less than to ask before each.
IDLE_S = 0.2
#: No statement of ours takes longer unless something is wrong, in milliseconds.
STATEMENT_TIMEOUT_MS = 15_000
#: How a URL begins that libpq takes.
_SCHEMES = ("postgresql://", "postgres://")
#: What libpq says when TLS is why there is no connection; what it quotes is of the inside.
_TLS = re.compile(r"SSL|certificate")
_QUOTED = re.compile(r'"[^"]*"')


def make_engine(url: str, *, pool_size: int = 5) -> sa.Engine:
    """Make the engine of one process; the URL means what it means to PostgreSQL's own clients.

    Parameters never show in errors or logs: rows hold prompts.

    Raises:
        ConfigurationError: It is no such URL.
    """
    engine = sa.create_engine(
        "postgresql+psycopg://",
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,
        connect_args={
            **_read_url(url),
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
    sa.event.listen(engine, "handle_error", _leave_standby)
    return engine


def explain_away(error: BaseException) -> str:
    """Say that PostgreSQL is away, and if certificates are why, what is wrong with them."""
    says = "PostgreSQL does not answer"
    cause = error.orig if isinstance(error, DBAPIError) else None
    # What comes from a server has a state; only libpq's own words are known to hold no data.
    if not isinstance(cause, psycopg.OperationalError) or cause.sqlstate is not None:
        return says
    for line in str(cause).splitlines():
        if _TLS.search(line):
            reason = line.rpartition(" failed: ")[2].strip()
            return f"{says}: {_QUOTED.sub('…', reason)}"
    return says


def _read_url(url: str) -> dict[str, Any]:
    try:
        if url.startswith(_SCHEMES):
            return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        pass  # it quotes the URL, which holds the password
    raise ConfigurationError(
        "LATENTQ_DATABASE_URL is no URL of PostgreSQL, such as "
        "postgresql://user:password@host:port/database; what is special in URLs has to be "
        "percent-encoded in user and password"
    )


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


def _leave_standby(context: sa.ExceptionContext) -> Exception | None:
    """Take a server that only reads for one that is away: it was the primary, another is now."""
    if not isinstance(context.original_exception, ReadOnlySqlTransaction):
        return None
    # The pool is emptied: its connections lead to the same server.
    context.is_disconnect = True
    return OperationalError(
        context.statement, None, context.original_exception, hide_parameters=True
    )
