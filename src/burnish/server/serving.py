"""Runs the app under uvicorn: started, and stopped so that running requests finish."""

import asyncio
import socket

import uvicorn
from fastapi import FastAPI

from burnish.errors import InputError
from burnish.server.service import Service

SPARE = 5.0  # seconds after the grace period in which readers get their last words


class Server(uvicorn.Server):
    """Ends the engine's requests at the end of the grace period instead of cutting their connections."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=int(service.options.grace + SPARE),
            )
        )
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        engine = self._service.engine
        finishing = asyncio.create_task(engine.finish(self._service.options.grace))
        await super().shutdown(sockets)
        if self.force_exit:  # asked a second time: at once
            finishing.cancel()
            await engine.finish(0)
        else:
            await finishing


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError where that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:  # a port beyond 65535 overflows
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"The server cannot listen on {host}, port {port}: {str(why).rstrip('.')}. Pass another --port or --host."
        ) from error


def address(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
