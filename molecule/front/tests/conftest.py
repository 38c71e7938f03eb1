# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from load import Front, Load

ROOT = Path(__file__).resolve().parents[3]
ALICE, BOB = "sk-alice-of-this-test-0123456789", "sk-bob-of-this-test-0123456789"
# Those, and the engines' own.
SECRETS = (ALICE, BOB, "a-key-of-the-engines-in-this-test", "PRIVATE KEY-----\n")
DEPLOY = "playbooks/deploy.yml"


@pytest.fixture(scope="session")
def front(servers, inventory):
    """Both fronts, as clients reach them."""
    return Front(
        addresses=[one["address"] for one in servers.values()],
        port=8443,
        name="models.example",
        ca=str(inventory.parent / "certificates" / "ca.pem"),
        key=ALICE,
        model="deepseek_v3",
    )


@pytest.fixture
def client(front, monkeypatch):
    """A client that knows the name, a key and, as the documentation says, the authority."""
    resolve = socket.getaddrinfo

    def found(host, *arguments, **options):
        known = front.addresses[0] if host in (front.name, front.name.encode()) else host
        return resolve(known, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setenv("SSL_CERT_FILE", front.ca)
    monkeypatch.setenv("NO_PROXY", "*")
    return lambda key=ALICE: openai.OpenAI(
        base_url=f"https://{front.name}:{front.port}/v1", api_key=key, max_retries=0
    )


class Site:
    """A copy of the inventory and its certificates, which tests may change; and the servers."""

    def __init__(self, source: Path, copy: Path, server: Callable, names: list[str]) -> None:
        self.server, self.names = server, names
        self._source, self.inventory, self.certificates = source, copy / "inventory", copy / "certificates"
        shutil.copytree(source.parent / "certificates", self.certificates)
        self.restore()

    def restore(self) -> None:
        """Undo all changes of the inventory."""
        shutil.rmtree(self.inventory, ignore_errors=True)
        shutil.copytree(self._source, self.inventory)
        self.set(pd_plan_dir=str(self.inventory.parent / "plan"))

    def set(self, **variables: object) -> None:
        """Set variables of the whole cluster; None removes one."""
        path = self.inventory / "group_vars" / "all.yml"
        values = {**yaml.safe_load(path.read_text()), **variables}
        kept = {name: value for name, value in values.items() if value is not None}
        # The order of the engines' options is that of their command lines.
        path.write_text(yaml.safe_dump(kept, sort_keys=False))

    def without(self, group: str, role: str = "decoder") -> None:
        """Take an instance out."""
        path = self.inventory / "hosts.yml"
        hosts = yaml.safe_load(path.read_text())
        del hosts[role]["children"][group]
        path.write_text(yaml.safe_dump(hosts))

    def command(self, *arguments: str, playbook: str = DEPLOY) -> list[str]:
        """Return the words of a run."""
        program = str(ROOT / ".venv/bin/ansible-playbook")
        return [program, "--inventory", str(self.inventory), playbook, *arguments]

    def environment(self) -> dict[str, str]:
        own = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        own.pop("ANSIBLE_FORCE_COLOR", None)
        return own

    def deploy(self, *arguments: str) -> str:
        """Deploy what the inventory says; return what was printed."""
        return self.run(DEPLOY, *arguments)

    def run(self, playbook: str, *arguments: str) -> str:
        """Run a playbook; return what was printed."""
        done = subprocess.run(
            self.command(*arguments, playbook=playbook),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=self.environment(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def routers(self) -> dict[tuple[str, str], str]:
        """Return the routers that run: (server, container) → its ID."""
        return {
            (name, line.split()[0]): line.split()[1]
            for name in self.names
            for line in self.server(name)
            .check_output(
                "docker ps --no-trunc --filter label=pd_rollout.role=proxy --format '{{.Names}} {{.ID}}'"
            )
            .splitlines()
        }

    def workers(self) -> dict[str, str]:
        """Return the worker of each front that accepts connections: its process."""
        return {name: worker(self.server(name)) for name in self.names}

    def active(self) -> set[str]:
        """Return the colours of the routers that get the requests."""
        return {
            self.server(name).check_output("cat /etc/pd_rollout/pd/front/router.map").split()[1]
            for name in self.names
        }


def ask(host, command: str, socket: str = "/run/pd-front/master.sock") -> str:
    """Ask HAProxy's master process of a server."""
    program = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(sys.argv[2].encode()+b'\\n'); s.shutdown(1); sys.stdout.write(s.makefile().read())"
    )
    return host.check_output("python3 -c %s %s %s", program, socket, command)


def worker(host) -> str:
    """Return the process ID of the worker that accepts connections."""
    return re.findall(r"^(\d+)\s+worker", ask(host, "show proc"), re.MULTILINE)[0]


def changed(output: str) -> dict[str, int]:
    """Return how much a play has changed on which host."""
    found = re.finditer(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    return {match[1]: int(match[2]) for match in found if match[2] != "0"}


def engines(site: Site) -> dict[tuple[str, str], str]:
    """Return the engines that run: (server, container) → its ID."""
    return {
        (name, line.split()[0]): line.split()[1]
        for name in site.names
        for line in site.server(name)
        .check_output(
            "docker ps --no-trunc --filter name=pd-prefill --filter name=pd-decode"
            " --format '{{.Names}} {{.ID}}'"
        )
        .splitlines()
    }


def steps(output: str) -> list[tuple[str, str, str]]:
    """Return the steps of a change as printed: what each does, and how many of each role serve meanwhile."""
    found = re.findall(r"^\d+ +(.+?)  +(\d of \d|-) +(\d of \d|-) ", output, re.MULTILINE)
    return [(what, prefillers, decoders) for what, prefillers, decoders in found]


def arguments(site: Site, sequences: int) -> dict[str, object]:
    """Return the engines' arguments of the inventory with another number of sequences."""
    known = yaml.safe_load((site.inventory / "group_vars" / "all.yml").read_text())["pd_engine_args"]
    return {"pd_engine_args": {**known, "max-num-seqs": sequences}}


@pytest.fixture(scope="session")
def site(inventory, tmp_path_factory, server, servers):
    # A folder of the same name: the scripts contain the cluster's, which comes from it.
    return Site(inventory, tmp_path_factory.mktemp("site") / inventory.parent.name, server, list(servers))


@pytest.fixture
def changing(site) -> Iterator[Site]:
    """The inventory may be changed by the test; afterwards it is as before. What the test deployed, stays."""
    yield site
    site.restore()


@pytest.fixture
def unguarded(site, server) -> Iterator[None]:
    """No guard runs meanwhile: it would mend what the test is about."""
    for name in site.names:
        server(name).check_output("systemctl stop pd-guard")
    yield
    for name in site.names:
        server(name).check_output("systemctl start pd-guard")


@pytest.fixture
def under_load(front, site):
    """`with under_load():` requests run all the time, and every one is answered completely and rightly."""

    @contextmanager
    def run(clients: int = 8, **options: object) -> Iterator[Load]:
        load = Load(front, clients, **options)
        try:
            with load:
                load.answered(2 * clients)
                yield load
                load.answered(2 * clients)
        finally:
            if load.result.failed:
                print(logs(site))
        assert not load.result.failed, f"{load.result.right} right, {load.result.wrong}"

    return run


def logs(site: Site) -> str:
    """Return what tells why requests have failed: the fronts' and the routers' last lines."""
    told = []
    for name in site.names:
        host = site.server(name)
        told.append(f"── {name}: front")
        lines = host.run("journalctl -u pd-front --no-pager -o short-precise | tail -n 2000").stdout
        dull = r"status=200 .* end=--|path=\"/health\"|Proxy \S+ stopped|haproxy version|path to executable"
        told += [line for line in lines.splitlines() if not re.search(dull, line)][-40:]
        routers = host.run("docker ps -a --filter label=pd_rollout.role=proxy --format '{{.Names}}'").stdout
        for container in routers.split():
            told.append(f"── {name}: {container}")
            told += host.run(f"docker logs --tail 15 {container} 2>&1").stdout.splitlines()
    return "\n".join(told)
