"""What a running server takes over from settings that have changed: origins, proxies, limits, the log level and keys."""

from __future__ import annotations

import logging
from dataclasses import fields

from pairing_server import logs
from pairing_server.config import PREFIX, Configuration, effective
from pairing_server.request_context import system
from pairing_server.services import signing_keys
from pairing_server.web.app_context import AppContext, utcnow

log = logging.getLogger(__name__)

# A connection keeps the limits that it was opened with; the next one has the new ones.
TAKEN_OVER = frozenset(
    {
        "allowed_origins",
        "trusted_proxies",
        "log_level",
        "jwt_keys",
        "public_url",
        "registration",
        "redeem_policy",
        "guest_pairing",
        "code_ttl",
        "reconnect_grace",
        "codes_per_user",
        "max_live_codes",
        "code_rate",
        "code_rate_address",
        "message_rate",
        "message_burst",
        "audio_rate",
        "audio_bytes_rate",
        "audio_bytes_burst",
        "frame_rate",
        "join_rate",
        "handshake_failures",
        "connections_per_address",
        "connections_per_user",
    }
)


def take_over(app: AppContext, old: Configuration, new: Configuration) -> None:
    """Use the new settings from now on, as far as that is possible without a restart; the rest is told in the log.

    It goes into the audit log by name and value, secrets by name only. Keys have events of their own.
    """
    deps = app.deps
    app.origins = new.allowed_origins
    app.trusted = new.trusted_proxies
    app.handshake_failures.change(new.handshake_failures)
    deps.codes_by_user.change(new.code_rate)
    deps.codes_by_address.change(new.code_rate_address)
    deps.rules = new.pairing_rules
    deps.registration_open = new.registration == "open"
    deps.hub.limits = new.connection_limits
    if new.log_level != old.log_level:
        logs.set_level(new.log_level)
    signing_keys.take_over(deps, new.jwt_keys, system(utcnow()))
    before, after = effective(old), effective(new)
    changed = [
        field.name for field in fields(Configuration) if getattr(old, field.name) != getattr(new, field.name)
    ]
    waiting = [PREFIX + name.upper() for name in changed if name not in TAKEN_OVER]
    taken = [PREFIX + name.upper() for name in changed if name in TAKEN_OVER]
    for name in taken:
        if before[name] != after[name]:
            event = deps.audit.event(
                "config.changed", "success", system(utcnow()), setting=name, old=before[name], new=after[name]
            )
            deps.audit.enqueue(event)
    log.info("the settings were read again; changed: %s", ", ".join(taken) or "nothing")
    if waiting:
        log.warning("changed, but only from the next start on: %s", ", ".join(waiting))
