"""The composition root below HTTP: configuration in, the database, the audit log, the relay and the services out.

A node and a command of the command line each build one.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pairing_server.audit.query import AuditReader
from pairing_server.audit.queue import EventQueue
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.retention import Retention
from pairing_server.audit.seals import trusted_of
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.audit.seals.sealer import Copy, Sealer, to_file
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.tail import AuditTail
from pairing_server.clock import utcnow
from pairing_server.config import Configuration
from pairing_server.db.database import Database, PoolLimits
from pairing_server.relay.context import RelayContext
from pairing_server.relay.hub import Hub
from pairing_server.security.issuers import Issuers
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import Tokens
from pairing_server.server.node_events import NodeEvents
from pairing_server.services.account_status import AccountStatus
from pairing_server.services.accounts import AccountService
from pairing_server.services.authentication import AuthenticationService
from pairing_server.services.brute_force_guard import BruteForceGuard
from pairing_server.services.codes import CodeLimits, Codes
from pairing_server.services.confirmations import ConfirmationService
from pairing_server.services.container import AuditServices, Services
from pairing_server.services.erasure import ErasureService
from pairing_server.services.expiry import Expiry
from pairing_server.services.local_rates import LocalRates
from pairing_server.services.lockouts import LockoutService
from pairing_server.services.logins import LoginService
from pairing_server.services.membership import MembershipService
from pairing_server.services.nodes import NodeRegistry
from pairing_server.services.pairing_changes import PairingChanges
from pairing_server.services.pairings import PairingService
from pairing_server.services.presence import Presence
from pairing_server.services.rate_limits import KeyedLock
from pairing_server.services.redeem_failures import RedeemFailures
from pairing_server.services.revocation_list import RevocationList
from pairing_server.services.settings_documents import SettingsKeeper
from pairing_server.services.signing_keys import SigningKeys
from pairing_server.tracing import OFF, Traces
from pairing_server.web.http_client import fetch_jwks, post_line

# Questions to the audit log: so many at a time, for so many seconds.
READERS = 4
# So many passwords of one address are checked at once: twice as many as there are threads for it (security/passwords.py).
CHECKS_AT_ONCE = 4
READING_TIMEOUT = 10


def app_version() -> str:
    try:
        return version("pairing-server")
    except PackageNotFoundError:
        return "unknown"


class Backend:
    def __init__(
        self, config: Configuration, database_url: str, keyfile: KeyFile | None = None, traces: Traces = OFF
    ) -> None:
        """`config` must hold keys (config.with_keys, with_seal_key), `keyfile` the file they are from, if any. The caller
        stops `traces` after closing this. Call in the event loop.
        """
        loop = asyncio.get_running_loop()
        self.version = app_version()
        self.traces = traces
        # The database's outages are recorded in the audit log, which needs the database.
        self.database = database = Database(
            database_url, on_outage=lambda *change: events.of_database(*change), traces=traces
        )
        self.reading = Database(
            database_url,
            limits=PoolLimits(READERS, statement_timeout=READING_TIMEOUT),
            breaker=database.breaker,
            traces=traces,
        )
        queue = EventQueue(database, self.reading, traces=traces)
        self.audit = audit = AuditLog(socket.gethostname(), self.version, queue)
        events = NodeEvents(audit, utcnow)
        self.hub = hub = Hub(
            RelayContext(config.connection_limits, loop.time, loop.call_later, events.of_relay)
        )
        self._passwords = Passwords()
        self._issuers = Issuers(config.issuers, fetch_jwks, on_refresh=events.of_issuer_keys)
        keyring, revocations = Keyring(config.jwt_keys), RevocationList()
        self.tokens = Tokens(
            keyring, ws_ttl=config.ws_token_ttl, issuers=self._issuers, is_revoked=revocations.covers
        )
        self.rules = rules = config.pairing_rules
        self.policies = policies = config.attempt_policies
        self.rates = rates = LocalRates(config.local_rates)
        self.locks = KeyedLock(database.breaker.check)
        checks = KeyedLock(database.breaker.check, at_once=CHECKS_AT_ONCE)
        self.codes = codes = Codes([key.secret for key in config.jwt_keys])
        self.code_limits = CodeLimits(
            database, self.locks, rules, per_user=config.code_rate, per_address=config.code_rate_address
        )
        self.account_status = AccountStatus(database, hub)
        self.guard = BruteForceGuard(database, audit, config.redeem_alarm)
        self.settings = SettingsKeeper(database, hub)
        nodes = NodeRegistry(database)
        changes = PairingChanges(database, hub, nodes.id)
        self.expiry = Expiry(database, audit, hub, changes, rules)
        logins = LoginService(
            database, audit, hub, self.tokens, revocations, rates, config.ws_token_single_use
        )
        confirmations = ConfirmationService(database, audit, hub, codes, rules)
        failures = RedeemFailures(audit, self.guard, confirmations, rules, policies)
        self.services = Services(
            accounts=AccountService(database, audit, self._passwords, logins, checks, rules, policies),
            erasure=ErasureService(database, audit, logins, self.account_status),
            authentication=AuthenticationService(
                database,
                audit,
                self.tokens,
                self._passwords,
                self.account_status,
                self.locks,
                checks,
                policies,
                rates,
            ),
            logins=logins,
            pairings=PairingService(database, audit, hub, codes, self.code_limits, failures, changes, rules),
            changes=changes,
            membership=MembershipService(database, audit, hub, codes, self.settings, rules, nodes.id),
            confirmations=confirmations,
            nodes=nodes,
            presence=Presence(database, hub, nodes.id),
            lockouts=LockoutService(database, audit, policies),
            signing_keys=SigningKeys(database, audit, hub, keyring, codes, keyfile),
            audit=self._audit_services(config),
        )

    def _audit_services(self, config: Configuration) -> AuditServices:
        sealer = self._sealer(config)
        reader = AuditReader(self.reading, self.audit, sealer)
        lines = SealedLines(self.reading, sealer.key.public)
        days, folder = config.audit_retention, config.audit_export_dir
        return AuditServices(
            reader=reader,
            tail=AuditTail(reader),
            sealer=sealer,
            verifier=Verifier(self.reading, self.audit, sealer, trusted_of(config.audit_trusted_keys), days),
            retention=Retention(self.database, lines, self.audit, days, folder),
        )

    def _sealer(self, config: Configuration) -> Sealer:
        if config.audit_seal_key is None:
            raise ValueError("the configuration lacks the key that seals the audit log: config.with_seal_key")
        target = config.audit_seal_copy
        copy: Copy | None = None
        if "://" in target:
            copy = partial(post_line, target)
        elif target:
            copy = to_file(Path(target))
        return Sealer(self.database, self.audit, config.audit_seal_key, SealMemory(config.data_dir), copy)

    async def close(self) -> None:
        self.audit.close()
        await self._issuers.close()
        self._passwords.close()
        await self.database.close()
        await self.reading.close()
