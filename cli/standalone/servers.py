"""PostgreSQL, Valkey and SeaweedFS of one data directory, for `latentq up` and for the tests."""

import threading
from typing import Self

from cli.standalone import postgres, seaweedfs, valkey
from cli.standalone.child import Child, stop_all
from cli.standalone.state import DataDir

#: How long the servers may take to end before they are killed, in seconds.
STOP_TIMEOUT_S = 4.0


class Servers:
    """The three servers, on free loopback ports and with generated credentials."""

    def __init__(self, data_dir: DataDir) -> None:
        """Choose ports and find the programs.

        Raises:
            ConfigurationError: Something is missing or cannot be used.
        """
        self._data_dir = data_dir
        ports = data_dir.ports()
        self._postgres_port = ports["postgres"]
        self.postgres = Child(postgres.describe(data_dir, ports["postgres"]))
        self.valkey = Child(valkey.describe(data_dir, ports["valkey"]))
        self.seaweedfs = Child(seaweedfs.describe(data_dir, ports))
        self.database_url = postgres.url(data_dir, ports["postgres"], database=postgres.DATABASE)
        self.redis_url = valkey.url(data_dir, ports["valkey"])
        self.s3_endpoint = seaweedfs.endpoint(ports["s3"])
        self.s3_access_key = data_dir.secret("s3_access_key")
        self.s3_secret_key = data_dir.secret("s3_secret_key")
        self.s3_bucket = seaweedfs.BUCKET

    def __enter__(self) -> Self:
        try:
            for child in self.children:
                child.start()
            self.wait_until_ready(threading.Event())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def children(self) -> list[Child]:
        """The servers' processes."""
        return [self.postgres, self.valkey, self.seaweedfs]

    def wait_until_ready(self, interrupt: threading.Event) -> None:
        """Wait until all servers serve, and make LatentQ's database.

        Raises:
            ConfigurationError: One of them does not come up.
        """
        for child in self.children:
            child.wait_until_ready(interrupt)
        if not interrupt.is_set():
            postgres.ensure_database(self._data_dir, self._postgres_port)

    def stop(self) -> None:
        """End all servers, cleanly if they let themselves be asked."""
        stop_all(self.children, timeout_s=STOP_TIMEOUT_S)

    def environment(self) -> dict[str, str]:
        """Return the variables by which LatentQ's processes find the servers."""
        return {
            "LATENTQ_DATABASE_URL": self.database_url,
            "LATENTQ_REDIS_URL": self.redis_url,
            "LATENTQ_S3_ENDPOINT": self.s3_endpoint,
            "LATENTQ_S3_REGION": seaweedfs.REGION,
            "LATENTQ_S3_BUCKET": self.s3_bucket,
            "LATENTQ_S3_ACCESS_KEY": self.s3_access_key,
            "LATENTQ_S3_SECRET_KEY": self.s3_secret_key,
        }
