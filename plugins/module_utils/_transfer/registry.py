# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads an image from a registry as one stream: the archive that C(docker load) takes.

The stream is made of the manifest alone, byte for byte the same each time, so it can be resumed at any place,
and its size is known before the first byte of a layer. The Docker Engine's own pull begins anew when its run
is over. Interfaces: OCI distribution specification 1.1; bearer tokens as registries of Docker's kind do it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import platform
import re
import ssl
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from .catalogue import TRANSFER_CHECKS, TransferError

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
INDEXES = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Seconds without a byte, and bytes of one read.
SILENT = 60
PIECE = 1024 * 1024
BLOCK = 512
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(TransferError):
    """A registry does not give an image. `code`: that of a check that begins with image-registry-."""

    def __init__(self, code: str, seen: str) -> None:
        super().__init__(TRANSFER_CHECKS.finding(code, seen=seen), seen)


@dataclass(frozen=True)
class Endpoint:
    """A registry, or a mirror of one. `base`: https://registry.example:5000, a mirror's may have a path."""

    base: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""

    @property
    def name(self) -> str:
        return self.base.partition("://")[2]


@dataclass(frozen=True)
class Reference:
    """registry.example:5000/ascend/vllm-ascend:v1 in its parts; `tag` may be a digest."""

    repository: str
    tag: str


@dataclass(frozen=True)
class Segment:
    """A piece of the archive: bytes that are at hand, or a blob (`digest`) of `size` bytes."""

    size: int
    data: bytes = b""
    digest: str = ""


@dataclass(frozen=True)
class Archive:
    """The archive of an image: what it is made of, and what the image will be called by the Docker Engine."""

    digest: str
    image_id: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


class _NoLogin(urllib.request.HTTPRedirectHandler):
    """A login is for the registry, not for the store to which it points."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


class Registry:
    """An endpoint, asked for one repository."""

    def __init__(self, endpoint: Endpoint, repository: str) -> None:
        self._endpoint, self._repository = endpoint, repository
        # Of a mirror with a path, the API stands before the path: registry/v2/path/repository.
        host, _, path = endpoint.name.partition("/")
        self._url = (
            f"{endpoint.base.partition('://')[0]}://{host}/v2/{path + '/' if path else ''}{repository}/"
        )
        try:
            context = ssl.create_default_context(cadata=endpoint.ca or None)
        except ssl.SSLError as error:
            raise RegistryError(
                "image-registry-tls", f"the CA given for {endpoint.name} is no certificate: {error}"
            ) from error
        if endpoint.ca:
            context.load_default_certs()
        self._opener = urllib.request.build_opener(_NoLogin(), urllib.request.HTTPSHandler(context=context))
        self._authorization = ""

    def archive(self, reference: Reference, tag: str) -> Archive:
        """What the archive consists of. `tag`: the name that the image gets with the Docker Engine."""
        body, digest = self._manifest(reference.tag)
        manifest = json.loads(body)
        if manifest.get("mediaType") in INDEXES or "manifests" in manifest:
            # The digest that is pinned is the index's, as the Docker Engine's own pull has it.
            body, _digest = self._manifest(self._for_this_machine(manifest))
            manifest = json.loads(body)
        try:
            config, layers = manifest["config"], manifest["layers"]
            return Archive(digest, config["digest"], tuple(_archive_segments(config, layers, tag)))
        except (KeyError, TypeError) as error:
            raise RegistryError(
                "image-registry-answer", f"{self._endpoint.name} gives no manifest of an image"
            ) from error

    def _for_this_machine(self, index: dict[str, Any]) -> str:
        wanted = ARCHITECTURES.get(platform.machine(), platform.machine())
        offered = []
        for entry in index.get("manifests", []):
            built_for = entry.get("platform", {})
            offered.append(f"{built_for.get('os')}/{built_for.get('architecture')}")
            if built_for.get("os") == "linux" and built_for.get("architecture") == wanted:
                return str(entry["digest"])
        raise RegistryError(
            "image-registry-missing", f"it is not built for linux/{wanted}, but for {', '.join(offered)}"
        )

    def _manifest(self, tag: str) -> tuple[bytes, str]:
        with self._open(f"manifests/{tag}", {"Accept": ", ".join(MANIFESTS + INDEXES)}) as answer:
            body = answer.read()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if tag.startswith("sha256:") and tag != digest:
            raise RegistryError(
                "image-registry-digest", f"{self._endpoint.name} answers with {digest} for {tag}"
            )
        return body, digest

    def stream(self, archive: Archive, start: int, read_back: Callable[[int, int], bytes]) -> Iterator[bytes]:
        """The archive from byte `start` on, blobs verified. `read_back(at, size)`: bytes that are there.

        Raises RegistryError with kind digest at the end of a blob that is not what it should be.
        """
        at = 0
        for segment in archive.segments:
            end = at + segment.size
            if end > start:
                if segment.digest:
                    yield from self._blob(segment, at, max(0, start - at), read_back)
                else:
                    yield segment.data[max(0, start - at) :]
            at = end

    def _blob(
        self, segment: Segment, at: int, skip: int, read_back: Callable[[int, int], bytes]
    ) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for known in range(0, skip, PIECE):
            digest.update(read_back(at + known, min(PIECE, skip - known)))
        headers = {"Range": f"bytes={skip}-"} if skip else {}
        left = segment.size - skip
        with self._open(f"blobs/{segment.digest}", headers) as answer:
            if skip and answer.status != 206:
                # A registry that knows no ranges: what is there already goes by.
                _pass(answer, skip)
            while left:
                piece = _read(answer, min(PIECE, left), self._endpoint.name)
                digest.update(piece)
                left -= len(piece)
                yield piece
        if f"sha256:{digest.hexdigest()}" != segment.digest:
            raise RegistryError(
                "image-registry-digest",
                f"{self._endpoint.name} gives other bytes (sha256:{digest.hexdigest()}) for {segment.digest}",
            )

    def _open(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        url = urljoin(self._url, path)
        # Without, with a login, and with a new token when one has run out in a long transfer.
        for _ in range(3):
            answer = self._try(url, headers)
            if answer is not None:
                return answer
        raise self._no_entry()

    def _no_entry(self) -> RegistryError:
        who = f"as {self._endpoint.username}" if self._endpoint.username else "without a login"
        return RegistryError(
            "image-registry-login", f"{self._endpoint.name} refuses {self._repository} {who}"
        )

    def _try(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse | None:
        """The answer; None if another authorization is to be tried, which is set then."""
        request = urllib.request.Request(url, headers=headers)
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=SILENT)
            return answer
        except urllib.error.HTTPError as error:
            if error.code == 401 and not self._authorization:
                self._authorization = self._authorize(error.headers.get("WWW-Authenticate", ""))
                return None
            if error.code in (401, 403):
                self._refused()
                return None
            if error.code == 404:
                raise RegistryError(
                    "image-registry-missing", f"{self._endpoint.name} has no {url.partition('/v2/')[2]}"
                ) from error
            raise RegistryError(
                "image-registry-down", f"{self._endpoint.name} answers {error.code} {error.reason}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self._endpoint.name, error) from error

    def _refused(self) -> None:
        """The token may have ended in a long transfer; what was refused at once is refused for good."""
        had, self._authorization = self._authorization, ""
        if not had.startswith("Bearer"):
            self._authorization = had

    def _authorize(self, challenge: str) -> str:
        basic = (
            "Basic "
            + base64.b64encode(f"{self._endpoint.username}:{self._endpoint.password}".encode()).decode()
        )
        if not challenge.lower().startswith("bearer"):
            if not self._endpoint.username:
                raise self._no_entry()
            return basic
        parameters = dict(_CHALLENGE.findall(challenge))
        query = {"scope": f"repository:{self._repository}:pull"}
        query.update((key, parameters[key]) for key in ("service", "scope") if key in parameters)
        request = urllib.request.Request(f"{parameters.get('realm', '')}?{urlencode(query)}")
        if self._endpoint.username:
            request.add_unredirected_header("Authorization", basic)
        try:
            with self._opener.open(request, timeout=SILENT) as answer:
                token = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RegistryError(
                "image-registry-login",
                f"{self._endpoint.name} gives {self._endpoint.username or 'nobody'} no token: {error.code}",
            ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _unreachable(f"the token service of {self._endpoint.name}", error) from error
        return f"Bearer {token.get('token') or token.get('access_token')}"


def _unreachable(name: str, error: Exception) -> RegistryError:
    reason = getattr(error, "reason", error)
    # A connection that just ends is the network's affair, not the certificate's.
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    code = (
        "image-registry-tls"
        if isinstance(reason, ssl.SSLError) and not isinstance(reason, ended)
        else "image-registry-down"
    )
    return RegistryError(code, f"{name} cannot be reached: {reason or type(error).__name__}")


def _read(answer: http.client.HTTPResponse, size: int, name: str) -> bytes:
    try:
        piece = answer.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(name, error) from error
    if not piece:
        raise RegistryError("image-registry-down", f"{name} ended the transfer")
    return piece


def _pass(answer: http.client.HTTPResponse, size: int) -> None:
    while size:
        size -= len(_read(answer, min(PIECE, size), "the registry"))


def _header(name: str, size: int) -> bytes:
    """The head of a file in a tar archive, the same whenever it is made."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _archive_segments(config: dict[str, Any], layers: list[dict[str, Any]], tag: str) -> Iterator[Segment]:
    """The archive of C(docker save), of which Docker reads manifest.json and the files named there."""
    name = f"{_hex(config['digest'])}.json"
    files = {name: config}
    paths = []
    for layer in layers:
        path = f"{_hex(layer['digest'])}/layer.tar"
        paths.append(path)
        files[path] = layer
    listed = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": paths}]).encode()
    head = io.BytesIO()
    head.write(_header("manifest.json", len(listed)) + listed + _padding(len(listed)))
    yield Segment(len(head.getvalue()), head.getvalue())
    for path, blob in files.items():
        size = int(blob["size"])
        header = _header(path, size)
        yield Segment(len(header), header)
        yield Segment(size, digest=blob["digest"])
        padding = _padding(size)
        if padding:
            yield Segment(len(padding), padding)
    yield Segment(2 * BLOCK, bytes(2 * BLOCK))


def _hex(digest: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(digest)):
        raise RegistryError("image-registry-answer", f"{digest!r} is no digest that is known here")
    return digest.partition(":")[2]


def reference(image: str, digest: str = "") -> Reference:
    """Repository and tag of an image's name; a digest takes the tag's place."""
    path = image.partition("@")[0]
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    repository, _, tag = path.partition(":")
    return Reference(repository, digest or tag or "latest")
