"""Runs that take too long for a test: see scripts/endure. What is fast enough for every commit is in tests/."""
