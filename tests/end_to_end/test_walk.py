"""The whole path once: socket to database to peer."""

from tests.devices import Site


async def test_two_devices_pair_and_talk(site: Site) -> None:
    desktop, mobile = await site.pair()
    mobile.socket.send(
        {"type": "channel_message", "channelId": mobile.channel, "payload": {"a": 1}, "id": "m1"}
    )
    received = await desktop.socket.expect("channel_message")
    assert received["payload"] == {"a": 1}
    assert (await mobile.socket.expect("ack"))["seq"] == received["seq"] == 1
    desktop.socket.send({"type": "settings_sync", "channelId": desktop.channel, "settings": {"gain": 75}})
    assert (await mobile.socket.expect("settings_sync"))["settings"] == {"gain": 75}
    mobile.socket.send(
        {"type": "audio_chunk", "chunk_id": "c1", "data": "AAAA", "format": "webm", "sample_rate": 16000}
    )
    assert (await desktop.socket.expect("audio_chunk"))["data"] == "AAAA"
    mobile.socket.close()
    gone = await desktop.socket.expect("mobile_disconnected")
    assert gone["reason"] == "Connection closed"
    assert gone["force_disconnect"] is False


async def test_a_node_starts_and_is_ready(site: Site) -> None:
    assert (await site.get("/readyz")).status == 200
    assert (await site.get("/healthz")).status == 200
