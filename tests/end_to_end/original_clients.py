"""The clients of the original specification, in Python: the same calls in the same order, and nothing they do not do.

They wait only where the samples do: nothing waits for `connected`, `identified` or `channel_joined`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.devices import Account, Site, Socket

DEFAULTS = {
    "audioGain": 50,
    "autoGainEnabled": True,
    "vadEnabled": False,
    "chunkDuration": 3.0,
    "overlapPercent": 15,
}


class Service:
    """What PairingService and MobilePairingService have in common."""

    device_type = ""
    token_path = ""

    def __init__(self, site: Site, account: Account, session_id: str) -> None:
        self.site = site
        self.account = account
        self.session_id = session_id
        self.channel_id: str | None = None
        self.ws: Socket | None = None
        self.ws_token: str | None = None
        self.store: Store | None = None
        self.seen: list[str] = []

    async def get_web_socket_token(self) -> str:
        """Fetched once: the same token is used again to reconnect."""
        if self.ws_token is None:
            answer = await self.site.post(
                self.token_path, {"username": self.account.username}, self.account.token
            )
            self.ws_token = str(answer.body["token"])
        return self.ws_token

    async def connect_web_socket(self) -> None:
        self.ws = await self.site.open(await self.get_web_socket_token())
        # onopen
        device = {"device_type": self.device_type, "session_id": self.session_id}
        self.send({"type": "identify", **device})
        if self.channel_id:
            self.send({"type": "join_channel", "channel": self.channel_id, **device})

    def send(self, message: Mapping[str, Any]) -> None:
        if self.ws is not None:
            self.ws.send(message)

    def handle_message(self, message: Mapping[str, Any]) -> None:
        """onmessage: remembers what came, and hands it to the store if there is one."""
        self.seen.append(str(message["type"]))
        if self.store is not None:
            self.store.handle_message(message)

    async def receive(self, type_: str) -> dict[str, Any]:
        """Handle messages up to and including the next of that type."""
        assert self.ws is not None
        while True:
            message = await self.ws.receive()
            self.handle_message(message)
            if message["type"] == type_:
                return message

    async def drain(self) -> int:
        """Handle everything that the server has sent up to now. How much that was."""
        assert self.ws is not None
        waiting = await self.ws.pending()
        for message in waiting:
            self.handle_message(message)
        return len(waiting)


class PairingService(Service):
    """The desktop."""

    device_type = "desktop"
    token_path = "/api/auth/ws-token"

    async def generate_pairing_code(self) -> str:
        answer = await self.site.post(
            "/api/generate-pair-code", {"desktop_session_id": self.session_id}, self.account.token
        )
        self.channel_id = answer.body["channel_id"]
        return str(answer.body["code"])

    def sync_state(self, state_type: str, data: Any) -> None:
        if self.channel_id:
            payload = {"action": "STATE_UPDATE", "stateType": state_type, "data": data}
            self.send({"type": "channel_message", "channelId": self.channel_id, "payload": payload})


class MobilePairingService(Service):
    """The phone."""

    device_type = "mobile"
    token_path = "/api/auth/ws-token-mobile"

    async def pair_with_desktop(self, code: str) -> bool:
        answer = await self.site.post(
            "/api/pair-device", {"code": code, "mobile_session_id": self.session_id}, self.account.token
        )
        if answer.body["success"]:
            self.channel_id = answer.body["channel_id"]
            await self.connect_web_socket()
            return True
        return False

    def send_audio_chunk(self, audio_data: str, format_: str = "webm") -> None:
        if self.channel_id:
            chunk = {"chunk_id": "chunk-1757889900000", "data": audio_data, "format": format_}
            self.send({"type": "audio_chunk", **chunk, "sample_rate": 16000})

    def sync_settings(self, settings: Mapping[str, Any]) -> None:
        if self.channel_id:
            self.send({"type": "settings_sync", "channelId": self.channel_id, "settings": dict(settings)})


class UsePairing:
    """The React hook: its two functions and its state."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.is_connected = False
        self.is_paired = False
        self.pairing_code: str | None = None

    async def generate_code(self) -> None:
        assert isinstance(self.service, PairingService)
        self.pairing_code = await self.service.generate_pairing_code()
        await self.service.connect_web_socket()
        self.is_connected = True

    async def pair_with_code(self, code: str) -> bool:
        assert isinstance(self.service, MobilePairingService)
        success = await self.service.pair_with_desktop(code)
        if success:
            self.is_paired = self.is_connected = True
        return success


class Store:
    """The Zustand store and its naive handler: whatever it receives it merges, and sends the whole back."""

    def __init__(self, service: Service) -> None:
        self.channel_id: str | None = None
        self.is_paired = False
        self.audio_settings: dict[str, Any] = dict(DEFAULTS)
        self.service = service
        service.store = self

    def update_audio_settings(self, new_settings: Mapping[str, Any]) -> None:
        self.audio_settings = {**self.audio_settings, **new_settings}
        self.sync_state_to_channel()

    def sync_state_to_channel(self) -> None:
        if self.channel_id:
            settings = {"channelId": self.channel_id, "settings": self.audio_settings}
            self.service.send({"type": "settings_sync", **settings})

    def handle_message(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "settings_sync":
                self.update_audio_settings(message["settings"])
            case "channel_message" if message["payload"]["action"] == "STATE_UPDATE":
                if message["payload"]["stateType"] == "audioSettings":
                    self.update_audio_settings(message["payload"]["data"])
            case "pairing_success":
                self.channel_id, self.is_paired = message["channelId"], True
