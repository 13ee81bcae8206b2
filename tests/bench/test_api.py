import socketserver
import threading
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.api import FASTER, OVERHEAD_MS, Figures, judge
from bench.load import Load, drive, write_request
from bench.overhead import Overhead
from bench.streams import Streams
from bench.submissions import OURS, PLAIN

STREAMS = Streams(10, 1_000, 3_000, 0.01, [0.1])


def load(rate: float) -> Load:
    return Load(1.0, [0.01] * int(rate), {202: int(rate)})


def figures(*, ours: float = 200, overhead_s: float = 0.01) -> Figures:
    return Figures(
        submissions={OURS: [load(ours)] * 3, PLAIN: [load(100)] * 3},
        polls={},
        streams=STREAMS,
        overhead=Overhead([0.1 + overhead_s] * 3, [0.1] * 3),
    )


def missed(**changes: float) -> list[str]:
    return [gate.name for gate in judge(figures(**changes)) if not gate.passes]


def test_each_target_is_missed_by_its_own_figure() -> None:
    assert missed() == []
    (name,) = missed(ours=100 * FASTER - 1)
    assert PLAIN in name
    (name,) = missed(overhead_s=(OVERHEAD_MS + 1) / 1000)
    assert "alone" in name


def test_a_stream_takes_its_share_of_what_the_process_has_grown() -> None:
    assert STREAMS.bytes_each == 200


@given(st.lists(st.floats(0.001, 9), min_size=1))
def test_half_of_the_answers_do_not_exceed_the_median(latencies: list[float]) -> None:
    middle = Load(1.0, latencies, {}).percentile(0.5)
    assert sum(latency <= middle for latency in latencies) >= len(latencies) / 2
    assert middle in latencies


class Server(socketserver.ThreadingTCPServer):
    """Answers the requests of each connection with these statuses, in two pieces, and hangs up."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = statuses
        self.requests: set[bytes] = set()
        self.num_connections = 0
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=[0.01])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.num_connections += 1
        for status in self.server.statuses:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (line := self.rfile.readline()):
                    return
                head += line
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            self.server.requests.add(head + self.rfile.read(length))
            self.wfile.write(b"HTTP/1.1 %d X\r\ncontent-length: 4\r\n\r\nab" % status)
            self.wfile.write(b"cd")


def test_answers_are_counted_one_by_one_on_connections_that_are_kept() -> None:
    request = write_request("POST", "/jobs", {"X-Name": "value"}, b"{}")
    with Server(*[202] * 100_000) as server:
        done = drive(server.port, request, connections=3, seconds=0.2)
        assert server.num_connections == 3
        assert server.requests == {request}
    assert request.startswith(b"POST /jobs HTTP/1.1\r\n")
    assert done.statuses == {202: len(done.latencies)}
    assert done.rate == pytest.approx(len(done.latencies) / done.seconds)


def test_every_status_is_told() -> None:
    with Server(202, 503, *[202] * 100_000) as server:
        done = drive(server.port, write_request("GET", "/", {}), connections=1, seconds=0.1)
    assert done.statuses[503] == 1


def test_a_server_that_hangs_up_is_an_error() -> None:
    with Server(202) as server, pytest.raises(ConnectionError):
        drive(server.port, write_request("GET", "/", {}), connections=1, seconds=30)
