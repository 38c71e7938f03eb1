"""The world outside, and one run of the role after another on servers that have no image."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SERVERS = ("image1", "image2", "image3")
FOLDER = "/var/lib/pd_rollout/image"
# Bytes of the image in the registry: noise, in one layer.
SIZE = 60_000_000


class World:
    """The registry's host: how many bytes have gone out, and what is wrong with the way."""

    def __init__(self, host, address: str) -> None:
        self.host, self.address = host, address

    @property
    def count(self) -> int:
        return int(self.host.run("cat /opt/source/count").stdout or 0)

    def gate(self, **settings: int) -> None:
        """`hold`: bytes that pass until the gate is set anew; `more`: bytes that pass before all is cut."""
        if "hold" in settings:
            settings["hold"] += self.count
        if "more" in settings:
            settings["limit"] = self.count + settings.pop("more")
        draft = "/opt/source/.gate.json"
        # In one step: what is read half written would be an open gate.
        self.host.check_output(f"echo '{json.dumps(settings)}' > {draft} && mv {draft} /opt/source/gate.json")

    def image(self, tag: str = "v1") -> str:
        return f"{self.address}:5000/ascend/tiny:{tag}"

    def digest(self, tag: str = "v1") -> str:
        return self.host.check_output(f"cat /opt/source/{tag}.digest")

    def image_id(self, tag: str = "v1") -> str:
        return self.host.check_output(f"cat /opt/source/{tag}.id")


class Run:
    """A finished run: whether it went well, and what was said (without the callback's line breaks)."""

    def __init__(self, returncode: int, output: str) -> None:
        self.good = returncode == 0
        self.output = output
        self.told = re.sub(r"\s+", " ", output)

    def recap(self, name: str) -> dict[str, int]:
        line = next(line for line in self.output.splitlines() if re.match(rf"{name}\s+: ok=", line))
        return {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", line)}


class Runner:
    """Starts the scenario's playbook."""

    def __init__(self, inventory: Path) -> None:
        self._inventory = inventory

    def start(self, *arguments: str, **variables) -> subprocess.Popen:
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        environment.pop("ANSIBLE_FORCE_COLOR", None)
        return subprocess.Popen(
            [
                str(ROOT / ".venv/bin/ansible-playbook"),
                f"--inventory={self._inventory}",
                "molecule/image/converge.yml",
                "--extra-vars",
                json.dumps(variables),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )

    @staticmethod
    def end(process: subprocess.Popen) -> Run:
        output, _ = process.communicate()
        return Run(process.returncode, output)

    @staticmethod
    def interrupt(process: subprocess.Popen) -> Run:
        """Ctrl-C, which the whole group gets."""
        os.killpg(process.pid, signal.SIGINT)
        return Runner.end(process)

    def __call__(self, *arguments: str, **variables) -> Run:
        return self.end(self.start(*arguments, **variables))
