"""The settings document that both members share: how it is merged, and when it has to be sent again.

echo_detector.py classifies what in a message is an edit and what is an echo; sync.py does the sending. No sockets, and
no clock: `now` is monotonic seconds. docs/decisions/0004 has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from pairing_server.errors import PayloadTooLarge, ValidationFailed
from pairing_server.relay.settings.echo_detector import PeerView
from pairing_server.relay.settings.json_values import Value, Values, differing

Role = str  # "desktop" | "mobile"

SETTLE_AFTER = 0.4  # seconds after the last event that left it uncertain what a member holds
SETTLE_LATE = 5.0  # the same where only a link slower than echo_detector.UNDER_WAY leaves it uncertain
REVISIONS_KEPT = 64  # for `base_rev`


@dataclass(frozen=True, slots=True)
class Merge:
    """A change of the document: its new `rev`, and the keys that were `changed`."""

    changed: tuple[str, ...]
    rev: int


@dataclass(frozen=True, slots=True)
class SettingsSnapshot:
    """A document at `rev` as it is saved: a JSON object, its values as they came."""

    rev: int
    document: bytes


class SettingsDocument:
    """One channel's merged document. `rev` is 0 until the first merge and grows by one with each.

    `settle_at`: when `settle` must be called; None: it need not be. Every call here may change it.
    """

    def __init__(
        self, saved: SettingsSnapshot | None = None, *, max_keys: int = 64, max_bytes: int = 16384
    ) -> None:
        """`saved`: the document that an earlier channel of this pairing has left."""
        self.rev = 0
        self.settle_at: float | None = None
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._document: Values = {}
        self._size = 2
        self._revisions: dict[int, Values] = {0: self._document}
        self._views = {"desktop": PeerView(), "mobile": PeerView()}
        self._settle_delay = SETTLE_LATE
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: SettingsSnapshot) -> None:
        found = msgspec.json.decode(saved.document, type=dict[str, msgspec.Raw])
        self.rev = saved.rev
        self._document = {key: Value(bytes(raw)) for key, raw in found.items()}
        self._size = len(saved.document)
        self._revisions = {saved.rev: self._document}

    def snapshot(self) -> SettingsSnapshot:
        """The document as it is to be saved."""
        values = {key: msgspec.Raw(value.raw) for key, value in self._document.items()}
        return SettingsSnapshot(self.rev, msgspec.json.encode(values))

    def raw(self) -> dict[str, bytes]:
        """The whole document: key → JSON value as it came."""
        return {key: value.raw for key, value in self._document.items()}

    def merge(
        self,
        role: Role,
        settings: Mapping[str, bytes],
        now: float,
        base_rev: int | None = None,
        *,
        fill: bool = False,
    ) -> Merge | None:
        """Merge what the device has edited; then the whole document must be sent to its peer.

        `fill`: these are no edits, and only keys that the document lacks are merged.

        None: an echo, or nothing new. An unknown `base_rev` counts as none. Raises ValidationFailed or
        PayloadTooLarge if the merged document would be over its limits; then nothing has changed.
        """
        view = self._views[role]
        values = {key: Value(raw) for key, raw in settings.items()}
        base = None if base_rev is None else self._revisions.get(base_rev)
        if base is None:
            base_rev = None
        view.age(now)
        classification = view.classify(values, now, base_rev, base)
        other = differing(values, self._document, {})
        lacking = [key for key in values if key not in self._document]
        edits = {key: values[key] for key in (lacking if fill else classification.edited) if key in other}
        merged = bool(edits) and view.allow_edits(edits)
        if merged:
            self._apply(edits)
        view.learn(classification, values, now, base_rev)
        self._schedule_settling(view, now, merged=merged, ignored=len(other) > len(edits) * merged)
        return Merge(tuple(edits), self.rev) if merged else None

    def _apply(self, edits: Values) -> None:
        merged = {**self._document, **edits}
        if len(merged) > self._max_keys:
            raise ValidationFailed(
                f"The settings would have more than {self._max_keys} keys.", field="settings"
            )
        # Braces, then for each key its name, a colon, its value and a comma; the last has no comma.
        size = 1 + sum(len(msgspec.json.encode(key)) + len(value.raw) + 2 for key, value in merged.items())
        if size > self._max_bytes:
            raise PayloadTooLarge(limit=self._max_bytes, size=size)
        self.rev += 1
        self._size = size
        self._document = merged
        self._revisions[self.rev] = merged
        self._revisions.pop(self.rev - REVISIONS_KEPT, None)

    def _schedule_settling(self, view: PeerView, now: float, *, merged: bool, ignored: bool) -> None:
        """Settle later if a delivery under way will undo what was merged, or the client holds what was ignored."""
        if ignored or (merged and view.under_way):
            delay = SETTLE_AFTER
        elif merged and view.unproven(now):
            delay = SETTLE_LATE
        elif merged and self.settle_at is not None:
            delay = self._settle_delay
        else:
            return
        view.uncertain = view.uncertain or ignored or view.under_way or view.unproven(now)
        if self.settle_at is not None:
            delay = min(delay, self._settle_delay)
        self._settle_delay = delay
        self.settle_at = now + delay

    def note_delivery(self, role: Role, now: float) -> None:
        """The whole document, as it is now, has been sent to that device."""
        self._views[role].deliver(self._document, self.rev, self._size, now)
        if not any(view.uncertain for view in self._views.values()):
            self.settle_at = None

    def settle(self, now: float) -> tuple[Role, ...]:
        """At `settle_at`: the roles to send the document to. Call `note_delivery` for each."""
        if self.settle_at is None or now < self.settle_at:
            return ()
        self.settle_at = None
        return tuple(role for role, view in self._views.items() if view.uncertain)

    def note_reconnect(self, role: Role) -> None:
        """The device is on a new connection: what was under way to it is lost.

        What it was known to hold stays as a guess; the delivery that follows corrects it for a restarted app.
        """
        self._views[role].resume()
