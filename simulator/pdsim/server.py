"""One simulated server: what lies on its disk, and how its container runs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pdsim import weights
from pdsim.layout import SIMULATOR, digest

OVERLAY = SIMULATOR / "server" / "rootfs"
TOOLS = SIMULATOR / "tools"
STATE = "usr/local/dcmi/pd-sim"
IMAGES = "/opt/pd-sim/images"
DRIVER = "25.5.0"
SOC = {True: "Ascend910_9391", False: "Ascend910B3"}
# Folders that Debian has: their owner and mode stay as they are.
KNOWN_FOLDERS = frozenset(
    {
        "",
        "etc",
        "etc/default",
        "etc/ssh",
        "etc/ssh/sshd_config.d",
        "etc/systemd",
        "etc/systemd/system",
        "etc/systemd/system/multi-user.target.wants",
        "opt",
        "root",
        "usr",
        "usr/lib",
        "usr/local",
        "usr/local/bin",
        "usr/local/lib",
        "usr/local/sbin",
        "usr/local/share",
    }
)
# What a container starts: systemd, or on a kind of machine that has none what does a boot by itself.
INIT = "/opt/pd-sim/init"
BOOT = {"controller": "/opt/pd-sim/boot"}
UNITS = "etc/systemd/system"
ENABLED = ("pd-sim-boot.service", "pd-sim-served.service")
# Units of Debian that a server in a container does not need, or that would change the machine's kernel.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
)
# What dockerd in a container needs, short of --privileged (which is not to be had everywhere).
CAPABILITIES = (
    "SYS_ADMIN",
    "NET_ADMIN",
    "MKNOD",
    "SYS_PTRACE",
    "NET_RAW",
    "SYS_CHROOT",
    "DAC_READ_SEARCH",
    "SYSLOG",
)
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
# Below the default of 1024: the machine's own work, Ansible above all, comes first.
CPU_SHARES = 512
# Linux takes the ports of outgoing connections from 32768-60999, where a plan has ports too: now and then an
# engine finds one of its own taken. Servers here are like those on which the ports of the plan are reserved.
OUTGOING_PORTS = "40000 58999"


@dataclass(frozen=True)
class Server:
    """A host of the inventory as the simulator makes it."""

    name: str
    address: str
    interface: str
    chips: int
    index: int
    # Folder of the weights; None: none are laid down.
    model_path: str | None
    groups: tuple[str, ...] = ()
    # The tag of the engine image that lies on it; one for Atlas A2 makes it a server of that kind.
    engine: str = "v0.13.0-a3"
    settings: dict[str, Any] = field(default_factory=dict)
    # What it is made from: a key of images.SERVERS.
    image: str = "server"
    # Packages of Debian beside those of its kind.
    packages: tuple[str, ...] = ()
    # A folder that is one and the same on all servers of the cluster that name it, as a network share.
    shared: str = ""


def vnic(server: Server, chip: int) -> str:
    """The address of a chip inside the super pod."""
    return f"192.168.{server.index}.{chip + 1}"


def roce(server: Server, chip: int) -> str:
    """The address of a chip's own network port."""
    return f"11.12.{server.index}.{chip + 1}"


def sdid(server: Server, chip: int) -> int:
    """Super pod device id: server, NPU, die and device in one number."""
    return (server.index << 22) | (chip // 2 << 18) | (chip % 2 << 16) | chip


def facts(server: Server, servers: list[Server]) -> dict[str, Any]:
    """server.json: what the simulated tools and the simulated engine go by."""
    gateway = f"11.12.{server.index}.254"
    chips = [
        {
            "id": chip,
            "sdid": sdid(server, chip),
            "vnic_ip": vnic(server, chip),
            "ip": roce(server, chip),
            "gateway": gateway,
            "netdetect": gateway,
            "lldp_ifname": f"400GE1/{server.index + 1}/{chip // 8 + 1}:{chip % 8 + 1}",
        }
        for chip in range(server.chips)
    ]
    peers = {
        place(other, chip): other.address
        for other in servers
        for chip in range(other.chips)
        for place in (vnic, roce)
    }
    default = {
        "name": server.name,
        "address": server.address,
        "interface": server.interface,
        "chips": server.chips,
        "super_pod_id": 0,
        "super_pod_size": 384,
        "server_index": server.index,
        "chip": chips,
        "driver": DRIVER,
        "soc": SOC[server.engine.endswith("-a3")],
        "model_path": server.model_path,
        "timing": {
            "query_seconds": 0.05,
            "ping_seconds": 1.0,
            "load_seconds": 6,
            "capture_seconds": 2,
            "hccl_connect_timeout_scale": 0.1,
        },
        "peers": peers,
    }
    timing = {**default["timing"], **(server.settings.get("timing") or {})}  # type: ignore[dict-item]
    return {**default, **server.settings, "timing": timing}


def hccn_conf(state: dict[str, Any]) -> str:
    """/etc/hccn.conf of the server."""
    lines = []
    for chip in state["chip"]:
        number = chip["id"]
        lines += [
            f"address_{number}={chip['ip']}",
            f"netmask_{number}=255.255.255.0",
            f"gateway_{number}={chip['gateway']}",
            f"netdetect_{number}={chip['netdetect']}",
        ]
    return "\n".join(lines) + "\n"


class Disk:
    """A tar archive that is laid over a server's root folder."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 - closed in `bytes`
        self._folders = set(KNOWN_FOLDERS)
        self._now = int(time.time())

    def folder(self, path: str, mode: int = 0o755) -> None:
        """A folder with its parents."""
        if path in self._folders:
            return
        self.folder(path.rpartition("/")[0])
        self._folders.add(path)
        entry = tarfile.TarInfo(path)
        entry.type = tarfile.DIRTYPE
        entry.mode = mode
        entry.mtime = self._now
        self._tar.addfile(entry)

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """A file with its folder."""
        self.folder(path.rpartition("/")[0])
        data = content.encode() if isinstance(content, str) else content
        entry = tarfile.TarInfo(path)
        entry.size = len(data)
        entry.mode = mode
        entry.mtime = self._now
        self._tar.addfile(entry, io.BytesIO(data))

    def link(self, path: str, target: str) -> None:
        """A symbolic link with its folder."""
        self.folder(path.rpartition("/")[0])
        entry = tarfile.TarInfo(path)
        entry.type = tarfile.SYMTYPE
        entry.linkname = target
        entry.mtime = self._now
        self._tar.addfile(entry)

    def tree(self, source: Path) -> None:
        """All files of a folder at the same places."""
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                self.file(str(path.relative_to(source)), path.read_bytes(), mode)

    def bytes(self) -> bytes:
        """The archive."""
        self._tar.close()
        return self._buffer.getvalue()


@cache
def model_files() -> dict[str, bytes]:
    """The weights: the same for all servers."""
    return weights.files()


def disk(server: Server, state: dict[str, Any], host_key: Path, login_key: str) -> bytes:
    """Everything that makes a plain Debian this server."""
    out = Disk()
    out.tree(OVERLAY)
    # Secrets and access.
    out.file("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600)
    out.file("etc/ssh/ssh_host_ed25519_key.pub", host_key.with_suffix(".pub").read_bytes())
    out.folder("root/.ssh", 0o700)
    out.file("root/.ssh/authorized_keys", login_key, 0o600)
    boot(out, server, host_key)
    # The driver of the card and its tools.
    out.file(
        "usr/local/Ascend/driver/version.info", f"Version={state['driver']}\nascendhal_version=7.35.23\n"
    )
    out.file("usr/local/Ascend/driver/lib64/driver/libascend_hal.so", "")
    out.file("usr/local/Ascend/driver/lib64/common/libc_sec.so", "")
    out.file("usr/local/dcmi/libdcmi.so", "")
    out.file(
        "etc/ascend_install.info",
        "UserName=HwHiAiUser\nUserGroup=HwHiAiUser\nDriver_Install_Type=full\n"
        "Driver_Install_Path_Param=/usr/local/Ascend\nDriver_Install_For_All=yes\n",
    )
    out.file("etc/hccn.conf", hccn_conf(state))
    places = {"hccn_tool": "usr/local/Ascend/driver/tools", "npu-smi": "usr/local/bin"}
    for tool in sorted(TOOLS.iterdir()):
        if tool.is_file() and tool.suffix != ".md":
            mode = 0o755 if tool.name in places else 0o644
            out.file(f"{places.get(tool.name, STATE)}/{tool.name}", tool.read_bytes(), mode)
    out.file(f"{STATE}/server.json", json.dumps(state, indent=1) + "\n")
    out.file(f"{STATE}/faults.json", "{}\n")
    out.folder("root/.cache")
    if server.model_path:
        for name, content in model_files().items():
            out.file(f"{server.model_path.strip('/')}/{name}", content)
    return out.bytes()


def boot(out: Disk, server: Server, host_key: Path) -> None:
    """What systemd goes by when the server boots."""
    if server.image in BOOT:
        return
    for unit in MASKED:
        out.link(f"{UNITS}/{unit}", "/dev/null")
    out.link(f"{UNITS}/default.target", "/lib/systemd/system/multi-user.target")
    for unit in ENABLED:
        out.link(f"{UNITS}/multi-user.target.wants/{unit}", f"../{unit}")
    # Without one, each boot would be a first boot.
    out.file("etc/machine-id", hashlib.sha256(host_key.read_bytes()).hexdigest()[:32] + "\n", 0o444)


def recipe(state: dict[str, Any], access: str, image: str, archives: Path) -> str:
    """Hash of all that the server was made from: another one means another server."""
    sources = (OVERLAY, TOOLS, Path(weights.__file__), Path(__file__))
    return digest("disk 1", access, image, archives.name, *sources, json.dumps(state, sort_keys=True))


def start_options(container: str, volume: str, archives: Path) -> list[str]:
    """Options of `docker create` that let sshd and a Docker Engine of its own run inside."""
    # A namespace of its own for control groups: systemd takes those that it sees for its own, remounts them
    # and adds to them, and the machine's own must stay as they are.
    options = ["--name", container, "--cgroupns", "private", "--cpu-shares", str(CPU_SHARES)]
    for capability in CAPABILITIES:
        options += ["--cap-add", capability]
    for what in UNCONFINED:
        options += ["--security-opt", what]
    options += ["--device-cgroup-rule", "a *:* rwm"]
    options += ["--volume", f"{volume}:/var/lib/docker"]
    options += ["--volume", f"{archives}:{IMAGES}:ro"]
    options += ["--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec"]
    return [*options, "--sysctl", f"net.ipv4.ip_local_port_range={OUTGOING_PORTS}"]


def boot_options(kind: str) -> list[str]:
    """Options of `docker create` that let systemd boot, and shut down when Docker says stop."""
    if kind in BOOT:
        return []
    return ["--tmpfs", "/run/lock", "--env", "container=docker", "--stop-signal", "SIGRTMIN+3"]
