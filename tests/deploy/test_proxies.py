"""deploy/nginx and deploy/caddy, tried with the real programs: a whole pairing, the clients' addresses, no tokens in logs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.processes import port_of, reserved_port
from harness.program import ROOT
from harness.service_manager import TIMEOUT_SECONDS
from pairing_server.config import Configuration
from tests.cli.commands import Operator, Result, command
from tests.cli.serving import serving
from tests.programs import needs

NGINX, CADDY = ROOT / "deploy" / "nginx", ROOT / "deploy" / "caddy"
# Where the proxies expect the server.
PORT = str(Configuration().port)
SECRET = "a-token-that-nobody-may-see"
# A client's address that is not the proxy's.
ELSEWHERE = "127.0.0.2"

_NGINX = """
daemon off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log info;
{user}
events {{ worker_connections 256; }}
http {{
    access_log {place}/other.log;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    {site}
}}
"""


@dataclass(frozen=True)
class Proxy:
    port: int
    place: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.place / "certificate.pem"

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.place.glob("*.log"))

    def ask(
        self, method: str, path: str, body: object = None, source: str = ELSEWHERE, **headers: str
    ) -> int:
        """The status of the answer, as a client at another address gets it."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=TIMEOUT_SECONDS, context=context, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            given = {
                "Content-Type": "application/json",
                **{k.replace("_", "-"): v for k, v in headers.items()},
            }
            connection.request(method, path, None if body is None else json.dumps(body), given)
            return connection.getresponse().status


def certify(place: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form, plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (place / "key.pem").write_bytes(key.private_bytes(encoding, form, plain))


@contextlib.contextmanager
def running(line: list[str], port: int, place: Path, **environ: str) -> Iterator[Proxy]:
    with (place / "said.log").open("wb") as said:
        process = subprocess.Popen(line, stdout=said, stderr=said, env={**os.environ, **environ}, cwd=place)
    proxy = Proxy(port, place)
    try:
        while True:
            assert process.poll() is None, proxy.logs()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS):
                break
        yield proxy
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_SECONDS)


def changed(text: str, *pairs: tuple[str, str]) -> str:
    """The example with the test's places in it; what is replaced must be there."""
    for given, ours in pairs:
        assert given in text, given
        text = text.replace(given, ours)
    return text


@contextlib.contextmanager
def nginx(
    place: Path,
    backends: dict[str, str],
    example: str = "pairing-server.conf",
    more: Sequence[tuple[str, str]] = (),
) -> Iterator[Proxy]:
    certify(place)
    held = reserved_port()
    port = port_of(held)
    site = changed(
        (NGINX / example).read_text(encoding="utf-8"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("    listen [::]:443 ssl;\n", ""),
        ("pairing.example.com.pem", "pairing.example.com.key"),
        ("ssl_certificate /etc/ssl/pairing.example.com.key", f"ssl_certificate {place}/certificate.pem"),
        ("/etc/ssl/pairing.example.com.key", f"{place}/key.pem"),
        ("server_name pairing.example.com", "server_name localhost"),
        ("/var/log/nginx", str(place)),
        *((f"127.0.0.1:{given}", ours) for given, ours in backends.items()),
        *more,
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(_NGINX.format(place=place, user=user, site=site))
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    command = [binary, "-p", str(place), "-c", str(place / "nginx.conf")]
    with held, running(command, port, place) as proxy:
        yield proxy


@contextlib.contextmanager
def caddy(place: Path, backends: dict[str, str]) -> Iterator[Proxy]:
    certify(place)
    held = reserved_port()
    port = port_of(held)
    text = changed(
        (CADDY / "Caddyfile").read_text(encoding="utf-8"),
        ("itself.)\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n"),
        (
            "pairing.example.com {\n",
            f"https://localhost:{port} {{\n\ttls {place}/certificate.pem {place}/key.pem\n\tbind 127.0.0.1\n",
        ),
        *((f"127.0.0.1:{given}", ours) for given, ours in backends.items()),
    )
    (place / "Caddyfile").write_text(text)
    command = ["caddy", "run", "--config", str(place / "Caddyfile"), "--adapter", "caddyfile"]
    with held, running(command, port, place, XDG_DATA_HOME=str(place), XDG_CONFIG_HOME=str(place)) as proxy:
        yield proxy


With = Callable[[Path, dict[str, str]], contextlib.AbstractContextManager[Proxy]]
PROXIES = [
    pytest.param(nginx, marks=needs("nginx"), id="nginx"),
    pytest.param(caddy, marks=needs("caddy"), id="caddy"),
]


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, PORT="0", TRUSTED_PROXIES="127.0.0.1", REGISTRATION="open")


def proxied_doctor(operator: Operator, proxy: Proxy, path: str = "") -> Result:
    environ = {**operator.environ, "SSL_CERT_FILE": str(proxy.certificate)}
    return command("doctor", "--url", proxy.url + path, environ=environ, folder=operator.folder)


@pytest.mark.parametrize("proxy_of", PROXIES)
def test_a_whole_pairing_goes_through_with_tls(proxy_of: With, operator: Operator, tmp_path: Path) -> None:
    place = tmp_path / "proxy"
    place.mkdir()
    with serving(operator.environ, operator.folder) as server:
        backend = server.url.removeprefix("http://")
        with proxy_of(place, {PORT: backend}) as proxy:
            done = proxied_doctor(operator, proxy)
            assert done.status == 0, done.text + proxy.logs()
            assert proxy.ask("GET", "/metrics") == 404


# As docs/operations.md has them: the proxy takes the path away, or passes it on.
BELOW = {
    "taken away": (
        ("location = /ws {", "location = /pairing/ws {"),
        (
            "location / {\n        proxy_pass http://pairing_server;",
            "location /pairing/ {\n        proxy_pass http://pairing_server/;",
        ),
        (
            "crit;\n        proxy_pass http://pairing_server;",
            "crit;\n        proxy_pass http://pairing_server/ws;",
        ),
    ),
    "passed on": (("location = /ws {", "location = /pairing/ws {"), ("location / {", "location /pairing {")),
}


@needs("nginx")
@pytest.mark.parametrize("path", BELOW)
def test_a_whole_pairing_and_the_pages_go_through_below_a_path(
    path: str, operator: Operator, tmp_path: Path
) -> None:
    place = tmp_path / "proxy"
    place.mkdir()
    environ = {**operator.environ, "PAIRING_DEMO": "true", "PAIRING_PUBLIC_URL": "https://localhost/pairing/"}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(environ, operator.folder))
        backends = {PORT: server.url.removeprefix("http://")}
        proxy = stack.enter_context(nginx(place, backends, more=BELOW[path]))
        done = proxied_doctor(operator, proxy, "/pairing/")
        assert done.status == 0, done.text + proxy.logs()
        for page in (
            "",
            "phone",
            "audit",
            "docs",
            "openapi.json",
            "demo/home.js",
            "client/pairing.js",
            "docs/init.js",
        ):
            assert proxy.ask("GET", f"/pairing/{page}") == 200, page
        assert proxy.ask("GET", "/pairing") == 301
        assert proxy.ask("GET", "/pairing/nowhere") == 404
        large = {"Authorization": f"Bearer {'a' * 12_000}"}
        assert proxy.ask("GET", "/pairing/api/pairings", **large) == 401


@pytest.mark.parametrize("proxy_of", PROXIES)
def test_the_server_sees_the_clients_address_whatever_the_client_says(
    proxy_of: With, operator: Operator, tmp_path: Path
) -> None:
    place = tmp_path / "proxy"
    place.mkdir()
    body = {"username": "nobody", "password": "a wrong password"}
    with serving(operator.environ, operator.folder) as server:
        with proxy_of(place, {PORT: server.url.removeprefix("http://")}) as proxy:
            assert proxy.ask("POST", "/api/auth/login", body, X_Forwarded_For="203.0.113.7") == 401
        server.stop()
    [event] = operator.says("audit", "list", "--event", "auth.login", "--json").splitlines()
    assert json.loads(event)["address"] == ELSEWHERE


@pytest.mark.parametrize("proxy_of", PROXIES)
def test_a_client_cannot_choose_what_is_traced(proxy_of: With, operator: Operator, tmp_path: Path) -> None:
    place = tmp_path / "proxy"
    place.mkdir()
    trace = "0af7651916cd43dd8448eb211c80319c"
    environ = {
        **operator.environ,
        "PAIRING_TRACES": "true",
        "PAIRING_LOG_FORMAT": "json",
        # Nobody listens there.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    with serving(environ, operator.folder) as server:
        with proxy_of(place, {PORT: server.url.removeprefix("http://")}) as proxy:
            assert proxy.ask("GET", "/openapi.json", Traceparent=f"00-{trace}-b7ad6b7169203331-01") == 200
        log = server.stop()
    [line] = [json.loads(line) for line in log.splitlines() if '"route": "/openapi.json"' in line]
    assert line["trace_id"] != trace


@pytest.mark.parametrize("proxy_of", PROXIES)
def test_no_token_is_in_any_log_even_when_the_server_is_away(
    proxy_of: With, operator: Operator, tmp_path: Path
) -> None:
    place = tmp_path / "proxy"
    place.mkdir()
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec_WebSocket_Protocol": f"Bearer.{SECRET}",
        "Authorization": f"Bearer {SECRET}",
    }
    with serving(operator.environ, operator.folder) as server:
        with proxy_of(place, {PORT: server.url.removeprefix("http://")}) as proxy:
            assert proxy.ask("GET", f"/ws?token={SECRET}", **upgrade) == 101
            server.stop()
            assert proxy.ask("GET", f"/ws?token={SECRET}", **upgrade) in (502, 503)
        logs = proxy.logs()
    assert SECRET not in logs
    assert "/ws" in logs and ELSEWHERE in logs, "there is a log, and the request is in it"


@needs("nginx")
def test_pairs_meet_on_several_processes_if_they_say_which_group_they_are_of(
    operator: Operator, tmp_path: Path
) -> None:
    """As documented: requests with the same `group` reach the same process, others go to one of them all."""
    place = tmp_path / "proxy"
    place.mkdir()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with (
        serving(operator.environ, folders[0]) as one,
        serving(operator.environ, folders[1]) as two,
    ):
        backends = {"8090": one.url.removeprefix("http://"), "8091": two.url.removeprefix("http://")}
        with nginx(place, backends, "several-processes.conf") as proxy:
            for n in range(40):
                for _ in range(2):
                    assert proxy.ask("GET", f"/openapi.json?group={n}") == 200
            for n in range(6):
                assert proxy.ask("GET", f"/nothing-{n}") == 404
        logs = [server.stop() for server in (one, two)]
    asked = [log.count('"route": "/openapi.json"') for log in logs]
    assert sum(asked) == 80
    assert all(count % 2 == 0 and count > 0 for count in asked), "spread, and both of a group at the same one"
    assert sorted(log.count('"path": "/nothing-') for log in logs) == [0, 6]
