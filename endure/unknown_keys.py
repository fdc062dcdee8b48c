"""Tokens of a foreign issuer with unknown keys, a thousand a second, while the issuer's key set cannot be fetched:
tokens with the known key are served, the key set is not fetched again and again, and the event loop is not late."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from endure.outage import Messages
from endure.run import Run
from endure.server import Server
from harness.load_client import HttpConnection, both, close_all, connect_all, percentile, read_metrics
from harness.pairing_database import PairingDatabase

ISSUER, AUDIENCE, ALGORITHM = "https://id.example.com/", "https://pairing.example.com", "ES256"
CLIENTS = 20
PAIRS = 20
# One token in so many has the known key.
KNOWN_EVERY = 100
# What is wanted: the delay of the event loop at most, and the time between two fetches of the key set.
LOOP_DELAY_SECONDS = 0.05
FETCH_INTERVAL_SECONDS = 30.0


class _Issuer:
    """An issuer with one key, and the server of its key set, which answers 503 while it is `unavailable`."""

    def __init__(self) -> None:
        self.unavailable = False
        self.fetches = 0
        self._key = generate_private_key(SECP256R1())
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self._key_set = json.dumps({"keys": [{**public, "kid": "known"}]}).encode()

    async def start(self) -> str:
        """The URL of the key set."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.fetches += 1
        status, body = ("503 Unavailable", b"") if self.unavailable else ("200 OK", self._key_set)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()

    def token(self, kid: str) -> str:
        """A token that names that key, and is signed with the known one."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": kid, "iat": now, "exp": now + 600}
        return jwt.encode(claims, self._key, ALGORITHM, headers={"kid": kid})


class _Clients:
    """Requests with a token each. `answers`: by (known or not, status). `times_ms`: how long each took."""

    def __init__(self, port: int, issuer: _Issuer) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.times_ms: list[float] = []
        self._port = port
        self._issuer = issuer

    async def request_all(self, kids: Iterator[str], rate: float) -> None:
        """One request with a token of each key, so many a second."""
        http = await HttpConnection.open(self._port)
        due = time.perf_counter()
        for kid in kids:
            token = self._issuer.token(kid)
            if b"connection: close" in http.head.lower():
                http = await HttpConnection.open(self._port)
            began = time.perf_counter()
            status, _ = await http.get("/api/pairings", token)
            self.times_ms.append((time.perf_counter() - began) * 1000)
            self.answers["known" if kid == "known" else "unknown", status] += 1
            due = max(due + 1 / rate, time.perf_counter() - 0.1)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        http.close()


async def check(run: Run, database: PairingDatabase, seconds: float, rate: float) -> bool:
    """Whether all unknown keys were refused, the known one served, and the event loop was in time."""
    issuer = _Issuer()
    configured = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": [ALGORITHM],
        "jwks": await issuer.start(),
    }
    server = await asyncio.to_thread(Server, run, database, ISSUERS=json.dumps([configured]))
    pairs = await asyncio.to_thread(database.add_pairs, server.port, PAIRS, 220)
    messages = Messages(await connect_all(both(pairs)))
    sending = asyncio.ensure_future(messages.send_all())
    # The key set is fetched for the first token.
    await _Clients(server.port, issuer).request_all(itertools.repeat("known", 1), 1.0)
    issuer.unavailable, issuer.fetches = True, 0
    await asyncio.sleep(1)
    messages.longest_ms = 0.0
    before, began = await _loop_delays(server.port), time.monotonic()
    numbers = itertools.takewhile(lambda _: time.monotonic() - began < seconds, itertools.count())
    kids = ("known" if number % KNOWN_EVERY == 0 else f"unknown-{number}" for number in numbers)
    clients = _Clients(server.port, issuer)
    await asyncio.gather(*(clients.request_all(kids, rate / CLIENTS) for _ in range(CLIENTS)))
    spent = time.monotonic() - began
    after = await _loop_delays(server.port)
    lost = await messages.lost()
    sending.cancel()
    close_all(messages.connections)
    samples = {bound: after[bound] - before[bound] for bound in after}
    late = samples["+Inf"] - samples[str(LOOP_DELAY_SECONDS)]
    times = sorted(clients.times_ms)
    counts = ", ".join(
        f"{count} with an {kind} key got {status}"
        if kind == "unknown"
        else f"{count} with the known key got {status}"
        for (kind, status), count in sorted(clients.answers.items())
    )
    by_bound = ", ".join(f"{bound} s {count:.0f}" for bound, count in samples.items())
    run.say(
        f"{len(times) / spent:.0f} tokens a second: {counts}; half within {percentile(times, 0.5):.1f} ms, 99 % within"
        f" {percentile(times, 0.99):.1f} ms; {issuer.fetches} fetches of the key set in {spent:.0f} s"
    )
    run.say(
        f"the event loop was over {LOOP_DELAY_SECONDS * 1000:.0f} ms late in {late:.0f} of {samples['+Inf']:.0f} samples"
        f" (by bound: {by_bound}); {messages.sent} messages, {lost} lost, the latest after {messages.longest_ms:.0f} ms"
    )
    right = all(status == (200 if kind == "known" else 401) for kind, status in clients.answers)
    return right and not late and not lost and issuer.fetches <= 1 + spent / FETCH_INTERVAL_SECONDS


async def _loop_delays(port: int) -> dict[str, float]:
    """How many samples of the event loop's delay there are, by the bound that they do not exceed."""
    name = 'pairing_loop_lag_seconds_bucket{le="'
    metrics = await read_metrics(port)
    return {
        key.removeprefix(name).removesuffix('"}'): value
        for key, value in metrics.items()
        if key.startswith(name)
    }
