"""Faults of the Docker Engine, its images and containers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from .base import Fault, Parameters, keep, restore


class DockerStopped(Fault):
    """the Docker Engine is not running"""

    # With the socket's unit active, the first who asks would start the engine again.
    units = ("docker.socket", "docker.service")

    def apply(self, parameters: Parameters) -> None:
        """Stop it."""
        subprocess.run(["systemctl", "stop", *self.units], check=True)

    def heal(self, parameters: Parameters) -> None:
        """Start it."""
        subprocess.run(["systemctl", "start", *self.units], check=True)


class DockerAbsent(DockerStopped):
    """the Docker Engine is not installed"""

    programs = (Path("/usr/bin/docker"), Path("/usr/sbin/dockerd"))

    def apply(self, parameters: Parameters) -> None:
        """Stop it and take its programs away."""
        super().apply(parameters)
        # systemd leaves it there.
        Path("/run/docker.sock").unlink(missing_ok=True)
        for program in self.programs:
            keep(program)

    def heal(self, parameters: Parameters) -> None:
        """Put them back and start it."""
        for program in self.programs:
            restore(program)
        super().heal(parameters)


class DockerSays(Fault):
    """the Docker Engine says something else of itself: an old version, another storage driver"""

    parameters = "ServerVersion=19.03.15 | Driver=vfs | CgroupDriver=none"
    socket, behind = Path("/var/run/docker.sock"), Path("/var/run/docker-behind.sock")
    pidfile = Path("/run/pd-sim-docker-says.pid")

    def apply(self, parameters: Parameters) -> None:
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

    def heal(self, parameters: Parameters) -> None:
        """Go away; a boot has made a socket anew."""
        if self.pidfile.exists():
            with suppress(ProcessLookupError):
                os.kill(int(self.pidfile.read_text()), signal.SIGKILL)
            self.pidfile.unlink()
        if self.behind.exists():
            self.socket.unlink(missing_ok=True)
            self.behind.rename(self.socket)


class ImageArchitecture(Fault):
    """the engine's image on this server is for another architecture"""

    parameters = "value=arm64, image=ascend/vllm-ascend:v0.13.0-a3"

    def image(self, parameters: Parameters) -> str:
        """Its name."""
        return str(parameters.get("image", "ascend/vllm-ascend:v0.13.0-a3"))

    def archive(self, parameters: Parameters) -> bytes:
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

    def apply(self, parameters: Parameters) -> None:
        """Load such an image; one of that name is kept under another."""
        image = self.image(parameters)
        self.docker("tag", image, "pd-sim-kept:image", check=False)
        self.docker("load", data=self.archive(parameters))

    def heal(self, parameters: Parameters) -> None:
        """Remove it, and give the name back."""
        image = self.image(parameters)
        self.docker("rmi", image, check=False)
        self.docker("tag", "pd-sim-kept:image", image, check=False)
        self.docker("rmi", "pd-sim-kept:image", check=False)


class ImageAbsent(ImageArchitecture):
    """the engine's image is not on this server"""

    parameters = "image=ascend/vllm-ascend:v0.13.0-a3"

    def apply(self, parameters: Parameters) -> None:
        """Keep it under another name."""
        image = self.image(parameters)
        self.docker("tag", image, "pd-sim-kept:image", check=False)
        self.docker("rmi", image, check=False)


class ChipHeld(ImageArchitecture):
    """a container of somebody else holds a chip and does nothing"""

    parameters = "chip=2, name=other, image=ascend/vllm-ascend:v0.13.0-a3"

    def apply(self, parameters: Parameters) -> None:
        """Start one from the image that is there."""
        devices = [f"/dev/davinci{parameters.get('chip', 2)}", "/dev/davinci_manager", "/dev/devmm_svm"]
        options = [word for device in devices for word in ("--device", device)]
        name = str(parameters.get("name", "other"))
        command = ["--entrypoint", "sleep", self.image(parameters), "86400"]
        self.docker("run", "--detach", "--name", name, "--network", "none", *options, *command)

    def heal(self, parameters: Parameters) -> None:
        """Remove it."""
        self.docker("rm", "--force", str(parameters.get("name", "other")), check=False)


FAULTS: dict[str, type[Fault]] = {
    "docker_stopped": DockerStopped,
    "docker_absent": DockerAbsent,
    "docker_says": DockerSays,
    "image_architecture": ImageArchitecture,
    "image_absent": ImageAbsent,
    "chip_held": ChipHeld,
}
