"""One member's audio on its way to the other: live, numbered apart, in the form the receiver has requested. No I/O."""

from __future__ import annotations

from pairing_server.relay import messages, requests
from pairing_server.relay.audio import binary_frames
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.audio.stream_header import StreamHeader
from pairing_server.relay.members import Member
from pairing_server.relay.send_queue import Lane


class AudioForwarder:
    """One sender's stream. `header_needed`: the receiver has joined, or missed something, since the last chunk."""

    __slots__ = ("_channel", "_header", "_number", "header_needed")

    def __init__(self, channel: str) -> None:
        """`channel`: its name."""
        self._channel = channel
        self._number = 0
        self._header = StreamHeader()
        self.header_needed = True

    def forward(self, request: requests.AudioChunk | BinaryAudio, receiver: Member | None) -> bool:
        """Send the next chunk; whether too much waits for the receiver then.

        A receiver that joins in the middle of a stream gets the stream's header first.
        """
        watched = self._header.watching or request.may_begin
        binary_audio = receiver is not None and receiver.binary_audio
        sound = request.as_bytes() if watched or binary_audio else None
        header = self._header_before(sound, receiver) if watched and sound is not None else None
        if receiver is None:
            self._number += 1
            return False
        if header is not None:
            first = BinaryAudio(None, request.format, request.sample_rate, header)
            self._send(receiver, first, header if binary_audio else None)
        return self._send(receiver, request, sound if binary_audio else None)

    def _header_before(self, sound: bytes, receiver: Member | None) -> bytes | None:
        """What the receiver needs before this chunk, if it has missed the header of the stream."""
        header = self._header.before(sound)
        self._header.feed(sound)
        if receiver is None or not self.header_needed:
            return None
        self.header_needed = False
        return header

    def _send(
        self, receiver: Member, request: requests.AudioChunk | BinaryAudio, sound: bytes | None
    ) -> bool:
        """Send one chunk under the next number, as JSON if no `sound` is given. As `forward`."""
        number = self._number = self._number + 1
        if sound is not None:
            frame = binary_frames.encode(sound, number, request.chunk_id, request.format, request.sample_rate)
            return receiver.send(frame, Lane.AUDIO, number, True)
        chunk = messages.AudioToPeer(
            channel=self._channel,
            chunk_id=request.chunk_id,
            data=request.as_json(),
            format=request.format,
            sample_rate=request.sample_rate,
            audio_seq=number,
        )
        return receiver.send(messages.encode(chunk), Lane.AUDIO, number)
