"""One member's sound on its way to the other: live, numbered apart, in the form the receiver has asked for. No I/O."""

from __future__ import annotations

from typing import Protocol

from pairing_server.relay import messages, requests
from pairing_server.relay.audio import binary_frames
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.audio.stream_header import StreamStart
from pairing_server.relay.messages import encode
from pairing_server.relay.send_queue import Lane, SendQueue


class Receiver(Protocol):
    """Who hears it."""

    send_queue: SendQueue
    binary_audio: bool


class AudioForwarder:
    """What one member sends. `newcomer`: the receiver has come in, or missed something, since the last chunk."""

    __slots__ = ("_channel", "_number", "_start", "newcomer")

    def __init__(self, channel: str) -> None:
        """`channel`: its name."""
        self._channel = channel
        self._number = 0
        self._start = StreamStart()
        self.newcomer = True

    def chunk(self, request: requests.AudioChunk | BinaryAudio, receiver: Receiver | None) -> bool:
        """The next chunk; whether the receiver's outbox is congested then.

        A receiver that comes in the middle of a stream gets the stream's beginning first.
        """
        watched = self._start.watching or request.may_begin
        binary_audio = receiver is not None and receiver.binary_audio
        sound = request.as_bytes() if watched or binary_audio else None
        start = self._before(sound, receiver) if watched and sound is not None else None
        if receiver is None:
            self._number += 1
            return False
        if start is not None:
            beginning = BinaryAudio(None, request.format, request.sample_rate, start)
            self._send(receiver, beginning, start if binary_audio else None)
        return self._send(receiver, request, sound if binary_audio else None)

    def _before(self, sound: bytes, receiver: Receiver | None) -> bytes | None:
        """What the receiver needs before this chunk, if it has missed the beginning of the stream."""
        start = self._start.before(sound)
        self._start.feed(sound)
        if receiver is None or not self.newcomer:
            return None
        self.newcomer = False
        return start

    def _send(
        self, receiver: Receiver, request: requests.AudioChunk | BinaryAudio, sound: bytes | None
    ) -> bool:
        """Send one chunk under the next number, as JSON if no `sound` is given; whether the receiver's outbox is
        congested then."""
        number = self._number = self._number + 1
        if sound is not None:
            frame = binary_frames.encode(sound, number, request.chunk_id, request.format, request.sample_rate)
            return receiver.send_queue.send(frame, Lane.AUDIO, number, binary=True)
        chunk = messages.AudioToPeer(
            channel=self._channel,
            channelId=self._channel,
            chunk_id=request.chunk_id,
            data=request.as_json(),
            format=request.format,
            sample_rate=request.sample_rate,
            audio_seq=number,
        )
        return receiver.send_queue.send(encode(chunk), Lane.AUDIO, number)
