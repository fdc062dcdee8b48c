"""A pairing as pgbench does it: the very statements that the server sends, with pgbench's variables for values."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pairing_server.audit.recorder import AuditLog
from pairing_server.clock import utcnow
from pairing_server.db.database import BEGIN_PLANNED
from pairing_server.request_context import RequestContext
from pairing_server.store import codes
from pairing_server.store.codes import Draw, Making, Redeeming
from pairing_server.store.pairings import Seat

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
USER, NEW = uuid4(), uuid4()
DESKTOP, MOBILE = Seat("desktop-of-pgbench", str(USER)), Seat("mobile-of-pgbench", str(USER))
# So many codes the server draws at once.
DRAWS = 8

_USER = "lpad(to_hex(:user::bigint), 32, '0')::uuid"
_EXPRESSIONS: Mapping[object, str] = {
    NOW: "now()",
    LATER: "(now() + interval '10 minutes')",
    USER: _USER,
    NEW: "gen_random_uuid()",
    str(USER): f"{_USER}::text",
    DESKTOP.session_id: "('desktop-' || :device::bigint)",
    MOBILE.session_id: "('mobile-' || :device::bigint)",
    **{bytes([number]): f"sha256(int8send(:device::bigint + {number}))" for number in range(DRAWS)},
}


def _sql(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"ARRAY[{', '.join(map(_sql, value))}]"
    if not isinstance(value, bool | int) and value in _EXPRESSIONS:
        return _EXPRESSIONS[value]
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool | int):
        return str(value).lower()
    raise TypeError(f"no SQL for {value!r}")


def _sent(ask: Callable[[Any], Any]) -> str:
    """The statement that `ask` gives to its argument, its values in place. On one line, for pgbench ends it there."""
    said: list[str] = []

    async def fetch(statement: str, *values: object, **_: str) -> None:
        placed = re.sub(r"\$(\d+)", lambda found: _sql(values[int(found[1]) - 1]), statement)
        said.append(" ".join(placed.split()))
        raise LookupError

    try:
        asyncio.run(ask(fetch))
    except LookupError:
        return said[0]
    raise RuntimeError("nothing was sent")


def script() -> str:
    """What pgbench is to do again and again, `:users` being the number of users there are."""
    log = AuditLog("pgbench", "1")
    caller = RequestContext(
        utcnow(), kind="user", subject=str(USER), address="10.0.0.1", request_id=UUID(int=1)
    )
    drawn = [Draw(bytes([number]), (bytes([number]),)) for number in range(DRAWS)]
    wanted = Making(
        pairing_id=NEW,
        desktop=DESKTOP,
        account=USER,
        now=NOW,
        expires_at=LATER,
        most_waiting=1000,
        bound=log.draft(
            "session.bound", "success", caller.at(NOW), session_id="s" * 40, device_type="desktop"
        ),
        made=log.draft(
            "pairing.code_created", "success", caller.at(NOW), desktop_session="s" * 40, expires_at=NOW
        ),
    )
    typed = Redeeming(
        macs=[bytes([0])],
        mobile=MOBILE,
        account=USER,
        now=NOW,
        same_user=True,
        limits=[("redeem_user", str(USER), "binding")],
        bound=log.draft(
            "session.bound", "success", caller.at(NOW), session_id="s" * 40, device_type="mobile"
        ),
        won=log.draft("pairing.redeem", "success", caller.at(NOW), mobile_session="s" * 40),
        confirm=False,
    )
    return "\n".join(
        (
            "\\set user random(1, :users)",
            "\\set device random(1, 1000000000000)",
            f"{_sent(lambda fetch: codes.make(fetch, wanted, drawn))};",
            *(f"{part};" for part in BEGIN_PLANNED.split("; ")),
            f"{_sent(lambda fetch: codes.redeem(fetch, typed))};",
            "COMMIT;",
            "",
        )
    )
