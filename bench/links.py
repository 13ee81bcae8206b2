"""The way from processes to the servers, through proxies."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import httpx

from bench.proxy import Proxy, ProxyLoop
from cli.standalone.servers import Servers


@dataclass(frozen=True, slots=True)
class Links:
    """A proxy to each server, for one process or for those of one host."""

    postgres: Proxy
    redis: Proxy
    s3: Proxy

    @classmethod
    def to(cls, servers: Servers, loop: ProxyLoop) -> Self:
        """Listen before each of the servers."""
        urls = (servers.database_url, servers.redis_url, servers.s3_endpoint)
        return cls(*(Proxy(loop, httpx.URL(url).port or 0) for url in urls))

    def __iter__(self) -> Iterator[Proxy]:
        return (getattr(self, field.name) for field in fields(self))

    def environment(self, servers: Servers) -> dict[str, str]:
        """Return the variables by which a process goes this way."""
        return {
            "LATENTQ_DATABASE_URL": _redirect(servers.database_url, self.postgres),
            "LATENTQ_REDIS_URL": _redirect(servers.redis_url, self.redis),
            "LATENTQ_S3_ENDPOINT": _redirect(servers.s3_endpoint, self.s3),
        }

    def close(self) -> None:
        """Break all connections off."""
        for proxy in self:
            proxy.close()


def _redirect(url: str, proxy: Proxy) -> str:
    return str(httpx.URL(url).copy_with(port=proxy.port))
