"""Signing keys: rotating and retiring them, and taking over those that another process has rotated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Forbidden, NotFound, ValidationFailed
from pairing_server.relay.hub import Hub
from pairing_server.request_context import RequestContext
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring, SigningKey, generate_key
from pairing_server.security.tokens import DAY_S
from pairing_server.services.codes import Codes
from pairing_server.store import pairings

log = logging.getLogger(__name__)

MOST = 16


class NoKeyFile(Forbidden):
    """The operator sets the keys with PAIRING_JWT_KEYS, so only the operator can change them."""

    message = "The signing keys are set by PAIRING_JWT_KEYS, so they are changed where that is set."


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """`keyfile`: where the keys are kept, None if PAIRING_JWT_KEYS sets them."""

    database: Database
    audit: AuditLog
    hub: Hub
    keyring: Keyring
    codes: Codes
    keyfile: KeyFile | None = None

    def take_over(self, keys: Sequence[SigningKey], context: RequestContext) -> bool:
        """Use these keys from now on. False if they are those in use already."""
        before = {key.kid for key in self.keyring.keys}
        if not self.keyring.replace(keys, context.now):
            return False
        after = [key.kid for key in self.keyring.keys]
        self._use_for_codes(context.now)
        self.audit.enqueue_event(
            "key.rotated",
            "success",
            context,
            state="taken_over",
            kid=after[0],
            added=" ".join(kid for kid in after if kid not in before),
            removed=" ".join(sorted(before.difference(after))),
        )
        return True

    def _use_for_codes(self, now: datetime) -> None:
        self.codes.use([key.secret for key in self.keyring.in_order(now)])

    async def reload_keys(self, context: RequestContext) -> None:
        """Take over the file of keys if it has changed, and keep the names of live channels under the newest key.

        So an old key is not needed any more once the last token that it has signed is over. With a file that
        cannot be used, the keys in use stay.
        """
        if self.keyfile is not None and self.keyfile.changed():
            try:
                self.take_over(self.keyfile.load(), context)
            except (OSError, ValueError) as error:
                log.error("key file refused", extra={"path": str(self.keyfile.path), "error": str(error)})
        self._use_for_codes(context.now)
        if self.codes.stale:
            names = {
                channel.pairing_id: self.codes.macs(Codes.of_channel(channel.name))[0]
                for channel in self.hub.channels.values()
            }
            async with self.database.transaction() as conn:
                await pairings.rename(conn, names)
            self.codes.stale = False

    async def rotate(self, context: RequestContext) -> SigningKey:
        """Put a fresh key first in the file; the others go on verifying. Raises NoKeyFile, ValidationFailed."""
        fresh = generate_key(context.now)
        await self._rewrite(lambda keys: with_fresh(keys, fresh), "added", fresh.kid, context)
        return fresh

    async def retire(self, context: RequestContext, kid: str, *, at_once: bool = False) -> None:
        """Take a key out of the file: what it has signed is refused from then on.

        Raises NoKeyFile, NotFound, ValidationFailed (it signs; or, unless `at_once`, tokens of it may still live).
        """
        await self._rewrite(
            lambda keys: without(keys, kid, context.now, at_once=at_once), "retired", kid, context
        )

    async def _rewrite(
        self,
        change: Callable[[tuple[SigningKey, ...]], Sequence[SigningKey]],
        state: str,
        kid: str,
        context: RequestContext,
    ) -> None:
        if self.keyfile is None:
            raise NoKeyFile()
        async with self.database.transaction() as conn:
            event = self.audit.event("key.rotated", "success", context, state=state, kid=kid)
            await self.audit.record(conn, event)
            self.keyfile.rewrite(change)


def with_fresh(keys: Sequence[SigningKey], fresh: SigningKey) -> list[SigningKey]:
    """The keys after a rotation. Raises ValidationFailed if there are too many."""
    if len(keys) >= MOST:
        raise ValidationFailed(f"There are {len(keys)} keys already; retire old ones first.")
    return [fresh, *keys]


def without(keys: Sequence[SigningKey], kid: str, now: datetime, *, at_once: bool) -> list[SigningKey]:
    """The keys without that one. Raises as `retire` does."""
    found = next((listed for listed in listing(keys) if listed.kid == kid), None)
    if found is None:
        raise NotFound(f"There is no key {kid!r}; see: pairing-server keys list")
    if found.signs:
        raise ValidationFailed("This key signs; rotate first: pairing-server keys rotate")
    if not at_once and (found.needed_until is None or found.needed_until > now):
        until = f"{found.needed_until:%Y-%m-%d %H:%M} UTC" if found.needed_until else "an unknown time"
        raise ValidationFailed(
            f"Tokens signed with {kid} may be in use until {until}. To refuse them at once, add --now."
        )
    return [key for key in keys if key.kid != kid]


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key without its secret. `needed_until`: when the last token that it has signed is over; None: unknown."""

    kid: str
    signs: bool
    needed_until: datetime | None


def listing(keys: Sequence[SigningKey]) -> list[ListedKey]:
    """What is known of the keys, the newest first: the kid of a generated one says when it was made."""
    found = [ListedKey(keys[0].kid, True, None)]
    for newer, key in pairwise(keys):
        until = _made_at(newer.kid)
        # A little more than its last token's life: it went on signing for a moment.
        found.append(ListedKey(key.kid, False, until and until + timedelta(seconds=DAY_S, minutes=2)))
    return found


def _made_at(kid: str) -> datetime | None:
    try:
        return datetime.strptime(kid.partition("-")[0], "%Y%m%dT%H%MZ").replace(tzinfo=UTC)
    except ValueError:
        return None
