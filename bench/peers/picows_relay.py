"""picows alone, the engine below ours: what a relay in Python can come to when nothing is checked."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

members: dict[tuple[str, str], WSTransport] = {}


class Relay(WSListener):
    def __init__(self, path: str) -> None:
        _, pair, side = path.split("/")
        self.side = (pair, side)
        self.other = (pair, "b" if side == "a" else "a")

    def on_ws_connected(self, transport: WSTransport) -> None:
        members[self.side] = transport
        transport.send(WSMsgType.TEXT, b"ready")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()
        else:
            members[self.other].send(frame.msg_type, frame.get_payload_as_memoryview())


def relay(request: WSUpgradeRequest) -> Relay:
    return Relay(request.path.decode())


async def main() -> None:
    server = await ws_create_server(
        relay, "127.0.0.1", int(sys.argv[1]), enable_auto_ping=False, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
