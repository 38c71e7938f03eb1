# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Transfers from a registry of which nothing can come: the reason that is given, and the cure."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import text_of
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.registry import (
    Endpoint,
    Reference,
    Registry,
    RegistryError,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import TransferStatus
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.progress import failure
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TAG = Reference("ascend/tiny", "v1")


class Empty(BaseHTTPRequestHandler):
    """A registry that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that its own key has signed, and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "tls.crt", folder / "tls.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A registry with TLS: its address, and the certificate that vouches for it."""
    public, private = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", public.read_text()
    server.shutdown()
    server.server_close()


def told(endpoint: Endpoint, tag: Reference = TAG) -> tuple[str, str]:
    """The code of the refusal, and what the screen shows of it."""
    with pytest.raises(RegistryError) as raised:
        Registry(endpoint, "ascend/tiny").archive(tag, "ascend/tiny:v1")
    finding = failure("a", TransferStatus("failed", finding=raised.value.finding), "image-transfer-gone")
    return finding.code, " ".join(text_of([finding]).split())


def test_a_registry_that_nobody_vouches_for(signed: tuple[str, str]) -> None:
    address, _ = signed
    code, text = told(Endpoint(address))
    assert code == "image-registry-tls"
    assert "certificate" in text
    assert "docker_registry_ca" in text


def test_with_its_ca_it_is_asked_and_what_it_lacks_is_named(signed: tuple[str, str]) -> None:
    address, ca = signed
    digest = f"sha256:{hashlib.sha256(b'nothing').hexdigest()}"
    code, text = told(Endpoint(address, ca=ca), Reference("ascend/tiny", digest))
    assert code == "image-registry-missing"
    assert f"has no ascend/tiny/manifests/{digest}" in text
    assert "docker_image_digest" in text


def test_a_registry_that_is_down() -> None:
    code, text = told(Endpoint("http://127.0.0.1:1"))
    assert code == "image-registry-down"
    assert "127.0.0.1:1 cannot be reached" in text
    assert "docker_registry_mirrors" in text
