"""What a connection's protocol keeps to on the wire: the kernel's buffers, close codes, the closing handshake's time."""

from __future__ import annotations

import socket

# Linux would grow the kernel's buffers to megabytes: that for sending hides a slow client and ages its audio, and what
# comes in at once from the other has to be held by this process, too.
SEND_BUFFER = 128 * 1024
RECEIVE_BUFFER = 64 * 1024
# The closing handshake: how long the client may take to answer our close frame.
CLOSE_TIMEOUT = 5.0


def valid_close_code(code: int) -> bool:
    """Whether a client may send that close code (RFC 6455, section 7.4)."""
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code < 5000


def acknowledge_later(connection: socket.socket | None) -> None:
    """Do not tell a client that sends one message after the other of each at once: that costs a packet each.

    Linux only. The kernel itself goes back to telling at once when the client pauses.
    """
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def bound_buffers(sock: socket.socket) -> None:
    """Let the kernel keep no more than that of what is sent and received."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
