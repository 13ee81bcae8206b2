"""Which queue a worker takes its next job from: those of the models that it holds warm, mostly."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog

from shared.db.presence import Surroundings
from shared.db.session import DATABASE_AWAY

#: A queue whose oldest announced job has waited for longer goes before the others of its class, in
#: seconds: also one whose model has to be loaded first.
OVERTAKE_AFTER_S = 30.0
#: For so long a worker leaves jobs of a model to another one that holds it warm, in seconds.
LEAVE_FOR_S = 5.0
#: How often a worker looks around, in seconds.
INTERVAL_S = 1.0

log = structlog.get_logger(__name__)


class Affinity:
    """The order of a worker's queues; arranged anew whenever it waits for a message."""

    def __init__(
        self, classes: Iterable[Sequence[str]], warm_queues: Callable[[], Collection[str]]
    ) -> None:
        """Take the queues of each service class, the urgent class first."""
        self._classes = [list(queues) for queues in classes]
        self._warm_queues = warm_queues
        self._waited_s: Mapping[str, float] = {}
        self._warm_elsewhere: frozenset[str] = frozenset()

    @property
    def queues(self) -> list[str]:
        """All queues that the worker may take from."""
        return [queue for queues in self._classes for queue in queues]

    @property
    def warm_queues(self) -> list[str]:
        """Those of them whose models it holds warm at the moment."""
        warm = set(self._warm_queues())
        return [queue for queue in self.queues if queue in warm]

    def learn(self, surroundings: Surroundings) -> None:
        """Take in what goes on around the worker."""
        self._waited_s = surroundings.waited_s
        self._warm_elsewhere = surroundings.warm_elsewhere

    def arrange(self, queues: Iterable[str]) -> list[str]:
        """Order queues: of each class those that waited too long, then the warm ones; then others.

        One of a cold model stands at the end, so that it is taken from when all before are empty,
        and is left out for a moment where another worker holds the model warm.
        """
        known, waited_s = set(queues), self._waited_s
        warm = set(self._warm_queues())
        arranged, cold = [], []
        for of_class in self._classes:
            here = [queue for queue in of_class if queue in known]
            late = [queue for queue in here if waited_s.get(queue, 0) > OVERTAKE_AFTER_S]
            arranged += sorted(late, key=lambda queue: -waited_s.get(queue, 0))
            arranged += [queue for queue in here if queue in warm and queue not in late]
            cold += [queue for queue in here if queue not in warm and queue not in late]
        arranged += [queue for queue in cold if not self._is_left_to_others(queue)]
        # Nothing to wait for would be no reason to look again.
        return arranged or cold

    def note_taken(self, queue: str) -> None:
        """Let a queue that waited too long overtake with one job, until it is looked at again."""
        self._waited_s = {name: s for name, s in self._waited_s.items() if name != queue}

    def _is_left_to_others(self, queue: str) -> bool:
        return queue in self._warm_elsewhere and self._waited_s.get(queue, 0) <= LEAVE_FOR_S


class Lookout:
    """A thread that tells the affinity what goes on."""

    def __init__(self, affinity: Affinity, look_around: Callable[[], Surroundings]) -> None:
        self._affinity = affinity
        self._look_around = look_around
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin to look around."""
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            try:
                self._affinity.learn(self._look_around())
            except DATABASE_AWAY:
                log.warning("lookout_failed")
