"""One call of a diffusers pipeline that can be held up between its steps."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class _Abandoned(BaseException):
    """Nobody waits for the call any more: none of a pipeline's own handlers is meant."""


class PipelineCall(Generic[T]):
    """Runs in a thread of its own, and only while somebody waits for it to come to its next step.

    Used by one thread at a time, which may be another one each time.
    """

    def __init__(self, run: Callable[[Callable[[], None]], T]) -> None:
        """Make one of a function that is given what it has to call after each step."""
        self._run = run
        self._may_go_on = threading.Semaphore(0)
        self._has_come = threading.Semaphore(0)
        self._is_abandoned = False
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def advance(self) -> None:
        """Let it come to the end of its next step, or to its own end.

        Raises:
            Exception: What the call has raised, whenever that was.
        """
        if not self._is_over:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pipeline", daemon=True)
                self._thread.start()
            else:
                self._may_go_on.release()
            self._has_come.acquire()
        if self._error is not None:
            raise self._error

    def finish(self) -> T:
        """Let it come to its end, and return what it returned.

        Raises:
            Exception: What it raised.
        """
        while not self._is_over:
            self.advance()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def abandon(self) -> None:
        """Have it end at its next step; returns at once."""
        self._is_abandoned = True
        self._may_go_on.release()

    @property
    def _is_over(self) -> bool:
        return bool(self._result) or self._error is not None

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                self._result.append(self._run(self._pause))
        except BaseException as error:
            self._error = error
        finally:
            self._has_come.release()

    def _pause(self) -> None:
        self._has_come.release()
        self._may_go_on.acquire()
        if self._is_abandoned:
            raise _Abandoned
