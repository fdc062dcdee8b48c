"""The close codes of the WebSocket, in one table; what a client does about each is in docs/protocol.md."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a connection ends. Those below 4000 are RFC 6455's; a proxy may give them, too."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    FRAME_TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    OVERLOADED = 1013
    BAD_MESSAGES = 4400
    INVALID_TOKEN = 4401
    FORBIDDEN = 4403
    NOT_IDENTIFIED = 4408
    REPLACED = 4409
    CHANNEL_CLOSED = 4410
    RATE_LIMITED = 4429
    SLOW_CONSUMER = 4430
