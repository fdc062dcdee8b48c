"""The tables of docs/protocol.md that come from the code: the settings and the limits.

`python -m tests.protocol_tables` writes them into the document.
"""

from __future__ import annotations

import re

from pairing_server.config import SETTINGS, Configuration
from pairing_server.relay.close_codes import CloseCode
from pairing_server.security.limits import Rate
from pairing_server.services import brute_force_guard
from tests import protocol

Row = tuple[str, ...]


def settings() -> list[Row]:
    rows = [("setting", "default", "unit", "SIGHUP", "meaning")]
    for setting in SETTINGS:
        default = setting.text(setting.default)
        shown = setting.default_text or (f"`{default}`" if default else "none")
        reload = "yes" if setting.reloadable else ""
        rows.append((f"`{setting.variable}`", shown, setting.unit, reload, setting.meaning))
    return rows


def minutes(rate: Rate) -> str:
    return f"{rate.count} in {rate.seconds / 60:g} min"


def size(number: float) -> str:
    return f"{number / 2**20:g} MiB" if number >= 2**20 else f"{number / 2**10:g} KiB"


def locks(seconds: tuple[int, ...]) -> str:
    shown = [f"{lock / 60:g}" for lock in seconds[:-1]]
    return f"{', '.join(shown)} min, {seconds[-1] / 3600:g} h"


def hours(rate: Rate) -> str:
    return f"{rate.count} in {rate.seconds / 3600:g} h"


def limit_rows() -> list[Row]:
    """The default of each limit, and the settings that change it."""
    config = Configuration()
    relay = config.connection_limits
    return [
        ("what", "limit", "setting"),
        (
            "codes that did not work, for an address",
            f"{minutes(config.redeem_failures_address)}; then locked for {locks(config.redeem_lock_address)}",
            "`PAIRING_REDEEM_FAILURES_ADDRESS`, `PAIRING_REDEEM_LOCK_ADDRESS`",
        ),
        (
            "codes that did not work, for a user",
            (
                f"{minutes(config.redeem_failures)}, {config.redeem_failures_daily.count} a day;"
                f" then locked for {config.redeem_lock[0] / 3600:g} h"
            ),
            "`PAIRING_REDEEM_FAILURES`, `PAIRING_REDEEM_FAILURES_DAILY`, `PAIRING_REDEEM_LOCK`",
        ),
        (
            "codes that did not work, altogether",
            (
                f"{minutes(config.redeem_alarm)}; then for {brute_force_guard.DURATION_S / 60:g} min"
                " the codes of other accounts need `pairing_confirm`"
            ),
            "`PAIRING_REDEEM_ALARM`",
        ),
        ("failed logins, for a username", minutes(config.login_failures), "`PAIRING_LOGIN_FAILURES`"),
        (
            "failed logins, for an address",
            minutes(config.login_failures_address),
            "`PAIRING_LOGIN_FAILURES_ADDRESS`",
        ),
        (
            "logins with the right password, for a username",
            minutes(config.login_rate),
            "`PAIRING_LOGIN_RATE`",
        ),
        (
            "logins with the right password, for an address",
            minutes(config.login_rate_address),
            "`PAIRING_LOGIN_RATE_ADDRESS`",
        ),
        ("logins ended one by one, for a user", hours(config.logout_rate), "`PAIRING_LOGOUT_RATE`"),
        (
            "accounts made, for an address",
            minutes(config.register_rate_address),
            "`PAIRING_REGISTER_RATE_ADDRESS`",
        ),
        ("ws tokens made, for a user", hours(config.ws_token_rate), "`PAIRING_WS_TOKEN_RATE`"),
        ("WebSockets opened, for a user", hours(config.connect_rate), "`PAIRING_CONNECT_RATE`"),
        ("codes made, for a user", minutes(config.code_rate), "`PAIRING_CODE_RATE`"),
        ("codes made, for an address", minutes(config.code_rate_address), "`PAIRING_CODE_RATE_ADDRESS`"),
        ("pending codes of a user", f"{config.codes_per_user}", "`PAIRING_CODES_PER_USER`"),
        ("live codes altogether", f"{config.max_live_codes:,}", "`PAIRING_MAX_LIVE_CODES`"),
        (
            "upgrades without a valid token, for an address",
            minutes(config.handshake_failures),
            "`PAIRING_HANDSHAKE_FAILURES`",
        ),
        (
            "connections of an address",
            f"{config.connections_per_address}",
            "`PAIRING_CONNECTIONS_PER_ADDRESS`",
        ),
        (
            "connections of an address that are not WebSockets",
            f"{config.http_connections_per_address}; an idle one gives way to a new one",
            "`PAIRING_HTTP_CONNECTIONS_PER_ADDRESS`",
        ),
        ("connections of a user", f"{config.connections_per_user}", "`PAIRING_CONNECTIONS_PER_USER`"),
        (
            "messages, for a connection",
            f"{relay.message_rate:g} a second, {relay.message_burst:g} at once",
            "`PAIRING_MESSAGE_RATE`, `PAIRING_MESSAGE_BURST`",
        ),
        (
            "joins, for a connection",
            f"{relay.join_count:g} in {relay.join_seconds:g} s",
            "`PAIRING_JOIN_RATE`",
        ),
        (
            "`identify`, `unpair`, `refresh_token`, `pairing_confirm`, `pairing_reject`, for a connection",
            f"{relay.service_count:g} in {relay.service_seconds:g} s",
            "`PAIRING_SERVICE_RATE`",
        ),
        ("audio chunks, for a connection", f"{relay.audio_rate:g} a second", "`PAIRING_AUDIO_RATE`"),
        (
            "audio bytes, for a connection",
            f"{size(relay.audio_bytes_rate)} a second, {size(relay.audio_bytes_burst)} at once",
            "`PAIRING_AUDIO_BYTES_RATE`, `PAIRING_AUDIO_BYTES_BURST`",
        ),
        ("frames of any kind, for a connection", f"{relay.frame_rate:g} a second", "`PAIRING_FRAME_RATE`"),
        (
            "protocol pings, for a connection",
            f"{relay.ping_count:g} in {relay.ping_seconds:g} s",
            "`PAIRING_PING_RATE`",
        ),
        ("fragments of a message", f"{relay.fragments}", "`PAIRING_FRAGMENTS`"),
        (
            "`RATE_LIMITED` errors sent, for a connection",
            f"{relay.refusals_burst:g} at once, then {relay.refusals_rate:g} a second",
            "`PAIRING_REFUSAL_BURST`, `PAIRING_REFUSAL_RATE`",
        ),
        ("time to identify or join", f"{relay.identify_within:g} s", "`PAIRING_IDENTIFY_TIMEOUT`"),
        ("`channel_message`", size(relay.message_size), "`PAIRING_MESSAGE_SIZE`"),
        ("`audio_chunk`", size(relay.audio_size), "`PAIRING_AUDIO_SIZE`"),
        ("any other message", size(relay.control_size), "`PAIRING_CONTROL_SIZE`"),
        ("a frame", size(relay.frame_size), "`PAIRING_FRAME_SIZE`"),
        (
            "the settings document",
            f"{relay.settings_keys} keys, {size(relay.control_size)}",
            "`PAIRING_SETTINGS_KEYS`, `PAIRING_CONTROL_SIZE`",
        ),
        ("nesting of `payload` and `settings`", f"{relay.nesting}", "`PAIRING_NESTING`"),
        (
            "HTTP body",
            f"{size(config.body_size)}, within {config.body_timeout} s",
            "`PAIRING_BODY_SIZE`, `PAIRING_BODY_TIMEOUT`",
        ),
        (
            "HTTP header",
            f"{size(config.header_size)}, within {config.header_timeout} s",
            "`PAIRING_HEADER_SIZE`, `PAIRING_HEADER_TIMEOUT`",
        ),
        ("idle HTTP connection", f"{config.idle_timeout} s", "`PAIRING_IDLE_TIMEOUT`"),
        ("HTTP answer of which nothing is taken", f"{config.read_timeout} s", "`PAIRING_READ_TIMEOUT`"),
        (
            "waiting to be sent to a connection",
            (
                f"from {size(relay.queue_pause)} on its peer is not read and"
                f" audio is dropped; past {size(relay.queue_size)} or {relay.queue_age:g} s it is closed with"
                f" {CloseCode.SLOW_CONSUMER}"
            ),
            "`PAIRING_QUEUE_PAUSE`, `PAIRING_QUEUE_SIZE`, `PAIRING_QUEUE_AGE`",
        ),
        (
            "history of a channel",
            f"{relay.history_count} messages, {size(relay.history_size)}",
            "`PAIRING_HISTORY_COUNT`, `PAIRING_HISTORY_SIZE`",
        ),
    ]


TABLES = {"settings": settings, "limits": limit_rows}


def rendered(name: str) -> str:
    """The table in Markdown, under the mark by which `protocol.table` finds it."""
    titles, *rows = TABLES[name]()
    lines = [titles, ("---",) * len(titles), *rows]
    marked = [f"<!-- table: {name} -->"]
    for line in lines:
        cells = (cell if cell in ("", "---") else f" {cell} " for cell in line)
        marked.append("|" + "|".join(cell or " " for cell in cells) + "|")
    return "\n".join(marked) + "\n"


def main() -> None:
    text = protocol.PATH.read_text(encoding="utf-8")
    for name in TABLES:
        text = re.sub(rf"<!-- table: {name} -->\n(\|.*\n)+", lambda _, name=name: rendered(name), text)
    protocol.PATH.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
