"""Which queue a worker takes its next job from: those of the models that it holds warm, mostly."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from shared.db.presence import Surroundings
from shared.db.session import DATABASE_AWAY
from shared.holding import HoldingState

#: A queue whose oldest announced job has waited for longer goes before the others of its class, in
#: seconds: also one whose model has to be loaded first.
OVERTAKE_AFTER_S = 30.0
#: For so long a worker leaves jobs of a model to another one that holds it warm, in seconds.
LEAVE_FOR_S = 5.0
#: How often a worker looks around, in seconds.
INTERVAL_S = 1.0
_WARM = frozenset({HoldingState.WARM, HoldingState.WARMING})
_COMING = frozenset({HoldingState.WAITING, HoldingState.FETCHING, HoldingState.LOADING})

log = structlog.get_logger(__name__)


class Affinity:
    """The order of a worker's queues; arranged anew whenever it waits for a message."""

    def __init__(
        self,
        classes: Iterable[Sequence[str]],
        states: Callable[[], Mapping[str, HoldingState]],
    ) -> None:
        """Take the queues of each service class, the urgent class first, models in one order.

        `states` says how far the worker is with the models of which queues.
        """
        self._classes = [list(queues) for queues in classes]
        self._states = states
        # By queue: all queues of the same model.
        self._of_model = {q: queues for queues in zip(*self._classes, strict=True) for q in queues}
        # Those whose model was asked for by a job that was taken since the last look around.
        self._asked_for: frozenset[str] = frozenset()
        self._waited_s: Mapping[str, float] = {}
        self._warm_elsewhere: frozenset[str] = frozenset()

    @property
    def queues(self) -> list[str]:
        """All queues that the worker may take from."""
        return [queue for queues in self._classes for queue in queues]

    def learn(self, surroundings: Surroundings) -> None:
        """Take in what goes on around the worker."""
        self._waited_s = surroundings.waited_s
        self._warm_elsewhere = surroundings.warm_elsewhere
        self._asked_for = frozenset()

    def arrange(self, queues: Iterable[str]) -> list[str]:
        """Order queues: of each class those that waited too long, then the warm ones; then others.

        One of a cold model stands at the end, so that it is taken from when all before are empty,
        and is left out for a moment where another worker holds the model warm. A model on its way
        needs one job to come; more of them would only keep the places of others.
        """
        known, waited_s, states = set(queues), self._waited_s, self._states()
        warm = {queue for queue in known if states.get(queue) in _WARM}
        coming = {queue for queue in known if states.get(queue) in _COMING} | self._asked_for
        arranged, cold = [], []
        for of_class in self._classes:
            here = [q for q in of_class if q in known and (q in warm or q not in coming)]
            late = [queue for queue in here if waited_s.get(queue, 0) > OVERTAKE_AFTER_S]
            arranged += sorted(late, key=lambda queue: -waited_s.get(queue, 0))
            arranged += [queue for queue in here if queue in warm and queue not in late]
            cold += [queue for queue in here if queue not in warm and queue not in late]
        failed = {queue for queue in cold if states.get(queue) is HoldingState.FAILED}
        arranged += [q for q in cold if not self._is_left_to_others(q, has_failed=q in failed)]
        # Nothing to wait for would be no reason to look again.
        return arranged or cold or [queue for queue in self.queues if queue in known]

    def note_taken(self, queue: str) -> None:
        """Let a queue that waited too long overtake with one job, until it is looked at again."""
        self._waited_s = {name: s for name, s in self._waited_s.items() if name != queue}
        if self._states().get(queue) not in _WARM:
            self._asked_for |= set(self._of_model[queue])

    def _is_left_to_others(self, queue: str, *, has_failed: bool) -> bool:
        """Tell whether another worker, which holds a cold model warm, shall run its jobs."""
        is_soon = self._waited_s.get(queue, 0) <= LEAVE_FOR_S
        return queue in self._warm_elsewhere and (is_soon or has_failed)


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
