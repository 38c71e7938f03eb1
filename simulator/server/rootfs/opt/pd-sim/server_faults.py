"""Faults of a simulated server that lie on its disk or its network; keeps faults.json for all of them.

    server_faults.py apply FAULT PARAMETERS_AS_JSON
    server_faults.py heal [FAULT]
    server_faults.py exactly FAULTS_AS_JSON           these with their parameters, and no others
    server_faults.py boot FAULT PARAMETERS_AS_JSON    what does not outlive a boot is done again
    server_faults.py list                             the faults known here, as JSON

A fault is a class (more in host_faults.py): its docstring tells what shows, `parameters` what it takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from fault_base import STATE, Fault, PathMissing, keep, model, of_model, restore, shard
from host_faults import HOST_CLASSES

FAULTS = STATE / "faults.json"


class HccnConfMissing(PathMissing):
    """/etc/hccn.conf is not there: engines start and answer wrongly"""

    def path(self, parameters: dict) -> Path:
        """The file."""
        return Path("/etc/hccn.conf")


class HccnConfEmpty(HccnConfMissing):
    """/etc/hccn.conf names no chip: engines start and answer wrongly"""

    def apply(self, parameters: dict) -> None:
        """Put an empty file in its place."""
        super().apply(parameters)
        self.path(parameters).touch()


class DriverVersion(PathMissing):
    """version.info and npu-smi name another driver"""

    parameters = "value=24.1.0"

    def path(self, parameters: dict) -> Path:
        """The file."""
        return Path("/usr/local/Ascend/driver/version.info")

    def apply(self, parameters: dict) -> None:
        """Change the version in it; npu-smi reads faults.json."""
        path = self.path(parameters)
        _old, *rest = path.read_text().splitlines()
        keep(path)
        path.write_text("\n".join([f"Version={parameters.get('value', '24.1.0')}", *rest]) + "\n")


class DriverMissing(PathMissing):
    """the driver's files are not there"""

    parameters = "path=/usr/local/Ascend/driver"

    def path(self, parameters: dict) -> Path:
        """The folder, or the file asked for."""
        return Path(parameters.get("path", "/usr/local/Ascend/driver"))


class ToolMissing(PathMissing):
    """hccn_tool or npu-smi is not installed"""

    parameters = "tool=hccn_tool"

    def path(self, parameters: dict) -> Path:
        """The tool."""
        smi = parameters.get("tool", "hccn_tool") == "npu-smi"
        return Path("/usr/local/bin/npu-smi" if smi else "/usr/local/Ascend/driver/tools/hccn_tool")


class ToolNotExecutable(ToolMissing):
    """hccn_tool or npu-smi has no execute permission"""

    def apply(self, parameters: dict) -> None:
        """Take the permission."""
        self.path(parameters).chmod(0o644)

    def heal(self, parameters: dict) -> None:
        """Give it back."""
        self.path(parameters).chmod(0o755)


class ToolElsewhere(ToolMissing):
    """npu-smi lies elsewhere, as some installations of the driver put it"""

    parameters = "path=/usr/local/sbin/npu-smi"

    def path(self, parameters: dict) -> Path:
        """Where it is else."""
        return Path("/usr/local/bin/npu-smi")

    def other(self, parameters: dict) -> Path:
        """Where it is then."""
        return Path(parameters.get("path", "/usr/local/sbin/npu-smi"))

    def apply(self, parameters: dict) -> None:
        """Lay it there."""
        self.other(parameters).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.path(parameters), self.other(parameters))
        super().apply(parameters)

    def heal(self, parameters: dict) -> None:
        """Put it back; somebody may have made a link meanwhile."""
        self.other(parameters).unlink(missing_ok=True)
        super().heal(parameters)


class DeviceMissing(Fault):
    """a device is not there: /dev/davinciN of a chip, or another one by name"""

    parameters = "chip=3 | device=davinci_manager"

    def path(self, parameters: dict) -> Path:
        """The device."""
        return Path("/dev") / parameters.get("device", f"davinci{parameters.get('chip', 3)}")

    def apply(self, parameters: dict) -> None:
        """Remove it."""
        self.path(parameters).unlink(missing_ok=True)

    def heal(self, parameters: dict) -> None:
        """Make it as a boot does."""
        path = self.path(parameters)
        if not path.exists():
            os.umask(0)
            os.mknod(path, 0o020666, os.makedev(1, 3))

    boot = apply


class WeightsAbsent(PathMissing):
    """the folder of the weights is not there"""

    def path(self, parameters: dict) -> Path:
        """The folder."""
        return model()


class WeightsMissingShard(PathMissing):
    """a shard of the weights is not there"""

    parameters = "number=43"

    def path(self, parameters: dict) -> Path:
        """The shard."""
        return shard(parameters)


class WeightsAbsentIndex(PathMissing):
    """the weights' index is not there"""

    def path(self, parameters: dict) -> Path:
        """The index."""
        return of_model("*.safetensors.index.json")


class WeightsTruncatedShard(PathMissing):
    """a shard of the weights ends early, as after a broken-off copy"""

    parameters = "number=43"

    def path(self, parameters: dict) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: dict) -> None:
        """Keep the first half only."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content[: len(content) // 2])


class WeightsUnreadable(PathMissing):
    """a shard of the weights is a link to a place that is not mounted"""

    parameters = "number=43"

    def path(self, parameters: dict) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: dict) -> None:
        """Put a link to nowhere in its place."""
        path = self.path(parameters)
        keep(path)
        path.symlink_to(f"/mnt/weights/{path.name}")


class WeightsWrongDtype(PathMissing):
    """config.json names another torch_dtype"""

    parameters = "value=float16"

    def path(self, parameters: dict) -> Path:
        """The configuration of the model."""
        return model() / "config.json"

    def apply(self, parameters: dict) -> None:
        """Change that value."""
        path = self.path(parameters)
        config = json.loads(path.read_text())
        keep(path)
        config["torch_dtype"] = parameters.get("value", "float16")
        path.write_text(json.dumps(config, indent=2) + "\n")


class WeightsBrokenConfig(WeightsWrongDtype):
    """config.json is no JSON"""

    parameters = ""

    def apply(self, parameters: dict) -> None:
        """Keep the first half only."""
        path = self.path(parameters)
        content = path.read_text()
        keep(path)
        path.write_text(content[: len(content) // 2])


class PortTaken(Fault):
    """something else listens on a port"""

    parameters = "port=8004 | ports=[8004,7001], address=0.0.0.0"
    listener = (
        "import signal, socket, sys\n"
        "listeners = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]\n"
        "print(flush=True)\n"
        "signal.pause()\n"
    )

    def pidfile(self) -> Path:
        """Where the listener's process id stands; /run is empty after a boot."""
        return Path("/run/pd-sim-port-taken.pid")

    def apply(self, parameters: dict) -> None:
        """Start a listener."""
        self.heal(parameters)
        address = str(parameters.get("address", "0.0.0.0"))
        ports = [str(port) for port in parameters.get("ports") or [parameters.get("port", 8004)]]
        process = subprocess.Popen(
            ["python3", "-c", self.listener, address, *ports],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"port {' or '.join(ports)} of {address} is taken already")
        self.pidfile().write_text(str(process.pid))

    def heal(self, parameters: dict) -> None:
        """Stop it."""
        if self.pidfile().exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.pidfile().read_text()), signal.SIGKILL)
            self.pidfile().unlink()

    boot = apply


class PortConnected(PortTaken):
    """an outgoing connection leaves from a port, as Linux gives it one of its range"""

    parameters = "port=8004"
    # Both ends are of this program; the other one has a port that nobody plans.
    listener = (
        "import signal, socket, sys\n"
        "other = socket.create_server(('127.0.0.1', 0))\n"
        "ends = [socket.create_connection(other.getsockname(), source_address=('127.0.0.1', int(port)))\n"
        "        for port in sys.argv[2:]]\n"
        "print(flush=True)\n"
        "signal.pause()\n"
    )

    def pidfile(self) -> Path:
        """Where the program's process id stands."""
        return Path("/run/pd-sim-port-connected.pid")


class DiskFull(Fault):
    """no space is left in a folder"""

    parameters = "path=/etc/pd_rollout"

    def path(self, parameters: dict) -> Path:
        """The folder."""
        return Path(parameters.get("path", "/etc/pd_rollout"))

    def covered(self, path: Path) -> bool:
        """Whether the full file system lies over it already; the folder may be a mount of its own anyway."""
        return f"pd-sim-full {path} " in Path("/proc/self/mounts").read_text()

    def apply(self, parameters: dict) -> None:
        """Mount a small and full file system over the folder, with what was in there if that is little."""
        path = self.path(parameters)
        path.mkdir(parents=True, exist_ok=True)
        if self.covered(path):
            return
        size, content = 65536, b""
        # What is a mount of its own, as the Docker Engine's folder, may be large.
        if not os.path.ismount(path):
            size += sum(max(4096, one.stat().st_size + 4096) for one in path.rglob("*") if one.is_file())
            command = ["tar", "-C", str(path), "-cf", "-", "."]
            content = subprocess.run(command, capture_output=True, check=True).stdout
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "pd-sim-full", str(path)], check=True)
        if content:
            subprocess.run(["tar", "-C", str(path), "-xf", "-"], input=content, check=True)
        with contextlib.suppress(OSError), (path / ".full").open("wb", buffering=0) as handle:
            while True:
                handle.write(bytes(4096))

    def heal(self, parameters: dict) -> None:
        """Take it away; what was written meanwhile is lost."""
        if self.covered(self.path(parameters)):
            # Somebody may have a file of it open: it goes when that ends.
            subprocess.run(["umount", "--lazy", str(self.path(parameters))], check=True)

    boot = apply


class DirectoryOpen(Fault):
    """every user of the server can write to a folder"""

    parameters = "path=/etc/pd_rollout"

    def apply(self, parameters: dict) -> None:
        """Have it, and let everybody in."""
        path = Path(parameters.get("path", "/etc/pd_rollout"))
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)

    def heal(self, parameters: dict) -> None:
        """As root makes it."""
        Path(parameters.get("path", "/etc/pd_rollout")).chmod(0o755)


class DockerStopped(Fault):
    """the Docker Engine is not running"""

    def apply(self, parameters: dict) -> None:
        """Stop it."""
        subprocess.run(["service", "docker", "stop"], check=True)

    def heal(self, parameters: dict) -> None:
        """Start it."""
        subprocess.run(["service", "docker", "start"], check=True)


class DockerAbsent(Fault):
    """the Docker Engine is not installed"""

    programs = (Path("/usr/bin/docker"), Path("/usr/sbin/dockerd"))

    def apply(self, parameters: dict) -> None:
        """Stop it and take its programs away."""
        subprocess.run(["service", "docker", "stop"], check=True)
        for program in self.programs:
            keep(program)

    def heal(self, parameters: dict) -> None:
        """Put them back and start it."""
        for program in self.programs:
            restore(program)
        subprocess.run(["service", "docker", "start"], check=True)


class NetworkCut(Fault):
    """no packets from and to another address"""

    parameters = "to=ADDRESS"

    def rules(self, parameters: dict, action: str) -> None:
        """Add (-I) or delete (-D) the firewall's rules."""
        for chain, side in (("INPUT", "--source"), ("OUTPUT", "--destination")):
            subprocess.run(
                ["iptables", "-w", action, chain, side, str(parameters["to"]), "-j", "DROP"], check=True
            )

    def apply(self, parameters: dict) -> None:
        """Drop them."""
        if "to" not in parameters:
            raise SystemExit("say to which address: to=ADDRESS")
        self.rules(parameters, "-I")

    def heal(self, parameters: dict) -> None:
        """Let them pass."""
        self.rules(parameters, "-D")

    boot = apply


class PortBlocked(NetworkCut):
    """a firewall keeps others from a port"""

    parameters = "port=8004, action=DROP"

    def rules(self, parameters: dict, action: str) -> None:
        """Add (-I) or delete (-D) the firewall's rule."""
        port, verdict = str(parameters.get("port", 8004)), str(parameters.get("action", "DROP"))
        match = ["--protocol", "tcp", "--dport", port, "!", "--in-interface", "lo"]
        subprocess.run(["iptables", "-w", action, "INPUT", *match, "-j", verdict], check=True)

    def apply(self, parameters: dict) -> None:
        """Add the rule."""
        self.rules(parameters, "-I")


class MtuSmall(Fault):
    """the NIC has another MTU than those of the other servers"""

    parameters = "mtu=1280"

    def change(self, mtu: object) -> None:
        """Set it."""
        nic = json.loads((STATE / "server.json").read_text())["interface"]
        subprocess.run(["ip", "link", "set", nic, "mtu", str(mtu)], check=True)

    def apply(self, parameters: dict) -> None:
        """Set a small one, and remember the one before."""
        nic = json.loads((STATE / "server.json").read_text())["interface"]
        before = Path("/run/pd-sim-mtu")
        if not before.exists():
            before.write_text(Path(f"/sys/class/net/{nic}/mtu").read_text())
        self.change(parameters.get("mtu", 1280))
        # Open connections go on with segments for the MTU before and lose them, as no router says that
        # they are too large. New connections agree on smaller ones.
        subprocess.run(["pkill", "-f", "^sshd: [a-z]+([ @]|$)"], check=False)

    def heal(self, parameters: dict) -> None:
        """Set that one again; after a boot it is there by itself."""
        before = Path("/run/pd-sim-mtu")
        if before.exists():
            self.change(before.read_text().strip())
            before.unlink()

    boot = apply


class SecondNetwork(Fault):
    """the default route leaves by another NIC, with another address"""

    parameters = "address=198.51.100.9, default_route=true, up=true"

    def apply(self, parameters: dict) -> None:
        """Make a NIC of its own, and let the default route leave by it."""
        address = str(parameters.get("address", "198.51.100.9"))
        gateway = address.rpartition(".")[0] + ".1"
        before = subprocess.run(
            ["ip", "route", "show", "default"], capture_output=True, text=True, check=True
        )
        Path("/run/pd-sim-default").write_text(before.stdout)
        nic = json.loads((STATE / "server.json").read_text())["interface"]
        mtu = Path(f"/sys/class/net/{nic}/mtu").read_text().strip()
        for command in (
            ["link", "add", "pdsim1", "mtu", mtu, "type", "veth", "peer", "name", "pdsim2"],
            ["address", "add", f"{address}/24", "dev", "pdsim1"],
            ["link", "set", "pdsim1", "up"],
            ["link", "set", "pdsim2", "up"],
        ):
            subprocess.run(["ip", *command], check=True)
        if not parameters.get("up", True):
            subprocess.run(["ip", "link", "set", "pdsim1", "down"], check=True)
        elif parameters.get("default_route", True):
            route = ["ip", "route", "replace", "default", "via", gateway, "dev", "pdsim1"]
            subprocess.run(route, check=True)

    def heal(self, parameters: dict) -> None:
        """Take the NIC away, and give the default route back."""
        subprocess.run(["ip", "link", "del", "pdsim1"], check=False)
        before = Path("/run/pd-sim-default")
        for line in before.read_text().splitlines() if before.exists() else ():
            subprocess.run(["ip", "route", "replace", *line.split()], check=True)
        before.unlink(missing_ok=True)

    boot = apply


class RouteElsewhere(Fault):
    """packets to a peer leave from another address of the server"""

    parameters = "to=ADDRESS"

    def commands(self, parameters: dict, verb: str) -> tuple[list[str], list[str]]:
        """A second address of the NIC, and a way to the peer that leaves from it."""
        server = json.loads((STATE / "server.json").read_text())
        nic, other = server["interface"], server["address"].rpartition(".")[0] + ".250"
        return (
            ["address", verb, f"{other}/32", "dev", nic],
            ["route", verb, str(parameters["to"]), "dev", nic, "src", other],
        )

    def apply(self, parameters: dict) -> None:
        """Add both."""
        for command in self.commands(parameters, "add"):
            subprocess.run(["ip", *command], check=True)

    def heal(self, parameters: dict) -> None:
        """Remove both."""
        for command in reversed(self.commands(parameters, "del")):
            subprocess.run(["ip", *command], check=False, stderr=subprocess.DEVNULL)

    boot = apply


CLASSES = {
    "hccn_conf_missing": HccnConfMissing,
    "hccn_conf_empty": HccnConfEmpty,
    "driver_version": DriverVersion,
    "device_missing": DeviceMissing,
    "driver_missing": DriverMissing,
    "tool_missing": ToolMissing,
    "tool_not_executable": ToolNotExecutable,
    "tool_elsewhere": ToolElsewhere,
    "weights_absent": WeightsAbsent,
    "weights_absent_index": WeightsAbsentIndex,
    "weights_missing_shard": WeightsMissingShard,
    "weights_truncated_shard": WeightsTruncatedShard,
    "weights_unreadable": WeightsUnreadable,
    "weights_wrong_dtype": WeightsWrongDtype,
    "weights_broken_config": WeightsBrokenConfig,
    "port_taken": PortTaken,
    "port_connected": PortConnected,
    "disk_full": DiskFull,
    "directory_open": DirectoryOpen,
    "network_cut": NetworkCut,
    "port_blocked": PortBlocked,
    "mtu_small": MtuSmall,
    "second_network": SecondNetwork,
    "route_elsewhere": RouteElsewhere,
    "docker_stopped": DockerStopped,
    "docker_absent": DockerAbsent,
    **HOST_CLASSES,
}


def current() -> dict:
    """The faults that are on."""
    return json.loads(FAULTS.read_text()) if FAULTS.exists() else {}


def write(faults: dict) -> None:
    """Replace faults.json in one step."""
    unfinished = FAULTS.with_suffix(".new")
    unfinished.write_text(json.dumps(faults, indent=1) + "\n")
    unfinished.replace(FAULTS)


def apply(name: str, parameters: dict) -> str:
    """Switch a fault on; one of that name with other parameters ends first."""
    faults = current()
    fault = CLASSES.get(name, Fault)()
    if name in faults:
        fault.heal(faults[name])
    fault.apply(parameters)
    write({**faults, name: parameters})
    return f"{name} {json.dumps(parameters) if parameters else ''}".rstrip()


def heal(names: list[str]) -> str:
    """Switch faults off."""
    faults = current()
    # The last one first: one fault may have moved what another had changed.
    healed = [name for name in (names or reversed(list(faults))) if name in faults]
    for name in healed:
        CLASSES.get(name, Fault)().heal(faults.pop(name))
        write(faults)
    return f"healed {', '.join(healed)}" if healed else "nothing to heal"


def exactly(wanted: dict) -> str:
    """Switch on what is wanted and off what is not; what is on with the same parameters stays."""
    gone = [name for name, parameters in reversed(list(current().items())) if wanted.get(name) != parameters]
    if gone:
        heal(gone)
    for name, parameters in wanted.items():
        if name not in current():
            apply(name, parameters)
    return ", ".join(wanted) or "healthy"


def main(arguments: list[str]) -> None:
    """Run a command."""
    verb, *rest = arguments
    try:
        run(verb, rest)
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename} is not there: is another fault on?") from error


def run(verb: str, rest: list[str]) -> None:
    """One command."""
    if verb == "list":
        print(json.dumps({name: (one.parameters, one.__doc__) for name, one in CLASSES.items()}))
    elif verb == "apply":
        print(apply(rest[0], json.loads(rest[1])))
    elif verb == "heal":
        print(heal(rest))
    elif verb == "exactly":
        print(exactly(json.loads(rest[0])))
    elif verb == "boot":
        CLASSES.get(rest[0], Fault)().boot(json.loads(rest[1]))
    else:
        raise SystemExit(f"no command {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
