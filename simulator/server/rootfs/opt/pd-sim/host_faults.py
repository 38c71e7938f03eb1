"""Faults of a simulated server's access, clock, kernel, memory, Docker Engine and copied weights."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fault_base import Fault, OverMount, PathMissing, keep, model, shard


def sessions() -> Iterator[int]:
    """The processes of open ssh sessions: sshd, but the one that listens."""
    listening = Path("/run/sshd.pid")
    first = int(listening.read_text()) if listening.exists() else 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != first:
            with suppress(OSError):
                if (folder / "comm").read_text().strip() == "sshd":
                    yield int(folder.name)


def end_sessions() -> None:
    """Break off open connections: an old one would go on as if nothing had happened."""
    for pid in list(sessions()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class SshStopped(Fault):
    """sshd does not run: connection refused"""

    def apply(self, parameters: dict) -> None:
        """Stop it."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(Path("/run/sshd.pid").read_text()), signal.SIGTERM)
        end_sessions()

    def heal(self, parameters: dict) -> None:
        """Start it, unless a boot has. It goes into the background first, and listens then."""
        subprocess.run(["/usr/sbin/sshd"], check=False, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", 22), timeout=5):
                return
            time.sleep(0.05)
        raise SystemExit("sshd does not start")

    boot = apply


class SshRefused(Fault):
    """the login is refused: the key is not known"""

    def places(self) -> list[Path]:
        """The lists of keys."""
        return [
            path.with_name("authorized_keys") for path in Path("/").glob("root/.ssh/authorized_keys*")
        ] + [path.with_name("authorized_keys") for path in Path("/home").glob("*/.ssh/authorized_keys*")]

    def apply(self, parameters: dict) -> None:
        """Put them aside, where they are."""
        for path in self.places():
            if path.exists():
                path.rename(path.with_name("authorized_keys.kept"))
        end_sessions()

    def heal(self, parameters: dict) -> None:
        """Put them back."""
        for path in self.places():
            if path.with_name("authorized_keys.kept").exists():
                path.with_name("authorized_keys.kept").rename(path)


class SudoRefused(PathMissing):
    """the user that logs in may not use sudo (a server with `sim_server: {user: …}`)"""

    def path(self, parameters: dict) -> Path:
        """What permits it."""
        return Path("/etc/sudoers.d/pd-sim")


class ClockOff(Fault):
    """the clock is wrong, as Python reads it: the servers share the kernel's, which cannot be set for one"""

    parameters = "seconds=90"
    # Python executes such a line at every start, before any program.
    hook = Path("/usr/lib/python3/dist-packages/pd_sim_clock.pth")

    def apply(self, parameters: dict) -> None:
        """Shift what time.time tells."""
        seconds = float(parameters.get("seconds", 90))
        self.hook.write_text(f"import time; time.time = lambda real=time.time: real() + {seconds}\n")

    def heal(self, parameters: dict) -> None:
        """Nothing is shifted any more."""
        self.hook.unlink(missing_ok=True)


class KernelSays(OverMount):
    """a file of the kernel says something else, as THP or a limit set by others"""

    parameters = "path=/sys/kernel/mm/transparent_hugepage/enabled, value=always madvise [never]"

    def path(self, parameters: dict) -> Path:
        """The file."""
        return Path(parameters.get("path", "/sys/kernel/mm/transparent_hugepage/enabled"))

    def text(self, parameters: dict) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 'always madvise [never]')}\n"


class Swappiness(KernelSays):
    """the kernel may swap out programs"""

    parameters = "value=60"

    def path(self, parameters: dict) -> Path:
        """The parameter's file."""
        return Path("/proc/sys/vm/swappiness")

    def text(self, parameters: dict) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 60)}\n"


class NumaBalancing(Swappiness):
    """the kernel moves memory between NUMA nodes"""

    parameters = "value=1"

    def path(self, parameters: dict) -> Path:
        """The parameter's file. A kernel without it has no such thing, and no such fault."""
        return Path("/proc/sys/kernel/numa_balancing")

    def text(self, parameters: dict) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 1)}\n"


class Governor(Fault):
    """the CPUs are set to another governor"""

    parameters = "value=powersave"
    place = Path("/sys/devices/system/cpu/cpu0")

    def apply(self, parameters: dict) -> None:
        """Show a CPU with that governor in the place of the first one."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "pd-sim-cpu", str(self.place)], check=True)
        (self.place / "cpufreq").mkdir()
        (self.place / "cpufreq" / "scaling_governor").write_text(f"{parameters.get('value', 'powersave')}\n")

    def heal(self, parameters: dict) -> None:
        """Take it away, whoever reads it at the moment."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=False, stderr=subprocess.DEVNULL)

    boot = apply


class MemorySmall(OverMount):
    """the server has little memory"""

    parameters = "gigabytes=2"

    def path(self, parameters: dict) -> Path:
        """Where the kernel says how much there is."""
        return Path("/proc/meminfo")

    def text(self, parameters: dict) -> str:
        """The same with that much in all, and a tenth less to be had."""
        total = int(float(parameters.get("gigabytes", 2)) * 10**6 / 1.024)
        lines = []
        for line in self.path(parameters).read_text().splitlines():
            name = line.partition(":")[0]
            size = {"MemTotal": total, "MemFree": total // 2, "MemAvailable": total * 9 // 10}.get(name)
            lines.append(line if size is None else f"{name}:{size:>15} kB")
        return "\n".join(lines) + "\n"


class ShmSmall(Fault):
    """/dev/shm is small"""

    parameters = "megabytes=16"

    def resize(self, size: str) -> None:
        """Change its size."""
        subprocess.run(["mount", "-o", f"remount,size={size}", "/dev/shm"], check=True)

    def apply(self, parameters: dict) -> None:
        """Make it small, and remember the size."""
        before = Path("/run/pd-sim-shm")
        if not before.exists():
            found = os.statvfs("/dev/shm")
            before.write_text(str(found.f_blocks * found.f_frsize // 1024))
        self.resize(f"{int(parameters.get('megabytes', 16))}m")

    def heal(self, parameters: dict) -> None:
        """Give it back."""
        before = Path("/run/pd-sim-shm")
        if before.exists():
            self.resize(f"{before.read_text()}k")
            before.unlink()

    boot = apply


class HccnConfIncomplete(PathMissing):
    """/etc/hccn.conf lacks chips"""

    parameters = "chips=[3]"

    def path(self, parameters: dict) -> Path:
        """The file."""
        return Path("/etc/hccn.conf")

    def apply(self, parameters: dict) -> None:
        """Leave out their lines."""
        path = self.path(parameters)
        lines = path.read_text().splitlines()
        keep(path)
        gone = tuple(f"_{chip}" for chip in parameters.get("chips", [3]))
        left = [line for line in lines if not line.partition("=")[0].endswith(gone)]
        path.write_text("\n".join(left) + "\n")


class WeightsLeftover(Fault):
    """a download has left something behind: a file that is not complete, or its lock"""

    parameters = "name=model.safetensors.incomplete"

    def path(self, parameters: dict) -> Path:
        """The file."""
        return model() / parameters.get("name", "model.safetensors.incomplete")

    def apply(self, parameters: dict) -> None:
        """Lay it down."""
        self.path(parameters).write_bytes(b"\0" * 100)

    def heal(self, parameters: dict) -> None:
        """Remove it."""
        self.path(parameters).unlink(missing_ok=True)


class WeightsDiffer(PathMissing):
    """a small file of the weights is of another version, and all is well in itself"""

    parameters = "name=generation_config.json"

    def path(self, parameters: dict) -> Path:
        """The file."""
        return model() / parameters.get("name", "generation_config.json")

    def apply(self, parameters: dict) -> None:
        """Add a blank, which changes nothing but the content."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content + b" ")


class WeightsBitFlipped(PathMissing):
    """one bit of a shard is wrong, as after a bad copy; size and header are right"""

    parameters = "number=43"

    def path(self, parameters: dict) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: dict) -> None:
        """Turn the last bit."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


class ImageArchitecture(Fault):
    """the engine's image on this server is for another architecture"""

    parameters = "value=arm64, image=ascend/vllm-ascend:v0.13.0-a3"

    def image(self, parameters: dict) -> str:
        """Its name."""
        return str(parameters.get("image", "ascend/vllm-ascend:v0.13.0-a3"))

    def archive(self, parameters: dict) -> bytes:
        """An image with one empty layer, as `docker save` writes it."""
        layer = io.BytesIO()
        tarfile.open(fileobj=layer, mode="w").close()
        digest = hashlib.sha256(layer.getvalue()).hexdigest()
        config = {
            "architecture": parameters.get("value", "arm64"),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        manifest = [{"Config": "c.json", "RepoTags": [self.image(parameters)], "Layers": ["layer.tar"]}]
        files = {
            "layer.tar": layer.getvalue(),
            "c.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()

    def docker(self, *arguments: str, check: bool = True, data: bytes | None = None) -> None:
        """Ask the server's engine."""
        subprocess.run(["docker", *arguments], input=data, check=check, capture_output=True)

    def apply(self, parameters: dict) -> None:
        """Load such an image; one of that name is kept under another."""
        image = self.image(parameters)
        self.docker("tag", image, "pd-sim-kept:image", check=False)
        self.docker("load", data=self.archive(parameters))

    def heal(self, parameters: dict) -> None:
        """Remove it, and give the name back."""
        image = self.image(parameters)
        self.docker("rmi", image, check=False)
        self.docker("tag", "pd-sim-kept:image", image, check=False)
        self.docker("rmi", "pd-sim-kept:image", check=False)


class ImageAbsent(ImageArchitecture):
    """the engine's image is not on this server"""

    parameters = "image=ascend/vllm-ascend:v0.13.0-a3"

    def apply(self, parameters: dict) -> None:
        """Keep it under another name."""
        image = self.image(parameters)
        self.docker("tag", image, "pd-sim-kept:image", check=False)
        self.docker("rmi", image, check=False)


class ChipHeld(ImageArchitecture):
    """a container of somebody else holds a chip and does nothing"""

    parameters = "chip=2, name=other, image=ascend/vllm-ascend:v0.13.0-a3"

    def apply(self, parameters: dict) -> None:
        """Start one from the image that is there."""
        devices = [f"/dev/davinci{parameters.get('chip', 2)}", "/dev/davinci_manager", "/dev/devmm_svm"]
        options = [word for device in devices for word in ("--device", device)]
        name = str(parameters.get("name", "other"))
        command = ["--entrypoint", "sleep", self.image(parameters), "86400"]
        self.docker("run", "--detach", "--name", name, "--network", "none", *options, *command)

    def heal(self, parameters: dict) -> None:
        """Remove it."""
        self.docker("rm", "--force", str(parameters.get("name", "other")), check=False)


class Distribution(OverMount):
    """the server says that it is of another distribution"""

    parameters = "id=openEuler, version=22.03"

    def path(self, parameters: dict) -> Path:
        """The file that says it."""
        return Path("/etc/os-release")

    def text(self, parameters: dict) -> str:
        """What it says then."""
        name, version = parameters.get("id", "openEuler"), parameters.get("version", "22.03")
        return f'NAME="{name}"\nID="{name}"\nVERSION_ID="{version}"\nPRETTY_NAME="{name} {version}"\n'


class DockerSays(Fault):
    """the Docker Engine says something else of itself: an old version, another storage driver"""

    parameters = "ServerVersion=19.03.15 | Driver=vfs | CgroupDriver=none"
    socket, behind = Path("/var/run/docker.sock"), Path("/var/run/docker-behind.sock")
    pidfile = Path("/run/pd-sim-docker-says.pid")

    def apply(self, parameters: dict) -> None:
        """Stand between the engine's socket and those who ask."""
        self.socket.rename(self.behind)
        process = subprocess.Popen(
            [
                "python3",
                "/opt/pd-sim/docker_says.py",
                str(self.socket),
                str(self.behind),
                json.dumps(parameters),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pidfile.write_text(str(process.pid))
        for _ in range(600):
            if self.socket.exists():
                return
            time.sleep(0.05)
        raise SystemExit("the stand-in of the Docker Engine's socket does not start")

    def heal(self, parameters: dict) -> None:
        """Go away; a boot has made a socket anew."""
        if self.pidfile.exists():
            with suppress(ProcessLookupError):
                os.kill(int(self.pidfile.read_text()), signal.SIGKILL)
            self.pidfile.unlink()
        if self.behind.exists():
            self.socket.unlink(missing_ok=True)
            self.behind.rename(self.socket)


class PortBlockedNft(Fault):
    """a firewall of nftables keeps others from a port"""

    parameters = "port=8004, action=drop"

    def apply(self, parameters: dict) -> None:
        """A table of its own with one rule."""
        port, action = int(parameters.get("port", 8004)), parameters.get("action", "drop")
        rules = (
            "table inet pdsim { chain input { type filter hook input priority 0; policy accept; "
            f'iifname != "lo" tcp dport {port} {action}; }}; }}\n'
        )
        subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)

    def heal(self, parameters: dict) -> None:
        """Without the table."""
        subprocess.run(["nft", "delete", "table", "inet", "pdsim"], check=False, stderr=subprocess.DEVNULL)

    boot = apply


HOST_CLASSES = {
    "ssh_stopped": SshStopped,
    "ssh_refused": SshRefused,
    "sudo_refused": SudoRefused,
    "clock_off": ClockOff,
    "kernel_says": KernelSays,
    "governor": Governor,
    "swappiness": Swappiness,
    "numa_balancing": NumaBalancing,
    "memory_small": MemorySmall,
    "shm_small": ShmSmall,
    "hccn_conf_incomplete": HccnConfIncomplete,
    "weights_leftover": WeightsLeftover,
    "weights_differ": WeightsDiffer,
    "weights_bit_flipped": WeightsBitFlipped,
    "image_architecture": ImageArchitecture,
    "image_absent": ImageAbsent,
    "docker_says": DockerSays,
    "chip_held": ChipHeld,
    "distribution": Distribution,
    "port_blocked_nft": PortBlockedNft,
}
