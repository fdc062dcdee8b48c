"""The registry of client messages is whole."""

from __future__ import annotations

from pairing_server.relay.requests import ChannelRequest, ClientMessage
from pairing_server.websocket.commands import COMMANDS


def test_each_struct_of_a_client_message_is_one_row_of_the_registry() -> None:
    structs = {struct for base in (ClientMessage, ChannelRequest) for struct in base.__subclasses__()}
    assert COMMANDS.by_struct.keys() == structs - {ChannelRequest}


def test_a_command_has_one_handler_at_most_and_one_for_a_channel_may_name_it() -> None:
    for struct, command in COMMANDS.by_struct.items():
        handlers = [command.on_channel, command.reply, command.serve]
        assert sum(handler is not None for handler in handlers) <= 1, struct
        assert command.on_channel is None or issubclass(struct, ChannelRequest), struct
