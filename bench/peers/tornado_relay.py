"""Stock Tornado: its WebSocketHandler with its own frames, and one JSON POST for the HTTP figures."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

members: dict[tuple[str, str], Relay] = {}


class Relay(WebSocketHandler):
    def open(self, pair: str, side: str) -> None:
        self.set_nodelay(True)
        self.other = (pair, "b" if side == "a" else "a")
        members[pair, side] = self
        self.write_message("ready")

    def on_message(self, message: str | bytes) -> None:
        members[self.other].write_message(message)


class Post(RequestHandler):
    def post(self) -> None:
        self.write({"code": "123456", "for": json.loads(self.request.body)["desktop_session_id"]})


async def main() -> None:
    app = Application([(r"/(\w+)/([ab])", Relay), (r"/post", Post)], websocket_ping_interval=25)
    app.listen(int(sys.argv[1]), "127.0.0.1", backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
