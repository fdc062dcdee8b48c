"""FastAPI on uvicorn and uvloop."""

from __future__ import annotations

import sys

import uvicorn  # type: ignore[import-not-found, unused-ignore]
from fastapi import (  # type: ignore[import-not-found, unused-ignore]
    FastAPI,
    WebSocket,
    WebSocketDisconnect,
)

app = FastAPI()
members: dict[tuple[str, str], WebSocket] = {}


@app.websocket("/{pair}/{side}")  # type: ignore[untyped-decorator, unused-ignore]
async def relay(socket: WebSocket, pair: str, side: str) -> None:
    await socket.accept()
    members[pair, side] = socket
    await socket.send_text("ready")
    other = (pair, "b" if side == "a" else "a")
    try:
        while True:
            message = await socket.receive_text()
            await members[other].send_text(message)
    except WebSocketDisconnect:
        del members[pair, side]


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        backlog=1024,
        access_log=False,
        log_level="warning",
    )
