"""A channel's settings reach its members, and only when there is something new."""

from __future__ import annotations

from tests.relay.wire import Relay, sync

CHANNEL = "pair-123456"
NAMED = {"channel": CHANNEL, "channelId": CHANNEL}


def test_settings_are_merged_and_the_peer_alone_gets_the_whole_document() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    sync(desktop, gain=75, vad=False)
    relay.pass_time(10)
    mobile.received()
    desktop.received()
    sync(desktop, gain=80)
    [document] = [m for m in mobile.received() if m["type"] == "settings_sync"]
    assert (document["settings"], document["changed"], document["rev"]) == (
        {"gain": 80, "vad": False},
        ["gain"],
        2,
    )
    assert desktop.received() == []


def test_an_echo_of_the_settings_goes_no_further() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    sync(desktop, gain=75)
    [document] = mobile.received()
    sync(mobile, **document["settings"])
    assert desktop.received() == []
    assert relay.hub.context.counters.echoes == 1


def test_a_late_joiner_gets_the_document_in_channel_joined_and_as_settings_sync() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop = relay.client("desktop")
    desktop.join(channel)
    sync(desktop, gain=75)
    mobile = relay.client("mobile")
    mobile.join(channel)
    joined, document, _ = mobile.received()
    assert (joined["settings"], joined["rev"]) == ({"gain": 75}, 1)
    assert (document["type"], document["settings"], document["rev"]) == ("settings_sync", {"gain": 75}, 1)


def test_settings_that_would_outgrow_their_bounds_are_refused_and_change_nothing() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    sync(desktop, **{f"k{i}": i for i in range(60)})
    mobile.received()
    sync(desktop, **{f"other{i}": i for i in range(5)})
    [error] = desktop.received()
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": "settings"})
    sync(desktop, long1="x" * 9000)
    assert desktop.received() == []
    mobile.received()
    sync(desktop, long2="x" * 9000)
    [error] = desktop.received()
    assert error["code"] == "PAYLOAD_TOO_LARGE"
    assert error["details"]["limit"] == 16 * 1024 < error["details"]["size"]
    assert mobile.received() == []
