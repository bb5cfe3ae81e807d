"""Proxies that this machine is told to use have no part in a cluster."""

from __future__ import annotations

import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cluster.direct import answer, environment


class Here(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 500)
        self.end_headers()
        self.wfile.write(b"here")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1" if name != "no_proxy" else "nothing.example")


@pytest.mark.usefixtures("proxied")
def test_what_is_asked_is_asked_directly() -> None:
    with HTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert answer(f"http://127.0.0.1:{server.server_port}/") == b"here"
        with pytest.raises(urllib.error.HTTPError, match="500"):
            answer(f"http://127.0.0.1:{server.server_port}/broken")
        server.shutdown()


@pytest.mark.usefixtures("proxied")
def test_what_is_started_knows_of_no_proxy() -> None:
    assert [name for name in environment() if "proxy" in name.lower()] == []
    assert "PATH" in environment()
