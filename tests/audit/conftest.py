"""The same nodes as in the tests of services."""

from tests.services.conftest import deps

__all__ = ["deps"]
