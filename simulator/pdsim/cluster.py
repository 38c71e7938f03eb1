"""Simulated clusters: made, listed, switched on and off, removed."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pdsim import images, inventory, network, server
from pdsim.docker import docker, inspect, need_engine
from pdsim.layout import (
    CHECKOUT,
    LABEL_CHECKOUT,
    LABEL_HOST,
    LABEL_NAME,
    STATE,
    container,
    digest,
    labels,
    prefix,
    state,
)
from pdsim.server import Server
from pdsim.ui import SimError, colour, say, step

LABEL_RECIPE = "pdsim.recipe"
# Servers that are made at the same time: the disk is the limit, not the processors.
AT_ONCE = 4
# Seconds until a server answers to ssh; about five on an idle machine.
BOOT_TIMEOUT = 120.0
# Seconds that a server may take to shut down its containers.
SHUTDOWN_TIMEOUT = 30


def up(source: Path, name: str | None = None, out: Path | None = None, *, preload: bool = False) -> None:
    """Make the servers of an inventory, or those that are missing of them."""
    if not source.exists():
        raise SimError(f"there is no inventory {source}.")
    source = source.resolve()
    name = name or (source if source.is_dir() else source.with_suffix("")).name
    folder = (out or state(name)).resolve()
    need_engine()
    subnet_file = folder / "subnet"
    known = inspect("network", prefix(name))
    sim_prefix = (
        subnet_file.read_text().strip() if known and subnet_file.exists() else network.choose_prefix(name)
    )
    with step(f"Inventory {name}") as current:
        described = inventory.describe(source, sim_prefix)
        current.result = f"{len(described.servers)} servers"
    tags = {one.engine for one in described.servers}
    images.ensure(
        tags,
        {one.image for one in described.servers},
        {(one.image, one.packages) for one in described.servers if one.packages},
    )
    volumes = {tag: images.preload_volume(tag) for tag in sorted(tags)} if preload else {}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    addresses = inventory.addresses(described.servers)
    subnet = IPv4Network(f"{sim_prefix}.0/24") if described.own_network else network.covering(addresses)
    if known and not any(config.get("Subnet") == str(subnet) for config in known[0]["IPAM"]["Config"]):
        say(f"  … the addresses of {name} have changed: its servers are made anew")
        remove(name)
    network.create(name, subnet, addresses)
    if described.own_network:
        subnet_file.write_text(f"{sim_prefix}\n")
    else:
        subnet_file.unlink(missing_ok=True)

    keys(described.servers, folder)
    derived = inventory.derive(source, described, sim_prefix, folder)
    (folder / "ssh_config").write_text(inventory.ssh_config(described.servers, folder))
    (folder / "servers.json").write_text(summary(name, source, described.servers, subnet))
    discard_strangers(name, {one.name for one in described.servers})
    with step(f"Servers of {name}") as current:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = list(
                pool.map(
                    lambda one: make(one, described.servers, name, folder, volumes.get(one.engine)),
                    described.servers,
                )
            )
        current.note = "waiting until they answer"
        for one in described.servers:
            wait_ready(name, one.name, one.address)
        current.result = f"{sum(made)} made, {len(made) - sum(made)} there, in {subnet}"
    say(
        f"    reach them with: -i {relative(derived)}   "
        f"ssh -F {relative(folder / 'ssh_config')} {described.servers[0].name}"
    )


def relative(path: Path) -> Path:
    """A path as short as it can be said from here."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


def summary(name: str, source: Path, servers: list[Server], subnet: IPv4Network) -> str:
    """servers.json: who is who, for tests and people."""
    hosts = {
        one.name: {"address": one.address, "container": container(name, one.name), "groups": one.groups}
        for one in servers
    }
    return (
        json.dumps({"name": name, "inventory": str(source), "subnet": str(subnet), "hosts": hosts}, indent=1)
        + "\n"
    )


def keys(servers: list[Server], folder: Path) -> None:
    """The key to log in with, a host key for each server, and the list of known hosts."""
    hosts = folder / "host_keys"
    hosts.mkdir(exist_ok=True, mode=0o700)
    wanted = {folder / "id_ed25519": "pd_rollout simulator"}
    wanted |= {hosts / one.name: one.name for one in servers}
    for path, comment in wanted.items():
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)
            except FileNotFoundError as error:
                raise SimError("ssh-keygen is missing; install the OpenSSH client.") from error
    lines = [
        f"{one.address} {(hosts / one.name).with_suffix('.pub').read_text().strip()}\n" for one in servers
    ]
    (folder / "known_hosts").write_text("".join(lines))


def make(one: Server, servers: list[Server], name: str, folder: Path, preloaded: str | None) -> bool:
    """Make a server and switch it on; False if it was there already."""
    here = container(name, one.name)
    facts = server.facts(one, servers)
    host_key = folder / "host_keys" / one.name
    login_key = (folder / "id_ed25519.pub").read_text()
    access = login_key + host_key.with_suffix(".pub").read_text() + one.shared
    image = images.server_image(one.image, one.packages)
    recipe = server.recipe(facts, access, image, images.engine_folder(one.engine))
    existing = inspect("container", here)
    if existing and existing[0]["Config"]["Labels"].get(LABEL_RECIPE) == recipe:
        if not existing[0]["State"]["Running"]:
            docker("start", here)
        return False
    discard(here)
    docker("volume", "create", *labels(name, one.name), here)
    if preloaded:
        images.copy_volume(preloaded, here)
    options = server.start_options(here, here, images.engine_folder(one.engine))
    options += server.boot_options(one.image)
    options += ["--hostname", one.name, "--network", prefix(name), "--ip", one.address]
    options += [*labels(name, one.name), "--label", f"{LABEL_RECIPE}={recipe}"]
    if one.shared:
        share = f"{prefix(name)}-share-{digest(one.shared)}"
        docker("volume", "create", *labels(name, one.name), share)
        options += ["--volume", f"{share}:{one.shared}"]
    docker("create", *options, image, server.BOOT.get(one.image, server.INIT))
    content = server.disk(one, facts, host_key, login_key)
    docker("cp", "-", f"{here}:/", data=content)
    docker("start", here)
    return True


def wait_ready(name: str, host: str, address: str) -> None:
    """Wait until the server answers to ssh, the last thing that its boot starts."""
    here = container(name, host)
    deadline = time.monotonic() + BOOT_TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, 22), timeout=2) as connection:
            connection.settimeout(5)
            if connection.recv(4):
                return
        described = inspect("container", here)
        if not described or not described[0]["State"]["Running"] or time.monotonic() > deadline:
            raise SimError(f"server {host} ({address}) does not answer to ssh. Its boot said:\n{said(here)}")
        time.sleep(0.3)


def said(here: str) -> str:
    """What a server's boot said: its journal, or what its first process printed."""
    journal = docker("exec", here, "journalctl", "--no-pager", "--lines", "20", check=False)
    return journal or docker("logs", "--tail", "15", here, check=False)


def discard(*containers: str) -> None:
    """Remove servers with their Docker data."""
    if containers:
        docker("rm", "--force", "--volumes", *containers, check=False)
        docker("volume", "rm", "--force", *containers, check=False)


def listed(name: str | None = None) -> list[dict[str, Any]]:
    """This checkout's servers, of one cluster or of all, ordered by name."""
    filters = ["--filter", f"label={LABEL_CHECKOUT}={CHECKOUT}"]
    if name:
        filters += ["--filter", f"label={LABEL_NAME}={name}"]
    identities = docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
    return sorted(inspect("container", *identities), key=lambda one: str(one["Name"]))


def discard_strangers(name: str, hosts: set[str]) -> None:
    """Remove servers that the inventory no longer has."""
    strangers = [
        one["Name"].lstrip("/") for one in listed(name) if one["Config"]["Labels"][LABEL_HOST] not in hosts
    ]
    discard(*strangers)


def names() -> list[str]:
    """The clusters of this checkout: those with servers, networks or a state folder."""
    found = {one["Config"]["Labels"][LABEL_NAME] for one in listed()}
    own = ["--filter", f"label={LABEL_CHECKOUT}={CHECKOUT}"]
    template = f'{{{{ .Label "{LABEL_NAME}" }}}}'
    for kind in ("network", "volume"):
        found |= set(docker(kind, "ls", *own, "--format", template).split())
    if STATE.exists():
        found |= {path.name for path in STATE.iterdir() if (path / "servers.json").exists()}
    return sorted(found)


def down(name: str | None = None) -> None:
    """Remove a cluster, or all of this checkout, and everything that was made for it."""
    need_engine()
    wanted = [name] if name else names()
    if not wanted:
        say("  no simulated servers here")
    for one in wanted:
        with step(f"Remove the servers of {one}") as current:
            current.result = f"{remove(one)} removed"
            shutil.rmtree(state(one), ignore_errors=True)
    if STATE.exists() and not any(STATE.iterdir()):
        STATE.rmdir()


def remove(name: str) -> int:
    """Remove all that belongs to a cluster; returns how many servers it had."""
    containers = [one["Name"].lstrip("/") for one in listed(name)]
    discard(*containers)
    own = ["--filter", f"label={LABEL_CHECKOUT}={CHECKOUT}", "--filter", f"label={LABEL_NAME}={name}"]
    volumes = docker("volume", "ls", "--quiet", *own).split()
    if volumes:
        docker("volume", "rm", *volumes)
    networks = docker("network", "ls", "--quiet", *own).split()
    if networks:
        docker("network", "rm", *networks)
    return len(containers)


def status() -> None:
    """Print this checkout's servers."""
    need_engine()
    found = listed()
    if not found:
        say("No simulated servers. `sim up --inventory inventory/simulated_1p1d` makes some.")
        return
    rows = [("CLUSTER", "HOST", "ADDRESS", "STATE", "FAULTS")]
    for one in found:
        own = one["Config"]["Labels"]
        addresses = [
            net.get("IPAMConfig", {}).get("IPv4Address", "")
            for net in one["NetworkSettings"]["Networks"].values()
        ]
        running = one["State"]["Running"]
        faults = ", ".join(current_faults(one["Name"].lstrip("/"))) if running else ""
        rows.append(
            (own[LABEL_NAME], own[LABEL_HOST], addresses[0], "on" if running else "off", faults or "-")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        say(colour("1", line) if number == 0 else line)


def current_faults(here: str) -> dict[str, Any]:
    """The faults of a running server."""
    text = docker("exec", here, "cat", f"/{server.STATE}/faults.json", check=False)
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def find(name: str | None, host: str) -> dict[str, Any]:
    """The description of a server's container."""
    need_engine()
    matching = [one for one in listed(name) if one["Config"]["Labels"][LABEL_HOST] == host]
    if not matching:
        there = ", ".join(
            f"{one['Config']['Labels'][LABEL_NAME]}/{one['Config']['Labels'][LABEL_HOST]}" for one in listed()
        )
        raise SimError(f"there is no simulated server {host} here (there are: {there or 'none'}).")
    if len(matching) > 1:
        clusters = ", ".join(one["Config"]["Labels"][LABEL_NAME] for one in matching)
        raise SimError(f"there is a server {host} in {clusters}: say which with --name.")
    return matching[0]


def power(name: str | None, host: str, action: str, *, cut: bool = False) -> None:
    """Switch a server off or on, or boot it anew; `cut` takes the power away instead of shutting down."""
    one = find(name, host)
    here = one["Name"].lstrip("/")
    cluster = one["Config"]["Labels"][LABEL_NAME]
    with step(f"{action.capitalize()} {host} of {cluster}"):
        if action in ("stop", "restart") and one["State"]["Running"]:
            docker("kill", here) if cut else docker("stop", "-t", str(SHUTDOWN_TIMEOUT), here)
        if action in ("start", "restart"):
            docker("start", here)
            config = next(iter(one["NetworkSettings"]["Networks"].values()))["IPAMConfig"]
            wait_ready(cluster, host, config["IPv4Address"])
