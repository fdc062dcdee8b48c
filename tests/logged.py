"""What was logged, as events with fields."""

from __future__ import annotations

from typing import Any

import pytest


def logged(caplog: pytest.LogCaptureFixture, event: str, *names: str) -> list[tuple[Any, ...]]:
    """Those fields of each such event, in order."""
    found = [vars(record) for record in caplog.records if record.getMessage() == event]
    return [tuple(fields.get(name) for name in names) for fields in found]
