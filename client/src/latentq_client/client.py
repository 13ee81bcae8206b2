"""The two clients: one blocks, the other is awaited. `operations.py` says what they can do."""

from typing import Any, Self

from latentq_client.handle import AsyncJobHandle, JobHandle
from latentq_client.operations import Operations
from latentq_client.sending import AsyncSender, Sender

#: How long one answer may take unless it is said otherwise, in seconds.
TIMEOUT_S = 30.0


class Client(Operations[JobHandle]):
    """A connection to a LatentQ service.

    Args:
        url: Where the service is, without `/v1`.
        api_key: The key it gave out.
        timeout: How long one answer may take, in seconds.
        options: Those of `Sender`, for tests.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout: float = TIMEOUT_S, **options: Any
    ) -> None:
        self._sender = Sender(url, api_key, timeout=timeout, **options)
        self._bind = lambda job: JobHandle(job, self._sender)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()


class AsyncClient(Operations[AsyncJobHandle]):
    """A connection to a LatentQ service for asyncio; the arguments are those of `Client`.

    Its operations are coroutines, its lists and events asynchronous iterators.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout: float = TIMEOUT_S, **options: Any
    ) -> None:
        self._sender = AsyncSender(url, api_key, timeout=timeout, **options)
        self._bind = lambda job: AsyncJobHandle(job, self._sender)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._sender.close()
