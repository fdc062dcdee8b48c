"""Keys that are not set are made once and kept in the data directory."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from pairing_server.config import ConfigurationError, with_keys
from pairing_server.security.keys import SigningKey
from tests.config.given import SECRET, configuration


def kept(data_dir: Path, **settings: str) -> tuple[SigningKey, ...]:
    return with_keys(configuration({"PAIRING_DATA_DIR": str(data_dir), **settings})).jwt_keys


def test_keys_are_made_once_and_only_for_the_owner(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    before = os.umask(0)
    try:
        [key] = kept(data_dir)
    finally:
        os.umask(before)
    assert len(key.secret) >= 32
    assert (data_dir / "jwt-keys").stat().st_mode & 0o777 == 0o600
    assert data_dir.stat().st_mode & 0o077 == 0
    assert kept(data_dir) == (key,)
    assert kept(tmp_path / "other") != (key,)


def test_keys_that_are_set_make_no_file(tmp_path: Path) -> None:
    given = configuration({"PAIRING_JWT_KEYS": f"k1:{SECRET}", "PAIRING_DATA_DIR": str(tmp_path / "data")})
    assert with_keys(given) == given
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_keys_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    kept(tmp_path)
    (tmp_path / "jwt-keys").chmod(mode)
    with pytest.raises(ConfigurationError, match="can be read by others; run: chmod 600"):
        kept(tmp_path)


def test_a_group_may_read_the_keys_where_the_configuration_says_so(tmp_path: Path) -> None:
    """As Kubernetes' fsGroup lets it, each time that it mounts the volume."""
    keys = kept(tmp_path)
    (tmp_path / "jwt-keys").chmod(0o660)
    with pytest.raises(ConfigurationError, match="set PAIRING_DATA_DIR_GROUP=true for a volume with"):
        kept(tmp_path)
    assert kept(tmp_path, PAIRING_DATA_DIR_GROUP="true") == keys
    (tmp_path / "jwt-keys").chmod(0o664)
    with pytest.raises(ConfigurationError, match=r"run: chmod 600 [^,]*$"):
        kept(tmp_path, PAIRING_DATA_DIR_GROUP="true")


def test_a_damaged_keys_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    kept(tmp_path)
    (tmp_path / "jwt-keys").write_text("damaged-secret")
    with pytest.raises(
        ConfigurationError, match=r"PAIRING_JWT_KEYS is not set and .* is not usable"
    ) as raised:
        kept(tmp_path)
    assert "damaged-secret" not in str(raised.value)


def test_keys_are_made_after_all_if_the_file_was_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "jwt-keys"
    path.touch(0o644)
    [key] = kept(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept(tmp_path) == (key,)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"PAIRING_DATA_DIR: .* cannot be made"):
        kept(tmp_path / "file" / "data")


def test_of_many_that_start_at_once_all_get_the_same_keys(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        made = pool.map(kept, [tmp_path / f"data-{n // 4}" for n in range(40)], chunksize=1)
    assert all(len({keys[0].secret for keys in made[n : n + 4]}) == 1 for n in range(0, 40, 4))
