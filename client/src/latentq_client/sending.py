"""The two ways to perform calls: blocking, and on asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import httpx

from latentq_client.effects import (
    Close,
    Effect,
    Emit,
    Flow,
    ItemT,
    Now,
    Open,
    Opened,
    Pause,
    ReadChunk,
    ResultT,
    Send,
    Steps,
    Work,
)


class Sender:
    """Performs calls while its caller waits.

    Args:
        url: Where the service is.
        api_key: The key it gave out.
        timeout: How long one answer may take, in seconds.
        transport: Another way to send requests, for tests.
        sleep: Another way to wait, for tests.
        clock: Another time, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport)
        self._links = httpx.Client(transport=transport)
        self._sleep = sleep
        self._clock = clock

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._links.close()

    def run(self, steps: Steps[ResultT]) -> ResultT:
        """Perform a call and return its result."""
        try:
            effect = next(steps)
            while True:
                try:
                    result = self._perform(effect)
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            return cast(ResultT, end.value)

    def iterate(self, flow: Flow[ItemT]) -> Iterator[ItemT]:
        """Perform a call item by item."""
        opened: Opened | None = None
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Emit):
                    yield effect.item
                    effect = next(flow)
                    continue
                try:
                    result = self._perform(effect)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    opened = result if isinstance(effect, Open) else opened
                    effect = flow.send(result)
        except StopIteration:
            return
        finally:
            if opened is not None:
                opened.answer.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                http = self._links if effect.is_link else self._http
                return http.request(
                    effect.method,
                    effect.url,
                    timeout=self._timeout + effect.hold_s,
                    **effect.options,
                )
            case Open(request):
                answer = self._http.send(
                    self._http.build_request(request.method, request.url, **request.options),
                    stream=True,
                )
                return Opened(answer, answer.iter_bytes())
            case ReadChunk(opened):
                return next(cast(Iterator[bytes], opened.chunks), None)
            case Close(opened):
                return opened.answer.close()
            case Pause(seconds):
                return self._sleep(seconds)
            case Now():
                return self._clock()
            case Work(call):
                return call()


class AsyncSender:
    """Performs calls on an asyncio loop; the arguments are those of `Sender`."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport)
        self._links = httpx.AsyncClient(transport=transport)
        self._sleep = sleep
        self._clock = clock

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self._links.aclose()

    async def run(self, steps: Steps[ResultT]) -> ResultT:
        """Perform a call and return its result."""
        try:
            effect = next(steps)
            while True:
                try:
                    result = await self._perform(effect)
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            return cast(ResultT, end.value)

    async def iterate(self, flow: Flow[ItemT]) -> AsyncIterator[ItemT]:
        """Perform a call item by item."""
        opened: Opened | None = None
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Emit):
                    yield effect.item
                    effect = next(flow)
                    continue
                try:
                    result = await self._perform(effect)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    opened = result if isinstance(effect, Open) else opened
                    effect = flow.send(result)
        except StopIteration:
            return
        finally:
            if opened is not None:
                await opened.answer.aclose()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                http = self._links if effect.is_link else self._http
                return await http.request(
                    effect.method,
                    effect.url,
                    timeout=self._timeout + effect.hold_s,
                    **effect.options,
                )
            case Open(request):
                answer = await self._http.send(
                    self._http.build_request(request.method, request.url, **request.options),
                    stream=True,
                )
                return Opened(answer, answer.aiter_bytes())
            case ReadChunk(opened):
                return await anext(cast(AsyncIterator[bytes], opened.chunks), None)
            case Close(opened):
                return await opened.answer.aclose()
            case Pause(seconds):
                return await self._sleep(seconds)
            case Now():
                return self._clock()
            case Work(call):
                return await asyncio.to_thread(call)
