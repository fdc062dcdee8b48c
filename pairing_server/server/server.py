"""The composition root: settings in, one running node out. Starts, drains and stops it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tornado.netutil import bind_sockets

from pairing_server.audit.query import AuditReader
from pairing_server.audit.queue import EventQueue
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.retention import Retention
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.audit.seals.sealer import Copy, Sealer, to_file
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.tail import AuditTail
from pairing_server.config import Configuration
from pairing_server.db import migrations
from pairing_server.db.database import Database
from pairing_server.errors import Unavailable
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.hub import Hub
from pairing_server.request_context import system
from pairing_server.security.issuers import Issuers
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring
from pairing_server.security.limits import SlidingWindow
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import Tokens
from pairing_server.server.node_events import NodeEvents
from pairing_server.server.reload import take_over
from pairing_server.server.scheduler import Job, Scheduler
from pairing_server.server.startup_checks import DatabaseAway, StartError, check_schema
from pairing_server.services import settings_documents as channel_settings
from pairing_server.services.account_status import RecentlyEnabled
from pairing_server.services.brute_force_guard import BruteForceGuard
from pairing_server.services.codes import Codes, LiveCodes
from pairing_server.services.deps import Deps
from pairing_server.services.rate_limits import KeyedLock
from pairing_server.services.revocation_list import RevocationList
from pairing_server.tracing import OFF, Traces
from pairing_server.web.app_context import AppContext, utcnow
from pairing_server.web.http_client import fetch_jwks, post_line
from pairing_server.web.http_server import Listener
from pairing_server.web.routes import make_app
from pairing_server.websocket.handler import PairingSocket

log = logging.getLogger(__name__)

BACKLOG = 1024
# Seconds: for closing all connections (relay/hub.py), for those that do not answer the close, for the database.
DRAIN_TIMEOUT = 25
SPOOL = "audit-spool"
# Questions to the audit log: so many at a time, for so many seconds.
READERS = 4
READING_TIMEOUT = 10


def app_version() -> str:
    try:
        return version("pairing-server")
    except PackageNotFoundError:
        return "unknown"


def address_of(listening: socket.socket) -> tuple[str, int]:
    """Where it listens: host and port, or a path and 0."""
    name = listening.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)


class Node:
    """One running server: everything it is made of, for as long as it lives."""

    def __init__(
        self,
        config: Configuration,
        database_url: str,
        keyfile: KeyFile | None = None,
        traces: Traces = OFF,
    ) -> None:
        """`settings` must hold keys (config.with_keys, with_seal_key), `keyfile` the file they are from, if any. Whoever
        gives `traces` stops them after the node.

        Call in the event loop.
        """
        loop = asyncio.get_running_loop()
        self.config = config
        self.version = app_version()
        self.traces = traces
        # The database's outages are recorded in the audit log, which needs the database.
        self.database = Database(
            database_url, on_outage=lambda *change: events.of_database(*change), traces=traces
        )
        self.reading = Database(
            database_url,
            pool_size=READERS,
            statement_timeout=READING_TIMEOUT,
            breaker=self.database.breaker,
            traces=traces,
        )
        queue = EventQueue(self.database, self.reading, traces=traces)
        self.audit = AuditLog(socket.gethostname(), self.version, queue)
        events = NodeEvents(self.audit, utcnow)
        self.hub = Hub(config.connection_limits, loop.time, loop.call_later, events.of_relay)
        self.passwords = Passwords()
        self.issuers = Issuers(config.issuers, fetch_jwks, on_refresh=events.of_issuer_keys)
        self.deps = self._deps(keyfile)
        self.app = AppContext(
            deps=self.deps,
            origins=config.allowed_origins,
            trusted=config.trusted_proxies,
            handshake_failures=SlidingWindow(config.handshake_failures),
            now=loop.time,
            version=self.version,
            demo=bool(config.demo),
        )
        self.http = Listener(make_app(self.app, {"/ws": PairingSocket}))
        self.scheduler = Scheduler(self.deps, utcnow, loop.time, self.http.cut_slow)
        # Done once the database is known to have the schema of this release; an exception is a StartError.
        self.schema_checked: asyncio.Future[None] = loop.create_future()
        # Listening sockets that somebody holds for us.
        self.held: tuple[socket.socket, ...] = ()

    def _deps(self, keyfile: KeyFile | None) -> Deps:
        config = self.config
        keyring = Keyring(config.jwt_keys)
        revoked = RevocationList()
        sealer = self._sealer()
        reader = AuditReader(self.reading, self.audit, sealer)
        lines = SealedLines(self.reading, sealer.key.public)
        return Deps(
            database=self.database,
            reading=self.reading,
            audit=self.audit,
            audit_reader=reader,
            audit_tail=AuditTail(reader),
            sealer=sealer,
            verifier=Verifier(self.reading, self.audit, sealer),
            retention=Retention(
                self.database, lines, self.audit, config.audit_retention, config.audit_export_dir
            ),
            hub=self.hub,
            tokens=Tokens(
                keyring, ws_ttl=config.ws_token_ttl, issuers=self.issuers, is_revoked=revoked.covers
            ),
            revoked=revoked,
            passwords=self.passwords,
            keyring=keyring,
            keyfile=keyfile,
            codes=Codes([key.secret for key in config.jwt_keys]),
            rules=config.pairing_rules,
            live=LiveCodes(),
            alarm=BruteForceGuard(config.redeem_alarm),
            turns=KeyedLock(self.database.breaker.check),
            enabled=RecentlyEnabled(),
            codes_by_user=SlidingWindow(config.code_rate),
            codes_by_address=SlidingWindow(config.code_rate_address),
            registration_open=config.registration == "open",
            single_use=config.ws_token_single_use,
            traces=self.traces,
        )

    def _sealer(self) -> Sealer:
        config = self.config
        if config.audit_seal_key is None:
            raise ValueError("the settings lack the key that seals the audit log: config.with_seal_key")
        target = config.audit_seal_copy
        copy: Copy | None = None
        if "://" in target:
            copy = partial(post_line, target)
        elif target:
            copy = to_file(Path(target))
        return Sealer(self.database, self.audit, config.audit_seal_key, SealMemory(config.data_dir), copy)

    async def start(
        self, sockets: Sequence[socket.socket] = (), *, patient: bool = False
    ) -> list[tuple[str, int]]:
        """Check the schema, listen, start the timer. The addresses it listens on.

        `sockets`: listening ones that somebody holds for us; without any, our own are opened. `patient`: a
        database that is away is waited for; see `schema_checked`. Raises StartError.
        """
        try:
            await check_schema(self.database)
            self.schema_checked.set_result(None)
        except DatabaseAway as away:
            if not patient:
                raise
            log.warning("starting all the same, and waiting for it: %s", away)
            self.app.starting = True
            self.scheduler.add(Job("check schema", 2, self._check_schema_again))
        await self.database.warm()
        own = [] if sockets else self._bound()
        self.held = tuple(sockets)
        self.http.add_sockets(own or sockets)
        for job in self.scheduler.jobs:
            if job.name in ("count codes", "end revoked logins", "settle the alarm"):
                await self.scheduler.run(job)
        self.scheduler.start()
        spooled = self.audit.spool_to(self.config.data_dir / SPOOL, utcnow())
        begun = self.audit.event("audit.started", "success", system(utcnow()), spooled_bytes=spooled)
        self.audit.enqueue(begun)
        started = self.audit.event("system.started", "success", system(utcnow()), schema=migrations.head())
        self.audit.enqueue(started)
        return [address_of(listening) for listening in own or sockets]

    def _bound(self) -> list[socket.socket]:
        config = self.config
        try:
            return bind_sockets(config.port, config.host, backlog=BACKLOG)
        except OSError as error:
            raise StartError(
                f"Cannot listen on {config.host}:{config.port}: {error.strerror or error}."
                " Choose another with PAIRING_HOST and PAIRING_PORT, or --host and --port."
            ) from None

    async def _check_schema_again(self) -> None:
        """The database was away at the start. Once it is there, `schema_checked` is done."""
        if self.schema_checked.done():
            return
        try:
            await check_schema(self.database)
        except DatabaseAway:
            return
        except StartError as error:
            self.schema_checked.set_exception(error)
        else:
            self.app.starting = False
            self.schema_checked.set_result(None)
            log.info("the database is there")

    def reload(self, config: Configuration) -> None:
        """Take over from the settings what may change while the server runs; the rest waits for the next start."""
        take_over(self.app, self.config, config)
        self.config = config

    async def stop(self) -> None:
        """Take nothing new, close every socket so that it comes back, write the audit log, let go."""
        self.app.draining = True
        if self.held:
            # Whoever comes now waits in the socket for the next server. Without one he is told at once: 503.
            self.http.stop()
        self.deps.audit_tail.stop()
        gone = asyncio.Event()
        self.hub.close_all(CloseCode.RESTART, "server restarts", gone.set)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await gone.wait()
                self.http.stop()
                self.scheduler.stop()
                await self.http.close_all_connections()
                await self.app.settled()
                await self.scheduler.settled()
                await channel_settings.keep(self.deps)
                stopping = self.audit.event("system.stopping", "success", system(utcnow()))
                self.audit.enqueue(stopping)
                self.audit.enqueue(self.audit.event("audit.stopped", "success", system(utcnow())))
                await self.audit.flush(system(utcnow()), last=True)
                await self.deps.sealer.seal(system(utcnow()))
        except (TimeoutError, Unavailable) as error:
            log.warning("stopped without writing everything to the database: %s", error)
        self.http.stop()
        self.scheduler.stop()
        await self.release()

    async def release(self) -> None:
        """Let go of what the node holds."""
        self.audit.close()
        await self.issuers.close()
        self.passwords.close()
        await self.database.close()
        await self.reading.close()


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
