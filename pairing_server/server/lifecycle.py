"""A node as a process: signals, activation by a service manager, and notifications to it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from pairing_server.config import Configuration, ConfigurationError
from pairing_server.db.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from pairing_server.security.keyfile import KeyFile
from pairing_server.server.backend import app_version
from pairing_server.server.scheduler import Job
from pairing_server.server.server import Node
from pairing_server.server.status import StatusSocket, describe
from pairing_server.server.systemd import Activation, Notifier
from pairing_server.server.watchdog import Watchdog
from pairing_server.tracing import OFF
from pairing_server.tracing.process import traces_of_process

log = logging.getLogger(__name__)

Addresses = list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a node runs on. `config` has its keys, and `keyfile` is the file that they are from, if they are from one.

    `embedded`: the database, if it is an embedded one.
    """

    config: Configuration
    database_url: str
    keyfile: KeyFile | None = None
    embedded: EmbeddedPostgres | None = None


async def serve(
    resources: Resources,
    activation: Activation,
    listening: Callable[[Addresses], None],
    load: Callable[[], Configuration],
    *,
    patient: bool = True,
) -> None:
    """Run a node until SIGINT or SIGTERM. `listening` is called with the addresses once it listens.

    On SIGHUP `load` loads the configuration again; it raises ConfigurationError. `patient`: wait for a database that is
    away. Raises StartError, also when the database turns out to be unusable later.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    config, notifier = resources.config, activation.notifier
    traces = traces_of_process(app_version()) if config.traces else OFF
    node = Node(config, resources.database_url, resources.keyfile, traces)
    if (embedded := resources.embedded) is not None:
        node.scheduler.add(Job("start the database again", 5, lambda: _revive(node, embedded)))
        node.scheduler.add(Job("bound the database's log", 60, lambda: asyncio.to_thread(embedded.bound_log)))
    loop.add_signal_handler(signal.SIGHUP, _reload, node, load, notifier)
    try:
        addresses = await _unless(stop, node.start(activation.sockets, patient=patient))
    except BaseException:
        # It has not run: there is nothing to drain, and perhaps no audit log to write to.
        await node.release()
        await traces.stop()
        raise
    if addresses is None:
        await node.release()
        await traces.stop()
        notifier.close()
        return
    node.schema_checked.add_done_callback(lambda checked: stop.set() if checked.exception() else None)
    log.info("listening", extra={"addresses": ",".join(f"{host}:{port}" for host, port in addresses)})
    try:
        await _run(node, stop, lambda: listening(addresses), notifier)
    finally:
        notifier.close()


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, Addresses]) -> Addresses | None:
    """What comes of the work; None if it is to stop before: a database that does not answer can take its time."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait((working, stopping))


async def _run(node: Node, stop: asyncio.Event, ready: Callable[[], None], notifier: Notifier) -> None:
    """Accompany the node from when it listens until it has stopped."""
    loop = asyncio.get_running_loop()
    status_socket = StatusSocket(node.config.data_dir, lambda: describe(node))
    watchdog = Watchdog(loop.time, loop.call_later, notifier, lambda: status(node), node.app.loop_lag)
    try:
        await status_socket.open()
        ready()
        notifier.ready(status(node))
        watchdog.start()
        await stop.wait()
        if node.schema_checked.done():
            node.schema_checked.result()
        log.info("stopping")
        notifier.stopping("Closing connections, so that they come back.")
    finally:
        # The watchdog goes on: it ends a process that hangs while it stops.
        await node.stop()
        await node.backend.traces.stop()
        status_socket.close()
        watchdog.stop()


async def _revive(node: Node, embedded: EmbeddedPostgres) -> None:
    """Start an embedded database again that was killed, or whose disk was full."""
    if node.database.breaker.outage is None:
        return
    try:
        await asyncio.to_thread(embedded.revive)
    except EmbeddedPostgresError as error:
        log.warning("embedded database not restarted", extra={"error": str(error)})


def _reload(node: Node, load: Callable[[], Configuration], notifier: Notifier) -> None:
    """Take over the configuration as it is now. If it is wrong, the one in effect stays."""
    notifier.reloading()
    try:
        node.reload(load())
    except ConfigurationError as error:
        log.error("configuration refused", extra={"error": str(error).replace("\n", "; ")})
    finally:
        notifier.ready(status(node))


def status(node: Node) -> str:
    """One line on what the node does, for `systemctl status`."""
    hub = node.hub
    paired = sum(1 for channel in hub.channels.values() if channel.active)
    text = f"{len(hub.connections)} connections, {paired} channels with both devices"
    return text if node.schema_checked.done() else f"Waiting for the database; {text}"
