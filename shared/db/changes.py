"""Which jobs have changed, heard from the database as it commits."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
import structlog

from shared.db.session import DATABASE_AWAY

#: What the trigger on `jobs` tells; a notice is the id of a job and nothing else.
CHANNEL = "job_changes"
#: How often the thread looks whether it shall stop, in seconds.
POLL_S = 1.0
#: Pauses before the first and the later tries to connect again, in seconds.
MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0

log = structlog.get_logger(__name__)


class ChangeListener:
    """A thread that hears of changes on one connection, which is none of the pool's.

    Notices are hints: what happens while the connection is down is never heard of. `on_change` gets
    the id of a job; `on_gap` is called whenever notices may have been lost, and after a start. Both
    are called on the thread.
    """

    def __init__(
        self, engine: sa.Engine, on_change: Callable[[str], None], on_gap: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._on_change = on_change
        self._on_gap = on_gap
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="change-listener", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; a database that is silent is not waited for."""
        self._stopping.set()
        self._thread.join(2 * POLL_S)

    def _run(self) -> None:
        pause_s = MIN_PAUSE_S
        while not self._stopping.is_set():
            try:
                with self._engine.connect() as connection:
                    driver = _listen(connection)
                    pause_s = MIN_PAUSE_S
                    # Whoever looks now sees what was not told before.
                    self._on_gap()
                    self._hear(driver)
            except (*DATABASE_AWAY, psycopg.OperationalError, psycopg.InterfaceError) as error:
                log.warning("change_listener_away", error=type(error).__name__)
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _hear(self, driver: Any) -> None:
        while not self._stopping.is_set():
            for notice in driver.notifies(timeout=POLL_S):
                self._on_change(notice.payload)


def _listen(connection: sa.Connection) -> Any:
    """Subscribe on a connection that the pool then replaces; returns psycopg's own."""
    connection.execution_options(isolation_level="AUTOCOMMIT")
    connection.detach()
    connection.execute(sa.text(f"LISTEN {CHANNEL}"))
    return connection.connection.dbapi_connection
