"""python-socketio on uvicorn and uvloop."""

from __future__ import annotations

import sys
from typing import Any

import socketio  # type: ignore[import-not-found, import-untyped, unused-ignore]
import uvicorn  # type: ignore[import-not-found, unused-ignore]

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
# Whom each connection talks to is the room of the other side: PAIR/SIDE.
others: dict[str, str] = {}


@server.event  # type: ignore[untyped-decorator, unused-ignore]
async def connect(connection: str, environment: dict[str, Any]) -> None:
    pair, side = environment["QUERY_STRING"].partition("member=")[2].split("&")[0].split("/")
    await server.enter_room(connection, f"{pair}/{side}")
    others[connection] = f"{pair}/{'b' if side == 'a' else 'a'}"
    await server.emit("ready", to=connection)


@server.event  # type: ignore[untyped-decorator, unused-ignore]
async def message(connection: str, data: Any) -> None:
    await server.emit("message", data, to=others[connection])


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        port=int(sys.argv[1]),
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        backlog=1024,
        access_log=False,
        log_level="warning",
    )
