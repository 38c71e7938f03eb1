"""The engine, its options and the image, on every server."""

from __future__ import annotations

import json

IMAGE = "ascend/vllm-ascend:v0.13.0-a3"
DAEMON_JSON = "/etc/docker/daemon.json"


def docker(host, template: str, command: str) -> str:
    return host.check_output(f"docker {command} --format '{template}'")


def test_the_engine_runs_now_and_at_boot(host):
    log = host.run("tail -n 20 /var/log/docker.log").stdout
    assert host.socket("unix:///var/run/docker.sock").is_listening, log
    assert docker(host, "{{.ServerVersion}}", "info"), log
    assert host.run("ls /etc/rc2.d/S??docker").rc == 0


def test_options_are_merged_and_in_effect(host):
    file = host.file(DAEMON_JSON)
    assert json.loads(file.content_string) == {
        "shutdown-timeout": 20,
        "max-concurrent-downloads": 10,
        "registry-mirrors": ["http://127.0.0.1:5000"],
    }
    assert file.content_string.startswith('{\n    "shutdown-timeout"'), "indentation and order stay"
    assert file.mode == 0o640
    assert docker(host, "{{json .RegistryConfig.Mirrors}}", "info") == '["http://127.0.0.1:5000/"]'


def test_the_image_is_there(host):
    assert docker(host, "{{.Id}}", f"image inspect {IMAGE}").startswith("sha256:")
