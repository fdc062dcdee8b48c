"""How often somebody may fail, and how long he then waits: the rules, without a database or a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pairing_server.config import Configuration
from pairing_server.security.limits import Count, Policy, Rate, SlidingWindow, charge, wait

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICIES = Configuration().attempt_policies
REDEEM_USER, REDEEM_ADDRESS = POLICIES.redeem_user, POLICIES.redeem_address
MINUTE, HOUR, DAY = 60, 3600, 86_400


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def charged(policy: Policy, *at: float, count: Count | None = None) -> Count:
    """What stands after one failure at each of these seconds."""
    count = count or Count()
    for seconds in at:
        assert wait(count, policy, after(seconds)) == 0, f"refused at {seconds} s"
        count = charge(count, policy, after(seconds))
    return count


def test_without_locks_the_next_attempt_waits_until_the_oldest_has_left_its_window() -> None:
    policy = Policy((Rate(3, 60),))
    count = charged(policy, 0, 10, 20)
    assert wait(count, policy, after(20)) == 40
    assert wait(count, policy, after(59)) == 1
    assert wait(count, policy, after(60)) == 0
    count = charged(policy, 60, count=count)
    assert wait(count, policy, after(60)) == 10


def test_of_two_rates_the_one_that_takes_longer_decides() -> None:
    policy = Policy((Rate(2, 10), Rate(3, 100)))
    count = charged(policy, 0, 1)
    assert wait(count, policy, after(1)) == 9
    count = charged(policy, 10, count=count)
    assert wait(count, policy, after(10)) == 90


def test_without_locks_no_more_times_are_kept_than_the_largest_rate_allows() -> None:
    policy = Policy((Rate(3, 60),))
    count = Count()
    for second in range(1000):
        count = charge(count, policy, after(second / 1000))
    assert len(count.times) == 3


def test_a_rate_that_is_reached_locks() -> None:
    policy = Policy((Rate(3, 60),), lock_seconds=(300,))
    count = charged(policy, 0, 1, 2)
    assert (count.level, count.locked_until) == (1, after(302))
    assert wait(count, policy, after(2)) == 300
    assert wait(count, policy, after(301)) == 1
    assert wait(count, policy, after(302)) == 0


def test_attempts_outside_the_window_do_not_lock() -> None:
    policy = Policy((Rate(3, 60),), lock_seconds=(300,))
    assert charged(policy, 0, 1, 61, 62, 123).locked_until is None
    assert charged(policy, 0, 1, 59.9).locked_until == after(359.9)


def test_locks_grow_and_the_last_one_repeats() -> None:
    count, now = Count(), 0.0
    lasted = []
    for _ in range(6):
        count = charged(REDEEM_ADDRESS, *(now + n for n in range(5)), count=count)
        assert count.locked_until is not None
        lasted.append(wait(count, REDEEM_ADDRESS, after(now + 4)))
        now += 4 + lasted[-1]
    assert lasted == [5 * MINUTE, 15 * MINUTE, HOUR, DAY, DAY, DAY]


def test_the_next_lock_needs_new_failures() -> None:
    count = charged(REDEEM_ADDRESS, 0, 1, 2, 3, 4)
    count = charged(REDEEM_ADDRESS, 304, 305, 306, 307, count=count)
    assert wait(count, REDEEM_ADDRESS, after(307)) == 0
    assert wait(charge(count, REDEEM_ADDRESS, after(308)), REDEEM_ADDRESS, after(308)) == 15 * MINUTE


def test_a_quiet_day_after_a_lock_begins_anew() -> None:
    locked = charged(REDEEM_ADDRESS, 0, 1, 2, 3, 4)
    end = 4 + 5 * MINUTE
    still = charged(REDEEM_ADDRESS, *(end + DAY - 4 + n for n in range(5)), count=locked)
    assert wait(still, REDEEM_ADDRESS, after(end + DAY)) == 15 * MINUTE
    anew = charged(REDEEM_ADDRESS, *(end + DAY + 1 + n for n in range(5)), count=locked)
    assert wait(anew, REDEEM_ADDRESS, after(end + DAY + 5)) == 5 * MINUTE


def test_a_user_has_ten_wrong_codes_in_a_quarter_and_thirty_a_day() -> None:
    count = charged(REDEEM_USER, *range(9))
    assert count.locked_until is None
    count = charged(REDEEM_USER, 9, count=count)
    assert wait(count, REDEEM_USER, after(9)) == HOUR
    # Slowly enough for the quarter of an hour, they add up over the day.
    slow = charged(REDEEM_USER, *(n * 10 * MINUTE for n in range(29)))
    assert slow.locked_until is None
    last = 29 * 10 * MINUTE
    slow = charged(REDEEM_USER, last, count=slow)
    assert wait(slow, REDEEM_USER, after(last)) == HOUR
    # After the lock the day is not over: one more locks again.
    again = charged(REDEEM_USER, last + HOUR, count=slow)
    assert wait(again, REDEEM_USER, after(last + HOUR)) == HOUR


@pytest.mark.parametrize(("policy", "allowed"), [(POLICIES.login_user, 10), (POLICIES.login_address, 30)])
def test_logins_that_fail_are_limited_in_a_quarter_of_an_hour(policy: Policy, allowed: int) -> None:
    count = charged(policy, *range(allowed))
    assert wait(count, policy, after(allowed)) == 15 * MINUTE - allowed
    assert wait(count, policy, after(15 * MINUTE)) == 0


def test_a_rate_is_written_as_a_number_in_seconds() -> None:
    assert Rate.parse(" 5/300 ") == Rate(5, 300)
    assert str(Rate.parse("100/60")) == "100/60"


@pytest.mark.parametrize(
    "text", ["", "5", "5/", "/300", "0/300", "5/0", "5/86401", "1000001/1", "-5/3", "5/3/1", "5.5/3", "٥/3"]
)
def test_a_text_that_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected N/seconds"):
        Rate.parse(text)


# In memory


def test_a_window_slides() -> None:
    window = SlidingWindow(Rate(2, 10))
    assert window.wait("a", 100) == 0
    window.charge("a", 100)
    window.charge("a", 104)
    assert window.wait("a", 104) == 6
    assert window.wait("a", 109.5) == 0.5
    assert window.wait("a", 110) == 0
    window.charge("a", 110)
    assert window.wait("a", 110) == 4


def test_keys_do_not_count_for_each_other() -> None:
    window = SlidingWindow(Rate(1, 10))
    window.charge("a", 0)
    assert window.wait("a", 1) > 0
    assert window.wait("b", 1) == 0


def test_of_too_many_keys_the_longest_idle_is_forgotten() -> None:
    window = SlidingWindow(Rate(2, 1000), max_keys=3)
    for now, key in enumerate(("a", "a", "b", "b", "c", "c", "a", "d")):
        window.charge(key, now)
    assert [bool(window.wait(key, 8)) for key in ("a", "b", "c")] == [True, False, True]


def test_the_memory_of_a_window_is_bounded_in_keys_and_in_times() -> None:
    window = SlidingWindow(Rate(5, 1000), max_keys=100)
    for now in range(10_000):
        window.charge(f"192.0.2.{now % 1000}", now)
        window.wait(f"10.0.0.{now}", now)  # asking alone remembers nothing
        window.charge("the same", now)
    held = window._times
    assert len(held) == 100
    assert max(len(times) for times in held.values()) == 5
