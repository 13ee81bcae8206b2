"""A job in the hands of a client."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, cast

from latentq_client import jobs
from latentq_client.effects import Flow, Steps
from latentq_client.events import Event, follow_job
from latentq_client.job import Artifact, Job, JobError, Progress
from latentq_client.operation import Iteration, Operation
from latentq_client.sending import AsyncSender, Sender
from latentq_client.together import HandleT


class _Handle(Generic[HandleT]):
    """A job as it was last seen, and what can be done with it.

    What changes it or looks at it again returns the same handle, up to date.
    """

    def __init__(self, job: Job) -> None:
        #: The job as it was last seen.
        self.data = job

    def __repr__(self) -> str:
        return f"<{self.id} {self.status} {self.progress.iteration}/{self.progress.iterations}>"

    @property
    def _itself(self) -> HandleT:
        return cast(HandleT, self)

    @property
    def id(self) -> str:
        """Its id."""
        return self.data.id

    @property
    def status(self) -> str:
        """Its state when it was last seen."""
        return self.data.status

    @property
    def is_terminal(self) -> bool:
        """Whether it can never change again."""
        return self.data.is_terminal

    @property
    def request(self) -> Mapping[str, Any]:
        """What it was resolved to, every field."""
        return self.data.request

    @property
    def progress(self) -> Progress:
        """How far it had come when it was last seen."""
        return self.data.progress

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Its outputs, once it has succeeded."""
        return self.data.artifacts

    @property
    def error(self) -> JobError | None:
        """Why it failed."""
        return self.data.error

    @Operation
    def refresh(self) -> Steps[HandleT]:
        """Look at it again."""
        self.data = yield from jobs.read_job(self.id)
        return self._itself

    @Operation
    def wait(
        self, *, timeout: float | None = None, on_progress: jobs.OnProgress | None = None
    ) -> Steps[HandleT]:
        """Wait until it has succeeded.

        Args:
            timeout: How long to wait, in seconds; None for as long as it takes.
            on_progress: Called with the job as it stands, and whenever it has come further.

        Raises:
            JobFailed: It failed or was canceled.
            WaitTimeout: It had not ended in time; it goes on.
        """

        def note(job: Job) -> None:
            self.data = job
            if on_progress is not None:
                on_progress(job)

        self.data = yield from jobs.wait_for_job(
            self.id, timeout=timeout, on_progress=None if on_progress is None else note
        )
        return self._itself

    @Iteration
    def events(self, *, previews: bool = False) -> Flow[Event]:
        """Follow it until it has ended, over as many streams as it takes.

        Each stream begins with a `snapshot`, so that nothing that still counts is missed. With
        `previews` there are rough pictures of it while it runs, where the model has them.
        """
        yield from follow_job(self.id, previews=previews)

    @Operation
    def save(self, path: Path | str) -> Steps[Sequence[Path]]:
        """Fetch its outputs into a folder, or the only one into a file, and return where they are.

        Raises:
            ValueError: The path names a file, and there are several outputs.
            OSError: It cannot be written.
        """
        return (yield from jobs.save_outputs(self.data, Path(path)))

    @Operation
    def cancel(self) -> Steps[HandleT]:
        """Cancel it; if it runs, it stops at its next step."""
        self.data = yield from jobs.cancel_job(self.id)
        return self._itself

    @Operation
    def attempts(self) -> Steps[Sequence[Mapping[str, Any]]]:
        """Read every run of it, in the shape of the wire, the first one first."""
        return (yield from jobs.read_attempts(self.id))

    @Operation
    def delete(self) -> Steps[None]:
        """Delete it, once it has ended, with its prompt and its results."""
        yield from jobs.delete_job(self.id)


class JobHandle(_Handle["JobHandle"]):
    """A job in the hands of a `Client`."""

    def __init__(self, job: Job, sender: Sender) -> None:
        super().__init__(job)
        self._sender = sender


class AsyncJobHandle(_Handle["AsyncJobHandle"]):
    """A job in the hands of an `AsyncClient`."""

    def __init__(self, job: Job, sender: AsyncSender) -> None:
        super().__init__(job)
        self._sender = sender
