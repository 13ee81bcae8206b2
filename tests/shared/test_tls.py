"""Each store by TLS, with an authority of our own; who is not who it says is not spoken to."""

import re
from collections.abc import Iterator

import httpx
import pytest
import redis
import sqlalchemy as sa

from api.rates import Rates
from cli.database import open_database
from cli.standalone.servers import Servers
from latentq_client import ServiceUnreachable
from shared.access import KeyLimits
from shared.db.keys import Principal
from shared.db.session import explain_away, make_engine
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue, make_celery
from shared.storage import ObjectStore
from tests.fixtures.stack import wait_until
from tests.fixtures.tls import Certificates, Secured, secured

QUEUE = "tls.interactive"


@pytest.fixture(scope="module")
def by_tls(servers: Servers, certificates: Certificates) -> Iterator[Secured]:
    with secured(servers, certificates.context()) as behind:
        yield behind


@pytest.fixture(scope="module")
def by_mutual_tls(servers: Servers, certificates: Certificates) -> Iterator[Secured]:
    with secured(servers, certificates.context(asks_clients=True)) as behind:
        yield behind


def why_away(url: str) -> str:
    """Say what an operator is told of a database that cannot be reached."""
    database = make_engine(url)
    with pytest.raises(sa.exc.OperationalError) as caught, database.connect():
        pass
    return explain_away(caught.value)


def test_postgresql_is_asked_by_tls(by_tls: Secured, certificates: Certificates) -> None:
    url = by_tls.database_url(sslmode="verify-full", sslrootcert=certificates.authority)
    database = make_engine(url)
    with database.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
        assert connection.connection.dbapi_connection.pgconn.ssl_in_use
    database.dispose()


def test_a_postgresql_that_nobody_vouches_for_is_not_asked(
    by_tls: Secured, certificates: Certificates
) -> None:
    away = "PostgreSQL does not answer: "
    url = by_tls.database_url(sslmode="verify-full", sslrootcert=certificates.stranger)
    assert why_away(url) == away + "SSL error: certificate verify failed"
    url = by_tls.database_url(
        sslmode="verify-full", sslrootcert=certificates.authority, host="127.0.0.1"
    )
    assert (
        why_away(url)
        == away + "server certificate for … (and 1 other name) does not match host name …"
    )
    url = by_tls.database_url(sslmode="verify-full", sslrootcert="/nowhere/ca.pem")
    assert why_away(url) == away + "root certificate file … does not exist"
    with (
        pytest.raises(ServiceUnreachable, match="root certificate"),
        open_database(url) as database,
    ):
        database.connect()


def test_a_postgresql_without_tls_is_told(servers: Servers) -> None:
    says = "PostgreSQL does not answer: server does not support SSL, but SSL was required"
    assert why_away(f"{servers.database_url}?sslmode=require") == says


def test_redis_is_asked_by_tls(by_tls: Secured, certificates: Certificates) -> None:
    url = by_tls.redis_url(ssl_ca_certs=certificates.authority)
    queue = JobQueue(url)
    queue.ping()
    queue.announce(QUEUE, "job_1", {})
    assert queue.length(QUEUE) == 1
    app, taken = make_celery(url), []
    queues = [app.amqp.queues[QUEUE]]
    with (
        app.connection_for_read() as connection,
        connection.Consumer(queues, no_ack=True, on_message=taken.append),
    ):
        connection.drain_events(timeout=5)
    assert len(taken) == 1


def test_rates_are_counted_by_tls(by_tls: Secured, certificates: Certificates) -> None:
    rates = Rates(by_tls.redis_url(ssl_ca_certs=certificates.authority))
    key = Principal("tls", "t", "n", frozenset(), KeyLimits(requests_per_minute=3))
    # A connection that takes longer than a request waits is there for later ones.
    rates.take(key)
    with redis.Redis.from_url(by_tls.servers.redis_url) as client:
        assert wait_until(lambda: client.keys("latentq.rate*tls*"))
    rates.close()


@pytest.mark.parametrize(
    ("trusted", "host", "reason"),
    [
        ("stranger", "localhost", "unable to get local issuer certificate"),
        (None, "localhost", "unable to get local issuer certificate"),
        ("authority", "127.0.0.1", "IP address mismatch"),
    ],
)
def test_a_redis_that_nobody_vouches_for_is_not_asked(
    servers: Servers,
    certificates: Certificates,
    trusted: str | None,
    host: str,
    reason: str,
) -> None:
    options = {} if trusted is None else {"ssl_ca_certs": getattr(certificates, trusted)}
    # At a port of its own: kombu keeps connections for all who name the same one.
    with secured(servers, certificates.context()) as behind:
        queue = JobQueue(behind.redis_url(host=host, **options))
        says = f": its certificate is not trusted ({reason})"
        # Messages take another way, by kombu.
        with pytest.raises(ServiceUnavailable, match=re.escape(f"message{says}")):
            queue.announce(QUEUE, "job_1", {})
        with pytest.raises(ServiceUnavailable, match=re.escape(f"answer{says}")):
            queue.ping()


def test_the_store_is_asked_by_tls(by_tls: Secured, certificates: Certificates) -> None:
    store = ObjectStore(by_tls.store(authority=certificates.authority))
    store.ping()
    store.put("tls/1", b"picture", content_type="image/png")
    assert store.get("tls/1") == b"picture"
    link = store.presign("tls/1", filename="1.png", content_type="image/png", ttl_s=60)
    assert link.startswith("https://")
    with httpx.Client(verify=certificates.client_context()) as client:
        assert client.get(link).content == b"picture"


@pytest.mark.parametrize(
    ("trusted", "host", "reason"),
    [
        ("stranger", "localhost", "unable to get local issuer certificate"),
        (None, "localhost", "unable to get local issuer certificate"),
        ("authority", "127.0.0.1", "it is for another name"),
    ],
)
def test_a_store_that_nobody_vouches_for_is_not_asked(
    by_tls: Secured, certificates: Certificates, trusted: str | None, host: str, reason: str
) -> None:
    authority = None if trusted is None else getattr(certificates, trusted)
    store = ObjectStore(by_tls.store(authority=authority, host=host))
    says = re.escape(f"the object store does not answer: its certificate is not trusted ({reason})")
    with pytest.raises(ServiceUnavailable, match=says):
        store.ping()


def test_clients_show_certificates_of_their_own(
    by_mutual_tls: Secured, certificates: Certificates
) -> None:
    trust = {"sslmode": "verify-full", "sslrootcert": certificates.authority}
    shown = {"sslcert": certificates.certificate, "sslkey": certificates.key}
    database = make_engine(by_mutual_tls.database_url(**trust, **shown))
    with database.connect():
        pass
    database.dispose()
    assert "SSL error: " in why_away(by_mutual_tls.database_url(**trust))

    trust = {"ssl_ca_certs": certificates.authority}
    shown = {"ssl_certfile": certificates.certificate, "ssl_keyfile": certificates.key}
    queue = JobQueue(by_mutual_tls.redis_url(**trust, **shown))
    queue.ping()
    queue.announce("tls.batch", "job_1", {})
    with pytest.raises(ServiceUnavailable):
        JobQueue(by_mutual_tls.redis_url(**trust)).ping()
