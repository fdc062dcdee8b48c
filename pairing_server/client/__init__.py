"""The Python client: pair, connect, send, receive. doctor, tests, bench and bots use it.

    with PairingClient("http://127.0.0.1:8089", "desktop") as desktop:
        await desktop.login("ada", password)
        code = await desktop.generate_code()
        async with await desktop.connect() as connection:
            await connection.join(code.channel)
            await connection.expect("pairing_success", within=300)

A `PairingClient` is one device. It knows the wire and nothing of the server's code. It reads only when a caller
receives: one that never does is a slow consumer to the server.
"""

from pairing_server.client.connection import Connection
from pairing_server.client.device import Code, DeviceType, Pairing, PairingClient, TokenVia, base_url
from pairing_server.client.errors import (
    ClientError,
    Closed,
    NotAPairingServer,
    NotReachable,
    ServerError,
    TimedOut,
)
from pairing_server.client.inbox import Message

__all__ = [
    "ClientError",
    "Closed",
    "Code",
    "Connection",
    "DeviceType",
    "Message",
    "NotAPairingServer",
    "NotReachable",
    "Pairing",
    "PairingClient",
    "ServerError",
    "TimedOut",
    "TokenVia",
    "base_url",
]
