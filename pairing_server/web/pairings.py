"""Pairing over HTTP: draw a code, redeem it, list and end pairings."""

from __future__ import annotations

from uuid import UUID

from pairing_server.clock import utcnow
from pairing_server.errors import NotFound
from pairing_server.services.rules import PairingRules
from pairing_server.text import clean
from pairing_server.web import schemas
from pairing_server.web.authentication import AuthenticatedHandler


def pairing_uri(rules: PairingRules, code: str) -> str:
    """What a QR code holds. The code stands behind the #, which browsers do not send: it is in no log."""
    return f"{rules.public_url}/phone#code={code}"


class GeneratePairCodeHandler(AuthenticatedHandler):
    """POST /api/generate-pair-code: the desktop gets the code that it shows."""

    guests = True

    async def post(self) -> None:
        body = self.read(schemas.GenerateBody)
        made = await self.app.services.pairings.create_code(
            self.context.at(utcnow()), body["desktop_session_id"]
        )
        self.answer(
            schemas.CodeAnswer,
            {
                "code": made.code,
                "expires_at": made.expires_at,
                "expires_in": made.expires_in,
                "channel_id": made.channel,
                "channelId": made.channel,
                "pairing_uri": pairing_uri(self.app.rules, made.code),
            },
        )


class PairDeviceHandler(AuthenticatedHandler):
    """POST /api/pair-device: the mobile redeems the code that the desktop shows."""

    guests = True

    async def post(self) -> None:
        body = self.read(schemas.PairBody)
        pairing = await self.app.services.pairings.redeem_code(
            self.context.at(utcnow()),
            body["code"],
            body["mobile_session_id"],
            device=clean(self.request.headers.get("User-Agent", ""), 100),
        )
        self.answer(schemas.PairedAnswer, {"channel_id": pairing.channel, "channelId": pairing.channel})


class PairingsHandler(AuthenticatedHandler):
    """GET /api/pairings: the caller's own live pairings."""

    async def get(self) -> None:
        self.answer(
            schemas.PairingsAnswer, {"pairings": await self.app.services.pairings.list_own(self.context)}
        )


class PairingHandler(AuthenticatedHandler):
    """DELETE /api/pairings/{id}: unpair; the channel closes for both."""

    async def delete(self, pairing_id: str) -> None:
        try:
            wanted = UUID(pairing_id)
        except ValueError:
            raise NotFound("This is no id of a pairing. Send a UUID.") from None
        self.answer(
            schemas.UnpairedAnswer, await self.app.services.pairings.unpair(self.context.at(utcnow()), wanted)
        )
