"""hub.py DIRECTORY PORT LOG: what the clients of Hugging Face and of ModelScope ask of a hub, for one model.

Answers ranges, so that a download can be gone on with; every request for a file is written to LOG, with where
it began and the bytes sent. What lies beside LOG changes the hub's behaviour:

    cut        bytes of shards that may still be sent; then the answer breaks off, and further requests fail
    damage     a file of this name is sent with other bytes than its hash says
    token      who has not this token is refused
    cert.pem   certificate and key: the hub speaks TLS
"""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

COMMIT = "a" * 40
CHUNK = 65536
SHARD = ".safetensors"


class Hub(BaseHTTPRequestHandler):
    """One model, whatever it is called."""

    protocol_version = "HTTP/1.1"
    folder: Path
    log: Path
    # One shard at a time, so that it is known what a cut leaves.
    turn = threading.Lock()

    def do_HEAD(self) -> None:
        """A file's size and hash."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """What is asked for."""
        self.answer(body=True)

    def do_POST(self) -> None:
        """ModelScope's login: the token is the cookie."""
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["AccessToken"]
        user = {"AccessToken": given, "Username": "example", "Email": "mail@example.org"}
        self.json({"Code": 200, "Success": True, "Data": user}, cookie=given)

    def answer(self, body: bool) -> None:
        """Dispatch by path."""
        parts = urlsplit(self.path)
        if not self.allowed():
            self.send_error(401)
        elif parts.path.startswith("/api/models/") and "/tree/" in parts.path:
            self.json([self.entry(name) for name in self.names()])
        elif parts.path.startswith("/api/models/"):
            files = [{"rfilename": name} for name in self.names()]
            self.json({"id": "m", "sha": COMMIT, "private": False, "siblings": files})
        elif "/resolve/" in parts.path:
            self.file(parts.path.rpartition("/")[2], body)
        elif parts.path.endswith("/revisions"):
            branch = {"Revision": "master", "CreatedAt": 1}
            self.json(modelscope({"RevisionMap": {"Branches": [branch], "Tags": []}}))
        elif parts.path.endswith("/repo/files"):
            self.json(modelscope({"Files": [self.described(name) for name in self.names()]}))
        elif parts.path.endswith("/repo"):
            self.file(parse_qs(parts.query)["FilePath"][0], body)
        elif parts.path == "/openapi/v1/users/me":
            self.json(modelscope({"username": "example", "email": "mail@example.org"}))
        elif parts.path.startswith("/api/v1/models/"):
            self.json(modelscope({"Name": "m"}))
        else:
            self.send_error(404)

    def allowed(self) -> bool:
        """Whether the token is there, as Hugging Face's header or ModelScope's cookie."""
        token = self.log.with_name("token")
        wanted = token.read_text().strip() if token.exists() else ""
        given = (self.headers.get("Authorization", ""), self.headers.get("Cookie", ""))
        return given[0] == f"Bearer {wanted}" or f"m_session_id={wanted}" in given[1] or not wanted

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def entry(self, name: str) -> dict[str, object]:
        """A file as newer clients of Hugging Face list it."""
        content = (self.folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        row = {"type": "file", "path": name, "size": len(content), "oid": digest[:40]}
        return {**row, "lfs": {"oid": digest, "size": len(content), "pointerSize": 1}}

    def described(self, name: str) -> dict[str, object]:
        """A file as ModelScope lists it."""
        content = (self.folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        row = {"Name": name, "Path": name, "Type": "blob", "Size": len(content)}
        return {**row, "Sha256": digest, "Revision": COMMIT}

    def json(self, value: object, cookie: str = "") -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Set-Cookie", f"m_session_id={cookie}; Path=/; Max-Age=86400")
        self.end_headers()
        self.wfile.write(content)

    def file(self, name: str, body: bool) -> None:
        """A file, or the range of it that is asked for; what was sent is noted."""
        content = (self.folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self.other("damage") == name:
            content = content[:-4] + b"\0\0\0\0"
        first, _dash, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        begin, end = int(first), int(last) + 1 if last else len(content)
        if self.other("cut") == "0":
            self.send_error(503)
            return
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        with self.turn:
            sent = self.stream(content[begin:end], name.endswith(SHARD))
            with self.log.open("a") as stream:
                stream.write(f"{name} {begin} {sent}\n")
        if sent < end - begin:
            self.close_connection = True

    def stream(self, content: bytes, counts: bool) -> int:
        """Send as much as the cut allows."""
        allowed = int(self.other("cut") or len(content)) if counts else len(content)
        for position in range(0, min(allowed, len(content)), CHUNK):
            self.wfile.write(content[position : min(position + CHUNK, allowed)])
        sent = min(allowed, len(content))
        if counts and self.other("cut"):
            self.log.with_name("cut").write_text(str(allowed - sent))
        return sent

    def other(self, name: str) -> str:
        """What a file beside the log says."""
        path = self.log.with_name(name)
        return path.read_text().strip() if path.exists() else ""

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


def modelscope(data: object) -> dict[str, object]:
    """The envelope of ModelScope's answers."""
    return {"Code": 200, "Success": True, "Message": "", "RequestId": "1", "Data": data}


def main(folder: str, port: int, log: str) -> None:
    Hub.folder, Hub.log = Path(folder), Path(log).absolute()
    server = ThreadingHTTPServer(("0.0.0.0", port), Hub)
    certificate = Hub.log.with_name("cert.pem")
    if certificate.exists():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
