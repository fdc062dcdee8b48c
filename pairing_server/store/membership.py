"""Known devices that come back, one statement each for the session id and the seat; and which members are present.

In all other cases (a new session id, a guest's seat, a refusal) the statement finds nothing, and a transaction decides, with
the statements of store/users.py and store/pairings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from pairing_server.db.raw_connection import Fetch
from pairing_server.store.logins import refusal
from pairing_server.store.nodes import RUNS
from pairing_server.store.pairings import COLUMNS, Pairing, as_pairing

# A session id that was noted no longer ago is not noted again; it is kept for hundreds of times as long.
NOTED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Known:
    """A device with its session id. `caller`: whose login it comes with (see store/logins.py)."""

    caller: str | None
    user: str
    session_id: str


_KNOWN = f"""
    {refusal("$1")} IS NULL
    AND EXISTS (SELECT FROM sessions WHERE session_id = $3 AND subject = $2 AND seen_at > $4)
"""
_IS_KNOWN = f"SELECT {_KNOWN}"


async def is_known(fetch: Fetch, device: Known, now: datetime) -> bool:
    """Whether the login is in force and the session id its own, noted a short while ago."""
    row = await fetch(_IS_KNOWN, device.caller, device.user, device.session_id, now - NOTED)
    return row is not None and bool(row[0])


@dataclass(frozen=True, slots=True)
class Rejoin:
    """A known device comes back to the pairing with one of these MACs. `met`: the pairing whose other device is here, which
    is active therefore. `live`: the pairing whose channel has its settings already. `node`: the server it has joined."""

    known: Known
    role: str
    macs: Sequence[bytes]
    met: UUID | None
    live: UUID | None
    node: UUID


@dataclass(frozen=True, slots=True)
class Entered:
    """The pairing that was entered; `kept`: revision and document of its settings, where they were wanted."""

    pairing: Pairing
    kept: tuple[int, bytes] | None


# The answer to this statement waits for no disk: PostgreSQL writes the change within a second. Only for presence, which
# the scheduler notes again. docs/decisions/0010 says what a crash may lose of it.
_SOON = "set_config('synchronous_commit', 'off', true)"

_STATES = {
    "desktop": "state IN ('redeemed', 'active', 'waiting') OR state = 'pending' AND expires_at > $5",
    "mobile": "state IN ('redeemed', 'active', 'waiting')",
}


@cache
def _enter(role: str, keys: int) -> str:
    """The statement for a seat, where codes may be stored under so many keys.

    Each has a place of its own: with an array PostgreSQL would plan the statement anew each time.
    """
    macs = ", ".join(f"${9 + number}" for number in range(keys))
    other = "mobile" if role == "desktop" else "desktop"
    return f"""
WITH entered AS (
    UPDATE pairings SET seen_at = $5, code_mac = $9, node = $8, {role}_joined = true,
        {other}_joined = {other}_joined AND node IS NOT DISTINCT FROM $8,
        state = CASE WHEN id = $6 THEN 'active' ELSE state END,
        activated_at = CASE WHEN id = $6 THEN coalesce(activated_at, $5) ELSE activated_at END
    WHERE code_mac IN ({macs}) AND ({_STATES[role]})
      AND {role}_session = $3 AND {role}_user = $2
      AND (node IS NULL OR node = $8 OR NOT {other}_joined OR NOT {RUNS})
      AND (SELECT {_KNOWN})
    RETURNING pairings.*
)
SELECT {", ".join(f"entered.{column.name}" for column in COLUMNS)}, kept.rev, kept.document,
    CASE WHEN entered.activated_at = $5 THEN 'that both have met must last' ELSE {_SOON} END
FROM entered LEFT JOIN channel_settings AS kept
    ON kept.pairing_id = entered.id AND kept.pairing_id IS DISTINCT FROM $7
"""


async def enter(fetch: Fetch, device: Rejoin, now: datetime) -> Entered | None:
    """Record that the device joins its pairing, in the seat that is its own.

    The name is kept under the first of the MACs from now on. None if there is no such pairing, or not for this device, or
    its other device is connected to another server.
    """
    row = await fetch(
        _enter(device.role, len(device.macs)),
        device.known.caller,
        device.known.user,
        device.known.session_id,
        now - NOTED,
        now,
        device.met,
        device.live,
        device.node,
        *device.macs,
    )
    if row is None:
        return None
    *columns, rev, document, _ = tuple(row)
    return Entered(as_pairing(columns), None if rev is None else (rev, document))


@dataclass(frozen=True, slots=True)
class Present:
    """Which devices of a channel are connected."""

    desktop: bool
    mobile: bool


_PRESENT = f"""
WITH given AS (
    SELECT id, desktop, mobile, desktop AND mobile AS met
    FROM unnest($1::uuid[], $2::boolean[], $3::boolean[]) AS given(id, desktop, mobile)
), noted AS (
    SELECT given.*, state FROM given JOIN pairings ON pairings.id = given.id
    WHERE ended_at IS NULL AND (node IS NULL OR node = $5 OR NOT {RUNS})
    ORDER BY given.id FOR NO KEY UPDATE OF pairings
), done AS (
    UPDATE pairings SET node = $5, desktop_joined = noted.desktop, mobile_joined = noted.mobile,
        seen_at = CASE WHEN noted.state IN ('active', 'waiting') OR noted.met THEN $4 ELSE seen_at END,
        state = CASE WHEN noted.state NOT IN ('redeemed', 'active', 'waiting') THEN noted.state
            WHEN noted.met THEN 'active' WHEN noted.state = 'redeemed' THEN 'redeemed' ELSE 'waiting' END,
        activated_at = CASE WHEN noted.state IN ('redeemed', 'active', 'waiting') AND noted.met
            THEN coalesce(activated_at, $4) ELSE activated_at END
    FROM noted
    WHERE pairings.id = noted.id AND (noted.state IN ('active', 'waiting') OR noted.met
        OR (node, desktop_joined, mobile_joined) IS DISTINCT FROM ($5, noted.desktop, noted.mobile))
    RETURNING activated_at = $4 AS first
)
SELECT CASE WHEN (SELECT bool_or(first) FROM done) THEN 'that both have met must last' ELSE {_SOON} END,
    ARRAY(SELECT id FROM given EXCEPT SELECT id FROM noted)
"""


async def set_present(fetch: Fetch, node: UUID, present: Mapping[UUID, Present], now: datetime) -> list[UUID]:
    """Note for this server's channels which devices are connected: both ("active"), or one or none ("waiting").

    Returns the pairings that are not, or no longer, this server's: they have ended, or another one has them. `seen_at` keeps
    other servers, and this one after a crash, from ending the others. Rows are locked in one order everywhere, so that two
    statements at the same time do not block each other.
    """
    if not present:
        return []
    desktops = [each.desktop for each in present.values()]
    mobiles = [each.mobile for each in present.values()]
    row = await fetch(_PRESENT, list(present), desktops, mobiles, now, node)
    return [] if row is None else list(row[1])
