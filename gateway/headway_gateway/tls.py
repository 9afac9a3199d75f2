"""TLS, by listener: uvicorn knows it only for all of a server's sockets.

Knows: ssl, uvicorn's server. Must not know: which listener shall have it, dialects.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial

import uvicorn

from headway.errors import SettingsError

Contexts = Mapping[object, ssl.SSLContext]  # by the address that a socket is bound to


def context_of(certificate_file: str, key_file: str) -> ssl.SSLContext:
    """For a server, from TLS 1.2 on; nobody is asked for a certificate. Raises: SettingsError."""
    context = _empty_context()
    try:
        context.load_cert_chain(certificate_file, key_file, password=lambda: b"")  # never ask a terminal
    except (OSError, ValueError) as error:  # ssl's own are OSErrors
        raise SettingsError(f"certificate {certificate_file}, private key {key_file}: {error}") from None
    return context


def context_of_pem(pem: bytes, origin: str) -> ssl.SSLContext:
    """The same of a key and its certificates, which are on no disk: OpenSSL reads them from memory that has
    the name of a file. Raises: SettingsError, naming the `origin`."""
    context = _empty_context()
    try:
        with os.fdopen(os.memfd_create("headway-tls"), "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    except OSError as error:
        raise SettingsError(f"{origin}: {error}") from None
    return context


def _empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Server(uvicorn.Server):
    """Serves its sockets plainly, but for those that `contexts` names."""

    def __init__(self, config: uvicorn.Config, contexts: Contexts) -> None:
        super().__init__(config)
        self._contexts = contexts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        both = sockets or []
        await super().startup([at for at in both if at.getsockname() not in self._contexts])
        if self.should_exit:
            return
        loop = asyncio.get_running_loop()
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        made = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for at in both:
            if context := self._contexts.get(at.getsockname()):
                backlog = self.config.backlog
                self.servers.append(await loop.create_server(made, sock=at, ssl=context, backlog=backlog))
