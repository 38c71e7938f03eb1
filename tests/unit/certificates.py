# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys for tests, in PEM."""

from __future__ import annotations

import datetime
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

# When most of them begin, a day later; some tests take it as today.
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
NAME, ADDRESS = "models.example.org", "10.1.0.1"


@cache
def private(which: str) -> Any:
    """Keys by name; one that begins with rsa is an RSA key of so many bits."""
    if which.startswith("rsa"):
        return rsa.generate_private_key(65537, int(which[3:]))
    return ec.generate_private_key(ec.SECP256R1())


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def made(
    name: str = NAME,
    alternatives: tuple[str, ...] = (NAME, ADDRESS),
    key: str = "leaf",
    issuer: tuple[str, str] | None = None,
    days: int = 365,
    begins: int = -1,
    authority: bool = False,
    usage: Any = None,
    now: datetime.datetime = NOW,
) -> str:
    """A certificate in PEM; self-signed without an issuer, which is a name and a key."""
    signer, signed_by = issuer or (name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(signer))
        .public_key(private(key).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if alternatives:
        names = [
            x509.IPAddress(ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in alternatives
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    signed = builder.sign(private(signed_by), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def key_text(which: str = "leaf", passphrase: bytes | None = None) -> str:
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    return str(
        private(which)
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        .decode()
    )
