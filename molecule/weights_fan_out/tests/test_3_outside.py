"""Weights from outside: one download for all, gone on with after a cut; a directory on the controller."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = "/srv/models/deepseek"
MAKE_WEIGHTS = Path(__file__).resolve().parents[1] / "files" / "make_weights.py"
HUB, PORT = "/srv/hub", 8900
SERVERS = ("fan1", "fan2", "fan3", "fan4")
SHARDS, SHARD_BYTES = 4, 4_000_000
TOKEN = "not a real one"
LISTENING = f"ss --listening --tcp --numeric --no-header sport = :{PORT} | grep -q ."


class Hub:
    """A hub on the second server with the model, which speaks TLS and wants a token."""

    def __init__(self, host, address: str, folder: Path) -> None:
        self.host, self.address, self.ca = host, address, folder / "ca.pem"
        host.check_output(f"rm -rf {HUB}; mkdir -p {HUB}")
        host.check_output(f"python3 /opt/make_weights.py {HUB}/model {SHARDS} {SHARD_BYTES}")
        host.check_output(
            f"cd {HUB}; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=hub -days 2 -keyout key.pem "
            f"-out ca.pem -addext subjectAltName=IP:{address} && cat ca.pem key.pem > cert.pem && : > log"
        )
        self.set("token", TOKEN)
        self.ca.write_text(host.file(f"{HUB}/ca.pem").content_string)
        host.check_output(
            f"cd {HUB}; setsid python3 /opt/hub.py model {PORT} log < /dev/null > out 2>&1 & echo $! > pid"
        )
        host.check_output(f"timeout 180 sh -c 'until {LISTENING}; do sleep 0.2; done' 2> /dev/null")

    def set(self, name: str, value: str) -> None:
        """Change how it behaves."""
        self.host.check_output(f"echo '{value}' > {HUB}/{name}")

    def unset(self, name: str) -> None:
        self.host.check_output(f"rm {HUB}/{name}")

    def source(self, kind: str) -> dict[str, object]:
        """What the role is told of it."""
        place = f"{self.address}:{PORT}"
        return {
            "model_weights_source": kind,
            "model_weights_id": "example/model",
            "model_weights_image": "ascend/vllm-ascend:v0.13.0-a3",
            "model_weights_environment": {"HF_ENDPOINT": f"https://{place}", "MODELSCOPE_DOMAIN": place},
            "model_weights_ca": str(self.ca),
            "model_weights_token": TOKEN,
        }

    def sent(self) -> list[tuple[str, int, int]]:
        """Every answer with a part of a shard: name, where it began, bytes."""
        rows = (line.split() for line in self.host.file(f"{HUB}/log").content_string.splitlines())
        return [(name, int(first), int(count)) for name, first, count in rows if name.endswith("safetensors")]


@pytest.fixture
def hub(server, servers, tmp_path):
    made = Hub(server("fan2"), servers["fan2"]["address"], tmp_path)
    yield made
    made.host.check_output(f"kill $(cat {HUB}/pid)")


@pytest.mark.parametrize("kind", ["modelscope", "huggingface"])
def test_a_download_is_made_once_gone_on_with_and_verified(server, lacking, run, hub, kind):
    """By the real clients: cut at 60 %, then one file with other bytes than its hash, then whole."""
    lacking(*SERVERS)
    first = server("fan1")
    hub.set("cut", str(int(0.6 * SHARDS * SHARD_BYTES)))
    outcome = run(**hub.source(kind))
    assert not outcome.good
    assert outcome.codes == ["weights-download-failed"], outcome.output
    assert "run again: the download resumes" in " ".join(outcome.output.split())
    assert not any(server(name).file(MODEL).exists for name in SERVERS)
    assert first.run("docker ps --all --quiet").stdout == ""
    assert not first.file("/etc/pd_rollout/weights/token").exists
    script = first.file("/etc/pd_rollout/weights/download.sh").content_string
    assert TOKEN not in script
    assert "example/model" in script

    hub.unset("cut")
    whole = {name for name, _first, count in hub.sent() if count > SHARD_BYTES}
    assert len(whole) == 2, hub.sent()
    damaged = min({f"model-{n:05}-of-{SHARDS:05}.safetensors" for n in range(1, SHARDS + 1)} - whole)
    hub.set("damage", damaged)
    outcome = run(**hub.source(kind))
    assert not outcome.good
    # One client compares the hashes itself, for the other the role does.
    expected = {"modelscope": "weights-download-failed", "huggingface": "weights-hash-mismatch"}
    assert outcome.codes == [expected[kind]], outcome.output
    assert not any(server(name).file(MODEL).exists for name in SERVERS)

    hub.unset("damage")
    before = sum(count for _name, _first, count in hub.sent())
    again = run(**hub.source(kind))
    assert again.good, again.output
    sent = sum(count for _name, _first, count in hub.sent())
    assert sent - before < 1.1 * SHARD_BYTES, hub.sent()
    assert sent < (SHARDS + 1) * SHARD_BYTES * 1.2, hub.sent()
    if kind == "modelscope":
        assert any(first for _name, first, _count in hub.sent()), (
            "no download was gone on with inside of a file"
        )
    listed = {server(name).check_output(f"cd {MODEL} && ls -A") for name in SERVERS}
    assert len(listed) == 1
    assert not [name for name in listed.pop().split() if name.startswith(".")]
    wanted = hub.host.check_output(f"cd {HUB}/model && sha256sum *.safetensors")
    for name in SERVERS:
        assert server(name).check_output(f"cd {MODEL} && sha256sum *.safetensors") == wanted


def test_weights_of_the_controller_are_compared_with_their_hashes(server, lacking, run, tmp_path):
    lacking(*SERVERS)
    model = tmp_path / "model"
    subprocess.run([sys.executable, MAKE_WEIGHTS, str(model), "2", "100000"], check=True)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(model.iterdir())}
    manifest = tmp_path / "SHA256SUMS"
    source = {
        "model_weights_source": "controller",
        "model_weights_directory": str(model),
        "model_weights_manifest": str(manifest),
    }
    shard = "model-00002-of-00002.safetensors"
    manifest.write_text(
        "".join(f"{'0' * 64 if name == shard else value}  {name}\n" for name, value in sums.items())
    )
    outcome = run(**source)
    assert not outcome.good
    assert outcome.codes == ["weights-hash-mismatch"], outcome.output
    assert not server("fan1").file(MODEL).exists

    manifest.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    again = run(**source)
    assert again.good, again.output
    for name in SERVERS:
        assert server(name).file(f"{MODEL}/{shard}").sha256sum == sums[shard]
