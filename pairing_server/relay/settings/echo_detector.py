"""What is known of one device's view of the settings, and how a `settings_sync` of it is classified.

Some clients send whole objects, some send parts of them, and some send back all that they receive; none says which, and
messages cross on the way. A `PeerView` remembers what was delivered to its device and what the device sent last, and
tells an edit from an echo and from the stale part of a whole object. It decides nothing about the document: that is
document.py. docs/decisions/0004 has the rules and their reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pairing_server.relay.settings.deliveries import Deliveries, Delivery
from pairing_server.relay.settings.json_values import Value, Values, differing

UNDER_WAY = 1.5  # seconds in which a delivery may not have been applied yet, and its echo is expected
ECHO_KEPT = 30.0  # the same for a device known to echo; a slower link does not survive the pings
LATE_ECHO = 10.0  # seconds after which a repetition is no sign of an echoing device any more
RESEND_WITHIN = 0.25  # seconds: too short for a user to see a change and take it back

SURE_ECHO, SURE_QUIET = 12, -6  # the limits of PeerView._score
ECHOING, QUIET = 4, -4  # from here on a device is known to echo, or not to
ALLOWANCE = 64  # edits in a row that bring only values the device was sent; more than these are a loop


@dataclass(frozen=True, slots=True)
class Classification:
    """What a message is: the keys that it has `edited`.

    `repeats`: the delivery it equals. `seen`: the last delivery that it shows to have been applied.
    """

    edited: list[str]
    repeats: Delivery | None = None
    seen: Delivery | None = None


@dataclass(slots=True)
class PeerView:
    """One device's. `uncertain`: when all has arrived, it may hold another document than the channel's."""

    uncertain: bool = False
    _held: Values = field(default_factory=dict)  # when it sent its last message
    _sent: set[str] = field(default_factory=set)  # all keys it has ever sent
    _base_rev: int | None = None  # of its last message
    _last_message_at: float = -math.inf  # when that came
    _unapplied: Deliveries = field(default_factory=Deliveries)  # delivered, maybe not applied at that time
    _unechoed: Deliveries = field(default_factory=Deliveries)
    _recent: Deliveries = field(default_factory=Deliveries)
    _last: Delivery | None = None
    _allowance: int = ALLOWANCE
    _score: int = 0  # grows with echoes in order, falls with deliveries that were not echoed
    # When the last delivery was sent that is only presumed to have been applied.
    _presumed_applied_at: float = -math.inf
    _resumed: bool = False  # it is on a new connection and has sent nothing yet

    @property
    def echoing(self) -> bool:
        """Whether it is known to send back what it receives."""
        return self._score >= ECHOING

    @property
    def under_way(self) -> bool:
        """Whether a delivery may not have been applied yet when the last message was sent."""
        return bool(self._unapplied)

    def unproven(self, now: float) -> bool:
        """Whether only a very slow link would have kept a delivery from being applied before the last message."""
        return self._presumed_applied_at > now - ECHO_KEPT

    def deliver(self, document: Values, rev: int, size: int, now: float) -> None:
        """The document, of `size` bytes, has been sent to the device."""
        expected = self._unapplied[-1].document if self._unapplied else {}
        is_news = bool(differing(document, expected, self._held))
        last = self._last
        before = last.document if last else {}
        # A value that has not changed is the same object.
        changed = tuple(key for key, value in document.items() if before.get(key) is not value)
        again = last is not None and rev == last.rev
        delivery = self._last = Delivery(document, changed, rev, now, is_news, again)
        self.uncertain = False
        for kept in (self._unapplied, self._unechoed, self._recent):
            kept.append(delivery, size)

    def resume(self) -> None:
        """The device is on a new connection: what was under way is lost, or applied without an echo to come."""
        self._unechoed.clear()
        self._base_rev = None
        self._resumed = True

    def age(self, now: float) -> None:
        """Presume applied what was delivered long ago; forget what was delivered very long ago."""
        while self._unapplied and self._unapplied[0].at < now - self._patience(self._unapplied[0]):
            delivery = self._unapplied.pop_oldest()
            self._presumed_applied_at = delivery.at
            if delivery.at < self._last_message_at:
                # The last message may be based on it; if not, it is settled anyway.
                self._held = {**delivery.document, **self._held}
            else:
                self._held = {**self._held, **delivery.document}
        for kept in (self._unechoed, self._recent):
            while kept and kept[0].at < now - ECHO_KEPT:
                kept.pop_oldest()
        if not self._recent:
            self._allowance = ALLOWANCE

    def _patience(self, delivery: Delivery) -> float:
        """Seconds to wait for a sign that it was applied. An echoing device gives one, unless there was nothing to apply."""
        return ECHO_KEPT if self.echoing and delivery.is_news else UNDER_WAY

    def classify(
        self, values: Values, now: float, base_rev: int | None, base: Values | None
    ) -> Classification:
        """Classify the message. `base`: the document at `base_rev`, if the client gave one."""
        repeated = self._repeated(values, now, -1 if base_rev is None else base_rev)
        if repeated is not None and self._trusts(repeated, now):
            unknown = [key for key in values if key not in repeated.document and key not in self._held]
            return Classification(unknown, repeated, seen=repeated)
        if base_rev is not None and base is not None:
            return self._compare_with_base(values, base_rev, base)
        return self._guess_edits(values, now, repeated)

    def _repeated(self, values: Values, now: float, after_rev: int) -> Delivery | None:
        """The delivery that `values` equal: the oldest that can be trusted, else the oldest.

        There may be unknown keys, too.
        """
        found = None
        steady, varying = self._unechoed.split(values)
        if not self._unechoed or _contradicts(steady, self._unechoed[0].document, self._held):
            return None
        sends_back = self._sends_back(values)
        for delivery in self._unechoed:
            if delivery.rev <= after_rev or (found is not None and not self._trusts(delivery, now)):
                continue
            if _contradicts(varying, delivery.document, self._held) or not sends_back(delivery, now):
                continue
            if self._trusts(delivery, now):
                return delivery
            found = found or delivery
        return found

    def _sends_back(self, values: Values) -> Callable[[Delivery, float], bool]:
        """Whether a message that contradicts nothing in a delivery sends it back: all of it, or at least what was new to it."""
        all_it_sends = len(values) > 1 and self._sent <= values.keys()
        steady, _ = self._unechoed.split(self._unechoed[0].document)
        new = set(differing(steady, {}, self._held))
        only_new = new <= values.keys()

        def sends_back(delivery: Delivery, now: float) -> bool:
            if all_it_sends:
                return True
            whole = delivery.document.keys() <= values.keys()
            if whole and len(values) > 1:
                return True
            if not delivery.is_news and now - delivery.at > UNDER_WAY:
                return False  # a device that sends back only what is new had nothing to send
            if whole or not only_new:
                return whole
            moved = {
                key: delivery.document[key] for key in self._unechoed.varying if key in delivery.document
            }
            also_new = differing(moved, {}, self._held)
            return bool(new or also_new) and values.keys() >= set(also_new)

        return sends_back

    def _trusts(self, delivery: Delivery, now: float) -> bool:
        """Whether a repetition of this delivery is an echo, and not an edit that leads back to it."""
        return self.echoing or (self._score > QUIET and now - delivery.at <= UNDER_WAY)

    def _compare_with_base(self, values: Values, base_rev: int, base: Values) -> Classification:
        """Exact: the client names its base. What it has edited since counts as held."""
        own = self._base_rev == base_rev
        edited = differing(values, {} if own else base, self._held)
        seen = None
        for delivery in self._unapplied:
            if delivery.rev < base_rev or (delivery.rev == base_rev and not delivery.again):
                seen = delivery
        return Classification(edited, seen=seen)

    def _guess_edits(self, values: Values, now: float, repeated: Delivery | None) -> Classification:
        """The device held what it sent last, or one of the deliveries since: the one that needs fewest edits."""
        since_last = differing(values, {}, self._held)
        if since_last and self.echoing:
            return Classification(since_last, repeated)  # it would have echoed what it received since
        unapplied = self._unapplied
        if not since_last and unapplied and self._sends_again(now):
            return Classification([], repeated)
        counts = [len(since_last), *self._counts_since(values)]
        # Of equals the newest: a user takes back what is on the screen.
        best = min((i for i, count in enumerate(counts) if count), key=lambda i: (counts[i], -i), default=0)
        if not best:
            return Classification(since_last, repeated)
        shown = unapplied[best - 1]
        edited = differing(values, shown.document, self._held)
        # Whether a value comes from that delivery and from nothing older.
        newest = all(count > counts[best] for count in counts[1:best])
        seen = newest and any(key in self._held for key in set(since_last).difference(edited))
        return Classification(edited, repeated, shown if seen else None)

    def _counts_since(self, values: Values) -> list[int]:
        """For each delivery that may not have been applied, how many keys of the message differ from it."""
        if not self._unapplied:
            return []
        steady, varying = self._unapplied.split(values)
        always = len(differing(steady, self._unapplied[0].document, self._held))
        return [always + len(differing(varying, d.document, self._held)) for d in self._unapplied]

    def _sends_again(self, now: float) -> bool:
        """Whether the same message as its last is a repetition, and not an edit back to those values."""
        if self.echoing or self._resumed:
            return now - self._unapplied[-1].at < UNDER_WAY
        return now - self._unapplied[0].at < RESEND_WITHIN

    def allow_edits(self, edits: Values) -> bool:
        """The guard against loops: even if it was misclassified, an echo brings no value that the device was not sent.

        So without a new value only so many edits in a row are allowed. That ends every loop.
        """
        if not all(self._was_sent(key, value) for key, value in edits.items()):
            self._allowance = ALLOWANCE
            return True
        if self._allowance:
            self._allowance -= 1
            return True
        return False

    def _was_sent(self, key: str, value: Value) -> bool:
        if self._recent and key not in self._recent.varying:
            sent = self._recent[0].document.get(key)
            return sent is not None and value.same(sent)
        last = None
        for delivery in reversed(self._recent):
            sent = delivery.document.get(key)
            if sent is not last and sent is not None and value.same(sent):
                return True
            last = sent
        return False

    def learn(self, classification: Classification, values: Values, now: float, base_rev: int | None) -> None:
        """Note what the message shows of the device, once its edits are merged."""
        if classification.repeats is not None:
            if classification.repeats is self._unechoed[0]:
                self._learn_echo(now - classification.repeats.at)
            while self._unechoed.pop_oldest() is not classification.repeats:
                pass
        elif base_rev is None:
            self._learn_quiet(classification, now)
        if classification.seen is not None:
            self._apply(classification.seen, proven=base_rev is not None and classification.repeats is None)
        self._held = {**self._held, **values}
        self._sent.update(values)
        self._base_rev = base_rev
        self._last_message_at = now
        self._resumed = False

    def _learn_echo(self, age: float) -> None:
        """A repetition in order: an echo, or, the later it comes, an edit that leads back there."""
        if age <= LATE_ECHO:
            self._score = min(SURE_ECHO, self._score + (2 if age <= UNDER_WAY else 1))

    def _learn_quiet(self, classification: Classification, now: float) -> None:
        missed = [
            late for late in self._unechoed if late.is_news and not late.missed and late.at < now - UNDER_WAY
        ]
        for delivery in missed:
            delivery.missed = True
        if classification.seen is not None:
            self._score = min(self._score, 0) - 4
        elif missed:
            self._score -= 2
        self._score = max(SURE_QUIET, self._score)

    def _apply(self, delivery: Delivery, *, proven: bool) -> None:
        if delivery.at >= self._presumed_applied_at:
            self._presumed_applied_at = -math.inf if proven else delivery.at
        if delivery not in self._unapplied:
            return
        while self._unapplied.pop_oldest() is not delivery:
            pass
        self._held = {**self._held, **delivery.document}


def _contradicts(values: Values, document: Values, held: Values) -> bool:
    """Whether a value is another than the one that the document, or what is held beneath it, has."""
    for key, value in values.items():
        known = document.get(key) or held.get(key)
        if known is not None and not value.same(known):
            return True
    return False
