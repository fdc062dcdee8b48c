"""One running server: a backend, and HTTP and the scheduler on it. Starts, drains and stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress

from tornado.netutil import bind_sockets

from pairing_server.clock import utcnow
from pairing_server.config import Configuration
from pairing_server.db import last_backup, migrations
from pairing_server.errors import Unavailable
from pairing_server.request_context import system
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.limits import SlidingWindow
from pairing_server.server.backend import Backend
from pairing_server.server.reload import take_over
from pairing_server.server.scheduler import Job, Scheduler
from pairing_server.server.startup_checks import DatabaseUnreachable, StartError, check_schema
from pairing_server.tracing import OFF, Traces
from pairing_server.web.app_context import AppContext
from pairing_server.web.http_server import BoundedHTTPServer
from pairing_server.web.routes import make_app
from pairing_server.websocket.handler import PairingSocket

log = logging.getLogger(__name__)

BACKLOG = 1024
# Seconds: for closing all connections (relay/hub.py), for those that do not answer the close, for the database.
DRAIN_TIMEOUT = 25
# Seconds: for saying to the other servers that this one stops.
LEAVE_TIMEOUT = 1
SPOOL = "audit-spool"
# The jobs that are done once before the first request.
AT_START = (
    "beat",
    "count codes",
    "poll revocations",
    "poll pairing changes",
    "settle the brute force guard",
    "look for a backup",
)


def address_of(listening: socket.socket) -> tuple[str, int]:
    """Where it listens: host and port, or a path and 0."""
    name = listening.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)


def listening_sockets(config: Configuration) -> list[socket.socket]:
    """Sockets that listen where the configuration says; on `::` IPv4 as well. Raises StartError."""
    # Tornado takes `::` for IPv6 alone, and no address for all of both. One socket of both kinds would show IPv4
    # addresses in another form.
    host = "" if config.host == "::" else config.host
    try:
        return bind_sockets(config.port, host, backlog=BACKLOG)
    except OSError as error:
        raise StartError(
            f"Cannot listen on {config.host}:{config.port}: {error.strerror or error}."
            " Choose another with PAIRING_HOST and PAIRING_PORT, or --host and --port."
        ) from None


def check_address(config: Configuration) -> None:
    """Raises StartError if one cannot listen there, so that nothing has to be started to see it."""
    for listening in listening_sockets(config):
        listening.close()


class Node:
    def __init__(
        self, config: Configuration, database_url: str, keyfile: KeyFile | None = None, traces: Traces = OFF
    ) -> None:
        """As `Backend`. Call in the event loop."""
        loop = asyncio.get_running_loop()
        self.config = config
        self.backend = backend = Backend(config, database_url, keyfile, traces)
        self.audit, self.database, self.hub = backend.audit, backend.database, backend.hub
        self.services = backend.services
        self.app = AppContext(
            backend.services,
            audit=backend.audit,
            database=backend.database,
            hub=backend.hub,
            tokens=backend.tokens,
            rules=backend.rules,
            code_limits=backend.code_limits,
            traces=traces,
            origins=config.allowed_origins,
            trusted=config.trusted_proxies,
            handshake_failures=SlidingWindow(config.handshake_failures),
            rates=backend.rates,
            http_limits=config.http_limits,
            now=loop.time,
            version=backend.version,
            demo=bool(config.demo),
        )
        self.http = BoundedHTTPServer(make_app(self.app, {"/ws": PairingSocket}), self.app)
        self.scheduler = Scheduler(backend, utcnow, loop.time, self.http.cut_slow)
        self.scheduler.add(Job("look for a backup", 60, self._look_for_backup))
        # Done once the database is known to have the schema of this release; an exception is a StartError.
        self.schema_checked: asyncio.Future[None] = loop.create_future()
        # Listening sockets that the service manager holds for us.
        self.held: tuple[socket.socket, ...] = ()

    async def start(
        self, sockets: Sequence[socket.socket] = (), *, patient: bool = False, timers: bool = True
    ) -> list[tuple[str, int]]:
        """Check the schema, listen, start the scheduler. The addresses it listens on.

        `sockets`: listening ones that the service manager holds for us; without any, our own are opened. `patient`: begin
        without a database that is unavailable, and wait for it; see `schema_checked`. Without `timers` no job runs by itself.
        Raises StartError.
        """
        try:
            await check_schema(self.database)
            self.schema_checked.set_result(None)
        except DatabaseUnreachable as away:
            if not patient:
                raise
            log.warning("waiting for the database", extra={"at": self.database.at, "reason": str(away)})
            self.app.starting = True
            # So that nothing below waits for it once more.
            self.database.breaker.open(away.reason or "unreachable")
            self.scheduler.add(Job("check schema", 2, self._check_schema_again))
        await self.database.warm()
        own = [] if sockets else listening_sockets(self.config)
        self.held = tuple(sockets)
        addresses = [address_of(listening) for listening in own or sockets]
        # A port of the system's choice is another at each start.
        host, port = addresses[0] if sockets or self.config.port else (self.config.host, 0)
        self.services.nodes.name = f"{socket.gethostname()} {host}:{port} {self.config.data_dir.absolute()}"
        self.http.add_sockets(own or sockets)
        for job in self.scheduler.jobs:
            if job.name in AT_START:
                await self.scheduler.run(job)
        if timers:
            self.scheduler.start()
        spooled = self.audit.spool_to(self.config.data_dir / SPOOL, utcnow())
        self.audit.enqueue_event("audit.started", "success", system(utcnow()), spooled_bytes=spooled)
        self.audit.enqueue_event("system.started", "success", system(utcnow()), schema=migrations.head())
        return addresses

    async def _look_for_backup(self) -> None:
        self.app.last_backup = await asyncio.to_thread(last_backup.read, self.config.data_dir)

    async def _check_schema_again(self) -> None:
        """The database was unavailable at the start. Once it answers, `schema_checked` is done."""
        if self.schema_checked.done():
            return
        try:
            await check_schema(self.database)
        except DatabaseUnreachable:
            return
        except StartError as error:
            self.schema_checked.set_exception(error)
        else:
            self.app.starting = False
            self.schema_checked.set_result(None)
            log.info("database available")

    def reload(self, config: Configuration) -> None:
        """Take over the settings that are reloadable; the rest needs a restart."""
        take_over(self.backend, self.app, self.config, config)
        self.config = config

    async def stop(self) -> None:
        """Refuse new requests, close every connection so that its client connects again, write the audit log, close the rest."""
        self.app.draining = True
        if self.held:
            # A new connection waits in the socket for the next server. Without such a socket it is refused at once: 503.
            self.http.stop()
        self.services.audit.tail.stop()
        # First of all: the devices come back to other servers at once.
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self.services.nodes.end()
        gone = asyncio.Event()
        self.hub.close_connections(gone.set)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await gone.wait()
                self.http.stop()
                self.scheduler.stop()
                await self.http.close_all_connections()
                await self.app.settled()
                await self.scheduler.settled()
                await self.backend.settings.keep()
                self.audit.enqueue_event("system.stopping", "success", system(utcnow()))
                self.audit.enqueue_event("audit.stopped", "success", system(utcnow()))
                await self.audit.flush(system(utcnow()), last=True)
                await self.services.audit.sealer.seal(system(utcnow()))
        except (TimeoutError, Unavailable) as error:
            log.warning("stopped with unwritten data", extra={"error": str(error)})
        self.http.stop()
        self.scheduler.stop()
        await self.release()

    async def release(self) -> None:
        """Close what a node holds that has not started, or not wholly."""
        self.http.stop()
        await self.backend.close()


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
