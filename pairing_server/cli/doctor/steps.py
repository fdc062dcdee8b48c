"""The steps of `doctor`: what two devices and an intruder do, and what the server must answer. They print nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from pairing_server.cli.doctor.client import TrialPairing, UnexpectedAnswer
from pairing_server.client import DeviceType, Message, ServerError
from pairing_server.services.membership import TRIAL

# People read "phone"; "mobile" is the word on the wire.
_NAMES: dict[DeviceType, str] = {"desktop": "desktop", "mobile": "phone"}
_OTHER: dict[DeviceType, DeviceType] = {"desktop": "mobile", "mobile": "desktop"}
_SOUND = "UGFpcmluZyBzZXJ2ZXIgZG9jdG9y"
_SETTINGS: dict[DeviceType, tuple[str, object]] = {"mobile": ("language", "nl"), "desktop": ("audioGain", 75)}

_FAULT = "This is a fault of the server. Please report it with what its log says."


@dataclass(frozen=True, slots=True)
class Step:
    """`title`: what is done. `expected`: what should come. `hint`: what to do if it does not."""

    title: str
    expected: str
    work: Callable[[TrialPairing], Awaitable[None]]
    hint: str = _FAULT


def steps_of(trial: TrialPairing) -> tuple[Step, ...]:
    """All steps, in their order."""
    registers = trial.throw_away and not trial.made
    return (*_HEALTH, *((_REGISTER,) if registers else ()), _login_step(trial), *_PAIRING)


def _same(what: str, came: object, expected: object) -> None:
    if came != expected:
        raise UnexpectedAnswer(f"{what} {expected!r}", f"{what} {came!r}")


async def _healthz(trial: TrialPairing) -> None:
    await trial.desktop.healthz()


async def _readyz(trial: TrialPairing) -> None:
    await trial.desktop.readyz()


async def _register(trial: TrialPairing) -> None:
    await trial.desktop.register(trial.username, trial.password)
    trial.made = True


async def _login(trial: TrialPairing) -> None:
    await trial.desktop.login(trial.username, trial.password)
    for device in (trial.devices["mobile"], trial.intruder):
        device.access_token = trial.desktop.access_token


async def _ws_token(device: DeviceType, trial: TrialPairing) -> None:
    trial.ws_tokens[device] = await trial.devices[device].ws_token()


async def _generate(trial: TrialPairing) -> None:
    trial.code = await trial.desktop.generate_code()
    if not (len(trial.code.code) == 6 and trial.code.code.isascii() and trial.code.code.isdecimal()):
        raise UnexpectedAnswer("a code of six digits", f"one of {len(trial.code.code)} signs")


async def _connect(device: DeviceType, trial: TrialPairing) -> None:
    client = trial.devices[device]
    connection = await client.connect(trial.ws_tokens[device])
    trial.connections[device] = connection
    identified = await connection.identify(TRIAL)
    _same("session_id", identified.get("session_id"), client.session_id)


async def _desktop_joins(trial: TrialPairing) -> None:
    joined = await trial.connections["desktop"].join(trial.code.channel)
    _same("devices", joined.get("devices"), ["desktop"])


async def _redeem(trial: TrialPairing) -> None:
    channel = await trial.devices["mobile"].redeem(trial.code.code)
    if channel != trial.code.channel:
        raise UnexpectedAnswer("the channel of the code", "another one")


async def _claimed(trial: TrialPairing) -> None:
    await trial.connections["desktop"].expect("pairing_claimed")


async def _phone_joins(trial: TrialPairing) -> None:
    joined = await trial.connections["mobile"].join(trial.code.channel)
    _same("devices", joined.get("devices"), ["desktop", "mobile"])
    trial.epoch, trial.last_seq = str(joined.get("epoch")), int(joined.get("seq", 0))


async def _paired(trial: TrialPairing) -> None:
    joined = await trial.connections["desktop"].expect("client_joined")
    _same("client_id", joined.get("client_id"), trial.devices["mobile"].session_id)
    for connection in trial.connections.values():
        await connection.expect("pairing_success")


async def _message(sender: DeviceType, trial: TrialPairing) -> None:
    source, target = trial.connections[sender], trial.connections[_OTHER[sender]]
    payload = {"action": "DOCTOR", "from": sender}
    await source.send(payload, id=f"doctor-{sender}")
    received, ack = await target.expect("channel_message"), await source.expect("ack")
    _same("payload", received.get("payload"), payload)
    _same("ack of", ack.get("id"), f"doctor-{sender}")
    _same("seq of the ack", ack.get("seq"), received.get("seq"))


async def _settings(sender: DeviceType, trial: TrialPairing) -> None:
    key, value = _SETTINGS[sender]
    await trial.connections[sender].sync_settings({key: value})
    received = await trial.connections[_OTHER[sender]].expect("settings_sync")
    _same("changed", received.get("changed"), [key])
    _same(key, _of(received, "settings").get(key), value)
    trial.last_seq = int(received.get("seq", 0))


async def _audio(sender: DeviceType, trial: TrialPairing) -> None:
    await trial.connections[sender].send_audio("doctor-1", _SOUND, "webm", 16000)
    received = await trial.connections[_OTHER[sender]].expect("audio_chunk")
    _same("data", received.get("data"), _SOUND)
    _same("audio_seq", received.get("audio_seq"), 1)


async def _ping(trial: TrialPairing) -> None:
    for connection in trial.connections.values():
        _same("sequence", (await connection.ping()).get("sequence"), 1)


async def _intrude(trial: TrialPairing) -> None:
    async with await trial.intruder.connect() as connection:
        await connection.identify()
        try:
            await connection.join(trial.code.channel)
        except ServerError as refusal:
            _same("error", refusal.code, "CHANNEL_FULL")
        else:
            raise UnexpectedAnswer("error CHANNEL_FULL", "channel_joined")
    for connection in trial.connections.values():
        await connection.expect("intruder_refused")


async def _phone_goes(trial: TrialPairing) -> None:
    await trial.connections["mobile"].close()
    gone = await trial.connections["desktop"].expect("mobile_disconnected")
    _same("force_disconnect", gone.get("force_disconnect"), False)


async def _phone_returns(trial: TrialPairing) -> None:
    await _connect("mobile", trial)
    joined = await trial.connections["mobile"].join(trial.code.channel, trial.last_seq, trial.epoch)
    _same("recovered", joined.get("recovered"), True)
    _same("settings", _of(joined, "settings"), dict(_SETTINGS.values()))
    await _paired(trial)


async def _listed(trial: TrialPairing) -> None:
    ids = [
        pairing.id
        for pairing in await trial.desktop.pairings()
        if pairing.desktop_session_id == trial.desktop.session_id
        and pairing.mobile_session_id == trial.devices["mobile"].session_id
    ]
    if len(ids) != 1:
        raise UnexpectedAnswer("one pairing of the two devices", f"{len(ids)}")
    trial.pairing_id = ids[0]


async def _unpair(trial: TrialPairing) -> None:
    await trial.connections["desktop"].unpair()
    gone = await trial.connections["mobile"].expect("desktop_disconnected")
    _same("force_disconnect", gone.get("force_disconnect"), True)
    for connection in trial.connections.values():
        await connection.expect("channel_closed")
        _same("close code", await connection.expect_close(), 4410)


async def _gone(trial: TrialPairing) -> None:
    if trial.pairing_id in [pairing.id for pairing in await trial.desktop.pairings()]:
        raise UnexpectedAnswer("a list without the pairing", "the pairing is still in it")


def _of(message: Message, name: str) -> Message:
    value = message.get(name)
    return value if isinstance(value, dict) else {}


def _login_step(trial: TrialPairing) -> Step:
    return Step(
        f"log in as {trial.username}",
        "an access token",
        _login,
        "Check --username and --password. An operator can do: pairing-server user set-password NAME",
    )


def _both_ways(
    title: str, expected: str, work: Callable[[DeviceType, TrialPairing], Awaitable[None]]
) -> tuple[Step, Step]:
    """The phone sends first, so that the last message to it carries the channel's newest number."""
    phone, desktop = (
        Step(
            f"{title}, {_NAMES[sender]} to {_NAMES[_OTHER[sender]]}",
            f"{expected} at the {_NAMES[_OTHER[sender]]}",
            partial(work, sender),
        )
        for sender in _SETTINGS
    )
    return phone, desktop


_WS = "Does a proxy before the server pass the WebSocket upgrade and the Authorization header on to /ws?"
_HEALTH = (
    Step("the server is there", "GET /healthz says ok", _healthz, "Is --url the pairing server's?"),
    Step("it can pair", "GET /readyz says ready", _readyz, "Its log says what it is waiting for."),
)
_REGISTER = Step(
    "register a throw-away account",
    "an account, since neither --username nor --password is given",
    _register,
    "If registration is closed give --username and --password of an account; an operator makes one with:"
    " pairing-server user add NAME. On the server's machine doctor makes one by itself, without --url.",
)
_PAIRING = (
    Step("a ws token for the desktop", "a ws token", partial(_ws_token, "desktop")),
    Step("a ws token for the phone", "a ws token", partial(_ws_token, "mobile")),
    Step("the desktop asks for a code", "a code of six digits", _generate),
    Step("the desktop connects and identifies", "connected, identified", partial(_connect, "desktop"), _WS),
    Step("the desktop joins the channel", "channel_joined", _desktop_joins),
    Step("the phone redeems the code", "the name of the channel", _redeem),
    Step("the desktop hears of it", "pairing_claimed", _claimed),
    Step("the phone connects and identifies", "connected, identified", partial(_connect, "mobile"), _WS),
    Step("the phone joins the channel", "channel_joined", _phone_joins),
    Step("both are told that they are paired", "client_joined, pairing_success", _paired),
    *_both_ways("a message and its ack", "channel_message", _message),
    *_both_ways("settings", "settings_sync", _settings),
    *_both_ways("a piece of sound", "audio_chunk", _audio),
    Step("ping from both", "pong", _ping),
    Step("an intruder is refused, both hear of it", "CHANNEL_FULL, intruder_refused", _intrude),
    Step("the phone disconnects, the desktop sees it", "mobile_disconnected", _phone_goes),
    Step("the phone comes back, nothing is lost", "channel_joined, pairing_success", _phone_returns),
    Step("the pairing is in the account's list", "one pairing of the two devices", _listed),
    Step("the desktop unpairs, both see the end", "channel_closed, close code 4410", _unpair),
    Step("the pairing is in the list no more", "a list without it", _gone),
)
