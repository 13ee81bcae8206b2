"""The way out: requests to URLs that strangers chose.

The library refuses names that stand for addresses which are not public, before anything connects,
and connects to the address that it checked. What it leaves to us is here: no redirects, no proxies,
no cookies, and an end for a receiver that trickles.
"""

import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from socket import SHUT_RDWR, socket
from typing import Any

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from dispatcher.retries import read_retry_after
from shared.webhook import Outcome, find_url_refusal

CONNECT_TIMEOUT_S = 3.0
#: From the connection to the end of the answer.
TOTAL_TIMEOUT_S = 20.0
#: An answer is read up to here, so that its sender sees it taken, and forgotten.
MAX_ANSWER_BYTES = 64 * 1024
_LOOPBACK = ["127.0.0.0/8", "::1/128"]
_GONE = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    outcome: Outcome
    status_code: int | None = None
    #: What the receiver asks for, in seconds.
    retry_after_s: float | None = None


class _Exchange:
    """A request and its connections, which can be cut from another thread."""

    def __init__(self, timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket] = []
        self._is_cut = False
        self.is_late = False
        self._timer = threading.Timer(timeout_s, self._be_late)
        self._timer.daemon = True

    def __enter__(self) -> "_Exchange":
        self._token = _exchange.set(self)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _exchange.reset(self._token)

    def watch(self, connection: socket) -> None:
        """Cut this connection too when the time has come."""
        with self._lock:
            self._sockets.append(connection)
            is_cut = self._is_cut
        if is_cut:
            self.cut()

    def cut(self) -> None:
        """End all connections; whoever reads from them gets an error at once."""
        with self._lock:
            self._is_cut = True
            connections, self._sockets = self._sockets, []
        for connection in connections:
            try:
                # Past TLS, which another thread is in the middle of.
                socket.shutdown(connection, SHUT_RDWR)
            except OSError:
                continue  # ended by itself

    def _be_late(self) -> None:
        self.is_late = True
        self.cut()


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


class _PlainConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _exchange.get().watch(self.sock)


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _exchange.get().watch(self.sock)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Outbound:
    """Posts to strangers. Any number of threads may use it at once.

    Args:
        allow_loopback: Whether this machine counts as public, by plain HTTP too.
        ca_file: Who may vouch for receivers; the usual authorities if None.
        timeout_s: From the connection to the end of the answer.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool = False,
        ca_file: str | None = None,
        timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._allow_loopback = allow_loopback
        self._verify: str | bool = ca_file or True
        self._timeout_s = timeout_s
        self._policies = {
            "https": _make_policy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST, allow_loopback),
            "http": _make_policy(PolicyConfigOptions.INTERNAL_ONLY, allow_loopback),
        }
        self._policies["http"].allow_plain_text_http = allow_loopback
        self._lock = threading.Lock()
        self._under_way: set[_Exchange] = set()
        self._is_stopped = False

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a body and wait for the answer; whatever goes wrong is an answer too."""
        if find_url_refusal(url, allow_loopback=self._allow_loopback) is not None:
            return Answer(Outcome.FORBIDDEN)
        exchange = _Exchange(self._timeout_s)
        with self._lock:
            self._under_way.add(exchange)
        try:
            with exchange:
                return self._post(exchange, url, dict(headers), body)
        except AntiSSRFError:
            return Answer(Outcome.FORBIDDEN)
        except (OSError, ValueError, HTTPError) as error:
            return Answer(self._name(error, exchange))
        finally:
            with self._lock:
                self._under_way.discard(exchange)

    def stop(self) -> None:
        """Cut what is under way; it counts as interrupted."""
        self._is_stopped = True
        with self._lock:
            exchanges = list(self._under_way)
        for exchange in exchanges:
            exchange.cut()

    def _post(self, exchange: _Exchange, url: str, headers: dict[str, str], body: bytes) -> Answer:
        if self._is_stopped:
            return Answer(Outcome.INTERRUPTED)
        with self._make_session(url) as session:
            response = session.post(
                url,
                data=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, self._timeout_s),
                allow_redirects=False,
                stream=True,
                verify=self._verify,
            )
            if exchange.is_late:
                # Headers that were cut look like headers that ended.
                return Answer(Outcome.TIMED_OUT)
            answer = _read(response)
            try:
                response.raw.read(MAX_ANSWER_BYTES, decode_content=False)
            except (OSError, HTTPError):
                return answer  # the status had come: nothing behind it changes what it says
            return answer

    def _make_session(self, url: str) -> requests.Session:
        """Make a session of one request: nothing stays between strangers."""
        session: requests.Session = self._policies[url.partition(":")[0]].get_antissrf_session()
        session.trust_env = False
        adapter: Any = session.get_adapter(url)
        adapter.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return session

    def _name(self, error: Exception, exchange: _Exchange) -> Outcome:
        if exchange.is_late or isinstance(error, requests.Timeout):
            return Outcome.TIMED_OUT
        if self._is_stopped:
            return Outcome.INTERRUPTED
        if isinstance(error, requests.exceptions.SSLError):
            return Outcome.UNTRUSTED
        return Outcome.UNREACHABLE


def _make_policy(config: PolicyConfigOptions, allow_loopback: bool) -> AntiSSRFPolicy:
    policy = AntiSSRFPolicy(config)
    policy.add_xff_header = False
    if allow_loopback:
        policy.add_allowed_addresses(_LOOPBACK)
    return policy


def _read(response: requests.Response) -> Answer:
    status = response.status_code
    asked_for = read_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
    if 200 <= status < 300:
        return Answer(Outcome.ACCEPTED, status)
    if 300 <= status < 400:
        return Answer(Outcome.REDIRECTED, status)
    if status == _GONE:
        return Answer(Outcome.GONE, status)
    return Answer(Outcome.REFUSED, status, asked_for)
