"""What the server sends elsewhere by itself: bounded in time, following nobody."""

from __future__ import annotations

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

TIMEOUT = 5


async def post_line(url: str, line: str) -> None:
    """Send a line of JSON as the body of a POST. Raises OSError."""
    client = SimpleAsyncHTTPClient(force_instance=True)
    request = HTTPRequest(
        url,
        method="POST",
        body=line.encode() + b"\n",
        headers={"Content-Type": "application/json"},
        request_timeout=TIMEOUT,
        connect_timeout=TIMEOUT,
        follow_redirects=False,
    )
    try:
        await client.fetch(request)
    except HTTPClientError as error:
        raise OSError(f"the receiver answered {error.code}") from None
    finally:
        client.close()
