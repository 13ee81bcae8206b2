"""A TCP proxy that can be told to misbehave as networks do, or to be as slow as far ones are."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

#: How long the loop may take to carry out an order, in seconds.
ORDER_TIMEOUT_S = 10
#: What a sender waits at least before it sends again what was lost, in seconds: Linux's own.
RETRANSMIT_S = 0.2
#: Chunks that may be under way before their sender is held up.
MAX_UNDER_WAY = 1000

#: What clients of PostgreSQL begin with that want GSS encryption or TLS; neither is plain text.
GSS_REQUEST, TLS_REQUEST = struct.pack("!II", 8, 80_877_104), struct.pack("!II", 8, 80_877_103)

T = TypeVar("T")


class ProxyLoop:
    """The thread that all proxies of a session share."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A connection may have come in while its proxy was closed.
        self.run(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, order: Coroutine[Any, Any, T]) -> T:
        """Have the thread carry out an order, and wait for it."""
        return asyncio.run_coroutine_threadsafe(order, self._loop).result(ORDER_TIMEOUT_S)


async def _end_all() -> None:
    """End all tasks of the loop but this one, and let transports close that are closing."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: What either side sends is lost, and neither is told.
    is_silent: bool = False

    def reset(self) -> None:
        for end in (self.client, self.server):
            _reset(end)


class Proxy:
    """Carries bytes between clients and one server on this machine.

    With a context for TLS it speaks that with clients: at once, or as PostgreSQL does, when asked.
    """

    def __init__(
        self,
        loop: ProxyLoop,
        target_port: int,
        *,
        tls: ssl.SSLContext | None = None,
        is_asked: bool = False,
    ) -> None:
        self._loop = loop
        self._target_port = target_port
        self._tls_if_asked = tls if is_asked else None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay_s, self._lost_share = 0.0, 0.0
        self._random = random.Random(1)  # noqa: S311 - the same losses everywhere
        self._refuses = False
        self._is_black_hole = False
        self._replies_to_lose = 0
        at_once = None if is_asked else tls
        self._server = loop.run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=at_once))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def heal(self) -> None:
        """Carry everything again; connections that lost bytes are reset."""
        self._loop.run(self._heal())

    def delay(self, seconds: float) -> None:
        """Have every chunk be so long under way, in both directions; connecting takes no longer."""
        self._delay_s = seconds

    def lose(self, share: float) -> None:
        """Lose a share of the chunks: they are sent again, and hold up what follows them."""
        self._lost_share = share

    def reset(self) -> None:
        """Break all connections off; new ones work."""
        self._loop.run(self._reset_all())

    def refuse(self) -> None:
        """Break all connections off, and new ones too."""
        self._refuses = True
        self.reset()

    def black_hole(self) -> None:
        """Lose everything on old connections and new ones, and tell nobody."""
        self._is_black_hole = True
        self.half_open()

    def half_open(self) -> None:
        """Lose everything on the connections of now, and tell nobody; new ones work."""
        self._loop.run(self._silence_all())

    def lose_replies(self, number: int) -> None:
        """Break the connection off instead of the server's next replies: the request was heard."""
        self._replies_to_lose = number

    def close(self) -> None:
        """Stop listening, and break all connections off."""
        self._loop.run(self._close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        if self._tls_if_asked and not await _begin_tls(reader, writer, self._tls_if_asked):
            writer.close()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            return
        connection = _Connection(writer, far_writer, is_silent=self._is_black_hole)
        self._connections.add(connection)
        pumps = [
            asyncio.ensure_future(self._pump(connection, reader, far_writer)),
            asyncio.ensure_future(self._pump(connection, far_reader, writer)),
        ]
        self._tasks.update(pumps)
        try:
            # One side that ends ends the other: none of the protocols here closes by halves.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._tasks.difference_update(pumps)
            self._connections.discard(connection)
            for end in (writer, far_writer):
                end.close()

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_UNDER_WAY)
        delivery = asyncio.ensure_future(self._deliver(connection, line, sink))
        now = asyncio.get_running_loop().time
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    await line.put((now() + self._draw_delay(), data))
            await line.put((now(), b""))
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self,
        connection: _Connection,
        line: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
    ) -> None:
        """Hand over what is under way when its time has come, in the order in which it was sent."""
        now = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while (item := await line.get())[1]:
                due, data = item
                if (early_s := due - now()) > 0:
                    await asyncio.sleep(early_s)
                if connection.is_silent:
                    continue
                if sink is connection.client and self._replies_to_lose > 0:
                    self._replies_to_lose -= 1
                    connection.reset()
                    return
                sink.write(data)
                await sink.drain()

    def _draw_delay(self) -> float:
        is_lost = self._random.random() < self._lost_share
        return self._delay_s + (RETRANSMIT_S if is_lost else 0.0)

    async def _heal(self) -> None:
        self._delay_s, self._lost_share, self._replies_to_lose = 0.0, 0.0, 0
        self._refuses = self._is_black_hole = False
        for connection in self._connections:
            if connection.is_silent:
                connection.reset()

    async def _reset_all(self) -> None:
        for connection in self._connections:
            connection.reset()

    async def _silence_all(self) -> None:
        for connection in self._connections:
            connection.is_silent = True

    async def _close(self) -> None:
        self._server.close()
        await self._reset_all()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _begin_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> bool:
    """Do as PostgreSQL does until a connection is encrypted; a client that asks not is left."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while (request := await reader.readexactly(len(TLS_REQUEST))) == GSS_REQUEST:
            writer.write(b"N")
        if request == TLS_REQUEST:
            writer.write(b"S")
            await writer.start_tls(context)
            return True
    return False


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, as a host does that knows nothing of the connection."""
    link: socket.socket | None = writer.get_extra_info("socket")
    if link is None:  # what was under the encryption is gone already
        return
    with contextlib.suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
