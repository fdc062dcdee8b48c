"""The pairing that `doctor` tries: its devices, and what one step passes on to the next. The steps are in steps.py."""

from __future__ import annotations

import secrets
from contextlib import suppress

from pairing_server.client import ClientError, Code, Connection, DeviceType, PairingClient


class UnexpectedAnswer(Exception):
    """The server answered something else than was expected; the text is what it answered."""

    def __init__(self, expected: str, came: str) -> None:
        self.expected = expected
        super().__init__(came)


class TrialPairing:
    """Two devices, an intruder, and what they have learned. Without a username it has an account of its own, which it
    registers, unless `made` says that there is one, and deletes in the end."""

    code: Code
    pairing_id: str
    epoch: str
    last_seq: int

    def __init__(self, url: str, username: str | None, password: str | None) -> None:
        self.throw_away = username is None
        # Whether the throw-away account exists.
        self.made = False
        self.username = username or f"doctor-{secrets.token_hex(6)}"
        self.password = password or secrets.token_urlsafe(24)
        self.devices: dict[DeviceType, PairingClient] = {
            "desktop": PairingClient(url, "desktop"),
            "mobile": PairingClient(url, "mobile"),
        }
        self.intruder = PairingClient(url, "mobile")
        self.ws_tokens: dict[DeviceType, str] = {}
        self.connections: dict[DeviceType, Connection] = {}

    @property
    def desktop(self) -> PairingClient:
        return self.devices["desktop"]

    def without_secrets(self, text: str) -> str:
        """The text with each password, token and code hidden."""
        known = [self.password, self.desktop.access_token, *self.ws_tokens.values()]
        if hasattr(self, "code"):
            known.append(self.code.code)
        for secret in filter(None, known):
            text = text.replace(secret, "(hidden)")
        return text

    async def end(self) -> None:
        """Close the connections, end the pairing and delete the throw-away account, at whichever step the trial stopped.

        `made` stays true if it cannot be deleted.
        """
        for connection in self.connections.values():
            connection.drop()
        if hasattr(self, "code"):
            with suppress(ClientError):
                for pairing in await self.desktop.pairings():
                    if pairing.desktop_session_id == self.desktop.session_id:
                        await self.desktop.unpair(pairing.id)
        if self.made:
            with suppress(ClientError):
                if self.desktop.access_token is None:
                    await self.desktop.login(self.username, self.password)
                await self.desktop.delete_account()
                self.made = False
        for device in (*self.devices.values(), self.intruder):
            device.close()
