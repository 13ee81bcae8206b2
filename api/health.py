"""Whether this process can serve, found out in bounded time."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from shared.db.jobs import JobRepository
from shared.db.migrate import is_pending
from shared.db.session import explain_away
from shared.errors import ServiceUnavailable

#: How long a store may take to answer before it counts as away, in seconds.
PATIENCE_S = 2.0


class Probe:
    """Ask a store for an answer, in one thread at most however slow it is."""

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._lock = threading.Lock()
        self._asked: Future[None] | None = None

    def ask(self) -> Future[None]:
        """Return the answer to come; a question that is still open is not asked again."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(target=self._answer, args=(self._asked,), daemon=True).start()
            return self._asked

    def _answer(self, asked: Future[None]) -> None:
        try:
            self._ping()
        except Exception as error:
            asked.set_exception(error)
        else:
            asked.set_result(None)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; None stands for a store that answers, text says what is wrong."""

    database: str | None
    others: Mapping[str, str | None]


class Health:
    """Jobs are accepted while PostgreSQL answers; without the other stores they only wait."""

    def __init__(
        self,
        database: Callable[[], None],
        others: Mapping[str, Callable[[], None]],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._database = Probe(database)
        self._others = {name: Probe(ping) for name, ping in others.items()}
        self._patience_s = patience_s

    def check(self) -> Report:
        """Ask all stores at once; takes as long as its patience at most."""
        until = time.monotonic() + self._patience_s
        database = self._database.ask()
        others = {name: probe.ask() for name, probe in self._others.items()}
        return Report(
            database=_trouble(database, until),
            others={name: _trouble(answer, until) for name, answer in others.items()},
        )


def check_database(jobs: JobRepository, database: sa.Engine) -> None:
    """Check that PostgreSQL answers and has the schema that this code expects.

    Raises:
        OperationalError: It does not answer.
        ServiceUnavailable: Its schema is another one.
    """
    jobs.ping()
    if is_pending(database):
        raise ServiceUnavailable("migrations are missing: run latentq migrate")


def _trouble(answer: Future[None], until: float) -> str | None:
    try:
        answer.result(timeout=max(until - time.monotonic(), 0.0))
    except TimeoutError:
        return "no answer in time"
    except ServiceUnavailable as error:
        return error.detail
    except SQLAlchemyError as error:
        return explain_away(error)
    return None
