import asyncio
import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from bench.proxy import RETRANSMIT_S, Proxy, ProxyLoop, _reset
from tests.fixtures.tls import HOST, Certificates


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with itself, and keeps it."""

    heard: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # which some tests are about
            for line in self.rfile:
                self.heard.append(line)
                self.wfile.write(line)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    Echo.heard.clear()
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server,
        ProxyLoop() as loop,
    ):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        proxy = Proxy(loop, server.server_address[1])
        yield proxy
        proxy.close()
        server.shutdown()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3)


def ask(link: socket.socket, line: bytes = b"hello\n") -> bytes:
    link.sendall(line)
    answer = link.recv(100)
    if not answer:
        raise ConnectionError
    return answer


def time_of_asking(link: socket.socket) -> float:
    began = time.monotonic()
    assert ask(link) == b"hello\n"
    return time.monotonic() - began


def is_broken(link: socket.socket) -> bool:
    """Tell whether a connection is broken off; the first bytes may still be taken."""
    try:
        for _ in range(3):
            ask(link)
    except ConnectionError:
        return True
    return False


def is_refused(proxy: Proxy) -> bool:
    """Tell whether a new connection is broken off, which may be before it is known to be open."""
    try:
        with connect(proxy) as link:
            return is_broken(link)
    except ConnectionError:
        return True


def test_bytes_are_carried_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as link:
        assert ask(link) == b"hello\n"


def test_a_delay_counts_in_each_direction(proxy: Proxy) -> None:
    proxy.delay(0.05)
    with connect(proxy) as link:
        began = time.monotonic()
        assert ask(link) == b"hello\n"
        assert time.monotonic() - began >= 0.1


def test_what_is_under_way_does_not_hold_up_what_follows(proxy: Proxy) -> None:
    proxy.delay(0.05)
    lines = b"".join(b"%d\n" % number for number in range(40))
    with connect(proxy) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()
        for line in lines.splitlines(keepends=True):
            link.sendall(line)
            time.sleep(0.01)  # a chunk of its own
        with link.makefile("rb") as answers:
            assert answers.read(len(lines)) == lines
        # One behind the other they would take two seconds.
        assert 0.49 <= time.monotonic() - began < 1.5


def test_what_is_lost_comes_later_and_in_its_place(proxy: Proxy) -> None:
    proxy.lose(1.0)
    with connect(proxy) as link:
        link.settimeout(2)
        began = time.monotonic()
        link.sendall(b"lost\n")
        assert link.recv(100) == b"lost\n"
        assert time.monotonic() - began >= 2 * RETRANSMIT_S
        proxy.heal()
        assert min(time_of_asking(link) for _ in range(5)) < RETRANSMIT_S


def test_a_reset_ends_old_connections_and_spares_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as link, connect(proxy) as other:
        ask(link)
        ask(other)  # a connection that the proxy has not taken yet would be a new one
        proxy.reset()
        assert is_broken(link)
        assert is_broken(other)
    with connect(proxy) as link:
        assert ask(link) == b"hello\n"


def test_what_refuses_refuses_until_it_is_healed(proxy: Proxy) -> None:
    proxy.refuse()
    for _ in range(2):
        assert is_refused(proxy)
    proxy.heal()
    with connect(proxy) as link:
        assert ask(link) == b"hello\n"


def test_a_black_hole_swallows_old_and_new_connections(proxy: Proxy) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.black_hole()
        with connect(proxy) as new:
            for link in (old, new):
                with pytest.raises(TimeoutError):
                    ask(link, b"lost\n")
        proxy.heal()
        assert is_broken(old)
    assert b"lost\n" not in Echo.heard


def test_half_open_swallows_old_connections_only(proxy: Proxy) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.half_open()
        with pytest.raises(TimeoutError):
            ask(old, b"lost\n")
        with connect(proxy) as new:
            assert ask(new) == b"hello\n"


def test_a_lost_reply_answers_a_request_that_was_heard(proxy: Proxy) -> None:
    proxy.lose_replies(1)
    with connect(proxy) as link, pytest.raises(ConnectionError):
        ask(link, b"heard\n")
    assert Echo.heard == [b"heard\n"]
    with connect(proxy) as link:
        assert ask(link) == b"hello\n"


def test_a_server_that_is_down_is_a_connection_broken_off() -> None:
    with ProxyLoop() as loop, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = Proxy(loop, nobody.getsockname()[1])
        assert is_refused(proxy)
        proxy.close()


def test_a_connection_whose_encryption_is_over_can_be_reset(certificates: Certificates) -> None:
    async def steps() -> None:
        is_done = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            # It ends with what the client closed, before anybody here closes anything.
            while writer.get_extra_info("socket") is not None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            _reset(writer)
            is_done.set_result(True)

        server = await asyncio.start_server(serve, HOST, 0, ssl=certificates.context())
        async with server:
            port = server.sockets[0].getsockname()[1]
            client = certificates.client_context()
            _, writer = await asyncio.open_connection(HOST, port, ssl=client)
            writer.close()
            assert await asyncio.wait_for(is_done, timeout=10)

    asyncio.run(steps())
