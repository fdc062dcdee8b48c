"""The same ways to a database as in the tests of store."""

from tests.store.conftest import conn, database, shared_database_url

__all__ = ["conn", "database", "shared_database_url"]
