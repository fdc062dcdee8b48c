"""How far the audit log is sealed. Whether the seals hold is another question: services/audit_verification.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.seals import Seal, format_key
from pairing_server.services.audit_reading import ask
from pairing_server.services.deps import Caller, Deps
from pairing_server.store import audit_sealed as store
from pairing_server.store.audit_sealed import Unsealed

RECENT = 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """The newest seals first. `copied`: the number of the last one that is outside, None if none are copied."""

    seals: list[Seal]
    unsealed: Unsealed
    public_key: str
    copied: int | None


async def state(deps: Deps, caller: Caller, now: datetime) -> Sealed:
    """Raises Forbidden, Unavailable."""

    async def answer(conn: AsyncConnection) -> Sealed:
        seals = await store.newest(conn, RECENT)
        unsealed = await store.unsealed(conn, seals[0] if seals else None)
        await deps.audit.record(
            conn, deps.audit.event("audit.query", "success", caller, now, kind="seals", rows=len(seals))
        )
        copied = deps.sealer.copied() if deps.sealer.copy is not None else None
        return Sealed(seals, unsealed, format_key(deps.sealer.key.public), copied)

    return await ask(deps, caller, now, "/api/audit/seals", answer)
