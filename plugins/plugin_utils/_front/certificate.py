# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the certificate of the front and its key on the controller, and finds what is wrong with them."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from ...module_utils._findings import Finding
from .catalogue import CERTIFICATE_CHECKS

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    # ansible-core requires it, and only ansible-test imports plugins without.
    pass

# datetime.UTC came with Python 3.11, which a controller may not have.
UTC = datetime.timezone.utc  # noqa: UP017
CERTIFICATE = "pd_front_certificate"
KEY = "pd_front_certificate_key"
CA = "pd_front_ca"

# Days before its end from which a certificate is warned about.
SOON = 30
# Security level 2 of OpenSSL: 112 bits.
_RSA_BITS, _EC_BITS = 2048, 224
_WEAK_HASHES = ("md5", "sha1")
# The authorities that the operating system trusts, in Debian, and in openEuler, CentOS and their relatives.
SYSTEM_CA = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
)
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class Given:
    """What a variable gives: the text, and the file that it was read from, if it was one."""

    text: str = ""
    path: str | None = None


@dataclass(frozen=True)
class Host:
    """A host with a front: its address, and if there are any, the declared name and the shared address."""

    address: str
    name: str | None = None
    shared: str | None = None


@dataclass
class Checked:
    """What a front needs of the certificate, with all findings. Empty where something cannot be read."""

    pem: str = field(default="", repr=False)
    ca: str = ""
    names: dict[str, str] = field(default_factory=dict)
    not_after: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of certificates and key."""
        return hashlib.sha256(self.pem.encode()).hexdigest() if self.pem else ""


def digests(keys: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of API keys by their names."""
    return {str(name): hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}


def check(
    certificate: Given,
    key: Given,
    ca: Given,
    hosts: Mapping[str, Host],
    now: datetime.datetime,
    system_ca: Sequence[Path] = SYSTEM_CA,
) -> Checked:
    """Return what the fronts of some hosts need of a certificate, and what is wrong with it.

    now: the time, with a time zone.
    system_ca: files with the authorities that the operating system trusts; the first one that exists counts.
    """
    found = Checked()
    chain = _certificates(certificate, CERTIFICATE, found)
    authorities = _certificates(ca, CA, found) if ca.text else []
    private = _private_key(key, found)
    if chain and private:
        found.findings.extend(_fits(chain, private[0], key))
        found.pem = "".join(text for _, text in chain) + private[1]
    found.ca = "".join(text for _, text in authorities)
    if not chain:
        return found
    own = [one for one, _ in chain]
    if not ca.text and _self_signed(own[-1]):
        found.ca = chain[-1][1]
    found.not_after = _ends(own[0]).strftime("%Y-%m-%dT%H:%M:%SZ")
    found.findings.extend(_dates(own[0], now))
    found.findings.extend(_names(own[0], hosts, found.names))
    found.findings.extend(_strength(own[0]))
    trusted = [one for one, _ in authorities]
    found.findings.extend(_leads_to_authority(own, trusted, bool(ca.text), system_ca))
    return found


def _finding(code: str, message: str = "", **place: Any) -> Finding:
    return CERTIFICATE_CHECKS.finding(code, message, **{"variable": CERTIFICATE, **place})


# ---- Reading


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each block in PEM."""
    for block in _BLOCK.finditer(text):
        lines = (line.strip() for line in block[0].splitlines())
        yield block[1], "\n".join(lines) + "\n"


def _certificates(given: Given, variable: str, found: Checked) -> list[tuple[x509.Certificate, str]]:
    """Return the certificates with their text; without any, or with one that cannot be read, none."""
    texts = [text for kind, text in _blocks(given.text) if kind in ("CERTIFICATE", "TRUSTED CERTIFICATE")]
    try:
        read = [(x509.load_pem_x509_certificate(text.encode()), text) for text in texts]
        for one, _ in read:
            # They are parsed when they are asked for.
            _ = (one.subject, one.issuer, one.extensions, one.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        read = []
        seen = f"certificate that cannot be parsed: {error}"
    else:
        seen = "no certificate"
    if not read:
        found.findings.append(
            _finding(
                "front-certificate-invalid",
                f"No certificate can be read from {variable}",
                variable=variable,
                path=given.path,
                seen=seen,
            )
        )
    return read


def _private_key(given: Given, found: Checked) -> tuple[Any, str] | None:
    """Return the public part of the private key, and the text of the key."""
    texts = [text for kind, text in _blocks(given.text) if kind.endswith("PRIVATE KEY")]
    code, seen = "front-key-invalid", f"{len(texts) or 'no'} private key{'s' * (len(texts) > 1)}"
    if len(texts) == 1:
        try:
            key = serialization.load_pem_private_key(texts[0].encode(), password=None)
            return key.public_key(), texts[0]
        except TypeError:
            code, seen = "front-key-encrypted", "an encrypted key"
        except (ValueError, UnsupportedAlgorithm):
            # The library's message could quote the key.
            seen = "a private key that cannot be parsed"
    found.findings.append(_finding(code, variable=KEY, path=given.path, seen=seen))
    return None


def _spki(key: Any) -> bytes:
    """The public key, comparable."""
    return cast(
        "bytes",
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


# ---- What is wrong


def _fits(chain: Sequence[tuple[x509.Certificate, str]], public: Any, key: Given) -> Iterator[Finding]:
    fitting = [at for at, (one, _) in enumerate(chain) if _spki(one.public_key()) == _spki(public)]
    if fitting and fitting[0] == 0:
        return
    if fitting:
        yield _finding(
            "front-key-mismatch",
            "The certificate of the private key is not the first one",
            seen=f"certificate {fitting[0] + 1} of {len(chain)} has the key",
            cure="put the server's own certificate first, then each one that signed the one before it",
        )
    else:
        yield _finding("front-key-mismatch", variable=KEY, path=key.path, seen=_subject(chain[0][0]))


def _ends(certificate: x509.Certificate) -> datetime.datetime:
    """When it ends; before version 42 the library gives times without a time zone."""
    end = getattr(certificate, "not_valid_after_utc", None)
    return end or certificate.not_valid_after.replace(tzinfo=UTC)


def _begins(certificate: x509.Certificate) -> datetime.datetime:
    begin = getattr(certificate, "not_valid_before_utc", None)
    return begin or certificate.not_valid_before.replace(tzinfo=UTC)


def _dates(certificate: x509.Certificate, now: datetime.datetime) -> Iterator[Finding]:
    begin, end = _begins(certificate), _ends(certificate)
    if end < now:
        yield _finding("front-certificate-expired", seen=f"ended on {end:%Y-%m-%d %H:%M} UTC")
    elif now < begin:
        yield _finding("front-certificate-early", seen=f"begins on {begin:%Y-%m-%d %H:%M} UTC")
    elif end < now + datetime.timedelta(days=SOON):
        yield _finding("front-certificate-ends", seen=f"ends on {end:%Y-%m-%d %H:%M} UTC")


def _alternatives(certificate: x509.Certificate) -> tuple[list[str], list[str]] | None:
    """The names and the addresses for which it is valid; None if it has no alternative names."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    names = [str(name) for name in value.get_values_for_type(x509.DNSName)]
    return names, [str(one) for one in value.get_values_for_type(x509.IPAddress)]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def matches(name: str, pattern: str) -> bool:
    """Whether a name of a certificate covers a host name: a wildcard is its whole first label."""
    name, pattern = name.lower().rstrip("."), pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and rest == pattern[2:] and "." in rest
    return name == pattern


def _covers(certificate: x509.Certificate, name: str) -> bool:
    names, addresses = _alternatives(certificate) or ([], [])
    return name in addresses if _is_address(name) else any(matches(name, one) for one in names)


def _common_name(certificate: x509.Certificate) -> str:
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else ""


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a subject"


def _names(
    certificate: x509.Certificate, hosts: Mapping[str, Host], known: dict[str, str]
) -> Iterator[Finding]:
    """Find for each host the name to verify; empty where there is none."""
    names, addresses = alternatives = _alternatives(certificate) or ([], [])
    plain = [name for name in names if not name.startswith("*")]
    common = _common_name(certificate)
    declared = next((host.name for host in hosts.values() if host.name), None)
    for name, host in hosts.items():
        if host.name:
            known[name] = host.name if _covers(certificate, host.name) else ""
        else:
            own = [address for address in (host.address, host.shared) if address in addresses]
            known[name] = next(iter((*own, *plain)), "")
    if not any(alternatives):
        yield _finding("front-certificate-no-san", seen=_subject(certificate))
    if declared and not _covers(certificate, declared):
        # Clients that still look at the subject accept it.
        if any(alternatives) or not matches(declared, common):
            yield _finding(
                "front-certificate-name",
                seen=", ".join((*names, *addresses)) or _subject(certificate),
                expected=declared,
            )
    elif any(alternatives) and "" in known.values():
        yield _finding("front-certificate-unnamed", seen=", ".join((*names, *addresses)))


def _strength(certificate: x509.Certificate) -> Iterator[Finding]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
        yield _finding("front-certificate-weak", seen=f"RSA, {key.key_size} bits")
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _EC_BITS:
        yield _finding("front-certificate-weak", seen=f"EC, {key.key_size} bits")
    elif not _self_signed(certificate):
        # Nobody verifies the signature of a certificate that is trusted itself.
        try:
            used = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            used = None
        if used is not None and used.name in _WEAK_HASHES:
            yield _finding("front-certificate-weak", seen=f"signed with {used.name.upper()}")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH, x509.ObjectIdentifier("2.5.29.37.0")}
    if not wanted & set(usage):
        yield _finding("front-certificate-purpose", seen=", ".join(one.dotted_string for one in usage))


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate signed another; by the names alone where the library cannot verify that."""
    if certificate.issuer != issuer.subject:
        return False
    verify: Callable[[x509.Certificate], None] | None = getattr(
        certificate, "verify_directly_issued_by", None
    )
    if verify is None:
        return True
    try:
        verify(issuer)
    except UnsupportedAlgorithm:
        return True
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _self_signed(certificate: x509.Certificate) -> bool:
    return _issued(certificate, certificate)


def _leads_to_authority(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    declared: bool,
    system_ca: Sequence[Path],
) -> Iterator[Finding]:
    """Follow the chain from the first certificate to an authority."""
    at, left = chain[0], list(chain[1:])
    while True:
        if any(at == one or _issued(at, one) for one in authorities):
            return
        following = next((one for one in left if _issued(at, one)), None)
        if following is None:
            break
        left.remove(following)
        at = following
    if declared:
        if authorities:
            yield _finding(
                "front-certificate-chain",
                "The front's certificate does not lead to an authority of pd_front_ca",
                seen=f"issued by {at.issuer.rfc4514_string()}",
            )
        return
    if _self_signed(at):
        return
    trusted = _system(system_ca)
    if trusted is not None and not any(_issued(at, one) for one in trusted):
        yield _finding("front-certificate-chain", seen=f"issued by {at.issuer.rfc4514_string()}")


def _system(files: Sequence[Path]) -> list[x509.Certificate] | None:
    """The authorities that the operating system trusts; None if they cannot be found."""
    for file in files:
        try:
            text = file.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        read = []
        for kind, block in _blocks(text):
            try:
                if kind == "CERTIFICATE":
                    read.append(x509.load_pem_x509_certificate(block.encode()))
            except ValueError:
                continue
        return read or None
    return None
