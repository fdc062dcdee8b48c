"""Logins: listing them, and ending them before their time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import InvalidToken, LoginEnded, NotFound, ValidationFailed
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.hub import Hub
from pairing_server.relay.identity import Identity
from pairing_server.request_context import RequestContext
from pairing_server.security.claims import LEEWAY_S, MAX_ID, is_text
from pairing_server.security.issuers import OWN_ISSUER, issuer_of
from pairing_server.security.tokens import AccessClaims, Tokens, WsClaims
from pairing_server.services.account_status import require_login
from pairing_server.services.local_rates import LocalRates
from pairing_server.services.revocation_list import RevocationList
from pairing_server.store import logins as store
from pairing_server.store import users
from pairing_server.store.logins import LOGIN, TOKEN, USER, Login, Revocation

# A transaction may commit this long after the moment that its row says.
_LATE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ListedLogin:
    """A login, whether it is the one that asks, and how many of its connections are open on this server."""

    login: Login
    current: bool
    connections: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What a revocation has changed. `new`: it had not been made before. `connections`: those of this server that it
    closed; another server closes its own."""

    new: bool
    logins: int
    connections: int


@dataclass(frozen=True, slots=True)
class LoginService:
    """`revocations`: those that this process knows. `single_use`: each ws token works once."""

    database: Database
    audit: AuditLog
    hub: Hub
    tokens: Tokens
    revocations: RevocationList
    rates: LocalRates
    single_use: bool

    async def list_own(self, context: RequestContext) -> list[ListedLogin]:
        """The caller's logins, newest first. Raises LoginEnded."""
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            found = await store.of(conn, context.subject or "", context.now, limit=200)
        sessions = [
            s.identity.login_id for s in self.hub.connections.values() if s.subject == context.subject
        ]
        return [
            ListedLogin(login, login.login_id == context.login_id, sessions.count(login.login_id))
            for login in found
        ]

    async def list_of(self, user: str | None, now: datetime) -> list[Login]:
        """A user's logins, or those of all, newest first. Raises NotFound."""
        async with self.database.transaction() as conn:
            subject = None if user is None else await subject_of(conn, user, now)
            return await store.of(conn, subject, now)

    async def log_out(self, context: RequestContext, claims: AccessClaims, *, everywhere: bool) -> int:
        """End the caller's login, or all of that user. How many connections of this server that closes.

        Raises LoginEnded; RateLimited for too many one by one: each is remembered, while `everywhere` is one for all.
        """
        if everywhere:
            ended = self._revocation(USER, issuer_of(claims.subject), claims.subject, context.now)
        else:
            self._check_rate(claims.subject, context)
            ended = self._revocation(LOGIN, issuer_of(claims.subject), claims.login_id, context.now)
        sid = claims.login_id
        done = await self._end(context, "auth.logout", ended, claims.subject, sid=sid, everywhere=everywhere)
        if not everywhere:
            self.rates.charge("logout", claims.subject, context.now.timestamp())
        return done.connections

    async def revoke_own(self, context: RequestContext, login_id: str) -> int:
        """End one of the caller's logins; one that has been ended stays so. How many connections of this server that closes.

        Raises NotFound, LoginEnded, RateLimited.
        """
        subject = context.subject or ""
        self._check_rate(subject, context)
        if not is_text(login_id, MAX_ID):
            raise NotFound("You have no login with this id. It may have ended.")
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            known = [login for login in await store.with_id(conn, login_id) if login.subject == subject]
            earlier = await store.has_ended(conn, subject, issuer_of(subject), login_id)
        ended = self._revocation(LOGIN, issuer_of(subject), login_id, context.now)
        if earlier:
            return self.apply(ended)
        if not known:
            raise NotFound("You have no login with this id. It may have ended.")
        done = await self._end(context, "auth.token_revoked", ended, subject, sid=login_id, by="user")
        self.rates.charge("logout", subject, context.now.timestamp())
        return done.connections

    def _check_rate(self, subject: str, context: RequestContext) -> None:
        text = "You have ended many logins one by one. End all of them at once, or try again later."
        self.rates.check("logout", subject, context.now.timestamp(), text)

    async def revoke_login(self, context: RequestContext, login_id: str) -> list[Login]:
        """End the login of that id. The logins ended. Raises NotFound."""
        async with self.database.transaction() as conn:
            found = await store.with_id(conn, login_id)
        if not found:
            raise NotFound(f"There is no login {login_id!r}; see: pairing-server login list")
        for login in found:
            ended = self._revocation(LOGIN, issuer_of(login.subject), login_id, context.now)
            await self._end(context, "auth.token_revoked", ended, login.subject, sid=login_id, by="admin")
        return found

    async def revoke_user(self, context: RequestContext, user: str) -> tuple[str, int]:
        """End all logins of a user: a username, a user's id, or "issuer|sub". The subject, and how many logins.

        Tokens that are not used yet, of which no login is known, are refused too. Raises NotFound, ValidationFailed if
        the text names two users.
        """
        async with self.database.transaction() as conn:
            subject = await subject_of(conn, user, context.now)
        issuer = issuer_of(subject)
        self._check_issuer(issuer)
        ended = self._revocation(USER, issuer, subject, context.now)
        done = await self._end(context, "auth.token_revoked", ended, subject, by="admin")
        return subject, done.logins

    async def revoke_token(self, context: RequestContext, token_id: str, issuer: str | None) -> bool:
        """Refuse one token, by its `jti`, and close what was opened with it. `issuer` None: one of ours.

        False if it was refused already. Raises NotFound for an issuer that is not trusted, ValidationFailed for what is
        no `jti`.
        """
        self._check_issuer(issuer or OWN_ISSUER)
        if not is_text(token_id, MAX_ID):
            raise ValidationFailed(
                f"A `jti` has 1 to {MAX_ID} printable characters. Give the token's `jti`, not the token."
            )
        ended = self._revocation(TOKEN, issuer or OWN_ISSUER, token_id, context.now)
        done = await self._end(context, "auth.token_revoked", ended, None, jti=token_id, by="admin")
        return done.new

    def _check_issuer(self, issuer: str) -> None:
        """Raises NotFound if no token of that issuer would be taken: its name is misspelt, then."""
        if not self.tokens.trusts(issuer):
            raise NotFound(
                f"This server trusts no issuer {issuer!r}. Check the spelling, and PAIRING_ISSUERS."
            )

    async def revoke_all_of(
        self, conn: AsyncConnection, subject: str, now: datetime
    ) -> tuple[Revocation, int]:
        """End all logins of the user, in the caller's transaction; `apply` the revocation when that is committed.

        The revocation, and how many logins it ends.
        """
        ended = self._revocation(USER, issuer_of(subject), subject, now)
        await store.revoke(conn, ended)
        return ended, await store.forget(conn, subject, None, now)

    def apply(self, ended: Revocation) -> int:
        """Refuse and close at once in this process. How many connections were closed."""
        self.revocations.add([ended])
        return self._close_revoked()

    async def _end(
        self, context: RequestContext, event: str, ended: Revocation, subject: str | None, **attrs: Any
    ) -> Ended:
        """Revoke, record it, and close what is open here."""
        ahead = RevocationList()
        ahead.add([ended])
        closing = sum(1 for connection in self.hub.connections.values() if _covered(ahead, connection))
        logins = 0
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            new = await store.revoke(conn, ended, subject)
            if subject is not None:
                login_id = ended.name if ended.kind == LOGIN else None
                logins = await store.forget(conn, subject, login_id, context.now)
            made = self.audit.event(
                event, "success", context, target=subject, sockets_closed=closing, **attrs
            )
            await self.audit.record(conn, made)
        return Ended(new, logins, self.apply(ended))

    def _revocation(self, kind: str, issuer: str, name: str, now: datetime) -> Revocation:
        return Revocation(kind, issuer, name, now, now + timedelta(seconds=self.tokens.longest_life))

    async def require(self, context: RequestContext) -> None:
        """For an act that needs no other statement. Raises LoginEnded."""
        async with self.database.transaction() as conn:
            await require_login(conn, context)

    def is_ended(self, token: Identity | WsClaims) -> bool:
        """Whether this process knows that the token's login, or the token by itself, has ended."""
        return _ends(self.revocations, token)

    async def spend(self, context: RequestContext, claims: WsClaims) -> None:
        """Use up a ws token, where each works once. Raises InvalidToken if it was used before, on any server."""
        if not self.single_use:
            return
        # For as long as it would be taken, leeway included.
        until = claims.expires_at + timedelta(seconds=2 * LEEWAY_S)
        async with self.database.transaction() as conn:
            first = await store.spend(conn, claims.token_id, until, context.now)
            if first is not None:
                reused = self.audit.event(
                    "auth.token_reuse",
                    "denied",
                    context,
                    jti=claims.token_id,
                    target=claims.subject,
                    first_seen=first.isoformat(),
                )
                await self.audit.refuse(conn, reused)
        if first is not None:
            raise InvalidToken(
                "This ws token has been used. Get a new one for each connection.", reason="replayed"
            )

    async def poll_revocations(self, now: datetime) -> int:
        """Learn what was revoked on any server, and close the connections that it ends. How many."""
        known = self.revocations
        since = None if known.read_until is None else known.read_until - _LATE
        async with self.database.transaction() as conn:
            found, until = await store.revoked_since(conn, since, now)
        known.read_until = until or known.read_until
        known.forget(now)
        return self._close_revoked() if known.add(found) else 0

    def _close_revoked(self) -> int:
        """Close the connections of this process whose tokens are revoked. How many."""
        closing = [
            connection
            for connection in self.hub.connections.values()
            if _covered(self.revocations, connection)
        ]
        for connection in closing:
            connection.close(CloseCode.INVALID_TOKEN, "login ended", LoginEnded("revoked"))
        return len(closing)


def _covered(revocations: RevocationList, connection: Connection) -> bool:
    return not connection.closing and _ends(revocations, connection.identity)


def _ends(revocations: RevocationList, token: Identity | WsClaims) -> bool:
    return revocations.covers(token.subject, token.login_id, token.token_id, token.logged_in_at)


async def subject_of(conn: AsyncConnection, user: str, now: datetime) -> str:
    """Of a username, a user's id, or "issuer|sub".

    Raises NotFound, and ValidationFailed if it names two users: names that look like the others are refused today, but
    an older account may have one.
    """
    named = await users.by_name(conn, user)
    identified = None
    with suppress(ValueError):
        identified = await users.by_id(conn, UUID(user))
    found = {account.subject for account in (named, identified) if account is not None}
    if "|" in user and (not found or await store.of(conn, user, now, limit=1)):
        found.add(user)
    if not found:
        raise NotFound(f"There is no user {user!r}; see: pairing-server user list")
    if len(found) > 1:
        raise ValidationFailed(
            f"{user!r} names two users: {' and '.join(sorted(found))}. Give the id of the one that is meant, or end single"
            " logins by their ids; see: pairing-server login list"
        )
    return found.pop()
