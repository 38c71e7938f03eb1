"""Secrets that an inventory has encrypted on the spot, with every ansible-core."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from .conftest import BIN, ROOT, run

KEY, ENGINES_KEY = "sk-alice-{{'\"}}-0123456789-abcdef", "sk-engines-0123456789-abcdef"
HOSTS = """
prefiller: {hosts: {p1: {ansible_host: 10.1.0.1}}}
decoder: {hosts: {d1: {ansible_host: 10.1.0.2}}}
proxy: {hosts: {p1: }}
"""
VARIABLES = """
pd_image: registry.example/vllm-ascend:v0.13.0-a3
pd_model_path: /weights/model
pd_served_model_name: model
pd_parallel: {tensor: 16}
pd_front_port: 8443
"""
WRITES = """
- import_playbook: {root}/playbooks/_plan.yml
- import_playbook: {root}/playbooks/_certificate.yml
- hosts: p1
  gather_facts: false
  tasks:
    - copy:
        content: "{{{{ front_certificate | to_json }}}}"
        dest: "{result}"
        mode: "0600"
      delegate_to: localhost
      no_log: true
"""


def self_signed(folder: Path) -> tuple[str, str]:
    """A certificate, after the description that OpenSSL writes in front of it, and its key."""
    options = ["-subj", "/CN=front", "-addext", "subjectAltName=IP:10.1.0.1", "-days", "365", "-text"]
    files = [folder / "front.crt", folder / "front.key"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *options, "-out", files[0]]
    done = run(*command, "-keyout", files[1], cwd=folder)
    assert done.returncode == 0, done.stderr
    certificate, key = (path.read_text(encoding="ascii") for path in files)
    assert certificate.startswith("Certificate:")
    return certificate, key


def encrypted(text: str, password: Path) -> str:
    command = [BIN / "ansible-vault", "encrypt_string", "--vault-password-file", password, "--", text]
    done = run(*command, cwd=password.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("release", ["current", "oldest", "newest"])
def test_values_encrypted_on_the_spot_are_read(
    release: str, bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    binaries = BIN if release == "current" else request.getfixturevalue(f"{release}_bin")
    password = tmp_path / "password"
    password.write_text("vault-password", encoding="ascii")
    inventory = tmp_path / "cluster"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text(HOSTS, encoding="utf-8")
    certificate, key = self_signed(tmp_path)
    secrets = {
        "pd_api_key": ENGINES_KEY,
        "pd_front_certificate": certificate,
        "pd_front_certificate_key": key,
    }
    lines = [f"{name}: {encrypted(text, password)}" for name, text in secrets.items()]
    alice = encrypted(KEY, password).replace("\n", "\n  ")
    text = VARIABLES + "\n".join([*lines, f"pd_front_api_keys:\n  alice: {alice}\n"])
    (inventory / "group_vars" / "all.yml").write_text(text, encoding="utf-8")
    playbook, result = tmp_path / "play.yml", tmp_path / "result.json"
    playbook.write_text(WRITES.format(root=ROOT, result=result), encoding="utf-8")
    done = run(
        binaries / "ansible-playbook",
        "-vvv",
        "-i",
        inventory,
        playbook,
        cwd=ROOT,
        env={
            "ANSIBLE_CONFIG": os.fspath(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.collections'}:{bundle}",
            "ANSIBLE_VAULT_PASSWORD_FILE": os.fspath(password),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["findings"] == []
    assert key in found["pem"]
    assert found["api_keys"] == {"alice": hashlib.sha256(KEY.encode()).hexdigest()}
    assert not any(secret in done.stdout + done.stderr for secret in (KEY, ENGINES_KEY))
