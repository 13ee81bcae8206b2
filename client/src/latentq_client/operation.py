"""Methods that are written once, for clients that block and for those that are awaited."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, overload

from latentq_client.effects import Flow, ItemT, ResultT, Steps
from latentq_client.sending import AsyncSender, Sender

P = ParamSpec("P")


class Blocking(Protocol):
    """What has calls performed by a `Sender`."""

    _sender: Sender


class Awaited(Protocol):
    """What has calls performed by an `AsyncSender`."""

    _sender: AsyncSender


class Operation(Generic[P, ResultT]):
    """A method that returns the result of its steps, or a coroutine of it: as its owner sends."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[ResultT]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, owner: None, kind: object = None) -> Self: ...

    @overload
    def __get__(self, owner: Blocking, kind: object = None) -> Callable[P, ResultT]: ...

    @overload
    def __get__(
        self, owner: Awaited, kind: object = None
    ) -> Callable[P, Coroutine[Any, Any, ResultT]]: ...

    def __get__(self, owner: Blocking | Awaited | None, kind: object = None) -> Any:
        if owner is None:
            return self

        def perform(*args: P.args, **kwargs: P.kwargs) -> object:
            return owner._sender.run(self._steps(owner, *args, **kwargs))

        return update_wrapper(perform, self._steps)


class Iteration(Generic[P, ItemT]):
    """A method that returns an iterator of what flows, or an asynchronous one."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[ItemT]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, owner: None, kind: object = None) -> Self: ...

    @overload
    def __get__(self, owner: Blocking, kind: object = None) -> Callable[P, Iterator[ItemT]]: ...

    @overload
    def __get__(self, owner: Awaited, kind: object = None) -> Callable[P, AsyncIterator[ItemT]]: ...

    def __get__(self, owner: Blocking | Awaited | None, kind: object = None) -> Any:
        if owner is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> object:
            return owner._sender.iterate(self._flow(owner, *args, **kwargs))

        return update_wrapper(iterate, self._flow)
