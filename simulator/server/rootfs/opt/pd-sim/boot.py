"""What kernel, udev and driver do when a real server boots: devices, the NIC's name; and lasting faults."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

STATE = Path("/usr/local/dcmi/pd-sim")
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
# The device of /dev/null: something that can be opened and passed on to a container.
NULL_MAJOR, NULL_MINOR = 1, 3


def read(name: str) -> dict[str, Any]:
    """A JSON file of the server's state; nothing if it is not there."""
    path = STATE / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def make_devices(chips: int) -> None:
    """The character devices of the chips and of the driver."""
    os.umask(0)
    for name in [f"davinci{chip}" for chip in range(chips)] + list(MANAGERS):
        path = f"/dev/{name}"
        if not Path(path).exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(NULL_MAJOR, NULL_MINOR))


def name_interface(name: str) -> None:
    """Rename eth0 as the inventory has it, keeping the default route."""
    if name == "eth0" or Path(f"/sys/class/net/{name}").exists():
        return
    routes = json.loads(
        subprocess.run(["ip", "-json", "route", "show", "default"], capture_output=True, check=True).stdout
    )
    for command in (["down"], ["name", name]):
        subprocess.run(["ip", "link", "set", "eth0", *command], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    for route in routes:
        subprocess.run(
            ["ip", "route", "replace", "default", "via", route["gateway"], "dev", name], check=True
        )


def make_user(name: str) -> None:
    """The user that logs in where root may not, with root's key; sudo asks for no password."""
    home = Path("/home") / name
    if home.exists():
        return
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", name], check=True)
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "authorized_keys").write_text(Path("/root/.ssh/authorized_keys").read_text())
    subprocess.run(["chown", "--recursive", f"{name}:", str(folder)], check=True)
    permit = Path("/etc/sudoers.d/pd-sim")
    permit.write_text(f"{name} ALL=(ALL) NOPASSWD: ALL\n")
    permit.chmod(0o440)


def main() -> None:
    """Boot."""
    server = read("server.json")
    if server.get("user"):
        make_user(server["user"])
    make_devices(server["chips"])
    name_interface(server["interface"])
    for fault, parameters in read("faults.json").items():
        command = ["python3", "/opt/pd-sim/server_faults.py", "boot", fault, json.dumps(parameters)]
        subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
