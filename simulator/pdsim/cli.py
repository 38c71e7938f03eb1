"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from pdsim import images
from pdsim.docker import need_engine
from pdsim.ui import SimError, colour

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

IMAGES = {"server": images.ensure_servers, "engine": images.ensure_engines}


def parser() -> argparse.ArgumentParser:
    """What `sim` understands."""
    top = argparse.ArgumentParser(prog="sim", description="Simulated Atlas A3 servers on one machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("images", help="make the images once (cached by content)")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--only", choices=IMAGES, help="one of them")
    what.add_argument(
        "--prune", action="store_true", help="remove them instead, for all checkouts of this machine"
    )
    add_cluster_commands(commands)
    add_power_commands(commands)
    add_fault_commands(commands)
    return top


def add_cluster_commands(commands: Commands) -> None:
    """Making, removing and listing servers."""
    command = commands.add_parser("up", help="make the servers of an inventory")
    command.add_argument("--inventory", required=True, type=Path, metavar="DIR", help="any inventory")
    command.add_argument("--name", help="name of the simulated cluster (default: the inventory's)")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="where keys and the derived inventory go (.sim/NAME)"
    )
    command.add_argument(
        "--preload",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="servers hold the engine image already",
    )

    command = commands.add_parser("down", help="remove servers and all that was made for them")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--name", help="this cluster")
    which.add_argument("--all", action="store_true", help="every cluster of this checkout")

    commands.add_parser("status", help="list the servers of this checkout")


def add_power_commands(commands: Commands) -> None:
    """Switching servers on and off."""
    for action, text in (
        ("restart", "boot a server anew"),
        ("stop", "switch a server off"),
        ("start", "switch it on"),
    ):
        command = commands.add_parser(action, help=text)
        command.add_argument("--name", help="cluster, where several have a host of this name")
        command.add_argument("host", metavar="HOST")
        if action != "start":
            command.add_argument("--power-cut", action="store_true", help="without shutting down")


def add_fault_commands(commands: Commands) -> None:
    """Breaking and mending."""
    command = commands.add_parser("fault", help="break something on a server")
    command.add_argument("--name", help="cluster, where several have a host of this name")
    command.add_argument("host", metavar="HOST")
    command.add_argument("fault", metavar="FAULT", help="see `sim faults`")
    command.add_argument(
        "parameters", nargs="*", metavar="KEY=VALUE", help="values are JSON, or else text: chips=[3,4]"
    )

    command = commands.add_parser("heal", help="mend it")
    command.add_argument("--name", help="cluster, where several have a host of this name")
    command.add_argument("host", metavar="HOST")
    command.add_argument("fault", nargs="?", metavar="FAULT", help="default: all of them")
    command.add_argument("--all", action="store_true", help="all faults of the server (the default)")

    command = commands.add_parser("rehearse", help="make exactly the faults of a file be on, all at once")
    command.add_argument("--name", help="cluster, where there are several")
    command.add_argument(
        "file", type=Path, metavar="FILE", help="YAML: host, fault, parameters; -: standard input; {}: none"
    )

    commands.add_parser("faults", help="list the faults that can be simulated")


def main(arguments: Sequence[str]) -> int:
    """Run a command; errors are one sentence."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except SimError as error:
        print(f"{colour('31', 'sim:')} {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the list has seen enough; nothing more is to be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace) -> None:
    """Hand over to what does the work."""
    if options.command == "images":
        need_engine()
        images.prune() if options.prune else IMAGES.get(options.only, images.ensure)()
        return
    # These need PyYAML, which the system's Python need not have.
    from pdsim import cluster, faults

    match options.command:
        case "up":
            cluster.up(options.inventory, options.name, options.out, preload=options.preload)
        case "down":
            cluster.down(None if options.all else options.name)
        case "status":
            cluster.status()
        case "restart" | "stop" | "start":
            cut = getattr(options, "power_cut", False)
            cluster.power(options.name, options.host, options.command, cut=cut)
        case "fault":
            faults.inject(options.name, options.host, options.fault, options.parameters)
        case "heal":
            faults.heal(options.name, options.host, options.fault)
        case "rehearse":
            faults.rehearse(options.name, options.file)
        case "faults":
            faults.show()
