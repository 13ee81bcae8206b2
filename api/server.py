"""The HTTP server."""

import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from api.hub import JobHub

#: How long requests may take to end after SIGTERM, in seconds.
GRACE_S = 5


class Server(uvicorn.Server):
    """A server that lets those go who wait for jobs before it waits for them."""

    def __init__(self, app: FastAPI, hub: JobHub, *, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            # Queries may hold values of metadata.
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._hub = hub

    def serve_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            SystemExit: The server could not start.
        """
        with suppress(KeyboardInterrupt):
            self.run()
        if not self.started:
            sys.exit(STARTUP_FAILURE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and give what is under way its time."""
        self._hub.close()
        await super().shutdown(sockets)
