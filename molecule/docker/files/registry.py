"""The least of a registry that `docker pull` needs: one repository, read only, with an image for two tags.

    registry.py PORT

The images are made here: one layer with one file that holds the tag's name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "ascend/tiny"
TAGS = ("v1", "v2")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def part(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


def layer(text: str) -> bytes:
    """A tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("tag")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def publish(tag: str, blobs: dict[str, bytes]) -> bytes:
    """The manifest of a tag's image; its parts are added to the blobs."""
    plain = layer(tag)
    packed = gzip.compress(plain, mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"tag": tag}},
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        "history": [{"created_by": "registry.py"}],
    }
    described = json.dumps(config).encode()
    for data in (packed, described):
        blobs[digest(data)] = data
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": part(CONFIG, described),
        "layers": [part(LAYER, packed)],
    }
    return json.dumps(manifest).encode()


BLOBS: dict[str, bytes] = {}
MANIFESTS = {tag: publish(tag, BLOBS) for tag in TAGS}
MANIFESTS |= {digest(data): data for data in MANIFESTS.values()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        what, _, name = self.path.removeprefix(f"/v2/{REPOSITORY}/").partition("/")
        if self.path == "/v2/":
            self.reply("application/json", b"{}")
        elif what == "manifests" and name in MANIFESTS:
            self.reply(MANIFEST, MANIFESTS[name])
        elif what == "blobs" and name in BLOBS:
            self.reply("application/octet-stream", BLOBS[name])
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def reply(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest(data))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


if __name__ == "__main__":
    if sys.argv[1] == "--digests":
        print(json.dumps({tag: digest(MANIFESTS[tag]) for tag in TAGS}))
    else:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
