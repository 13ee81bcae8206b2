"""Who waits for which job, in one process: requests and streams, woken by what is heard of jobs."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from api.problems import RequestRefused
from shared.errors import ServiceUnavailable
from shared.preview import Preview

#: How many requests and streams of one key, and of the whole process, may wait at a time.
MAX_WATCHES_PER_KEY = 1_000
MAX_WATCHES = 2_000
#: After so long a waiting request looks again even though nobody woke it, in seconds.
LOOK_AGAIN_S = 5.0


class Watch:
    """One request that waits, in the event loop; `JobHub.watch` makes it."""

    def __init__(self, followers: dict[str, set["Watch"]]) -> None:
        #: There is nothing left to wait for: the client has gone, or the process stops.
        self.is_over = False
        #: The newest picture of the job that nobody took; for those who asked for any.
        self.preview: Preview | None = None
        self.loop = asyncio.get_running_loop()
        self._followers = followers
        self._followed: set[str] = set()
        self._wake = asyncio.Event()

    def follow(self, job_id: str) -> None:
        """Be woken by changes of a job from now on; read it after this call, not before."""
        self._followed.add(job_id)
        self._followers[job_id].add(self)

    def unfollow(self) -> None:
        """Be woken by no job any more."""
        for job_id in self._followed:
            self._followers[job_id].discard(self)
            if not self._followers[job_id]:
                del self._followers[job_id]
        self._followed.clear()

    async def wait(self, timeout_s: float) -> None:
        """Return when something may have changed since the last call, or after a time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, LOOK_AGAIN_S)):
                await self._wake.wait()
        if not self.is_over:
            self._wake.clear()

    def wake(self) -> None:
        """Have `wait` return."""
        self._wake.set()

    def show(self, preview: Preview) -> None:
        """Hand over a preview, in place of one that nobody took. For any thread."""
        self.loop.call_soon_threadsafe(self._take, preview)

    def end(self) -> None:
        """Have `wait` return, now and always."""
        self.is_over = True
        self._wake.set()

    def _take(self, preview: Preview) -> None:
        self.preview = preview
        self._wake.set()


class JobHub:
    """Wakes those who wait.

    A wake-up carries nothing: what there is to see is read by those who may see it. `watch`
    belongs to the event loop; `wake`, `wake_all` and `close` may be called on any thread. Whoever
    has news of a job besides its row calls `wake` too.
    """

    def __init__(
        self, *, max_watches_per_key: int = MAX_WATCHES_PER_KEY, max_watches: int = MAX_WATCHES
    ) -> None:
        self._max_watches_per_key = max_watches_per_key
        self._max_watches = max_watches
        self._watches: set[Watch] = set()
        self._num_of_key: Counter[str] = Counter()
        self._followers: dict[str, set[Watch]] = defaultdict(set)
        self._is_closed = False

    @property
    def num_watches(self) -> int:
        """How many requests wait."""
        return len(self._watches)

    @contextmanager
    def watch(self, key_id: str) -> Iterator[Watch]:
        """Let a request of a key wait while the context lasts.

        Raises:
            RequestRefused: Too many requests of the key wait.
            ServiceUnavailable: Too many requests wait in this process.
        """
        if len(self._watches) >= self._max_watches:
            raise ServiceUnavailable("too many requests wait at the moment; ask without waiting")
        if self._num_of_key[key_id] >= self._max_watches_per_key:
            raise RequestRefused(
                f"up to {self._max_watches_per_key:,} requests of a key may wait at a time in one "
                "process; end some, or ask without waiting",
                code="too_many_waiting",
            )
        watch = Watch(self._followers)
        self._watches.add(watch)
        self._num_of_key[key_id] += 1
        if self._is_closed:
            watch.end()
        try:
            yield watch
        finally:
            watch.unfollow()
            self._watches.discard(watch)
            self._num_of_key[key_id] -= 1
            if not self._num_of_key[key_id]:
                del self._num_of_key[key_id]

    def wake(self, job_id: str) -> None:
        """Have those look who follow a job."""
        _call(self._followers.get(job_id, ()), Watch.wake)

    def wake_all(self) -> None:
        """Have everybody look: notices may have been lost."""
        _call(self._watches, Watch.wake)

    def close(self) -> None:
        """Let nobody wait any longer: the process stops."""
        self._is_closed = True
        _call(self._watches, Watch.end)


def _call(watches: Iterable[Watch], method: Callable[[Watch], None]) -> None:
    # Copied in one go, since the event loop goes on meanwhile.
    for watch in list(watches):
        watch.loop.call_soon_threadsafe(method, watch)
