"""Faults of ports, the firewall, NICs and routes."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from .base import Fault, Parameters, server

PROGRAMS = Path("/opt/pd-sim")


class PortTaken(Fault):
    """something else listens on a port"""

    parameters = "port=8004 | ports=[8004,7001], address=0.0.0.0"
    program = "listen.py"

    def pidfile(self) -> Path:
        """Where the listener's process id stands; /run is empty after a boot."""
        return Path("/run/pd-sim-port-taken.pid")

    def apply(self, parameters: Parameters) -> None:
        """Start a listener."""
        self.heal(parameters)
        address = str(parameters.get("address", "0.0.0.0"))
        ports = [str(port) for port in parameters.get("ports") or [parameters.get("port", 8004)]]
        process = subprocess.Popen(
            ["python3", str(PROGRAMS / self.program), address, *ports],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"port {' or '.join(ports)} of {address} is taken already")
        self.pidfile().write_text(str(process.pid))

    def heal(self, parameters: Parameters) -> None:
        """Stop it."""
        if self.pidfile().exists():
            with suppress(ProcessLookupError):
                os.kill(int(self.pidfile().read_text()), signal.SIGKILL)
            self.pidfile().unlink()

    boot = apply


class PortConnected(PortTaken):
    """an outgoing connection leaves from a port, as Linux gives it one of its range"""

    parameters = "port=8004"
    program = "connect.py"

    def pidfile(self) -> Path:
        """Where the program's process id stands."""
        return Path("/run/pd-sim-port-connected.pid")


class NetworkCut(Fault):
    """no packets from and to another address"""

    parameters = "to=ADDRESS"

    def rules(self, parameters: Parameters, action: str) -> None:
        """Add (-I) or delete (-D) the firewall's rules."""
        for chain, side in (("INPUT", "--source"), ("OUTPUT", "--destination")):
            subprocess.run(
                ["iptables", "-w", action, chain, side, str(parameters["to"]), "-j", "DROP"], check=True
            )

    def apply(self, parameters: Parameters) -> None:
        """Drop them."""
        if "to" not in parameters:
            raise SystemExit("say to which address: to=ADDRESS")
        self.rules(parameters, "-I")

    def heal(self, parameters: Parameters) -> None:
        """Let them pass."""
        self.rules(parameters, "-D")

    boot = apply


class PortBlocked(NetworkCut):
    """a firewall keeps others from a port"""

    parameters = "port=8004, action=DROP"

    def rules(self, parameters: Parameters, action: str) -> None:
        """Add (-I) or delete (-D) the firewall's rule."""
        port, verdict = str(parameters.get("port", 8004)), str(parameters.get("action", "DROP"))
        match = ["--protocol", "tcp", "--dport", port, "!", "--in-interface", "lo"]
        subprocess.run(["iptables", "-w", action, "INPUT", *match, "-j", verdict], check=True)

    def apply(self, parameters: Parameters) -> None:
        """Add the rule."""
        self.rules(parameters, "-I")


class PortBlockedNft(Fault):
    """a firewall of nftables keeps others from a port"""

    parameters = "port=8004, action=drop"

    def apply(self, parameters: Parameters) -> None:
        """A table of its own with one rule."""
        port, action = int(parameters.get("port", 8004)), parameters.get("action", "drop")
        rules = (
            "table inet pdsim { chain input { type filter hook input priority 0; policy accept; "
            f'iifname != "lo" tcp dport {port} {action}; }}; }}\n'
        )
        subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)

    def heal(self, parameters: Parameters) -> None:
        """Without the table."""
        subprocess.run(["nft", "delete", "table", "inet", "pdsim"], check=False, stderr=subprocess.DEVNULL)

    boot = apply


class MtuSmall(Fault):
    """the NIC has another MTU than those of the other servers"""

    parameters = "mtu=1280"

    def change(self, mtu: object) -> None:
        """Set it."""
        nic = server()["interface"]
        subprocess.run(["ip", "link", "set", nic, "mtu", str(mtu)], check=True)

    def apply(self, parameters: Parameters) -> None:
        """Set a small one, and remember the one before."""
        nic = server()["interface"]
        before = Path("/run/pd-sim-mtu")
        if not before.exists():
            before.write_text(Path(f"/sys/class/net/{nic}/mtu").read_text())
        self.change(parameters.get("mtu", 1280))
        # Open connections go on with segments for the MTU before and lose them, as no router says that
        # they are too large. New connections agree on smaller ones.
        subprocess.run(["pkill", "-f", "^sshd: [a-z]+([ @]|$)"], check=False)

    def heal(self, parameters: Parameters) -> None:
        """Set that one again; after a boot it is there by itself."""
        before = Path("/run/pd-sim-mtu")
        if before.exists():
            self.change(before.read_text().strip())
            before.unlink()

    boot = apply


class SecondNetwork(Fault):
    """the default route leaves by another NIC, with another address"""

    parameters = "address=198.51.100.9, default_route=true, up=true"

    def apply(self, parameters: Parameters) -> None:
        """Make a NIC of its own, and let the default route leave by it."""
        address = str(parameters.get("address", "198.51.100.9"))
        gateway = address.rpartition(".")[0] + ".1"
        before = subprocess.run(
            ["ip", "route", "show", "default"], capture_output=True, text=True, check=True
        )
        Path("/run/pd-sim-default").write_text(before.stdout)
        nic = server()["interface"]
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

    def heal(self, parameters: Parameters) -> None:
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

    def commands(self, parameters: Parameters, verb: str) -> tuple[list[str], list[str]]:
        """A second address of the NIC, and a way to the peer that leaves from it."""
        own = server()
        nic, other = own["interface"], own["address"].rpartition(".")[0] + ".250"
        return (
            ["address", verb, f"{other}/32", "dev", nic],
            ["route", verb, str(parameters["to"]), "dev", nic, "src", other],
        )

    def apply(self, parameters: Parameters) -> None:
        """Add both."""
        for command in self.commands(parameters, "add"):
            subprocess.run(["ip", *command], check=True)

    def heal(self, parameters: Parameters) -> None:
        """Remove both."""
        for command in reversed(self.commands(parameters, "del")):
            subprocess.run(["ip", *command], check=False, stderr=subprocess.DEVNULL)

    boot = apply


FAULTS: dict[str, type[Fault]] = {
    "port_taken": PortTaken,
    "port_connected": PortConnected,
    "network_cut": NetworkCut,
    "port_blocked": PortBlocked,
    "port_blocked_nft": PortBlockedNft,
    "mtu_small": MtuSmall,
    "second_network": SecondNetwork,
    "route_elsewhere": RouteElsewhere,
}
