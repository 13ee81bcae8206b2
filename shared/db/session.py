"""Connections to PostgreSQL."""

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

#: What a statement raises when PostgreSQL is away, or holds up all connections that there are.
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
#: How long a new connection may take, in seconds.
CONNECT_TIMEOUT_S = 3
#: No statement of ours takes longer unless something is wrong, in milliseconds.
STATEMENT_TIMEOUT_MS = 15_000


def make_engine(url: str, *, pool_size: int = 5) -> sa.Engine:
    """Make the engine of one process.

    Parameters never show in errors or logs: rows hold prompts.
    """
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
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
