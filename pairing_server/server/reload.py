"""Takes over a changed configuration while the server runs, as far as its settings are reloadable."""

from __future__ import annotations

import logging

from pairing_server import logs
from pairing_server.clock import utcnow
from pairing_server.config import SETTINGS, Configuration, effective
from pairing_server.request_context import system
from pairing_server.server.backend import Backend
from pairing_server.web.app_context import AppContext

log = logging.getLogger(__name__)


def take_over(backend: Backend, app: AppContext, old: Configuration, new: Configuration) -> None:
    """Use the new values of the settings that are reloadable; the log names those that need a restart.

    Each change goes into the audit log by name and value, secrets by name only. Keys have events of their own. A
    connection keeps the limits that it was opened with; the next one has the new ones.
    """
    app.origins = new.allowed_origins
    app.trusted = new.trusted_proxies
    app.handshake_failures.change(new.handshake_failures)
    app.http_limits = new.http_limits
    backend.policies.take(new.attempt_policies)
    backend.rates.change(new.local_rates)
    backend.rules.take(new.pairing_rules)
    backend.code_limits.change(per_user=new.code_rate, per_address=new.code_rate_address)
    backend.hub.context.limits = new.connection_limits
    if new.log_level != old.log_level:
        logs.set_level(new.log_level)
    backend.services.signing_keys.take_over(new.jwt_keys, system(utcnow()))
    before, after = effective(old), effective(new)
    changed = [setting for setting in SETTINGS if getattr(old, setting.name) != getattr(new, setting.name)]
    taken = [setting.variable for setting in changed if setting.reloadable]
    waiting = [setting.variable for setting in changed if not setting.reloadable]
    for name in taken:
        if before[name] != after[name]:
            backend.audit.enqueue_event(
                "config.changed", "success", system(utcnow()), setting=name, old=before[name], new=after[name]
            )
    log.info("configuration reloaded", extra={"changed": ",".join(taken)})
    if waiting:
        log.warning("configuration needs a restart", extra={"changed": ",".join(waiting)})
