"""PAIRING_GUEST_PAIRING: pairing without an access token, until the first join claims the seat."""

from __future__ import annotations

import pytest

from pairing_server.clock import utcnow
from pairing_server.security.limits import Rate
from tests.conftest import StartNode
from tests.devices import Account, Answer, Site, Socket
from tests.web.clock import waits_for

pytestmark = pytest.mark.one_node

DESKTOP, MOBILE = "desktop-session", "mobile-session"


@pytest.fixture
def guests(start_node: StartNode) -> Site:
    return start_node(guest_pairing=True)


@pytest.fixture
def guests_of_any_user(start_node: StartNode) -> Site:
    return start_node(guest_pairing=True, redeem_policy="any_user")


@pytest.fixture
def few_codes(start_node: StartNode) -> Site:
    return start_node(guest_pairing=True, code_rate_address=Rate(3, 300))


async def generate(site: Site, session_id: str = DESKTOP, token: str | None = None) -> Answer:
    return await site.post("/api/generate-pair-code", {"desktop_session_id": session_id}, token)


async def redeem(site: Site, code: str, session_id: str = MOBILE, token: str | None = None) -> Answer:
    return await site.post("/api/pair-device", {"code": code, "mobile_session_id": session_id}, token)


async def guest_code(site: Site) -> str:
    answer = await generate(site)
    assert answer.status == 200
    return str(answer.body["code"])


async def ask_to_join(site: Site, account: Account, device_type: str, code: str, session_id: str) -> Socket:
    socket = await site.connect(account, device_type)
    socket.send(
        {
            "type": "join_channel",
            "channel": f"pair-{code}",
            "device_type": device_type,
            "session_id": session_id,
        }
    )
    return socket


async def test_without_the_setting_a_guest_is_asked_for_a_token(site: Site) -> None:
    for answer in (await generate(site), await redeem(site, "123456")):
        assert (answer.status, answer.error) == (401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_guests_pair_and_meet_in_the_channel(guests: Site) -> None:
    code = await guest_code(guests)
    answer = await redeem(guests, code)
    assert (answer.status, answer.body["channel_id"]) == (200, f"pair-{code}")
    account = await guests.account()
    desktop = await ask_to_join(guests, account, "desktop", code, DESKTOP)
    await desktop.expect("channel_joined")
    mobile = await ask_to_join(guests, account, "mobile", code, MOBILE)
    await mobile.expect("channel_joined")
    await desktop.expect("client_joined")
    assert (await desktop.expect("pairing_success"))["code"] == code


async def test_the_first_join_with_its_session_id_claims_a_guests_seat(guests_of_any_user: Site) -> None:
    site = guests_of_any_user
    code = await guest_code(site)
    await redeem(site, code)
    first, second = await site.account(), await site.account()
    assert (await site.get("/api/pairings", first.token)).body["pairings"] == []
    claimed = await ask_to_join(site, first, "desktop", code, DESKTOP)
    await claimed.expect("channel_joined")
    [pairing] = (await site.get("/api/pairings", first.token)).body["pairings"]
    assert pairing["desktop_session_id"] == DESKTOP
    late = await ask_to_join(site, second, "desktop", code, DESKTOP)
    assert (await late.error())["code"] == "FORBIDDEN"  # the session id is the first one's by now
    assert (await site.get("/api/pairings", second.token)).body["pairings"] == []


async def test_a_seat_is_claimed_by_its_own_session_id_only(guests: Site) -> None:
    code = await guest_code(guests)
    await redeem(guests, code)
    account = await guests.account()
    for device_type, session_id in (("desktop", "another-session"), ("mobile", DESKTOP)):
        socket = await ask_to_join(guests, account, device_type, code, session_id)
        assert (await socket.error())["code"] in ("INVALID_CHANNEL", "CHANNEL_FULL"), session_id
    rightful = await ask_to_join(guests, account, "desktop", code, DESKTOP)
    assert (await rightful.receive())["type"] == "channel_joined"


async def test_with_same_user_the_second_seat_is_for_whoever_claimed_the_first(guests: Site) -> None:
    code = await guest_code(guests)
    await redeem(guests, code)
    owner, stranger = await guests.account(), await guests.account()
    await (await ask_to_join(guests, owner, "desktop", code, DESKTOP)).expect("channel_joined")
    refused = await ask_to_join(guests, stranger, "mobile", code, MOBILE)
    assert (await refused.receive())["type"] == "error"


async def test_a_guests_code_may_be_redeemed_by_a_user(guests: Site) -> None:
    account = await guests.account()
    assert (await redeem(guests, await guest_code(guests), token=account.token)).status == 200
    [pairing] = (await guests.get("/api/pairings", account.token)).body["pairings"]
    assert pairing["mobile_session_id"] == MOBILE


async def test_a_guests_retry_gets_the_same_answer(guests: Site) -> None:
    code = await guest_code(guests)
    first = await redeem(guests, code)
    assert (await redeem(guests, code)).body == first.body
    assert (await redeem(guests, code, "another-mobile")).status == 404


async def test_a_guest_never_takes_the_seat_of_a_user_in_the_channel(guests: Site) -> None:
    owner, stranger = await guests.account(), await guests.account()
    code = await guests.code(owner, DESKTOP)
    await redeem(guests, code)
    refused = await ask_to_join(guests, stranger, "mobile", code, MOBILE)
    assert (await refused.receive())["type"] == "error"
    admitted = await ask_to_join(guests, owner, "desktop", code, DESKTOP)
    assert (await admitted.receive())["type"] == "channel_joined"


async def test_a_header_that_is_there_must_be_valid(guests: Site) -> None:
    for token in ("nonsense", await guests.ws_token(await guests.account(), "desktop")):
        for answer in (await generate(guests, token=token), await redeem(guests, "123456", token=token)):
            assert (answer.status, answer.error) == (401, "INVALID_TOKEN")


async def test_everything_else_still_needs_a_token(guests: Site) -> None:
    for method, path in (
        ("POST", "/api/auth/ws-token"),
        ("POST", "/api/auth/ws-token-mobile"),
        ("GET", "/api/pairings"),
        ("GET", "/api/audit"),
    ):
        answer = await guests.call(method, path)
        assert (answer.status, answer.error) == (401, "UNAUTHORIZED"), path


async def test_a_guest_supersedes_no_users_code(guests: Site) -> None:
    account = await guests.account()
    code = await guests.code(account, DESKTOP)
    assert (await generate(guests)).status == 200
    assert (await guests.redeem(account, code, MOBILE)).status == 200


async def test_five_wrong_codes_lock_a_guests_address(guests: Site) -> None:
    made = await guest_code(guests)
    wrong = f"{(int(made) + 1) % 10**6:06d}"
    began = utcnow()
    assert [(await redeem(guests, wrong)).status for _ in range(6)] == [404] * 5 + [429]
    locked = await redeem(guests, made)
    assert (locked.status, locked.error) == (429, "RATE_LIMITED")
    assert waits_for(locked, 300, began)


async def test_guests_codes_count_against_their_address(few_codes: Site) -> None:
    assert [(await generate(few_codes, f"desktop-{n}")).status for n in range(4)] == [200] * 3 + [429]


async def test_a_guest_cannot_redeem_the_code_of_an_account(guests: Site) -> None:
    account = await guests.account()
    code = await guests.code(account, "desktop-of-account")
    body = {"code": code, "mobile_session_id": "mobile-of-guest"}
    answer = await guests.post("/api/pair-device", body)
    assert (answer.status, answer.error) == (404, "INVALID_CODE")
    # And the code is still there for its account.
    assert (await guests.redeem(account, code, "mobile-of-account")).status == 200
