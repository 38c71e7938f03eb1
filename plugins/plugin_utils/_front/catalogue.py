# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the certificate of the front, seen on the controller before anything is changed."""

from __future__ import annotations

from ...module_utils._findings import ERROR, WARNING, Catalogue, Check, Severity

_HERE = "this collection, docs/front.md"
_RFC_NAMES = "RFC 9525, sections 6.3 to 6.5"


def _check(
    code: str, severity: Severity, title: str, why: str, expected: str, cure: str, source: str = _HERE
) -> Check:
    return Check(code, title, why, severity, expected, cure, source)


CERTIFICATE_CHECKS = Catalogue(
    _check(
        "front-certificate-missing",
        ERROR,
        "A file of the front's certificate cannot be read on the controller",
        "It is looked for beside the inventory, then beside the playbook.",
        "a file that the user of the controller can read",
        "ls -l {path}  # correct the variable, or set it to the text in PEM",
    ),
    _check(
        "front-certificate-invalid",
        ERROR,
        "No certificate can be read from what was given",
        "HAProxy reads certificates in PEM.",
        "text in PEM with BEGIN CERTIFICATE",
        "openssl x509 -in {path} -noout -text  # from DER: openssl x509 -inform der -in FILE -out FILE.pem",
    ),
    _check(
        "front-key-invalid",
        ERROR,
        "No private key can be read from what was given",
        "HAProxy reads keys in PEM.",
        "text in PEM with BEGIN PRIVATE KEY, once",
        "openssl pkey -in {path} -noout  # from DER: openssl pkey -inform der -in FILE -out FILE.pem",
    ),
    _check(
        "front-key-encrypted",
        ERROR,
        "The private key of the front needs a passphrase",
        "HAProxy starts with the server, when nobody is there to enter one.",
        "a key without a passphrase, in a vault",
        "openssl pkey -in {path} -out FILE  # then ansible-vault encrypt FILE",
    ),
    _check(
        "front-key-mismatch",
        ERROR,
        "The private key does not belong to the front's certificate",
        "HAProxy refuses the pair.",
        "the key of the first certificate",
        "compare openssl x509 -noout -pubkey with openssl pkey -pubout, and name files that belong together",
    ),
    _check(
        "front-certificate-expired",
        ERROR,
        "The front's certificate has expired",
        "Every client that verifies it refuses the connection.",
        "a certificate that is valid today",
        "renew the certificate, then playbooks/deploy.yml",
    ),
    _check(
        "front-certificate-early",
        ERROR,
        "The front's certificate is not valid yet",
        "Every client that verifies it refuses the connection, or the clock of the controller is wrong.",
        "a certificate that is valid today",
        "date -u  # set the clock, or wait, or take the certificate that is valid today",
    ),
    _check(
        "front-certificate-ends",
        WARNING,
        "The front's certificate ends soon",
        "From then on every client that verifies it refuses the connection.",
        "a certificate that is valid for 30 days or more",
        "renew the certificate, then playbooks/deploy.yml: no request fails meanwhile",
    ),
    _check(
        "front-certificate-name",
        ERROR,
        "The front's certificate is not valid for pd_front_name",
        "Every client that verifies it refuses the connection.",
        "pd_front_name among the certificate's alternative names",
        "have a certificate made for that name, or correct pd_front_name",
        _RFC_NAMES,
    ),
    _check(
        "front-certificate-no-san",
        WARNING,
        "The front's certificate has no alternative names",
        "Python, Go and browsers look for the name nowhere else, not in the subject.",
        "names or addresses in subjectAltName",
        "have the certificate made with subjectAltName",
        _RFC_NAMES,
    ),
    _check(
        "front-certificate-unnamed",
        WARNING,
        "The smoke test knows no name that the front's certificate is valid for",
        "It has no host's address and no name without a wildcard, so the test verifies its authority only.",
        "pd_front_name, or the hosts' addresses in the certificate",
        "pd_front_name: NAME  # the name that clients use",
        _RFC_NAMES,
    ),
    _check(
        "front-certificate-chain",
        WARNING,
        "The front's certificate does not lead to a known authority",
        "Clients that trust the authority cannot verify the certificate without the ones between.",
        "the intermediate certificates after the first one, and an authority that clients trust",
        "append the intermediate certificates to pd_front_certificate, or name the authority in pd_front_ca",
        "RFC 8446, section 4.4.2",
    ),
    _check(
        "front-certificate-weak",
        WARNING,
        "The front's certificate is weak",
        "OpenSSL refuses RSA keys of 1024 bits, and SHA-1, at security level 2: HAProxy does not start.",
        "an RSA key of 2048 bits or more, or an EC key of 224 or more, signed with SHA-256 or better",
        "have a certificate made with such a key",
        "OpenSSL, SSL_CTX_set_security_level(3)",
    ),
    _check(
        "front-certificate-purpose",
        WARNING,
        "The front's certificate is not meant for servers",
        "Clients refuse it: its extended key usage lacks serverAuth.",
        "serverAuth in extendedKeyUsage",
        "have the certificate made for a server",
        "RFC 5280, section 4.2.1.12",
    ),
)
