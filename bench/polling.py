"""How many clients an API process can answer that ask for news of a job again and again."""

import httpx

from bench.cluster import Cluster
from bench.load import Load, drive, write_request

#: Requests under way at any moment.
CONNECTIONS = 16


class Poller:
    """Polls of one job that has ended, by clients that know it and by clients that do not."""

    def __init__(self, cluster: Cluster) -> None:
        self._port = cluster.api_port
        self._key = {"Authorization": f"Bearer {cluster.api_key}"}
        with httpx.Client(base_url=cluster.base_url, headers=self._key) as client:
            job = client.post("/v1/jobs", json={"prompt": "a red star"}).raise_for_status().json()
            self._path = job["links"]["self"]
            client.post(job["links"]["cancel"]).raise_for_status()
            self._tag = client.get(self._path).raise_for_status().headers["ETag"]

    def poll_with_tag(self, seconds: float) -> Load:
        """Ask whether anything has changed."""
        return self._get({"If-None-Match": self._tag}, seconds, status=304)

    def poll(self, seconds: float) -> Load:
        """Ask for the whole job."""
        return self._get({}, seconds, status=200)

    def _get(self, headers: dict[str, str], seconds: float, *, status: int) -> Load:
        request = write_request("GET", self._path, self._key | headers)
        load = drive(self._port, request, connections=CONNECTIONS, seconds=seconds)
        if set(load.statuses) != {status}:
            raise RuntimeError(f"{self._path} answered {load.statuses}, not {status}")
        return load
