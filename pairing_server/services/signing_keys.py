"""Signing keys at work: rotating them, noticing that they were rotated, and what depends on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pairing_server.errors import Forbidden, NotFound, ValidationFailed
from pairing_server.request_context import RequestContext
from pairing_server.security.keys import SigningKey, generate_key
from pairing_server.security.tokens import DAY_S
from pairing_server.services.codes import Codes
from pairing_server.services.deps import Deps
from pairing_server.store import pairings

log = logging.getLogger(__name__)

MOST = 16


class NoKeyFile(Forbidden):
    """The keys are the operator's own (PAIRING_JWT_KEYS): only he can change them."""

    message = "The signing keys are set by PAIRING_JWT_KEYS, so they are changed where that is set."


def take_over(deps: Deps, keys: Sequence[SigningKey], context: RequestContext) -> bool:
    """Use these keys from now on. False if they are those in use already."""
    before = {key.kid for key in deps.keyring.keys}
    if not deps.keyring.replace(keys, context.now):
        return False
    after = [key.kid for key in deps.keyring.keys]
    _use_for_codes(deps, context.now)
    deps.audit.enqueue(
        deps.audit.event(
            "key.rotated",
            "success",
            context,
            state="taken_over",
            kid=after[0],
            added=" ".join(kid for kid in after if kid not in before),
            removed=" ".join(sorted(before.difference(after))),
        )
    )
    return True


def _use_for_codes(deps: Deps, now: datetime) -> None:
    deps.codes.use([key.secret for key in deps.keyring.in_order(now)])


async def look_after(deps: Deps, context: RequestContext) -> None:
    """Take over what the file of keys has become, and keep the names of live channels under the newest key.

    So an old key is not needed any more once the last token that it has signed is over. With a file that
    cannot be used, the keys in use stay.
    """
    if deps.keyfile is not None and deps.keyfile.changed():
        try:
            take_over(deps, deps.keyfile.load(), context)
        except (OSError, ValueError) as error:
            log.error("%s is not usable, the keys in use stay: %s", deps.keyfile.path, error)
    _use_for_codes(deps, context.now)
    if deps.codes.stale:
        held = {
            channel.pairing_id: deps.codes.macs(Codes.of_channel(channel.name))[0]
            for channel in deps.hub.channels.values()
        }
        async with deps.database.transaction() as conn:
            await pairings.rename(conn, held)
        deps.codes.stale = False


async def rotate(deps: Deps, context: RequestContext) -> SigningKey:
    """Put a fresh key first in the file; the others go on verifying. Raises NoKeyFile, ValidationFailed."""
    fresh = generate_key(context.now)

    def change(keys: tuple[SigningKey, ...]) -> Sequence[SigningKey]:
        return with_fresh(keys, fresh)

    if deps.keyfile is None:
        raise NoKeyFile()
    async with deps.database.transaction() as conn:
        event = deps.audit.event("key.rotated", "success", context, state="added", kid=fresh.kid)
        await deps.audit.record(conn, event)
        deps.keyfile.rewrite(change)
    return fresh


def with_fresh(keys: Sequence[SigningKey], fresh: SigningKey) -> list[SigningKey]:
    """The keys after a rotation. Raises ValidationFailed if there are too many."""
    if len(keys) >= MOST:
        raise ValidationFailed(f"There are {len(keys)} keys already; retire old ones first.")
    return [fresh, *keys]


async def retire(deps: Deps, kid: str, context: RequestContext, *, at_once: bool = False) -> None:
    """Take a key out of the file: what it has signed is refused from then on.

    Raises NoKeyFile, NotFound, ValidationFailed (it signs; or, unless `at_once`, tokens of it may still live).
    """

    def change(keys: tuple[SigningKey, ...]) -> Sequence[SigningKey]:
        return without(keys, kid, context.now, at_once=at_once)

    if deps.keyfile is None:
        raise NoKeyFile()
    async with deps.database.transaction() as conn:
        event = deps.audit.event("key.rotated", "success", context, state="retired", kid=kid)
        await deps.audit.record(conn, event)
        deps.keyfile.rewrite(change)


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
class Listed:
    """A key without its secret. `needed_until`: when the last token that it has signed is over; None: unknown."""

    kid: str
    signs: bool
    needed_until: datetime | None


def listing(keys: Sequence[SigningKey]) -> list[Listed]:
    """What is known of the keys, the newest first: the kid of a generated one says when it was made."""
    found = [Listed(keys[0].kid, True, None)]
    for newer, key in pairwise(keys):
        until = _made_at(newer.kid)
        # A little more than its last token's life: it went on signing for a moment.
        found.append(Listed(key.kid, False, until and until + timedelta(seconds=DAY_S, minutes=2)))
    return found


def _made_at(kid: str) -> datetime | None:
    try:
        return datetime.strptime(kid.partition("-")[0], "%Y%m%dT%H%MZ").replace(tzinfo=UTC)
    except ValueError:
        return None
