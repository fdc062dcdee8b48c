"""A message is compared with all deliveries at a bounded cost, with the same result as key by key with each of them."""

from __future__ import annotations

import json
import random

import pytest

from pairing_server.relay.settings.deliveries import COMPARED, DELIVERIES_KEPT, Deliveries, Delivery
from pairing_server.relay.settings.document import SettingsDocument
from pairing_server.relay.settings.echo_detector import UNDER_WAY, Classification, PeerView
from pairing_server.relay.settings.json_values import Value, Values, differing
from tests.longer import count


class KeyByKey(PeerView):
    """Compares all keys of the message with each delivery."""

    def _repeated(self, values: Values, now: float, after_rev: int) -> Delivery | None:
        equal = [d for d in self._unechoed if d.rev > after_rev and self._equal(values, d, now)]
        return next((d for d in equal if self._trusts(d, now)), equal[0] if equal else None)

    def _equal(self, values: Values, delivery: Delivery, now: float) -> bool:
        document, held = delivery.document, self._held
        for key, value in values.items():
            known = document.get(key) or held.get(key)
            if known is not None and not value.same(known):
                return False
        whole = document.keys() <= values.keys()
        if len(values) > 1 and (whole or self._sent <= values.keys()):
            return True
        if not delivery.is_news and now - delivery.at > UNDER_WAY:
            return False
        new = differing(document, {}, held)
        return whole or (bool(new) and values.keys() >= set(new))

    def _guess_edits(self, values: Values, now: float, repeated: Delivery | None) -> Classification:
        edits = [differing(values, {}, self._held)]
        if edits[0] and self.echoing:
            return Classification(edits[0], repeated)
        if not edits[0] and self._unapplied and self._sends_again(now):
            return Classification([], repeated)
        edits += [differing(values, delivery.document, self._held) for delivery in self._unapplied]
        best = min((i for i, keys in enumerate(edits) if keys), key=lambda i: (len(edits[i]), -i), default=0)
        older = any(len(keys) <= len(edits[best]) for keys in edits[1:best])
        shown = any(key in self._held and key not in edits[best] for key in edits[0])
        seen = self._unapplied[best - 1] if best and not older and shown else None
        return Classification(edits[best], repeated, seen)

    def _was_sent(self, key: str, value: Value) -> bool:
        sent = [delivery.document.get(key) for delivery in self._recent]
        return any(one is not None and value.same(one) for one in sent)


KEYS = [f"key-{number}" for number in range(5)]
TEXTS = [b"0", b"1", b"1.0", b"2", b'"a"', b"[1, 2]", b"[1,2]"]


@pytest.mark.parametrize("seed", range(count(60, 3000)))
def test_the_result_is_that_of_comparing_key_by_key(seed: int) -> None:
    rng = random.Random(seed)
    fast, slow = SettingsDocument(), SettingsDocument()
    slow._views = {"desktop": KeyByKey(), "mobile": KeyByKey()}
    clients: dict[str, dict[str, bytes]] = {"desktop": {}, "mobile": {}}
    now = 0.0
    for _ in range(60):
        now += rng.choice([0.0, 0.01, 0.1, 0.3, 1.0, 2.0, 12.0])
        role = rng.choice(["desktop", "mobile"])
        if rng.random() < 0.4:
            clients[role].update(fast.raw())
        for key in rng.sample(KEYS, rng.choice([0, 1, 1, 2, 5])):
            clients[role][key] = rng.choice(TEXTS)
        whole = clients[role]
        sent = whole if rng.random() < 0.7 else dict(rng.sample(sorted(whole.items()), min(1, len(whole))))
        base = rng.choice([None, None, None, fast.rev])
        merges = [document.merge(role, sent, now, base) for document in (fast, slow)]
        assert merges[0] == merges[1]
        assert fast.settle_at == slow.settle_at
        if merges[0] is not None and rng.random() < 0.9:
            for document in (fast, slow):
                document.note_delivery("mobile" if role == "desktop" else "desktop", now)


@pytest.mark.parametrize(("keys", "changing"), [(1, 1), (8, 1), (8, 8), (64, 1), (64, 2), (64, 64)])
def test_so_many_values_are_compared_and_no_more(keys: int, changing: int) -> None:
    document = SettingsDocument(max_bytes=65536)
    state = {f"key-{number}": b"0" for number in range(keys)}
    for step in range(600):
        for number in range(changing):
            state[f"key-{number}"] = json.dumps([step, number]).encode()
        document.merge("desktop", state, step / 60)
        document.note_delivery("mobile", step / 60)
    view = document._views["mobile"]
    for row in (view._unapplied, view._unechoed, view._recent):
        assert len(row.varying) == changing
        kept = len(list(row))
        assert kept == min(DELIVERIES_KEPT, COMPARED // changing)
        assert row.split({key: Value(b"1") for key in state})[1].keys() == row.varying.keys()


def test_the_keys_that_vary_are_those_that_are_not_the_same_in_all_that_are_left() -> None:
    row = Deliveries()
    documents = [{"a": Value(b"0")}]
    for changed in ("b", "a", "b", "c"):
        documents.append({**documents[-1], changed: Value(b"1")})
    for number, document in enumerate(documents):
        before = documents[number - 1] if number else {}
        names = tuple(key for key, value in document.items() if before.get(key) is not value)
        row.append(Delivery(document, names, number, 0.0, True, False), 100)
    seen = []
    while row:
        seen.append("".join(sorted(row.varying)))
        row.pop_oldest()
    assert seen == ["abc", "abc", "bc", "c", ""]
