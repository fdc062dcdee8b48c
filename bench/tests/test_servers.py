"""The pairing server as it is measured: real tokens, real pairings."""

from __future__ import annotations

import asyncio

from bench.message_load import Plan, relay
from bench.servers import start_ours
from harness.machine import two_cores
from harness.pairing_database import PairingDatabase
from harness.processes import run_folder


def test_pairs_of_the_database_join_their_channels_and_relay() -> None:
    with run_folder("pairing-servers-") as (folder, processes), PairingDatabase(folder) as database:
        server = start_ours(processes, database, two_cores()[0])
        processes.await_port(server.key, server.process, server.port)
        plan = Plan(server.pid, window=2, pace=0.0, warm_up=0.1, seconds=0.1)
        measured = asyncio.run(relay(server.pairs(2, 220), server.pairs(1, 220)[0], plan, lambda: None))
        processes.stop_all()
    assert measured["messages"] > 0
