"""The role on a server that is converged, broken, or asked for something else: one server, a run each."""

from __future__ import annotations

import json
import re
import time

import pytest

testinfra_hosts = ["docker1"]

CONVERGE = "molecule/docker/converge.yml"
IMAGE = "ascend/vllm-ascend:v0.13.0-a3"
ARCHIVE = "/opt/pd-sim/images/vllm-ascend.tar"
DAEMON_JSON = "/etc/docker/daemon.json"
# The socket too: the first who asked it would start the engine again.
STOP = "systemctl stop docker.socket docker.service"
PULLED = "127.0.0.1:5000/ascend/tiny"
# A container that needs no image of its own: the engine's, kept busy.
SLEEPER = f"docker run --detach --name sleeper --entrypoint sleep {IMAGE} 600"


def docker(host, template: str, command: str) -> str:
    return host.check_output(f"docker {command} --format '{template}'")


def engine_pid(host) -> str:
    return host.file("/run/docker.pid").content_string.strip()


def told(output: str) -> str:
    """What the playbook said, without the line breaks of its callback."""
    return re.sub(r"\s+", " ", output)


def recap(output: str, name: str) -> dict[str, int]:
    line = next(line for line in output.splitlines() if re.match(rf"{name}\s+: ok=", line))
    return {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", line)}


@pytest.fixture
def run(play, host):
    """Run the role on this server with other variables; gives whether it went well, and what was said."""

    def run_role(*arguments: str, **variables) -> tuple[bool, str]:
        name = host.backend.get_hostname()
        done = play(CONVERGE, "--limit", name, "--extra-vars", json.dumps(variables), *arguments)
        return done.returncode == 0, done.stdout + done.stderr

    return run_role


def test_a_converged_run_asks_little(host, run):
    pid = engine_pid(host)
    good, output = run()
    counts = recap(output, host.backend.get_hostname())
    assert good, output
    assert counts["changed"] == 0, output
    # One of them validates the arguments, one includes, one asserts: all three on the controller.
    assert counts["ok"] <= 6, output
    assert engine_pid(host) == pid


def test_check_mode_of_a_converged_server_changes_nothing(host, run):
    good, output = run("--check", "--diff")
    assert good, output
    assert recap(output, host.backend.get_hostname())["changed"] == 0, output


def test_an_archive_without_the_image(run):
    good, output = run(docker_image="ascend/other:1")
    assert not good
    assert f"{ARCHIVE} contains {IMAGE}. Set docker_image (pd_image) to one of these" in told(output)


@pytest.fixture
def digests(host) -> dict[str, str]:
    """The small registry runs on the server; gives the digests of its images by tag."""
    if not host.socket("tcp://127.0.0.1:5000").is_listening:
        host.check_output("setsid python3 /opt/registry.py 5000 < /dev/null > /dev/null 2>&1 &")
        deadline = time.monotonic() + 30
        while not host.socket("tcp://127.0.0.1:5000").is_listening and time.monotonic() < deadline:
            time.sleep(0.2)
    return json.loads(host.check_output("python3 /opt/registry.py --digests"))


def test_an_image_is_pulled_by_tag_and_digest(host, run, digests):
    pull = {
        "docker_image": f"{PULLED}:v1",
        "docker_image_source": "pull",
        "docker_image_digest": digests["v1"],
    }
    host.run(f"docker image rm {PULLED}:v1")

    good, output = run("--check", **pull)
    assert good, output
    assert host.run(f"docker image inspect {PULLED}:v1").rc != 0, "check mode pulls nothing"

    good, output = run(**pull)
    assert good, output
    assert recap(output, host.backend.get_hostname())["changed"] == 2, output
    assert docker(host, "{{.RepoDigests}}", f"image inspect {PULLED}:v1") == f"[{PULLED}@{digests['v1']}]"

    good, output = run(**pull)
    assert good, output
    assert recap(output, host.backend.get_hostname())["changed"] == 0, output

    nowhere = f"sha256:{'0' * 64}"
    good, output = run(**{**pull, "docker_image_digest": nowhere})
    assert not good
    assert nowhere in told(output)
    assert docker(host, "{{.RepoDigests}}", f"image inspect {PULLED}:v1") == f"[{PULLED}@{digests['v1']}]"


def test_a_pin_holds_whatever_the_tag_means(host, run, digests):
    good, output = run(
        docker_image=f"{PULLED}:v1", docker_image_source="pull", docker_image_digest=digests["v2"]
    )
    assert good, output
    assert docker(host, "{{.Config.Labels.tag}}", f"image inspect {PULLED}:v1") == "v2"


def test_an_older_image_of_the_tag_is_pulled_anew(host, run, digests):
    host.check_output(f"docker pull --quiet {PULLED}:v2")
    host.check_output(f"docker tag {IMAGE} {PULLED}:v2")
    good, output = run(
        docker_image=f"{PULLED}:v2", docker_image_source="pull", docker_image_digest=digests["v2"]
    )
    assert good, output
    assert docker(host, "{{.Config.Labels.tag}}", f"image inspect {PULLED}:v2") == "v2"


@pytest.mark.usefixtures("digests")
def test_an_image_is_copied_from_the_controller(host, run, tmp_path):
    archive = tmp_path / "tiny.tar"
    host.check_output(f"docker pull --quiet {PULLED}:v1")
    host.check_output(f"docker tag {PULLED}:v1 ascend/tiny:copied")
    host.check_output("docker save --output /root/tiny.tar ascend/tiny:copied")
    archive.write_bytes(host.file("/root/tiny.tar").content)
    host.check_output("docker image rm ascend/tiny:copied")
    good, output = run(
        docker_image="ascend/tiny:copied",
        docker_image_archive=str(archive),
        docker_image_archive_remote_src=False,
    )
    assert good, output
    assert host.run("docker image inspect ascend/tiny:copied").rc == 0
    assert not host.file("/var/lib/pd_rollout/image").exists


@pytest.fixture
def daemon_json(host):
    """daemon.json may be broken in the test; the engine has its own again afterwards."""
    host.check_output(f"cp -p {DAEMON_JSON} {DAEMON_JSON}.good")
    yield
    host.check_output(f"mv {DAEMON_JSON}.good {DAEMON_JSON}")
    host.run("docker rm --force sleeper")
    host.check_output("systemctl restart docker")


@pytest.mark.usefixtures("daemon_json")
def test_a_refused_option_does_not_stay_unseen(host, run):
    pid = engine_pid(host)
    good, output = run(docker_daemon_config={"registry-mirrors": ["no address"]})
    assert not good
    # From 23.0 on dockerd is asked first; before, it refuses the reload.
    assert "dockerd refuses the merged configuration" in told(
        output
    ) or "did not apply its new configuration" in told(output)
    assert engine_pid(host) == pid


@pytest.mark.usefixtures("daemon_json")
def test_a_restart_waits_for_running_containers(host, run):
    rotation = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
    host.check_output(SLEEPER)
    pid = engine_pid(host)
    good, output = run(docker_daemon_config=rotation)
    assert good, output
    assert "log-driver, log-opts takes effect at the next start" in told(output)
    assert "1 running container(s) would stop now" in told(output)
    assert engine_pid(host) == pid
    assert docker(host, "{{.State.Running}}", "container inspect sleeper") == "true"

    host.check_output("docker rm --force sleeper")
    good, output = run(docker_daemon_config={**rotation, "log-opts": {"max-file": "5"}})
    assert good, output
    assert "log-opts changed: the Docker Engine restarts" in told(output)
    assert engine_pid(host) != pid
    assert json.loads(host.file(DAEMON_JSON).content_string)["log-opts"] == {
        "max-size": "10m",
        "max-file": "5",
    }


def test_an_engine_that_was_stopped_is_started(host, run):
    host.check_output(STOP)
    good, output = run("--check")
    assert good, output
    assert host.run("docker info").rc != 0, "check mode starts nothing"
    good, output = run()
    assert good, output
    assert docker(host, "{{.ServerVersion}}", "info")


def test_a_server_without_an_engine_is_told_what_would_be_installed(host, run):
    dockerd = host.check_output("command -v dockerd")
    host.check_output(STOP)
    host.check_output(f"mv {dockerd} {dockerd}.away")
    try:
        good, output = run("--check")
    finally:
        host.check_output(f"mv {dockerd}.away {dockerd}")
        host.check_output("systemctl start docker")
    assert good, output
    assert "Would be installed: docker.io" in told(output)
    assert f"{IMAGE} would be provided (source: archive) once the Docker Engine runs." in told(output)


def test_a_restarted_server_is_converged(host, run, sim):
    told_to_end = "trap 'touch /out/ended; exit 0' TERM; while :; do sleep 0.1; done"
    options = "--rm --name ends --volume /root/out:/out --entrypoint bash"
    host.check_output(f'docker run --detach {options} {IMAGE} -c "{told_to_end}"')
    sim("restart", host.backend.get_hostname())
    # What answers to ssh has its Docker Engine, and has ended the containers before.
    assert docker(host, "{{.ServerVersion}}", "info")
    assert host.file("/root/out/ended").exists
    good, output = run()
    assert good, output
    assert recap(output, host.backend.get_hostname())["changed"] == 0, output
