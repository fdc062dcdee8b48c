"""A member that comes back gets what it has missed, in order and once, or a message that something is missing."""

from __future__ import annotations

import json
from collections import deque
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pairing_server.relay.members import OTHER
from tests.relay.wire import Client, Relay

ROLES = st.sampled_from(["desktop", "mobile"])
FAST = {"message_rate": 1e6, "message_burst": 1e6}


def say(client: Client, number: int, size: int = 0) -> None:
    client.send(message(number, size))


def message(number: int, size: int = 0) -> dict[str, Any]:
    return {"type": "channel_message", "payload": {"n": number, "pad": "x" * size}, "id": number}


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["payload"]["n"] for message in messages if message["type"] == "channel_message"]


def drop(client: Client) -> None:
    """The connection is gone, without a word."""
    client.relay.hub.remove(client.connection, "gone", client.relay.now)


def back(client: Client, **fields: Any) -> tuple[Client, list[dict[str, Any]]]:
    """The same session on a new connection, and what it is sent on joining."""
    channel = next(iter(client.relay.hub.channels.values()))
    again = client.relay.client(client.connection.device_type)
    again.join(channel, **fields)
    return again, again.received()


def test_what_was_missed_comes_in_order_behind_channel_joined_and_before_the_settings() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    desktop.send({"type": "settings_sync", "settings": {"gain": 1}})
    say(desktop, 1)
    last = mobile.received()[-1]["seq"]
    channel = mobile.connection.channel
    assert channel is not None
    drop(mobile)
    for number in (2, 3):
        say(desktop, number)
    desktop.received()
    mobile, received = back(mobile, last_seq=last, epoch=channel.epoch)
    assert [message["type"] for message in received] == [
        "channel_joined",
        "channel_message",
        "channel_message",
        "settings_sync",
        "pairing_success",
    ]
    assert (received[0]["recovered"], received[0]["seq"]) == (True, 4)
    assert numbers(received) == [2, 3]
    assert [message["seq"] for message in received[1:3]] == [3, 4]
    say(desktop, 4)
    assert numbers(mobile.received()) == [4]


def test_a_join_without_last_seq_gets_what_the_device_had_not_been_sent() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    say(desktop, 1)
    drop(mobile)
    say(desktop, 2)
    mobile, received = back(mobile)
    assert (received[0]["recovered"], numbers(received)) == (False, [2])
    drop(mobile)
    _, received = back(mobile)
    assert numbers(received) == []


def test_channel_joined_names_the_number_after_which_nothing_is_missing() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = mobile.connection.channel
    assert channel is not None
    for number in (1, 2):
        say(desktop, number)
    drop(mobile)
    say(desktop, 3)
    mobile, received = back(mobile)  # it does not say what it has
    assert (received[0]["last_seq"], numbers(received)) == (2, [3])
    drop(mobile)  # before it has read that
    _, received = back(mobile, last_seq=2, epoch=channel.epoch)
    assert (received[0]["recovered"], numbers(received)) == (True, [3])


def test_from_where_on_it_gets_everything_is_behind_what_is_forgotten() -> None:
    relay = Relay(**FAST, history_count=2)
    desktop, mobile = relay.pair()
    drop(mobile)
    for number in range(1, 6):
        say(desktop, number)
    mobile, received = back(mobile)
    assert (received[0]["last_seq"], numbers(received)) == (3, [4, 5])


def test_messages_before_the_peers_first_join_are_not_lost() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop, mobile = relay.client("desktop"), relay.client("mobile")
    desktop.join(channel)
    say(desktop, 1)
    mobile.join(channel)
    assert numbers(mobile.received()) == [1]


def test_a_member_does_not_get_its_own_messages_back() -> None:
    desktop, mobile = Relay().pair()
    say(desktop, 1)
    say(mobile, 2)
    drop(desktop)
    say(mobile, 3)
    _, received = back(desktop)
    assert numbers(received) == [3]


def test_a_second_join_on_the_same_connection_repeats_nothing() -> None:
    desktop, mobile = Relay().pair()
    say(desktop, 1)
    mobile.received()
    channel = mobile.connection.channel
    assert channel is not None
    mobile.join(channel, last_seq=0, epoch=channel.epoch)
    assert numbers(mobile.received()) == []


def test_a_slow_consumer_gets_after_its_return_what_had_not_left_the_queue() -> None:
    relay = Relay(**FAST, queue_size=300_000)
    desktop, mobile = relay.pair()
    mobile.wire.stalled = True
    for number in range(10):
        say(desktop, number, 60_000)
    assert mobile.close_code == 4430
    left = numbers(mobile.received())
    assert left == [0]
    drop(mobile)
    say(desktop, 10)
    _, received = back(mobile)
    assert numbers(received) == list(range(1, 11))


@pytest.mark.parametrize("how", ["count", "size"])
def test_dropped_messages_are_reported_missing_and_the_rest_is_sent(how: str) -> None:
    relay = Relay(**FAST)
    desktop, mobile = relay.pair()
    channel = mobile.connection.channel
    assert channel is not None
    drop(mobile)
    count, size = (257, 0) if how == "count" else (18, 60_000)
    for number in range(count):
        say(desktop, number, size)
    mobile, received = back(mobile, last_seq=0, epoch=channel.epoch)
    assert received[0]["recovered"] is False
    found = numbers(received)
    assert found == list(range(count - len(found), count))
    assert len(found) == 256 if how == "count" else 16 <= len(found) < 18


def test_the_own_messages_that_are_forgotten_are_not_missed() -> None:
    relay = Relay(**FAST)
    desktop, mobile = relay.pair()
    channel = mobile.connection.channel
    assert channel is not None
    say(desktop, 1)
    last = mobile.received()[-1]["seq"]
    for number in range(300):
        say(mobile, number)
    drop(mobile)
    mobile, received = back(mobile, last_seq=last, epoch=channel.epoch)
    assert (received[0]["recovered"], numbers(received)) == (True, [])


@pytest.mark.parametrize("last", [{"last_seq": 1, "epoch": "another"}, {"last_seq": 99}, {"last_seq": 1}])
def test_a_number_of_another_epoch_or_from_the_future_means_nothing(last: dict[str, Any]) -> None:
    desktop, mobile = Relay().pair()
    channel = mobile.connection.channel
    assert channel is not None
    say(desktop, 1)
    drop(mobile)
    say(desktop, 2)
    fields = last if "epoch" in last or last["last_seq"] == 1 else {**last, "epoch": channel.epoch}
    _, received = back(mobile, **fields)
    assert (received[0]["recovered"], numbers(received)) == (False, [2])


def test_what_is_sent_again_is_acknowledged_again_and_arrives_once() -> None:
    desktop, mobile = Relay().pair()
    first = desktop.ask({"type": "channel_message", "payload": {"n": 1}, "id": "a"})
    assert desktop.ask({"type": "channel_message", "payload": {"n": 1}, "id": "a", "again": True}) == first
    assert numbers(mobile.received()) == [1]


def test_a_message_that_was_lost_arrives_when_it_is_sent_again() -> None:
    desktop, mobile = Relay().pair()
    [ack] = desktop.ask({"type": "channel_message", "payload": {"n": 1}, "id": "a", "again": True})
    assert (ack["type"], ack["id"], ack["seq"]) == ("ack", "a", 1)
    assert numbers(mobile.received()) == [1]


def test_without_again_an_id_may_be_used_for_anything() -> None:
    desktop, mobile = Relay().pair()
    for number in (1, 2):
        desktop.send({"type": "channel_message", "payload": {"n": number}, "id": "a"})
    assert numbers(mobile.received()) == [1, 2]


def test_each_side_has_ids_of_its_own() -> None:
    desktop, mobile = Relay().pair()
    desktop.send({"type": "channel_message", "payload": {"n": 1}, "id": 7})
    mobile.send({"type": "channel_message", "payload": {"n": 2}, "id": 7, "again": True})
    assert numbers(desktop.received()) == [2]


def test_what_is_sent_again_on_a_new_connection_arrives_once() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    desktop.send(message(1))
    drop(desktop)
    desktop, _ = back(desktop)
    assert [answer["seq"] for answer in desktop.ask({**message(1), "again": True})] == [1]
    assert numbers(mobile.received()) == [1]


class Device:
    """A client that keeps `last_seq` and `epoch`, and what it must know of."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.last_seq = 0
        self.epoch = ""
        # What was said to it since it last was told that something is missing, and what of that it has heard.
        self.said: list[int] = []
        self.heard: list[int] = []
        self.missing = False

    @property
    def listens(self) -> bool:
        """Whether nothing is in the way of what is said to it."""
        client = self.client
        return client is not None and not (client.wire.stalled or client.connection.closing)

    @property
    def speaks(self) -> bool:
        return self.client is not None and not self.client.connection.closing

    def hear(self, count: int | None = None) -> None:
        """Read all that has come, or so many messages."""
        carried = self.client.wire.carried if self.client else deque[bytes]()
        while carried and count != 0:
            count = None if count is None else count - 1
            message = json.loads(carried.popleft())
            if message["type"] == "channel_joined":
                if not message["recovered"]:
                    self.missing, self.heard = True, []
                self.epoch, self.last_seq = message["epoch"], message["last_seq"]
            elif message["type"] == "channel_message":
                assert message["seq"] > self.last_seq, "twice, or out of order"
                self.last_seq = message["seq"]
                self.heard.append(message["payload"]["n"])

    def check(self) -> None:
        """It has heard all. Where something was missing it was told so, and got the rest without a hole."""
        if self.missing:
            assert self.heard == self.said[len(self.said) - len(self.heard) :]
            self.said, self.heard, self.missing = [], [], False
        assert self.heard == self.said


class Talk(RuleBasedStateMachine):
    """Two devices talk over connections that break, stall and are replaced, with a server that restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.devices = {"desktop": Device(), "mobile": Device()}
        self.pairing = uuid4()
        self.begin()

    def begin(self) -> None:
        self.relay = Relay(**FAST, history_count=3, in_flight=300, queue_pause=700, queue_size=2000)

    @rule(role=ROLES)
    def comes(self, role: str) -> None:
        """Also while an older connection still seems to be there; what was on its way there is lost."""
        device = self.devices[role]
        channel = self.relay.hub.open_channel(self.pairing, "pair-123456", self.relay.now)
        device.client = self.relay.client(role)
        device.client.join(channel, last_seq=device.last_seq, epoch=device.epoch)

    @rule(role=ROLES, size=st.sampled_from([0, 0, 0, 400]))
    def says(self, role: str, size: int) -> None:
        device = self.devices[role]
        if device.client is not None and device.speaks:
            self.number += 1
            self.devices[OTHER[role]].said.append(self.number)
            say(device.client, self.number, size)

    @rule(role=ROLES)
    def says_again(self, role: str) -> None:
        """It has not seen the ack: what is still kept goes no further."""
        device = self.devices[role]
        if (
            device.client is None
            or not device.speaks
            or (channel := device.client.connection.channel) is None
        ):
            return
        for number in range(1, self.number + 1):
            if channel.history.number_of(number, OTHER[role]) is not None:
                device.client.send({**message(number), "again": True})

    @rule(role=ROLES, read=st.integers(0, 3))
    def breaks(self, role: str, read: int) -> None:
        """The client has read so many of the messages on their way; the others are lost."""
        device = self.devices[role]
        if device.client is not None:
            device.hear(read)
            drop(device.client)
            device.client = None

    @rule(role=ROLES)
    def stops_reading(self, role: str) -> None:
        if client := self.devices[role].client:
            client.wire.stalled = True

    @rule(role=ROLES)
    def reads_again(self, role: str) -> None:
        if client := self.devices[role].client:
            client.wire.stalled = False
            client.wire.read()

    @precondition(lambda self: self.number > 3)
    @rule()
    def restarts(self) -> None:
        for device in self.devices.values():
            device.hear()
            device.client = None
        self.begin()

    @invariant()
    def nothing_is_missing_unless_it_was_told(self) -> None:
        for device in self.devices.values():
            if device.listens:
                device.hear()
                device.check()


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
