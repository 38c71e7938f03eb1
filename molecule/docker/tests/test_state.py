"""The engine, its options and the image, on every server."""

from __future__ import annotations

import json

IMAGE = "ascend/vllm-ascend:v0.13.0-a3"
DAEMON_JSON = "/etc/docker/daemon.json"


def docker(host, template: str, command: str) -> str:
    return host.check_output(f"docker {command} --format '{template}'")


def test_the_engine_runs_now_and_at_boot(host):
    log = host.run("journalctl --unit docker --no-pager --lines 20").stdout
    assert host.socket("unix:///run/docker.sock").is_listening, log
    assert docker(host, "{{.ServerVersion}}", "info"), log
    assert host.check_output("systemctl is-enabled docker.service") == "enabled"


def test_the_server_has_booted_as_a_real_one_does(host):
    state = host.run("timeout 60 systemctl is-system-running --wait")
    assert state.stdout.strip() == "running", host.run("systemctl --failed").stdout
    assert "Startup finished" in host.check_output("journalctl --boot --no-pager _PID=1")


def test_its_control_groups_are_its_own(host):
    """systemd remounts and adds to what it sees: the machine's own must not be among it."""
    assert host.check_output("cut --delimiter=: --fields=3 /proc/1/cgroup | sort --unique | tail -n 1") in (
        "/",
        "/init.scope",
    )


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
