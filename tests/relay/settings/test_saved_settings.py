"""A channel is opened with the settings that an earlier channel of its pairing has saved."""

from __future__ import annotations

from uuid import uuid4

from pairing_server.relay.settings.document import SettingsDocument, SettingsSnapshot
from tests.relay.wire import Relay

RAW = {"gain": b"75", "name": '"\\u0000 é"'.encode(), "big": b"1e400", "list": b"[1, 2]"}


def test_a_restored_document_equals_the_saved_one() -> None:
    before = SettingsDocument()
    before.merge("desktop", RAW, 0.0)
    before.merge("mobile", {"gain": b"76"}, 1.0)
    after = SettingsDocument(before.snapshot())
    assert (after.raw(), after.rev) == (before.raw(), before.rev) == ({**RAW, "gain": b"76"}, 2)
    assert after.snapshot() == before.snapshot()


def test_a_change_after_a_restore_is_the_next_revision_of_the_saved_document() -> None:
    document = SettingsDocument(SettingsSnapshot(41, b'{"a":1,"b":2}'))
    merge = document.merge("desktop", {"a": b"1", "b": b"3"}, 0.0)
    assert merge is not None
    assert (merge.changed, merge.rev) == (("b",), 42)
    assert document.raw() == {"a": b"1", "b": b"3"}


def test_base_rev_may_name_the_saved_revision() -> None:
    document = SettingsDocument(SettingsSnapshot(41, b'{"a":1,"b":2}'))
    assert document.merge("desktop", {"a": b"1", "b": b"2"}, 0.0, base_rev=41) is None
    merge = document.merge("mobile", {"a": b"5", "b": b"2"}, 9.0, base_rev=41)
    assert merge is not None
    assert merge.changed == ("a",)


def test_the_saved_document_counts_towards_the_limits() -> None:
    kept = SettingsDocument()
    kept.merge("desktop", {"a": b'"%s"' % (b"x" * 100)}, 0.0)
    restored = SettingsDocument(kept.snapshot(), max_keys=1)
    refused = []
    for settings in ({"b": b"1"}, {"a": b"1"}):
        try:
            restored.merge("desktop", settings, 0.0)
        except Exception as error:
            refused.append(type(error).__name__)
    assert refused == ["ValidationFailed"]
    assert restored.raw() == {"a": b"1"}


def test_only_channels_whose_settings_have_changed_are_to_be_saved() -> None:
    relay = Relay()
    desktop, _ = relay.pair()
    relay.pair("pair-000002")
    assert relay.hub.unsaved_channels() == []
    desktop.send({"type": "settings_sync", "settings": {"gain": 1}})
    [channel] = relay.hub.unsaved_channels()
    assert channel.settings.snapshot() == SettingsSnapshot(1, b'{"gain":1}')
    channel.saved_rev = 1
    desktop.send({"type": "settings_sync", "settings": {"gain": 1}})
    assert relay.hub.unsaved_channels() == []
    desktop.send({"type": "settings_sync", "settings": {"gain": 2}})
    assert relay.hub.unsaved_channels() == [channel]


def test_members_of_a_reopened_channel_get_the_document_and_new_numbers() -> None:
    relay = Relay()
    channel = relay.hub.open_channel(
        uuid4(), "pair-123456", relay.now, ever_active=True, settings=SettingsSnapshot(3, b'{"gain":1}')
    )
    assert relay.hub.unsaved_channels() == []
    mobile = relay.client("mobile")
    mobile.join(channel, last_seq=12, epoch="earlier")
    joined, settings = mobile.received()
    assert (joined["settings"], joined["rev"], joined["seq"]) == ({"gain": 1}, 3, 0)
    assert joined["recovered"] is False
    assert (settings["type"], settings["settings"], settings["rev"]) == ("settings_sync", {"gain": 1}, 3)


def test_an_open_channel_does_not_go_back_to_the_saved_settings() -> None:
    relay = Relay()
    pairing = uuid4()
    channel = relay.hub.open_channel(pairing, "pair-123456", relay.now)
    again = relay.hub.open_channel(pairing, "pair-123456", relay.now, settings=SettingsSnapshot(3, b"{}"))
    assert again is channel
    assert again.settings.rev == 0
