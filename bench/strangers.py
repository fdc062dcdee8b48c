"""Tokens of a foreign issuer with keys that nobody knows, a thousand a second, while the issuer's key set is away: who has
a known key goes on, the key set is not asked for again and again, and the event loop keeps its time."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.connections import Http, close_all, take_all
from bench.ours import Site
from bench.outages import Talk
from bench.patient import Watched
from bench.traffic import percentile
from tests.security.provider import AUDIENCE, ISSUER, Provider, elliptic_key

AT_ONCE = 20
PAIRS = 20
# What is wanted: seconds that the event loop is late at most, and between two fetches of the key set.
LATE = 0.05
FETCH_GAP = 30.0
WELL_KNOWN = "known"


class _Keys:
    """Serves the key set until it is `away`."""

    def __init__(self, provider: Provider) -> None:
        self.away = False
        self.asked = 0
        self._body = provider.jwks()

    async def start(self) -> str:
        """Its URL."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        status, body = ("503 Away", b"") if self.away else ("200 OK", self._body)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()


async def run(
    site: Site, folder: Path, core: int, seconds: float, rate: float, say: Callable[[str], None]
) -> bool:
    """Whether all strangers were refused, all others served, and the loop was in time."""
    provider = Provider(**{WELL_KNOWN: elliptic_key()})
    keys = _Keys(provider)
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": await keys.start()}
    server = await asyncio.to_thread(Watched, site, folder, core, ISSUERS=json.dumps([issuer]))
    pairs = await asyncio.to_thread(site.pairs_at, server.port, PAIRS, 220)
    talk = Talk(await take_all([seat for pair in pairs for seat in pair]))
    talking = asyncio.ensure_future(talk.go_on())
    answers: Counter[tuple[str, int]] = Counter()
    # The set is there for the first.
    await _ask(server.port, provider, itertools.repeat(WELL_KNOWN, 1), 1.0, answers, [])
    keys.away, keys.asked = True, 0
    await asyncio.sleep(1)
    talk.latest_ms = 0.0
    times: list[float] = []
    before, began = await _late(server.port), time.monotonic()
    numbers = itertools.takewhile(lambda _: time.monotonic() - began < seconds, itertools.count())
    kids = (WELL_KNOWN if number % 100 == 0 else f"stranger-{number}" for number in numbers)
    await asyncio.gather(
        *(_ask(server.port, provider, kids, rate / AT_ONCE, answers, times) for _ in range(AT_ONCE))
    )
    spent = time.monotonic() - began
    after = await _late(server.port)
    lost = await talk.lost()
    talking.cancel()
    close_all(talk.connections)
    samples = {bound: after[bound] - before[bound] for bound in after}
    late = samples["+Inf"] - samples[str(LATE)]
    times.sort()
    told = ", ".join(f"{count} of the {who} got {status}" for (who, status), count in sorted(answers.items()))
    say(
        f"{len(times) / spent:.0f} tokens a second: {told}; half within {percentile(times, 0.5):.1f} ms, 99 % within"
        f" {percentile(times, 0.99):.1f} ms; {keys.asked} fetches of the key set in {spent:.0f} s"
    )
    say(
        f"the event loop was over {LATE * 1000:.0f} ms late in {late:.0f} of {samples['+Inf']:.0f} samples"
        f" (by bound: {_by_bound(samples)}); {talk.sent} messages, {lost} lost, the latest after {talk.latest_ms:.0f} ms"
    )
    refused = all(status == (200 if who == "known" else 401) for who, status in answers)
    return refused and not late and not lost and keys.asked <= 1 + spent / FETCH_GAP


async def _ask(
    port: int,
    provider: Provider,
    kids: Iterator[str],
    rate: float,
    answers: Counter[tuple[str, int]],
    times: list[float],
) -> None:
    """Come with a token of each key, so many a second; count what is answered, and note how many ms it takes."""
    http = await Http.open(port)
    signature = provider.token(WELL_KNOWN, now=datetime.now(UTC)).rpartition(".")[2]
    due = time.perf_counter()
    for kid in kids:
        known = kid == WELL_KNOWN
        token = provider.token(kid, now=datetime.now(UTC)) if known else _unknown(kid, signature)
        began = time.perf_counter()
        if b"connection: close" in http.head.lower():
            http = await Http.open(port)
        status, _ = await http.get("/api/pairings", token)
        times.append((time.perf_counter() - began) * 1000)
        answers["known" if known else "strangers", status] += 1
        due = max(due + 1 / rate, time.perf_counter() - 0.1)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    http.close()


def _unknown(kid: str, signature: str) -> str:
    """A token that looks well but for its key."""
    now = int(time.time())
    head = {"alg": "ES256", "kid": kid, "typ": "at+jwt"}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": kid, "iat": now, "exp": now + 600}
    return ".".join((*(_base64(json.dumps(part)) for part in (head, claims)), signature))


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def _late(port: int) -> dict[str, float]:
    """How often the event loop was measured, by how late it was at most."""
    http = await Http.open(port)
    _, body = await http.get("/metrics")
    http.close()
    name = "pairing_loop_lag_seconds_bucket"
    lines = [line for line in body.decode().splitlines() if line.startswith(name)]
    return {line.partition('le="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def _by_bound(samples: dict[str, float]) -> str:
    return ", ".join(f"{bound} s {count:.0f}" for bound, count in samples.items())
