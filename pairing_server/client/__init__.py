"""The Python client: pair, connect, send, receive. doctor, tests, bench and bots use it.

    with PairingClient("http://127.0.0.1:8089", "desktop") as desktop:
        await desktop.login("ada", password)
        code = await desktop.generate_code()
        async with await desktop.connect() as connection:
            await connection.join(code.channel)
            await connection.expect("pairing_success", within=300)

A `PairingClient` is one device. It knows the wire and nothing of the server's insides. It reads no further
than it is asked to: whoever does not receive is to the server a slow consumer.
"""

from pairing_server.client.connection import Connection, Message
from pairing_server.client.device import Code, DeviceType, Pairing, PairingClient, TokenVia, base_url
from pairing_server.client.errors import (
    ClientError,
    Closed,
    NotAPairingServer,
    NotReachable,
    ServerError,
    TimedOut,
)

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
