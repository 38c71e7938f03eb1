# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The certificate of the front: what is found wrong, and what the servers get."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._front.certificate import (
    Checked,
    Given,
    Host,
    check,
    digests,
    matches,
)
from certificates import ADDRESS, NAME, NOW, key_text, made
from cryptography.x509.oid import ExtendedKeyUsageOID

HOSTS = {"p1": Host(ADDRESS)}
NAMED = {"p1": Host(ADDRESS, NAME)}


ROOT = ("Root", "root")
BETWEEN = ("Between", "between")
ROOT_PEM = made(*("Root", (), "root"), authority=True)
BETWEEN_PEM = made(*("Between", (), "between"), issuer=ROOT, authority=True)
LEAF = made(issuer=BETWEEN)
GOOD = made()
ANOTHER = made(key="between")


def checked(
    certificate: str = GOOD,
    key: str | None = None,
    ca: str = "",
    hosts: dict[str, Host] = HOSTS,
    system: str | None = None,
    tmp_path: Path | None = None,
) -> Checked:
    files = []
    if system is not None and tmp_path is not None:
        (tmp_path / "system.pem").write_text(system, encoding="ascii")
        files = [tmp_path / "absent.pem", tmp_path / "system.pem"]
    return check(
        Given(certificate, "front.crt"),
        Given(key_text() if key is None else key),
        Given(ca),
        hosts,
        NOW,
        files,
    )


def codes(**given: Any) -> list[str]:
    return [finding.code for finding in checked(**given).findings]


def test_a_good_certificate_has_no_finding() -> None:
    assert codes() == []
    assert codes(hosts=NAMED) == []


def test_the_servers_get_chain_and_key_in_one_text() -> None:
    found = checked(LEAF + BETWEEN_PEM, ca=ROOT_PEM)
    assert found.pem == LEAF + BETWEEN_PEM + key_text()
    assert found.digest == hashlib.sha256(found.pem.encode()).hexdigest()
    assert found.not_after == "2027-06-01T00:00:00Z"
    assert not found.findings
    assert "PRIVATE" not in repr(found)


def test_text_around_the_certificate_goes() -> None:
    around = f"Bag Attributes\r\n    x: y\r\n{GOOD.replace(chr(10), chr(13) + chr(10))}"
    assert checked(around).pem == GOOD + key_text()


def test_a_key_beside_the_certificate_is_no_part_of_the_chain() -> None:
    assert checked(key_text() + GOOD).pem == GOOD + key_text()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"certificate": "nothing"}, "front-certificate-invalid", id="no PEM"),
        pytest.param(
            {"certificate": GOOD[:200] + GOOD[300:]}, "front-certificate-invalid", id="damaged certificate"
        ),
        pytest.param({"ca": "nothing"}, "front-certificate-invalid", id="no PEM in the authorities"),
        pytest.param({"key": "nothing"}, "front-key-invalid", id="no key"),
        pytest.param({"key": key_text() + key_text("other")}, "front-key-invalid", id="two keys"),
        pytest.param({"key": key_text()[:60] + key_text()[80:]}, "front-key-invalid", id="damaged key"),
        pytest.param({"key": key_text(passphrase=b"secret")}, "front-key-encrypted", id="passphrase"),
        pytest.param({"key": key_text("other")}, "front-key-mismatch", id="another key"),
        pytest.param({"certificate": ANOTHER + GOOD}, "front-key-mismatch", id="not the first"),
        pytest.param({"certificate": made(days=0, begins=-9)}, None, id="ends at this moment"),
        pytest.param({"certificate": made(begins=1)}, "front-certificate-early", id="tomorrow"),
        pytest.param({"certificate": made(days=29)}, "front-certificate-ends", id="29 days"),
        pytest.param({"certificate": made(days=31)}, "", id="31 days"),
        pytest.param(
            {"certificate": made(alternatives=("other.example.org",)), "hosts": NAMED},
            "front-certificate-name",
            id="another name",
        ),
        pytest.param(
            {"certificate": made(alternatives=("*.example.org",)), "hosts": NAMED}, "", id="wildcard"
        ),
        pytest.param(
            {"certificate": made(alternatives=("*.org",)), "hosts": NAMED},
            "front-certificate-name",
            id="wildcard of another level",
        ),
        pytest.param(
            {"certificate": made(alternatives=(ADDRESS,)), "hosts": {"p1": Host(ADDRESS, ADDRESS)}},
            "",
            id="address as the name",
        ),
        pytest.param({"certificate": made(alternatives=())}, "front-certificate-no-san", id="subject alone"),
        pytest.param(
            {"certificate": made(alternatives=()), "hosts": NAMED},
            "front-certificate-no-san",
            id="subject alone, and it is the name",
        ),
        pytest.param(
            {"certificate": made(alternatives=("*.example.org",))},
            "front-certificate-unnamed",
            id="wildcard, and no name declared",
        ),
        pytest.param(
            {"certificate": made(key="rsa1024"), "key": key_text("rsa1024")},
            "front-certificate-weak",
            id="RSA, 1024 bits",
        ),
        pytest.param(
            {"certificate": made(key="rsa2048"), "key": key_text("rsa2048")}, "", id="RSA, 2048 bits"
        ),
        pytest.param(
            {"certificate": made(usage=ExtendedKeyUsageOID.CLIENT_AUTH)},
            "front-certificate-purpose",
            id="for clients",
        ),
        pytest.param({"certificate": made(usage=ExtendedKeyUsageOID.SERVER_AUTH)}, "", id="for servers"),
        pytest.param({"certificate": LEAF, "ca": ROOT_PEM}, "front-certificate-chain", id="no chain"),
        pytest.param(
            {"certificate": LEAF + BETWEEN_PEM, "ca": made("Root", (), "other", authority=True)},
            "front-certificate-chain",
            id="an authority of the same name",
        ),
        pytest.param({"certificate": LEAF + BETWEEN_PEM, "ca": ROOT_PEM}, "", id="chain"),
        pytest.param({"certificate": LEAF, "ca": BETWEEN_PEM}, "", id="the authority itself"),
        pytest.param({"certificate": LEAF + BETWEEN_PEM}, "", id="the system's authorities are not known"),
        pytest.param({"certificate": LEAF + BETWEEN_PEM + ROOT_PEM}, "", id="with its own authority"),
    ],
)
def test_what_is_wrong_is_found(given: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        # One that has not ended yet ends soon.
        expected = "front-certificate-ends"
    assert codes(**given) == ([expected] if expected else [])


def test_an_expired_certificate_is_no_longer_one_that_ends_soon() -> None:
    assert codes(certificate=made(days=-1, begins=-9)) == ["front-certificate-expired"]


def test_the_systems_authorities_count_where_none_are_named(tmp_path: Path) -> None:
    assert codes(certificate=LEAF + BETWEEN_PEM, system=ROOT_PEM, tmp_path=tmp_path) == []
    assert codes(certificate=LEAF, system=ROOT_PEM, tmp_path=tmp_path) == ["front-certificate-chain"]
    assert codes(certificate=GOOD, system=ROOT_PEM, tmp_path=tmp_path) == []


def test_a_self_signed_certificate_verifies_itself() -> None:
    assert checked().ca == GOOD
    assert checked(LEAF + BETWEEN_PEM + ROOT_PEM).ca == ROOT_PEM
    assert checked(LEAF + BETWEEN_PEM).ca == ""
    assert checked(LEAF + BETWEEN_PEM, ca=ROOT_PEM).ca == ROOT_PEM


@pytest.mark.parametrize(
    ("alternatives", "host", "name"),
    [
        ((NAME, ADDRESS), Host(ADDRESS), ADDRESS),
        (("*.example.org", NAME), Host(ADDRESS), NAME),
        ((NAME, ADDRESS), Host(ADDRESS, NAME), NAME),
        (("*.example.org",), Host(ADDRESS), ""),
        ((NAME, "10.1.0.9"), Host(ADDRESS, None, "10.1.0.9"), "10.1.0.9"),
        ((NAME, "10.1.0.9"), Host(ADDRESS), NAME),
        ((), Host(ADDRESS, NAME), ""),
    ],
)
def test_the_smoke_test_verifies_a_name_that_the_certificate_has(
    alternatives: tuple[str, ...], host: Host, name: str
) -> None:
    assert checked(made(alternatives=alternatives), hosts={"p1": host}).names == {"p1": name}


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a.example.org", "A.Example.org", True),
        ("a.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("a.b.example.org", "*.example.org", False),
        ("a.example.org", "a*.example.org", False),
        ("example.org", "*.org", False),
        ("a.example.org.", "a.example.org", True),
    ],
)
def test_names_match_as_rfc_9525_says(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


def test_no_finding_has_the_key() -> None:
    for key in (key_text("other"), key_text()[:60] + key_text()[80:], key_text(passphrase=b"secret")):
        text = str(checked(key=key).findings)
        assert not any(line in text for line in key.splitlines()[1:-1])


def test_of_keys_the_digests_are_kept() -> None:
    assert digests({"alice": "abc"}) == {
        "alice": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
