"""Which key signs while keys are rotated, and the file that they are kept in."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from pathlib import Path

import pytest

from pairing_server.errors import InvalidToken
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import OVERLAP, Keyring, SigningKey, generate_key
from pairing_server.security.tokens import Tokens
from tests.security.provider import NOW

OLD, NEW, NEWEST = (SigningKey(kid, kid.encode() * 16) for kid in ("old", "new", "newest"))


def test_a_new_key_verifies_at_once_and_signs_once_every_server_has_it() -> None:
    ring = Keyring([OLD])
    assert ring.replace([NEW, OLD], NOW)
    assert ring.secret("new") == NEW.secret
    assert ring.signing(NOW + OVERLAP - timedelta(seconds=1)) == OLD
    assert ring.in_order(NOW) == [OLD, NEW]
    assert ring.signing(NOW + OVERLAP) == NEW
    assert ring.in_order(NOW + OVERLAP) == [NEW, OLD]


def test_a_key_that_is_taken_away_neither_signs_nor_verifies_any_more() -> None:
    ring = Keyring([OLD])
    assert ring.replace([NEW], NOW)
    assert (ring.signing(NOW), ring.secret("old")) == (NEW, None)


def test_after_two_rotations_in_a_row_the_key_that_every_server_has_signs() -> None:
    ring = Keyring([OLD])
    ring.replace([NEW, OLD], NOW)
    later = NOW + OVERLAP / 2
    ring.replace([NEWEST, NEW, OLD], later)
    assert ring.signing(NOW + OVERLAP) == OLD
    assert ring.signing(later + OVERLAP) == NEWEST


def test_the_same_keys_again_change_nothing() -> None:
    ring = Keyring([NEW, OLD])
    assert not ring.replace((NEW, OLD), NOW)
    assert ring.signing(NOW) == NEW


async def test_tokens_are_signed_by_the_key_of_the_time_and_taken_by_either(io_loop: object) -> None:
    ring = Keyring([OLD])
    tokens, other_server = Tokens(ring), Tokens([NEW, OLD])
    ring.replace([NEW, OLD], NOW)
    for now, kid in ((NOW, "old"), (NOW + OVERLAP, "new")):
        issued = tokens.issue_access("u1", now)
        assert issued.kid == kid
        for server in (tokens, other_server):
            assert (await server.verify_access(issued.token, now)).subject == "u1"
    ring.replace([NEW], NOW + OVERLAP)
    with pytest.raises(InvalidToken):
        await tokens.verify_access(Tokens([OLD]).issue_access("u1", NOW).token, NOW)


def test_the_kid_of_a_rotated_key_begins_with_the_time_it_was_made() -> None:
    assert generate_key(NOW).kid.startswith(f"{NOW:%Y%m%dT%H%M}Z-")
    assert len({generate_key(NOW).kid for _ in range(10)}) == 10


# The file


def test_a_rewritten_file_is_noticed_and_keeps_its_owner(tmp_path: Path) -> None:
    file, other = KeyFile(tmp_path / "jwt-keys"), KeyFile(tmp_path / "jwt-keys")
    before = file.read()
    assert not file.changed()
    other.rewrite(lambda keys: [NEW, *keys])
    assert file.changed()
    assert file.read() == (NEW, *before)
    assert not file.changed()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["jwt-keys"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_that_root_rewrites_still_belongs_to_the_servers_user(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "jwt-keys")
    file.read()
    os.chown(file.path, 65534, 65534)
    file.rewrite(lambda keys: [NEW, *keys])
    assert (file.path.stat().st_uid, file.path.stat().st_gid) == (65534, 65534)


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "jwt-keys")
    before = file.read()
    with pytest.raises(ValueError, match="comma"):
        file.rewrite(lambda keys: [SigningKey("k", b"x" * 32 + b",b:" + b"y" * 32), *keys])
    assert file.read() == before


def _add(path: Path, number: int) -> None:
    KeyFile(path).rewrite(lambda keys: [SigningKey(f"k{number}", b"s" * 32), *keys])


def test_of_many_that_rotate_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "jwt-keys"
    [first] = KeyFile(path).read()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_add, [(path, number) for number in range(12)], chunksize=1)
    kids = {key.kid for key in KeyFile(path).read()}
    assert kids == {first.kid, *(f"k{number}" for number in range(12))}
