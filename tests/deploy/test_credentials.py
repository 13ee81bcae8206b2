"""Passwords of the stores are replaced as docs/operations/keys.md says."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from cli.standalone import seaweedfs
from cli.standalone.child import Child, stop_all
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from shared.db.migrate import is_pending, upgrade
from shared.db.session import make_engine
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue
from shared.storage import ObjectStore
from shared.store_address import StoreAddress
from tests.deploy.compose import ROOT
from tests.fixtures.stack import wait_until

PAGE = (ROOT / "docs" / "operations" / "keys.md").read_text()
DATABASE = "credentials"


def url_of(servers: Servers, **changes: str) -> str:
    url = sa.make_url(servers.database_url).set(**changes)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def admin(servers: Servers) -> Iterator[sa.Engine]:
    engine = make_engine(servers.database_url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
    yield engine
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {DATABASE} WITH (FORCE)"))
        connection.execute(sa.text("DROP ROLE latentq_deputy"))
    engine.dispose()


def test_a_deputy_does_what_the_owner_of_the_database_does(
    servers: Servers, admin: sa.Engine
) -> None:
    (block,) = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with admin.connect() as connection:
        connection.exec_driver_sql(block)
    (password,) = re.findall(r"PASSWORD '(\w+)'", block)
    deputy = make_engine(
        url_of(servers, username="latentq_deputy", password=password, database=DATABASE)
    )
    owner = make_engine(url_of(servers, database=DATABASE))
    # Whoever of them makes the tables: they are the owner's.
    upgrade(deputy)
    assert not is_pending(owner)
    owners = sa.text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    with owner.connect() as connection:
        assert list(connection.scalars(owners)) == ["latentq"]

    with admin.connect() as connection:
        connection.execute(sa.text("ALTER ROLE latentq_deputy NOLOGIN"))
    deputy.dispose()
    with pytest.raises(OperationalError), deputy.connect():
        pass
    for engine in (deputy, owner):
        engine.dispose()


def test_redis_takes_two_passwords_for_a_time(servers: Servers) -> None:
    old, new = servers.redis_url.split(":")[2].partition("@")[0], "another"
    other_url = servers.redis_url.replace(old, new)
    assert "`ACL SETUSER default >NEW`" in PAGE
    assert "`ACL SETUSER default <OLD`" in PAGE
    with redis.Redis.from_url(servers.redis_url) as operator:
        operator.execute_command("ACL", "SETUSER", "default", f">{new}")
        try:
            JobQueue(other_url).ping()
            JobQueue(servers.redis_url).ping()
        finally:
            operator.execute_command("ACL", "SETUSER", "default", f"<{new}")
    with pytest.raises(ServiceUnavailable):
        JobQueue(other_url).ping()
    JobQueue(servers.redis_url).ping()


@dataclass(frozen=True, slots=True)
class KeyedStore:
    """A store that reads its keys from a file, as Compose has it."""

    child: Child
    config: Path
    endpoint: str
    #: The one that it is started with.
    first_key: tuple[str, str]

    def admit(self, *keys: tuple[str, str]) -> None:
        """Write who may come in, and have a server that runs read it again."""
        credentials = [{"accessKey": access, "secretKey": secret} for access, secret in keys]
        actions = [f"{action}:{seaweedfs.BUCKET}" for action in ("Read", "Write", "List")]
        identity = {"name": "latentq", "credentials": credentials, "actions": actions}
        self.config.write_text(json.dumps({"identities": [identity]}))
        if self.child.pid is not None:
            os.kill(self.child.pid, signal.SIGHUP)

    def connect(self, access_key: str, secret_key: str) -> ObjectStore:
        """Come in by a key."""
        return ObjectStore(
            StoreAddress(
                bucket=seaweedfs.BUCKET,
                access_key=access_key,
                secret_key=secret_key,
                endpoint=self.endpoint,
            )
        )


@pytest.fixture
def keyed_store(server_folder: Path) -> Iterator[KeyedStore]:
    with DataDir(server_folder / "keyed-store") as data_dir:
        ports = data_dir.ports()
        described = seaweedfs.describe(data_dir, ports)
        config = data_dir.path / "seaweedfs_s3.json"
        child = Child(
            replace(described, command=[*described.command, f"-s3.config={config}"], environment={})
        )
        first_key = (data_dir.secret("s3_access_key"), data_dir.secret("s3_secret_key"))
        store = KeyedStore(child, config, seaweedfs.endpoint(ports["s3"]), first_key)
        store.admit(first_key)
        child.start()
        try:
            child.wait_until_ready(threading.Event())
            yield store
        finally:
            stop_all([child], timeout_s=5)


def is_open(store: ObjectStore) -> bool:
    try:
        store.ping()
    except ServiceUnavailable:
        return False
    return True


def link_to(store: ObjectStore) -> str:
    return store.presign("results/picture", filename="a.png", content_type="image/png", ttl_s=60)


def test_a_store_takes_two_keys_for_a_time_and_links_die_with_theirs(
    keyed_store: KeyedStore,
) -> None:
    old_key, new_key = keyed_store.first_key, ("another", "b" * 40)
    old, new = keyed_store.connect(*old_key), keyed_store.connect(*new_key)
    old.put("results/picture", b"picture", content_type="image/png")
    old_link, new_link = link_to(old), link_to(new)
    assert not is_open(new)
    assert httpx.get(new_link).status_code == 403

    keyed_store.admit(old_key, new_key)
    wait_until(lambda: is_open(new), timeout_s=10)
    assert is_open(old)
    assert [httpx.get(link).content for link in (old_link, new_link)] == [b"picture"] * 2

    keyed_store.admit(new_key)
    wait_until(lambda: not is_open(old), timeout_s=10)
    assert is_open(new)
    assert [httpx.get(link).status_code for link in (old_link, new_link)] == [403, 200]
