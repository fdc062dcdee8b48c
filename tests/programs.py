"""Programs of other projects that some tests need. Without one they are skipped, but fail in CI."""

from __future__ import annotations

import os
import shutil

import pytest

# Debian's package for each, as .ci/run installs them.
PACKAGES = {
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
    "nginx": "nginx",
    "caddy": "caddy",
    "promtool": "prometheus",
    "pgbouncer": "pgbouncer",
    "/usr/lib/postgresql/15/bin/postgres": "postgresql-15",
}


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test where the program is missing, and says what to install; where all must run it fails."""
    missing = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
    return pytest.mark.skipif(
        missing and not os.environ.get("CI"),
        reason=f"{program} is not installed; on Debian: apt install {PACKAGES[program]}",
    )
