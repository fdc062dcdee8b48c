"""What a session tells its client of its own accord, up to the close."""

from __future__ import annotations

from pairing_server.errors import InvalidToken, PairingServerError
from pairing_server.relay import messages, requests
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.messages import encode
from pairing_server.relay.send_queue import Lane, SendQueue, Transport


class Telling:
    """The half of a session that speaks."""

    __slots__ = ("_transport", "close_code", "closing", "connection_id", "send_queue")

    def __init__(self, connection_id: str, transport: Transport, send_queue: SendQueue) -> None:
        self.connection_id = connection_id
        self.send_queue = send_queue
        self.closing = False
        self.close_code: CloseCode | None = None
        self._transport = transport

    def deliver(
        self, message: bytes, lane: Lane = Lane.MESSAGE, number: int = 0, *, binary: bool = False
    ) -> None:
        """Put an encoded message into what waits for the client."""
        self.send_queue.send(message, lane, number, binary)

    def greet(self) -> None:
        """The connection is open."""
        self.deliver(encode(messages.Connected(client_id=self.connection_id)))

    def identified_answer(self, request: requests.Identify) -> None:
        """The client is the device that it has said it is."""
        self.deliver(
            encode(messages.Identified(device_type=request.device_type, session_id=request.session_id))
        )

    def asked_to_confirm(self, channel: str, device: str, address: str, expires_in: int) -> None:
        """A phone that has sent the code of that channel waits for this desktop's word."""
        asked = messages.PairingRequest(
            channel=channel, channelId=channel, device=device, address=address, expires_in=expires_in
        )
        self.deliver(encode(asked))

    def tell(self, error: PairingServerError) -> None:
        """What was wrong."""
        self.deliver(encode(messages.error_message(error)))

    def log_out(self) -> None:
        """The login that this connection is from has been ended."""
        self.tell(InvalidToken("This login has been ended; log in again."))
        self.close(CloseCode.INVALID_TOKEN, "login ended")

    def close(self, code: CloseCode, reason: str) -> None:
        """Decide to close: nothing more is taken from or sent to the client."""
        if not self.closing:
            self.closing = True
            self.close_code = code
            self.send_queue.close()
            self._transport.close(code, reason)
