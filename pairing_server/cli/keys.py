"""keys …: list, rotate and retire signing keys."""

from __future__ import annotations

import click

from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import row, say
from pairing_server.cli.runtime import administrator, load_configuration, plain_errors, run
from pairing_server.clock import utcnow
from pairing_server.config import Configuration, keyfile_of, with_keys
from pairing_server.security.keys import SigningKey, format_keys, generate_key
from pairing_server.services import signing_keys as service

_MANUAL = (
    "Nothing has changed yet: the keys are set by PAIRING_JWT_KEYS. Put the line above in its place on every server, and reload each"
    " within 15 seconds (kill -HUP, or systemctl reload). It holds secrets."
)

_KEYS = "docs/operations.md, Keys"


@click.group(
    epilog=epilog(
        {
            "pairing-server keys list": "which signs, and until when each is needed",
            "pairing-server keys rotate": "a fresh one first",
        },
        _KEYS,
    )
)
def keys() -> None:
    """Signing keys of tokens: list, rotate, retire. The first signs, all verify."""


@keys.command("list", epilog=epilog({"pairing-server keys list": "without their secrets"}, _KEYS))
def list_keys() -> None:
    """The keys, newest first, without their secrets."""
    config = load_configuration()
    with plain_errors():
        listed = service.listing(with_keys(config).jwt_keys)
    now = utcnow()
    for key in listed:
        if key.signs:
            use = ["signs"]
        elif key.needed_until is None:
            use = ["verifies"]
        elif key.needed_until > now:
            use = ["verifies", f"needed until {key.needed_until:%Y-%m-%dT%H:%MZ}"]
        else:
            use = ["verifies", "may be retired"]
        row(key.kid, *use)


def _configured_keys(config: Configuration) -> tuple[SigningKey, ...] | None:
    """The keys of PAIRING_JWT_KEYS; None if the server keeps its own."""
    return config.jwt_keys if keyfile_of(config) is None else None


@keys.command(
    epilog=epilog(
        {
            "pairing-server keys rotate": "running servers notice within a second",
            "pairing-server keys rotate > jwt-keys.new": "where PAIRING_JWT_KEYS is set: what to put there",
        },
        _KEYS,
    )
)
def rotate() -> None:
    """Sign with a new key from now on. Running servers load it by themselves.

    With PAIRING_JWT_KEYS nothing is changed: the new value for it is printed.
    """
    configured = _configured_keys(load_configuration())
    if configured is not None:
        with plain_errors():
            say(format_keys(service.with_fresh(configured, generate_key(utcnow()))))
        say(_MANUAL, err=True)
        return
    fresh = run(lambda backend: backend.services.signing_keys.rotate(administrator(utcnow())))
    say(f"{fresh.kid} signs from now on. The earlier keys still verify.")


@keys.command(
    epilog=epilog(
        {
            "pairing-server keys retire k-2025-11-01": "once no token needs it",
            "pairing-server keys retire k-2025-11-01 --now": "it has leaked: everybody logs in again",
        },
        _KEYS,
    )
)
@click.argument("kid")
@click.option("--now", "at_once", is_flag=True, help="Even if tokens signed with it are still in use.")
def retire(kid: str, at_once: bool) -> None:
    """Remove an old key. Tokens that it signed are refused from then on.

    With PAIRING_JWT_KEYS nothing is changed: the new value for it is printed.
    """
    configured = _configured_keys(load_configuration())
    if configured is not None:
        with plain_errors():
            say(format_keys(service.without(configured, kid, utcnow(), at_once=at_once)))
        say(_MANUAL, err=True)
        return
    run(lambda backend: backend.services.signing_keys.retire(administrator(utcnow()), kid, at_once=at_once))
    say(f"{kid} is retired.")
