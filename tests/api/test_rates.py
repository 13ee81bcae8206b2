import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.rates import BREAK_S, PATIENCE_S, Rate, Rates
from api.strangers import MAX_FAILURES
from bench.proxy import Proxy, ProxyLoop
from cli.standalone.servers import Servers
from shared.access import KeyLimits, KeyTerms
from shared.db.keys import Principal, mint_key
from tests.fixtures.api import Api

#: What a thread may take to go on, once it may, on a busy machine, in seconds.
SLACK_S = 2.0
#: Requests that come while Redis is silent.
NUM_AT_ONCE = 128


class Stopwatch:
    """Time of the breaker, which only tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def key() -> Principal:
    return Principal(mint_key(), "t", "n", frozenset(), KeyLimits(requests_per_minute=3))


@pytest.fixture(scope="module")
def proxies() -> Iterator[ProxyLoop]:
    with ProxyLoop() as loop:
        yield loop


@pytest.fixture
def proxy(proxies: ProxyLoop, servers: Servers) -> Iterator[Proxy]:
    proxy = Proxy(proxies, urlsplit(servers.redis_url).port or 6379)
    yield proxy
    proxy.close()


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def rates(proxy: Proxy, servers: Servers, stopwatch: Stopwatch) -> Iterator[Rates]:
    port = urlsplit(servers.redis_url).port
    rates = Rates(servers.redis_url.replace(f":{port}", f":{proxy.port}"), monotonic=stopwatch)
    yield rates
    rates.close()


def take(rates: Rates, key: Principal) -> Rate:
    rate = rates.take(key)
    assert rate is not None
    return rate


def take_until_redis_answers(rates: Rates, stopwatch: Stopwatch) -> None:
    """Have connections made, however slow the machine is just now."""
    for _ in range(50):
        probe = Principal(mint_key(), "t", "n", frozenset(), KeyLimits(requests_per_minute=9))
        stopwatch.now += BREAK_S
        with capture_logs() as logs:
            take(rates, probe)
        if not any(entry["event"] == "rates_counted_by_process" for entry in logs) and (
            rates._broken_until is None
        ):
            return
    pytest.fail("Redis never answered in time")


def test_all_processes_count_together(
    rates: Rates, servers: Servers, key: Principal, stopwatch: Stopwatch
) -> None:
    take_until_redis_answers(rates, stopwatch)
    other = Rates(servers.redis_url, monotonic=stopwatch)
    take_until_redis_answers(other, stopwatch)
    seen = [take(each, key) for each in (rates, other, rates, other)]
    other.close()
    assert [rate.is_over for rate in seen] == [False, False, False, True]
    assert [rate.remaining for rate in seen] == [2, 1, 0, 0]
    assert all(1 <= rate.refill_s <= 60 for rate in seen)


def test_nobody_is_asked_about_a_key_without_such_a_limit(rates: Rates, proxy: Proxy) -> None:
    proxy.black_hole()
    with capture_logs() as logs:
        assert rates.take(Principal("k", "t", "n", frozenset())) is None
    assert logs == []


@pytest.mark.parametrize("fault", ["black_hole", "refuse", "delay"])
def test_no_request_waits_for_redis(
    rates: Rates, proxy: Proxy, key: Principal, stopwatch: Stopwatch, fault: str
) -> None:
    take_until_redis_answers(rates, stopwatch)
    if fault == "delay":
        # Each answer would come within a socket's time-out: all of them together would not.
        proxy.delay(PATIENCE_S * 0.45)
    else:
        getattr(proxy, fault)()
    with capture_logs() as logs:
        begun = time.monotonic()
        first = take(rates, key)
        assert time.monotonic() - begun < PATIENCE_S + SLACK_S
        # Until the breaker lets one try again, the process counts for itself: whole limits hold.
        seen = [first, *(take(rates, key) for _ in range(3))]
    assert [rate.is_over for rate in seen] == [False, False, False, True]
    assert [entry["event"] for entry in logs] == ["rates_counted_by_process"]
    proxy.heal()
    with capture_logs() as logs:
        take_until_redis_answers(rates, stopwatch)


def test_many_requests_at_once_wait_no_longer_than_one(
    rates: Rates, proxy: Proxy, key: Principal, stopwatch: Stopwatch
) -> None:
    take_until_redis_answers(rates, stopwatch)
    proxy.black_hole()

    def timed(_: int) -> float:
        begun = time.monotonic()
        take(rates, key)
        return time.monotonic() - begun

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        # One behind the other the last would wait for twice as long.
        assert max(pool.map(timed, range(NUM_AT_ONCE))) < NUM_AT_ONCE * PATIENCE_S / 2


def test_one_request_tries_redis_again_while_the_others_go_on(
    rates: Rates, proxy: Proxy, key: Principal, stopwatch: Stopwatch
) -> None:
    take_until_redis_answers(rates, stopwatch)
    proxy.refuse()
    take(rates, key)
    stopwatch.now += BREAK_S
    with capture_logs() as logs:
        take(rates, key)
    # It is no news that Redis is away.
    assert logs == []


def limited(api: Api, limit: int) -> TestClient:
    return api.new_client(terms=KeyTerms(limits=KeyLimits(requests_per_minute=limit)))


def test_answers_say_what_is_left_and_the_last_one_when_to_come_back(api: Api) -> None:
    client = limited(api, 3)
    answers = [client.get(path) for path in ("/v1/jobs", "/v1/jobs/none", "/v1/jobs", "/v1/jobs")]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 429]
    for left, answer in zip((2, 1, 0, 0), answers, strict=True):
        assert answer.headers["RateLimit-Policy"] == '"requests_per_minute";q=3;w=60'
        match = re.fullmatch(r'"requests_per_minute";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
        assert match is not None
        assert int(match[1]) == left
    problem: dict[str, Any] = answers[-1].json()
    assert problem["code"] == "quota_exceeded"
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["requests_per_minute"]
    wait_s = int(answers[-1].headers["Retry-After"])
    assert int(match[2]) <= wait_s <= 120


def test_a_key_without_the_limit_is_told_nothing(api: Api) -> None:
    headers = api.client.get("/v1/jobs").headers
    assert not {name for name in headers if name.startswith("ratelimit")}


def test_an_address_that_sends_wrong_keys_has_to_wait_but_known_keys_work(api: Api) -> None:
    assert api.client.get("/v1/jobs").status_code == 200
    stranger = TestClient(api.client.app, headers={"Authorization": "Bearer wrong"})
    without = TestClient(api.client.app)
    seen = [stranger.get("/v1/jobs").status_code for _ in range(MAX_FAILURES + 1)]
    assert seen == [401] * MAX_FAILURES + [429]
    answer = stranger.get("/v1/jobs")
    assert answer.json()["violated-policies"] == ["failed_authentications"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert api.client.get("/v1/jobs").status_code == 200
    assert without.get("/v1/jobs").status_code == 401
    # Other addresses are not concerned.
    elsewhere = TestClient(api.client.app, client=("203.0.113.9", 1))
    refused = elsewhere.get("/v1/jobs", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
