"""Store jobs that come at the same moment in one statement, which costs little more than one."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from shared.db.acceptance import INSERT_JOBS, TOLD_COLUMNS, rows_parameter
from shared.db.outlook import FEW_AHEAD, select_outlook
from shared.db.session import DATABASE_AWAY
from shared.db.tables import jobs
from shared.job import NewJob

#: Jobs of one statement: its parameter shall not grow without bound.
MAX_TOGETHER = 64

#: Stores rows but for those whose key is known, and tells how the others stand. Those that come in
#: one statement do not see each other, just as those do not that come at the same moment.
ACCEPT = select_outlook(
    INSERT_JOBS.on_conflict_do_nothing(index_elements=["tenant", "idempotency_key"])
    .returning(*(jobs.c[name] for name in TOLD_COLUMNS))
    .cte("accepted"),
    max_ahead=FEW_AHEAD,
)


class _Arrival:
    """A job that waits to be stored, and what became of it."""

    def __init__(self, new: NewJob) -> None:
        self.new = new
        self.row: Future[sa.Row[Any] | None] = Future()

    @property
    def place(self) -> tuple[str, str]:
        return self.new.tenant, self.new.idempotency_key or ""


class JointInsert:
    """Inserts jobs on a thread of its own; those that come while one is stored go together."""

    def __init__(self, engine: sa.Engine) -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._waiting: list[_Arrival] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="joint-insert")

    def insert(self, new: NewJob) -> "Future[sa.Row[Any] | None]":
        """Store a job soon; its row as `ACCEPT` tells it, or None if its key is known."""
        arrival = _Arrival(new)
        with self._lock:
            self._waiting.append(arrival)
        # One turn for each: those that went along with another find nothing left to do.
        self._thread.submit(self._take_turn)
        return arrival.row

    def _take_turn(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
        # Who has gone away meanwhile wants nothing stored.
        together = [arrival for arrival in taken if arrival.row.set_running_or_notify_cancel()]
        if together:
            # In one order in all processes: two would wait for each other's keys otherwise.
            self._store(sorted(together, key=lambda arrival: arrival.place))

    def _store(self, together: Sequence[_Arrival]) -> None:
        try:
            with self._single.connect() as connection:
                parameter = rows_parameter([arrival.new for arrival in together])
                rows = {row.id: row for row in connection.execute(ACCEPT, parameter)}
        except Exception as error:
            if len(together) == 1 or isinstance(error, DATABASE_AWAY):
                for arrival in together:
                    arrival.row.set_exception(error)
                return
            # One of them cannot be stored: which one is found, and the others are.
            for arrival in together:
                self._store([arrival])
        else:
            for arrival in together:
                arrival.row.set_result(rows.get(arrival.new.id))
