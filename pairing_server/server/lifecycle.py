"""A node as a process: signals, the sockets it is given, and what the service manager is told."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from pairing_server.config import Configuration, ConfigurationError
from pairing_server.db.embedded.access import EmbeddedPostgresError
from pairing_server.security.keyfile import KeyFile
from pairing_server.server.scheduler import Job
from pairing_server.server.server import Node, app_version
from pairing_server.server.status import StatusSocket, describe
from pairing_server.server.systemd import Notifier, Started
from pairing_server.server.watchdog import Pulse
from pairing_server.tracing import OFF
from pairing_server.tracing.process import traces_of_process

log = logging.getLogger(__name__)

Addresses = list[tuple[str, int]]


async def serve(
    config: Configuration,
    database_url: str,
    ready: Callable[[Addresses], None],
    started: Started,
    *,
    again: Callable[[], Configuration],
    keyfile: KeyFile | None = None,
    revive: Callable[[], None] | None = None,
) -> None:
    """Run a node until SIGINT or SIGTERM. `ready` is called with the addresses once it listens.

    `again` reads the settings anew, when SIGHUP asks for it; it raises ConfigurationError. `keyfile` is what
    the signing keys were read from, if they were. `revive` starts a database of our own again, should it die; it
    blocks, and raises EmbeddedPostgresError.

    Whoever supervises us starts us again when we end, so a database that is away is then no reason to end.
    Raises StartError, also when it turns out later that the database is not usable.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    traces = traces_of_process(app_version()) if config.traces else OFF
    node = Node(config, database_url, keyfile, traces)
    if revive is not None:
        node.scheduler.add(Job("start the database again", 5, lambda: _revive(node, revive)))
    notifier = started.notifier
    loop.add_signal_handler(signal.SIGHUP, _reload, node, again, notifier)
    try:
        bound = await node.start(started.sockets, patient=started.supervised)
    except BaseException:
        # It has never run: there is nothing to drain, and perhaps no audit log to write to.
        await node.release()
        await traces.stop()
        raise
    node.schema_checked.add_done_callback(lambda checked: stop.set() if checked.exception() else None)
    log.info("listening on %s", ", ".join(f"{host}:{port}" for host, port in bound))
    try:
        await _run(node, stop, lambda: ready(bound), notifier)
    finally:
        notifier.close()


async def _run(node: Node, stop: asyncio.Event, ready: Callable[[], None], notifier: Notifier) -> None:
    """From when the node listens until it has stopped."""
    loop = asyncio.get_running_loop()
    telling = StatusSocket(node.config.data_dir, lambda: describe(node))
    pulse = Pulse(loop.time, loop.call_later, notifier, lambda: status(node), node.app.loop_lag)
    try:
        await telling.open()
        ready()
        notifier.ready(status(node))
        pulse.start()
        await stop.wait()
        if node.schema_checked.done():
            node.schema_checked.result()
        log.info("stopping")
        notifier.stopping("Closing connections, so that they come back.")
    finally:
        # The pulse goes on: what hangs while it stops is ended by the watchdog.
        await node.stop()
        await node.traces.stop()
        telling.close()
        pulse.stop()


async def _revive(node: Node, revive: Callable[[], None]) -> None:
    """Nobody else looks after an embedded database that was killed, or whose disk was full."""
    if node.database.breaker.outage is None:
        return
    try:
        await asyncio.to_thread(revive)
    except EmbeddedPostgresError as error:
        log.warning("the embedded database does not start again: %s", error)


def _reload(node: Node, again: Callable[[], Configuration], notifier: Notifier) -> None:
    """What SIGHUP asks for. With settings that are not right, everything stays as it is."""
    notifier.reloading()
    try:
        node.reload(again())
    except ConfigurationError as error:
        log.error("configuration refused", extra={"error": str(error).replace("\n", "; ")})
    finally:
        notifier.ready(status(node))


def status(node: Node) -> str:
    """One line on what the node does, for `systemctl status`."""
    hub = node.hub
    paired = sum(1 for channel in hub.channels.values() if channel.active)
    told = f"{len(hub.connections)} connections, {paired} channels with both devices"
    return told if node.schema_checked.done() else f"Waiting for the database; {told}"
