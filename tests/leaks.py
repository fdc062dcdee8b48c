"""Nothing secret may be printed, logged or audited: the run fails if it ever was.

`RUN` remembers the tokens, passwords, codes and keys that each test uses (tests/devices.py tells it) and
everything written meanwhile: what is logged when the level is DEBUG, before redaction, standard output and error, and
the audit log of every node that stops. After each test the one is searched for in the other. A worker of
pytest-xdist searches what its tests write, and hands what it has found to the process that reports.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from pythonjsonlogger.core import RESERVED_ATTRS

# A shorter word is no real token or password, and might stand somewhere by chance.
SHORTEST = 12
_TOKEN = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}[\w.-]*")
# Six digits that are a word of their own: no part of a longer number, a fraction, an id or a name.
_SIX_DIGITS = re.compile(r"(?:(?<![\w.+-])|(?<=\bpair-))[0-9]{6}(?![\w-]|\.[0-9])")
_FINDS = "secrets that were written"
_ROWS = "SELECT (to_jsonb(e) - 'xid')::text FROM audit_events e"
# The microseconds of a printed datetime are such a word, too.
_DATETIME = re.compile(r"datetime\.datetime\([^()]*")


@dataclass(frozen=True)
class Find:
    """A secret was written: what kind, and the line without it."""

    kind: str
    line: str


class Secrets:
    """The secrets in use."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._codes: set[str] = set()
        self._words: dict[str, str] = {}  # any other secret → its kind

    def add(self, kind: str, secret: str) -> None:
        """`kind`: token, code, or what else it is."""
        if kind == "code":
            self._codes.add(secret)
        elif _TOKEN.fullmatch(secret):
            self._tokens.add(secret)
        elif len(secret) >= SHORTEST:
            self._words[secret] = kind

    def sent(self, body: object) -> None:
        """Add what is secret in a request. A code in it may be a guess: the real ones come with answers."""
        self._note(body, "token", "password")

    def received(self, body: object) -> None:
        """Add what is secret in an answer."""
        self._note(body, "token", "code")

    def _note(self, body: object, *kinds: str) -> None:
        if isinstance(body, dict):
            for kind in kinds:
                if isinstance(body.get(kind), str):
                    self.add(kind, body[kind])

    def found_in(self, text: str) -> list[Find]:
        """Every place where one of them stands, whole or, of a token, in part."""
        found = [(place.span(), "token") for place in _TOKEN.finditer(text) if self._token(place[0])]
        found += [(place.span(), "code") for place in self._six_digits(text) if place[0] in self._codes]
        for word, kind in self._words.items():
            found += [(place.span(), kind) for place in re.finditer(re.escape(word), text)]
        return [Find(kind, _line(text, *span)) for span, kind in found]

    def _token(self, printed: str) -> bool:
        return any(token.startswith(printed) or token in printed for token in self._tokens)

    @staticmethod
    def _six_digits(text: str) -> list[re.Match[str]]:
        # Blanked rather than taken out, so that the places stay the same.
        return list(_SIX_DIGITS.finditer(_DATETIME.sub(lambda found: "_" * len(found[0]), text)))


def _line(text: str, start: int, end: int) -> str:
    before = text[max(text.rfind("\n", 0, start) + 1, start - 200) : start]
    return f"{before}•••{text[end : end + 100].partition(chr(10))[0]}"


class _Everything(logging.Handler):
    def __init__(self, written: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._written = written
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in RESERVED_ATTRS]
        self._written.append(" ".join([self.format(record), *fields]))


class Run:
    """A plugin of pytest: one test's secrets and output at a time, and what was found in the whole run."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self.written: list[str] = []
        self.finds: list[tuple[str, Find]] = []
        self._handler = _Everything(self.written)

    async def read_audit(self, url: str) -> None:
        """Take the audit log of that database for something written."""
        self.written.extend(await audit_rows(url))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        root = logging.getLogger()
        level = root.level
        self.secrets = Secrets()
        self.written.clear()
        root.addHandler(self._handler)
        root.setLevel(logging.DEBUG)
        try:
            return (yield)
        finally:
            root.removeHandler(self._handler)
            root.setLevel(level)
            found = self.secrets.found_in("\n".join(self.written))
            self.finds.extend((item.nodeid, find) for find in dict.fromkeys(found))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # That of the teardown holds what was captured before, too. Reports with a node come from workers.
        if report.when == "teardown" and not hasattr(report, "node"):
            self.written += [report.capstdout, report.capstderr]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist
            session.config.workeroutput[_FINDS] = [(test, find.kind, find.line) for test, find in self.finds]
        elif self.finds:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended. One that died has no output; pytest-xdist fails the run then."""
        found = getattr(node, "workeroutput", {}).get(_FINDS, [])
        self.finds.extend((test, Find(kind, line)) for test, kind, line in found)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.finds:
            terminalreporter.section("secrets were written", sep="=", red=True)
        for test, find in self.finds:
            terminalreporter.line(f"{test}: a {find.kind} in: {find.line}")


RUN = Run()


async def audit_rows(url: str) -> list[str]:
    """Every row of that database's audit log, as text; without its transaction, which may have the digits of a code."""
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(_ROWS)]
    finally:
        await connection.close()


def watch(config: pytest.Config) -> None:
    """Switch it on; to be called by pytest_configure."""
    # Everything is logged at DEBUG now: what pytest shows and caplog holds stays as it was.
    config.option.log_level = config.option.log_level or "WARNING"
    config.pluginmanager.register(RUN, "leaks")
