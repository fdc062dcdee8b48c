"""Making and redeeming codes: each is one statement, which records its event as well.

People wait for these two, so they are one round trip each and go to the driver directly. A statement sees
the database as it was when it began. Rows that it locks (limits, session ids, the pairing with the code) it sees as
they are once it has the lock, and what it decides by them holds; see docs/decisions/0010-one-statement.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from pairing_server.db.raw_connection import Fetch
from pairing_server.store import audit_events
from pairing_server.store.audit_events import Event
from pairing_server.store.logins import refusal
from pairing_server.store.pairings import COLUMNS, Pairing, Seat, as_pairing


@dataclass(frozen=True, slots=True)
class Draw:
    """A code that may be given out: its MAC under the current key, and under every key still in use."""

    mac: bytes
    macs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """A code that is wanted. `caller`: whose login it is asked for with (see store/logins.py).

    `most_waiting`: how many codes of the user may wait, not counting this desktop session's. `bound`
    is the event that the session id is now the user's, `made` that the code was made.
    """

    pairing_id: UUID
    desktop: Seat
    caller: str | None
    now: datetime
    expires_at: datetime
    most_waiting: int
    bound: Event
    made: Event


@dataclass(frozen=True, slots=True)
class CodeResult:
    """`mac` None: no code was made, for the reason that the others show, or because no drawn name was free.

    `refusal`: why the caller may do nothing.
    `owner`: whose the session id is; None if the same desktop was asking at the same time: ask again.
    """

    refusal: str | None
    waiting: int
    owner: str | None
    newly_bound: bool
    mac: bytes | None
    superseded: list[UUID]


_MAKE = f"""
WITH asked AS (
    SELECT {refusal("$1")} AS refusal,
        (SELECT count(*) FROM pairings
         WHERE desktop_user = $2 AND ended_at IS NULL AND state = 'pending'
           AND desktop_session <> $3 AND expires_at > $4) AS waiting
), admitted AS (
    SELECT FROM asked WHERE refusal IS NULL AND waiting < $5 /**/
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $3, $2, 'desktop', $4, $4 FROM admitted WHERE $2::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
        WHERE sessions.xmin = (SELECT xmin FROM sessions WHERE session_id = $3)
    RETURNING subject, bound_at = $4 AS new
), made AS (
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
    SELECT $6, drawn.mac, 'pending', $3, $2, $4, $7
    FROM admitted, unnest($8::bytea[]) WITH ORDINALITY AS drawn(mac, place)
    WHERE ($2::text IS NULL OR $2 = (SELECT subject FROM bound))
      AND drawn.place <> ALL (
        SELECT known.place FROM unnest($9::bigint[], $10::bytea[]) AS known(place, mac)
        JOIN pairings ON pairings.code_mac = known.mac)
    ORDER BY drawn.place LIMIT 1
    ON CONFLICT (code_mac) DO NOTHING
    RETURNING code_mac
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $4, end_reason = 'superseded'
    WHERE desktop_session = $3 AND desktop_user IS NOT DISTINCT FROM $2
      AND ended_at IS NULL AND state = 'pending' AND EXISTS (SELECT FROM made)
    RETURNING id
), recorded AS (
    {
    audit_events.adding(
        "CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END"
        " || CASE WHEN EXISTS (SELECT FROM made) THEN $12::jsonb ELSE '[]' END"
    )
}
)
SELECT refusal, waiting, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    (SELECT code_mac FROM made), ARRAY(SELECT id FROM superseded)
FROM asked WHERE true /**/
"""
# The same, sent again because its answer was lost: what the first has made is found, and not made twice.
_MAKE_AGAIN = f"""{_MAKE.replace("/**/", "AND NOT EXISTS (SELECT FROM pairings WHERE id = $6)")}
UNION ALL
SELECT NULL, 0, desktop_user, false, code_mac, ARRAY(
    SELECT id FROM pairings WHERE desktop_session = $3 AND state = 'superseded' AND ended_at = $4)
FROM pairings WHERE id = $6
"""


async def make(once: Fetch, wanted: CodeRequest, draws: Sequence[Draw]) -> CodeResult:
    """Make a pending pairing under the first of the drawn codes that is free, in the place of the session's last.

    The names that are taken are looked up in the statement itself, so that drawing takes one statement however
    many there are. A name given out under a previous key is taken as well. `once` may send the statement that it is given as
    `again` if the answer to the first was lost.
    """
    known = [(place, mac) for place, draw in enumerate(draws, 1) for mac in draw.macs]
    row = await once(
        _MAKE,
        wanted.caller,
        wanted.desktop.user,
        wanted.desktop.session_id,
        wanted.now,
        wanted.most_waiting,
        wanted.pairing_id,
        wanted.expires_at,
        [draw.mac for draw in draws],
        [place for place, _ in known],
        [mac for _, mac in known],
        audit_events.as_json([wanted.bound]),
        audit_events.as_json([wanted.made]),
        again=_MAKE_AGAIN,
    )
    return CodeResult(*_of(row))


@dataclass(frozen=True, slots=True)
class RedeemRequest:
    """A code that is typed in. `macs`: what it may be stored under. `limits`: (kind, key, mode) of what may refuse it.

    While a limit is locked it refuses if it is "binding", and all but the codes of the same user if "except_own". `bound`
    is the event that the session id is now the user's, `won` that the code was redeemed; the statement adds the pairing and
    its age. With `confirm`, the code of another account needs its desktop's confirmation.
    """

    macs: Sequence[bytes]
    mobile: Seat
    caller: str | None
    now: datetime
    same_user: bool
    limits: Sequence[tuple[str, str, str]]
    bound: Event
    won: Event
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class RedeemResult:
    """The limits stay locked until the transaction ends; then, too, `superseded` have ended."""

    refusal: str | None
    locked_out: bool
    owner: str | None
    newly_bound: bool
    pairing: Pairing | None
    superseded: list[UUID]


_SEAT = ", ".join(f"seated.{column.name}" for column in COLUMNS)
_REDEEM = f"""
WITH asked AS (
    SELECT {refusal("$1")} AS refusal
), held AS (
    INSERT INTO attempts (kind, key, times, touched_at)
    SELECT kind, key, '{{}}', $2
    FROM unnest($3::text[], $4::text[]) AS counted(kind, key)
    ORDER BY kind COLLATE "C", key COLLATE "C"
    ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at
    RETURNING kind, locked_until
), decided AS (
    SELECT refusal, EXISTS (SELECT FROM held WHERE locked_until > $2 AND kind = ANY ($5::text[])) AS locked_out,
        EXISTS (SELECT FROM held WHERE locked_until > $2 AND kind = ANY ($12::text[])) AS own_only
    FROM asked, (SELECT count(*) FROM held) AS all_of_them
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $6, $7, 'mobile', $2, $2 FROM decided WHERE refusal IS NULL AND NOT locked_out AND $7::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING subject, bound_at = $2 AS new
), seated AS (
    UPDATE pairings
    SET state = CASE state WHEN 'pending' THEN 'redeemed' ELSE state END,
        mobile_session = $6, mobile_user = $7, redeemed_at = coalesce(redeemed_at, $2)
    WHERE code_mac = ANY ($8::bytea[])
      AND (state = 'pending' AND expires_at > $2
            AND (NOT $9::boolean OR desktop_user IS NULL OR desktop_user = $7)
            AND (NOT (SELECT own_only FROM decided) OR desktop_user = $7)
            AND (NOT $13::boolean OR desktop_user = $7 OR EXISTS (
                SELECT FROM confirmations AS asked
                WHERE asked.pairing_id = pairings.id AND asked.confirmed_at IS NOT NULL
                  AND asked.mobile_session = $6 AND asked.mobile_user IS NOT DISTINCT FROM $7))
        OR state IN ('redeemed', 'active', 'waiting')
            AND mobile_session = $6 AND mobile_user IS NOT DISTINCT FROM $7)
      AND (SELECT refusal IS NULL AND NOT locked_out FROM decided)
      AND ($7::text IS NULL OR $7 = (SELECT subject FROM bound))
    RETURNING pairings.*
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $2, end_reason = 'superseded'
    FROM seated
    WHERE pairings.desktop_session = seated.desktop_session
      AND pairings.desktop_user IS NOT DISTINCT FROM seated.desktop_user
      AND pairings.ended_at IS NULL AND pairings.state IN ('redeemed', 'active', 'waiting')
      AND pairings.id <> seated.id
    RETURNING pairings.id
), recorded AS (
    {
    audit_events.adding('''CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || (
        SELECT coalesce(jsonb_agg($10::jsonb || jsonb_build_object(
            'pairing_id', id,
            'reason', CASE WHEN redeemed_at <> $2 THEN 'retry_same' END,
            'attrs', $10::jsonb -> 'attrs' || jsonb_build_object(
                'ms_since_created', round(1000 * extract(epoch FROM $2 - created_at))))), '[]')
        FROM seated)''')
}
)
SELECT refusal, locked_out, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    ARRAY(SELECT id FROM superseded), {_SEAT}
FROM decided LEFT JOIN seated ON true
"""


async def redeem(fetch: Fetch, typed: RedeemRequest) -> RedeemResult:
    """Seat the mobile in the pending pairing that has this code, at most once; what the desktop had before ends.

    The winner's retry (same session, same user, still live) finds the seat it has. All others get no pairing, so that
    a caller who guesses cannot distinguish an unknown code from an expired, used or foreign one. The limits are locked before the code is looked at, and before any pairing is.
    """
    row = await fetch(
        _REDEEM,
        typed.caller,
        typed.now,
        [kind for kind, _, _ in typed.limits],
        [key for _, key, _ in typed.limits],
        [kind for kind, _, mode in typed.limits if mode == "binding"],
        typed.mobile.session_id,
        typed.mobile.user,
        typed.macs,
        typed.same_user,
        audit_events.as_json([typed.won])[1:-1],
        audit_events.as_json([typed.bound]),
        [kind for kind, _, mode in typed.limits if mode == "except_own"],
        typed.confirm,
    )
    refused, locked_out, owner, new, superseded, *pairing = _of(row)
    found = as_pairing(pairing) if pairing[0] is not None else None
    return RedeemResult(refused, locked_out, owner, new, found, superseded)


def _of(row: asyncpg.Record | None) -> tuple[Any, ...]:
    if row is None:
        raise RuntimeError("the statement always gives a row")
    return tuple(row)
