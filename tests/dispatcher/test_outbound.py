"""The way out, against real servers on this machine."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.outbound import Answer, Outbound
from shared.webhook import Outcome
from tests.fixtures.receiver import (
    CERTIFICATE,
    NAME,
    Behaviour,
    Receiver,
    drop,
    hang,
    run_receiver,
    status,
    trickle,
)

PUBLIC = "93.184.216.34"
#: What `_resolve_host` of the library and connections ask.
Names = dict[str, list[list[str]]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
        yield running


@pytest.fixture
def secure() -> Iterator[Receiver]:
    with run_receiver(tls=True) as running:
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names with the addresses of each question in turn; the last answer stays."""
    names: Names = {}
    ask = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in names:
            return ask(host, port, *args, **kwargs)
        addresses = names[host].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port or 0)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


def make(*, allow_loopback: bool = True, timeout_s: float = 5.0) -> Outbound:
    return Outbound(allow_loopback=allow_loopback, ca_file=str(CERTIFICATE), timeout_s=timeout_s)


def post(outbound: Outbound, url: str) -> Answer:
    return outbound.post(url, headers={"X-Test": "1"}, body=b'{"a":1}')


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        (status(200), Answer(Outcome.ACCEPTED, 200)),
        (status(204), Answer(Outcome.ACCEPTED, 204)),
        (status(302, Location="http://127.0.0.1:1/"), Answer(Outcome.REDIRECTED, 302)),
        (status(410), Answer(Outcome.GONE, 410)),
        (status(500), Answer(Outcome.REFUSED, 500)),
        (status(429, Retry_After="7"), Answer(Outcome.REFUSED, 429, 7.0)),
        (drop, Answer(Outcome.UNREACHABLE)),
    ],
)
def test_answers_have_names(receiver: Receiver, behaviour: Behaviour, answer: Answer) -> None:
    receiver.script = [behaviour]
    assert post(make(), receiver.url) == answer
    (received,) = receiver.received
    assert received.body == b'{"a":1}'
    assert received.headers["x-test"] == "1"
    assert "x-forwarded-for" not in received.headers


@pytest.mark.parametrize("behaviour", [hang, trickle])
@pytest.mark.parametrize("tls", [False, True])
def test_a_receiver_that_never_ends_is_cut_off(behaviour: Behaviour, tls: bool) -> None:
    with run_receiver(tls=tls) as receiver:
        receiver.script = [behaviour]
        assert post(make(timeout_s=0.5), receiver.url) == Answer(Outcome.TIMED_OUT)


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        assert post(make(), url) == Answer(Outcome.UNREACHABLE)


def test_a_stop_cuts_what_is_under_way_and_sends_nothing_more(receiver: Receiver) -> None:
    receiver.script = [hang]
    outbound, answers = make(timeout_s=30), list[Answer]()
    thread = threading.Thread(target=lambda: answers.append(post(outbound, receiver.url)))
    thread.start()
    while not receiver.received:
        thread.join(0.01)
    outbound.stop()
    thread.join(5)
    assert answers == [Answer(Outcome.INTERRUPTED)]
    assert post(outbound, receiver.url) == Answer(Outcome.INTERRUPTED)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]",
        "169.254.169.254", "[64:ff9b::7f00:1]", "0.0.0.0",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused_without_a_connection(
    secure: Receiver, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The port that the rules allow, and what would be reached there.
    monkeypatch.setattr("shared.webhook.PORTS", (secure.port,))
    answer = post(make(allow_loopback=False), f"https://{host}:{secure.port}/")
    assert answer == Answer(Outcome.FORBIDDEN)
    assert secure.num_connections == 0


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], [PUBLIC, "10.0.0.1"], ["100.64.0.1"]]
)
def test_a_name_with_any_address_that_is_not_public_is_refused_without_a_connection(
    secure: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    monkeypatch.setattr("shared.webhook.PORTS", (secure.port,))
    names[NAME] = [addresses]
    answer = post(make(allow_loopback=False), f"https://{NAME}:{secure.port}/")
    assert answer == Answer(Outcome.FORBIDDEN)
    assert secure.num_connections == 0


def test_the_address_that_was_checked_is_the_one_that_is_used(
    secure: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.webhook.PORTS", (secure.port,))
    # Asked once more, the name would stand for an address where nobody listens.
    names[NAME] = [["127.0.0.1"], ["127.0.0.77"]]
    assert post(make(), f"https://{NAME}:{secure.port}/") == Answer(Outcome.ACCEPTED, 204)
    assert len(names[NAME]) == 1
    assert secure.received[0].headers["host"].startswith(NAME)


def test_the_certificate_is_for_the_name_not_the_address(
    secure: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.webhook.PORTS", (secure.port,))
    names["other.latentq.test"] = [["127.0.0.1"]]
    url = f"https://other.latentq.test:{secure.port}/"
    assert post(make(), url) == Answer(Outcome.UNTRUSTED)
    # Nor does a certificate count that none of the usual authorities vouches for.
    stranger = Outbound(allow_loopback=True)
    assert post(stranger, secure.url) == Answer(Outcome.UNTRUSTED)
    assert secure.received == []


def test_a_name_that_does_not_exist(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert post(make(), "https://nowhere.latentq.test/") == Answer(Outcome.UNREACHABLE)


def test_plain_http_leads_to_this_machine_only(names: Names, receiver: Receiver) -> None:
    names["localhost"] = [[PUBLIC]]
    assert post(make(), f"http://localhost:{receiver.port}/") == Answer(Outcome.FORBIDDEN)
    refusing = make(allow_loopback=False)
    assert post(refusing, receiver.url) == Answer(Outcome.FORBIDDEN)
    assert receiver.num_connections == 0


def test_the_environment_sends_nothing_elsewhere(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert post(make(), receiver.url).outcome is Outcome.ACCEPTED
