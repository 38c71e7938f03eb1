# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A registry as a stream, against one that is only an HTTP server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import registry as image_registry
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.registry import (
    MANIFESTS,
    Endpoint,
    Reference,
    Registry,
    RegistryError,
    reference,
)

LOGIN = "Basic " + base64.b64encode(b"rollout:secret").decode()
CONFIG = b'{"architecture": "amd64"}'
LAYERS = (b"first layer " * 300, b"second" * 5000, b"first layer " * 300)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(data: bytes) -> dict:
    return {"size": len(data), "digest": digest(data)}


MANIFEST = json.dumps(
    {"mediaType": MANIFESTS[0], "config": described(CONFIG), "layers": [described(data) for data in LAYERS]}
).encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        web = self.server
        web.asked.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        if self.path.startswith("/token"):
            good = self.headers.get("Authorization") == LOGIN
            self.reply(200 if good else 401, json.dumps({"token": "t"}).encode())
            return
        if self.path.startswith("/elsewhere/"):
            self.blob(self.path.rpartition("/")[2])
            return
        wanted = {"basic": LOGIN, "bearer": "Bearer t"}.get(web.auth)
        if wanted and self.headers.get("Authorization") != wanted:
            challenge = {
                "basic": 'Basic realm="x"',
                "bearer": f'Bearer realm="http://127.0.0.1:{web.server_port}/token",service="s"',
            }
            self.reply(401, b"", ("WWW-Authenticate", challenge[web.auth]))
            return
        kind, _, name = self.path.removeprefix("/v2/ascend/tiny/").partition("/")
        if kind == "manifests" and name in web.manifests:
            self.reply(200, web.manifests[name])
        elif kind == "blobs" and web.elsewhere:
            self.reply(307, b"", ("Location", f"http://localhost:{web.server_port}/elsewhere/{name}"))
        elif kind == "blobs":
            self.blob(name)
        else:
            self.reply(404, b"")

    def blob(self, name: str) -> None:
        data = self.server.blobs[name]
        asked = self.headers.get("Range")
        if asked and self.server.ranges:
            self.reply(206, data[int(asked.removeprefix("bytes=").rstrip("-")) :])
        else:
            self.reply(200, data)

    def reply(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args) -> None:
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.auth, server.ranges, server.elsewhere, server.asked = "", True, False, []
    server.manifests = {"v1": MANIFEST, digest(MANIFEST): MANIFEST}
    server.blobs = {digest(data): data for data in (CONFIG, *LAYERS)}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def endpoint(web, username="rollout", password="secret") -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{web.server_port}", username, password)


def read(web, start=0, have=b"", tag="v1", **login) -> tuple[image_registry.Archive, bytes]:
    registry = Registry(endpoint(web, **login), "ascend/tiny")
    archive = registry.archive(Reference("ascend/tiny", tag), "here/ascend/tiny:v1")
    return archive, b"".join(registry.stream(archive, start, lambda at, size: have[at : at + size]))


def test_the_stream_is_an_archive_as_docker_save_makes_it(web):
    archive, content = read(web)
    assert len(content) == archive.size
    assert archive.digest == digest(MANIFEST)
    assert archive.image_id == digest(CONFIG)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        [listed] = json.load(tar.extractfile("manifest.json"))
        assert listed["RepoTags"] == ["here/ascend/tiny:v1"]
        assert tar.extractfile(listed["Config"]).read() == CONFIG
        assert tuple(tar.extractfile(path).read() for path in listed["Layers"]) == LAYERS


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("start", [1, 511, 600, 2000, 5000, 20000, 40000], ids=str)
def test_it_goes_on_at_any_place(web, start, ranges):
    _archive, whole = read(web)
    web.ranges = ranges
    _archive, rest = read(web, start, whole)
    assert whole[:start] + rest == whole


def test_going_on_asks_only_for_the_rest(web):
    archive, whole = read(web)
    web.asked.clear()
    read(web, archive.size - 2000, whole)
    [(_path, _login, asked)] = [one for one in web.asked if "/blobs/" in one[0]]
    assert int(asked.removeprefix("bytes=").rstrip("-")) > 0


def test_bad_bytes_that_lay_here_are_found(web):
    archive, whole = read(web)
    bad = bytearray(whole)
    bad[archive.size - 3000] ^= 1
    with pytest.raises(RegistryError, match="gives other bytes") as raised:
        read(web, archive.size - 2000, bytes(bad))
    assert raised.value.finding.code == "image-registry-digest"


def test_bad_bytes_of_the_registry_are_found(web):
    web.blobs[digest(LAYERS[1])] = LAYERS[1][:-1] + b"x"
    with pytest.raises(RegistryError, match="gives other bytes"):
        read(web)


def test_another_manifest_than_the_digest_says(web):
    wanted = f"sha256:{'0' * 64}"
    web.manifests[wanted] = MANIFEST
    with pytest.raises(RegistryError) as raised:
        read(web, tag=wanted)
    assert raised.value.finding.code == "image-registry-digest"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_is_given_when_asked_for(web, auth):
    web.auth = auth
    assert read(web)[0].digest == digest(MANIFEST)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize(
    "login", [{"password": "wrong"}, {"username": "", "password": ""}], ids=["wrong", "none"]
)
def test_a_login_that_is_refused(web, auth, login):
    web.auth = auth
    with pytest.raises(RegistryError) as raised:
        read(web, **login)
    assert raised.value.finding.code == "image-registry-login"
    assert "wrong" not in str(raised.value)


def test_the_login_is_not_for_the_store_behind(web):
    web.auth, web.elsewhere = "basic", True
    read(web)
    behind = [login for path, login, _range in web.asked if path.startswith("/elsewhere/")]
    # The third layer is the first again.
    assert len(behind) == 3
    assert set(behind) == {None}


def test_of_many_builds_this_machines_is_taken(web, monkeypatch):
    index = {
        "manifests": [
            {"digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest(MANIFEST), "platform": {"os": "linux", "architecture": "arm64"}},
        ]
    }
    web.manifests["v1"] = json.dumps(index).encode()
    monkeypatch.setattr(image_registry.platform, "machine", lambda: "aarch64")
    archive, _content = read(web)
    assert archive.digest == digest(web.manifests["v1"]), "the pin is the index's"
    assert archive.image_id == digest(CONFIG)
    monkeypatch.setattr(image_registry.platform, "machine", lambda: "riscv64")
    with pytest.raises(RegistryError, match=r"linux/riscv64, but for linux/amd64, linux/arm64"):
        read(web)


def test_what_is_not_there_and_who_does_not_answer(web):
    with pytest.raises(RegistryError) as raised:
        read(web, tag="v9")
    assert raised.value.finding.code == "image-registry-missing"
    with pytest.raises(RegistryError) as raised:
        Registry(Endpoint("http://127.0.0.1:1"), "ascend/tiny").archive(Reference("ascend/tiny", "v1"), "x")
    assert raised.value.finding.code == "image-registry-down"


def test_a_ca_that_is_no_certificate():
    with pytest.raises(RegistryError, match="is no certificate"):
        Registry(Endpoint("https://registry.example", ca="nonsense"), "ascend/tiny")


@pytest.mark.parametrize(
    ("image", "pinned", "expected"),
    [
        ("registry.example:5000/ascend/x:v1", "", Reference("ascend/x", "v1")),
        ("ascend/x:v1", "", Reference("ascend/x", "v1")),
        ("localhost/x", "", Reference("x", "latest")),
        ("registry.example/x:v1", "sha256:ab", Reference("x", "sha256:ab")),
    ],
    ids=str,
)
def test_reference(image, pinned, expected):
    assert reference(image, pinned) == expected


def test_the_password_is_in_no_text():
    assert "secret" not in repr(Endpoint("https://registry.example", "rollout", "secret"))
