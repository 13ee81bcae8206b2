"""Callers of every kind, all at once, who expect that nothing goes wrong."""

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import httpx

from tests.fixtures.pictures import picture
from tests.fixtures.stack import TERMINAL, wait_until

#: Jobs that have not ended, at which callers send no more: what a worker or two have in hand.
MOST_UNDER_WAY = 10
#: What a stage must have seen before it counts, in jobs that came and ended within it.
PROOF = 8
#: How long anything may take, in seconds, however busy the machine is.
PATIENCE_S = 600.0
ANSWER_TIMEOUT_S = 120.0
PAUSE_S = 0.05
#: Long enough to be under way when its worker is told to leave.
LONG_STEPS = 300
PROMPT = "a large red star on a yellow background"

JsonObject = dict[str, Any]


class Load:
    """A caller that submits, one that follows, and what they were refused.

    Args:
        api_key: Of the tenant of all jobs.
        receiver_url: Who is told of some of them.
    """

    def __init__(self, base_url: str, *, api_key: str, receiver_url: str) -> None:
        self.accepted: list[str] = []
        self.ended: dict[str, str] = {}
        #: What no caller should have seen.
        self.errors: list[str] = []
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._hook = {"url": receiver_url}
        self._lock = threading.Condition()
        self._urls = [base_url]
        self._in_flight: Counter[str] = Counter()
        self._turn = itertools.count()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(calls,), daemon=True)
            for calls in (self._submissions(), self._readings())
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def serve_by(self, *urls: str) -> None:
        """Send all that comes from now on there; returns when nothing is under way elsewhere."""
        with self._lock:
            self._urls = [*urls]
            others = self._in_flight.keys() - set(urls)
            is_left = self._lock.wait_for(
                lambda: not any(self._in_flight[url] for url in others), PATIENCE_S
            )
        assert is_left, "requests do not end"

    def prove(self, stage: str) -> None:
        """Wait until jobs have come and ended; nothing may have gone wrong until then."""
        first = len(self.accepted)

        def is_enough() -> bool:
            mine = self.accepted[first:]
            return bool(self.errors) or sum(job in self.ended for job in mine) >= PROOF

        try:
            wait_until(is_enough, timeout_s=PATIENCE_S)
        except TimeoutError:
            self.errors.append("too few jobs ended")
        assert self.errors == [], f"{stage}: {self.errors}"

    def finish(self) -> None:
        """Send nothing more, and wait until all has ended."""
        self._closing.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for job_id in self.accepted:
            wait_until(lambda: self._follow(job_id), timeout_s=PATIENCE_S)  # noqa: B023

    def _repeat(self, calls: Iterator[None]) -> None:
        while not self._closing.is_set():
            try:
                next(calls)
            except Exception as error:
                self.errors.append(repr(error))
                return
            self._closing.wait(PAUSE_S)

    def _submissions(self) -> Iterator[None]:
        """Submit one after the other all that there is."""
        for number in itertools.count():
            wait_until(self._is_room, timeout_s=PATIENCE_S)
            usual = {"prompt": PROMPT, "steps": 4, "seed": number}
            match number % 8:
                case 0:
                    self._submit(usual | {"steps": LONG_STEPS, "determinism": "exact"})
                case 1:
                    self._submit(usual | {"webhook": self._hook, "determinism": "exact"})
                case 2:
                    file = self._call("POST", "/v1/uploads", 201, files={"file": picture()})
                    self._submit(usual | {"init_image": file["id"], "strength": 0.5})
                case 3:
                    jobs = [usual, usual | {"service_class": "batch"}]
                    made = self._call("POST", "/v1/batches", 202, json={"jobs": jobs})
                    self.accepted += [job["id"] for job in made["data"]]
                case 4:
                    job_id = self._submit(usual | {"steps": LONG_STEPS})
                    self._call("POST", f"/v1/jobs/{job_id}/cancel", 200, 202)
                case 5:
                    self._submit(usual | {"adapters": [{"id": "gray", "weight": 0.5}]})
                case 6:
                    self._submit(usual | {"preset": "fast", "webhook": self._hook})
                case _:
                    self._submit(usual | {"num_outputs": 2, "sampler": "euler_ancestral"})
            yield

    def _readings(self) -> Iterator[None]:
        """Look at everything, and wait for what has not ended."""
        while True:
            for place, job_id in enumerate([j for j in self.accepted if j not in self.ended]):
                self._follow(job_id, wait_s=0 if place else 1)
                yield
            for path in ("/v1/jobs", "/v1/models", "/v1/deliveries"):
                self._call("GET", path, 200)
            yield

    def _submit(self, body: JsonObject) -> str:
        job = self._call("POST", "/v1/jobs", 202, json=body)
        self.accepted.append(job["id"])
        return str(job["id"])

    def _follow(self, job_id: str, *, wait_s: int = 1) -> bool:
        """Look at a job, and at its files once it has ended."""
        if job_id in self.ended:
            return True
        job = self._call("GET", f"/v1/jobs/{job_id}", 200, headers={"Prefer": f"wait={wait_s}"})
        if job["status"] not in TERMINAL:
            return False
        for artifact in job["artifacts"]:
            answer = httpx.get(artifact["url"], timeout=ANSWER_TIMEOUT_S)
            file = answer.raise_for_status().content
            assert hashlib.sha256(file).hexdigest() == artifact["sha256"]
        if job["status"] == "failed":
            self.errors.append(f"{job_id}: {job['error']}")
        self.ended[job_id] = job["status"]
        return True

    def _is_room(self) -> bool:
        is_room = len(self.accepted) - len(self.ended) < MOST_UNDER_WAY
        return is_room or self._closing.is_set()

    def _call(self, method: str, path: str, *expected: int, **request: Any) -> JsonObject:
        """Ask one of the APIs; whatever else it answers is an error."""
        headers = self._headers | request.pop("headers", {})
        with self._one_of_the_apis() as url:
            answer = httpx.request(
                method, url + path, headers=headers, timeout=ANSWER_TIMEOUT_S, **request
            )
        if answer.status_code not in expected:
            told = f"{method} {path} by {url}: {answer.status_code} {answer.text}"
            raise AssertionError(told)
        body: JsonObject = answer.json()
        return body

    @contextmanager
    def _one_of_the_apis(self) -> Iterator[str]:
        """Choose the next one, as a load balancer does."""
        with self._lock:
            urls: Sequence[str] = self._urls
            url = urls[next(self._turn) % len(urls)]
            self._in_flight[url] += 1
        try:
            yield url
        finally:
            with self._lock:
                self._in_flight[url] -= 1
                self._lock.notify_all()
