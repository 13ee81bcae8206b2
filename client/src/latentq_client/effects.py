"""What a call does to the world, as data: calls are written once, senders perform them twice.

A call is a generator. It yields effects, is sent what they came to, and returns its result; what
an effect raises is raised where it was yielded. `sending.py` performs effects, blocking or not.
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and receive its whole answer, whatever that says.

    A link carries its own permission: the key is not for whoever serves it. `hold_s` is how much
    longer than others the answer may take.
    """

    method: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_link: bool = False
    hold_s: float = 0


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request and receive an answer whose body comes bit by bit."""

    request: Send


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer under way."""

    answer: httpx.Response
    chunks: Iterator[bytes] | AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Receive the next bytes of an answer under way; None if it has ended."""

    opened: Opened


@dataclass(frozen=True, slots=True)
class Close:
    """Be done with an answer under way."""

    opened: Opened


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Read a clock that only goes forward, in seconds."""


@dataclass(frozen=True, slots=True)
class Work:
    """Call what may block for a while, such as reading a file, and receive what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Emit(Generic[ItemT]):
    """Hand an item to whoever iterates."""

    item: ItemT


Effect: TypeAlias = Send | Open | ReadChunk | Close | Pause | Now | Work
#: A call that returns a result.
Steps: TypeAlias = Generator[Effect, Any, ResultT]
#: A call that is iterated over.
Flow: TypeAlias = Generator[Effect | Emit[ItemT], Any, None]
