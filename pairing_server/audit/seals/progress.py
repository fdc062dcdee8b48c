"""How far the audit log is sealed. Whether the seals hold is another question: audit/seals/verification.py."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.query import ask
from pairing_server.audit.seals import Seal, format_key
from pairing_server.audit.store import sealed as store
from pairing_server.audit.store.sealed import Unsealed
from pairing_server.request_context import RequestContext
from pairing_server.services.deps import Deps

RECENT = 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """The newest seals first. `copied`: the number of the last one that is outside, None if none are copied."""

    seals: list[Seal]
    unsealed: Unsealed
    public_key: str
    copied: int | None


async def state(deps: Deps, context: RequestContext) -> Sealed:
    """Raises Forbidden, Unavailable."""

    async def answer(conn: AsyncConnection) -> Sealed:
        seals = await store.newest(conn, RECENT)
        unsealed = await store.unsealed(conn, seals[0] if seals else None)
        await deps.audit.record(
            conn, deps.audit.event("audit.query", "success", context, kind="seals", rows=len(seals))
        )
        copied = deps.sealer.copied() if deps.sealer.copy is not None else None
        return Sealed(seals, unsealed, format_key(deps.sealer.key.public), copied)

    return await ask(deps, context, "/api/audit/seals", answer)
