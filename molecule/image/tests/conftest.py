"""What the tests of the image start from."""

from __future__ import annotations

import json
import time

import pytest
from outside import FOLDER, SERVERS, Runner, World


@pytest.fixture
def world(server, servers):
    """Open and undamaged before and after the test."""
    one = World(server("source"), servers["source"]["address"])
    one.gate()
    yield one
    one.gate()


@pytest.fixture
def bare(server):
    """Servers that have no image, nothing of a transfer, and no note of one."""
    for name in SERVERS:
        server(name).check_output(
            "docker image ls --quiet | sort -u | xargs --no-run-if-empty docker image rm --force > /dev/null;"
            f" rm -rf {FOLDER} /var/lib/pd_rollout"
        )


@pytest.fixture
def run(inventory):
    return Runner(inventory)


@pytest.fixture
def ids(server):
    """The image's ID by server; empty where it is not."""
    return lambda image, names=SERVERS: [
        server(name).run(f"docker image inspect --format '{{{{.Id}}}}' {image}").stdout.strip()
        for name in names
    ]


@pytest.fixture
def part(server):
    """How many bytes of an archive a server has."""

    def size(name: str) -> int:
        return int(server(name).run(f"stat --format %s {FOLDER}/archive.part").stdout or 0)

    return size


@pytest.fixture
def until(part):
    """Wait until a server has so many bytes."""

    def wait(name: str, size: int, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while part(name) < size:
            assert time.monotonic() < deadline, f"{name} has {part(name)} bytes after {seconds} s"
            time.sleep(0.1)

    return wait


@pytest.fixture
def processes(server):
    """The number of the process that does a server's part."""
    return lambda name: str(json.loads(server(name).file(f"{FOLDER}/process.json").content_string)["pid"])
