"""Requests that the server sends: with a time limit, and without following redirects."""

from __future__ import annotations

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

# Tornado's status for no answer.
UNANSWERED = 599
# Seconds, bytes.
POST_TIMEOUT = 5
JWKS_TIMEOUT = 3
JWKS_SIZE = 64 * 1024


async def post_line(url: str, line: str) -> None:
    """Send a line of JSON as the body of a POST. Raises OSError."""
    client = SimpleAsyncHTTPClient(force_instance=True)
    request = HTTPRequest(
        url,
        method="POST",
        body=line.encode() + b"\n",
        headers={"Content-Type": "application/json"},
        request_timeout=POST_TIMEOUT,
        connect_timeout=POST_TIMEOUT,
        follow_redirects=False,
    )
    try:
        await client.fetch(request)
    except HTTPClientError as error:
        outcome = "did not answer" if error.code == UNANSWERED else f"answered {error.code}"
        raise OSError(f"the receiver {outcome}") from None
    finally:
        client.close()


async def fetch_jwks(url: str) -> bytes:
    """A foreign issuer's keys: bounded in time and size, no redirects. Raises OSError."""
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=JWKS_SIZE)
    request = HTTPRequest(
        url, request_timeout=JWKS_TIMEOUT, connect_timeout=JWKS_TIMEOUT, follow_redirects=False
    )
    try:
        return (await client.fetch(request)).body
    except HTTPClientError as error:
        raise OSError(f"the issuer answered {error.code}") from None
    finally:
        client.close()
