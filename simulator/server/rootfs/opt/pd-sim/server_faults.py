"""Switches faults of a simulated server on and off; keeps faults.json for all of them, also for the tools'.

    server_faults.py apply FAULT PARAMETERS_AS_JSON
    server_faults.py heal [FAULT]
    server_faults.py exactly FAULTS_AS_JSON           these with their parameters, and no others
    server_faults.py boot FAULT PARAMETERS_AS_JSON    what does not outlive a boot is done again
    server_faults.py list                             the faults known here, as JSON

A fault is a class in faults/: its docstring tells what shows, `parameters` what it takes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from faults import access, disk, docker, hardware, kernel, network, weights
from faults.base import STATE, Fault, Parameters

STATE_FILE = STATE / "faults.json"
FAULTS: dict[str, type[Fault]] = {
    **hardware.FAULTS,
    **weights.FAULTS,
    **disk.FAULTS,
    **network.FAULTS,
    **access.FAULTS,
    **kernel.FAULTS,
    **docker.FAULTS,
}


def current() -> dict[str, Parameters]:
    """The faults that are on."""
    found: dict[str, Parameters] = json.loads(STATE_FILE.read_text()) if STATE_FILE.exists() else {}
    return found


def write(on: Mapping[str, Parameters]) -> None:
    """Replace faults.json in one step."""
    unfinished = STATE_FILE.with_suffix(".new")
    unfinished.write_text(json.dumps(on, indent=1) + "\n")
    unfinished.replace(STATE_FILE)


def apply(name: str, parameters: Parameters) -> str:
    """Switch a fault on; one of that name with other parameters ends first."""
    on = current()
    fault = FAULTS.get(name, Fault)()
    if name in on:
        fault.heal(on[name])
    fault.apply(parameters)
    write({**on, name: parameters})
    return f"{name} {json.dumps(parameters) if parameters else ''}".rstrip()


def heal(names: list[str]) -> str:
    """Switch faults off."""
    on = current()
    # The last one first: one fault may have moved what another had changed.
    healed = [name for name in (names or reversed(list(on))) if name in on]
    for name in healed:
        FAULTS.get(name, Fault)().heal(on.pop(name))
        write(on)
    return f"healed {', '.join(healed)}" if healed else "nothing to heal"


def exactly(wanted: Mapping[str, Parameters]) -> str:
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
        print(json.dumps({name: (one.parameters, one.__doc__) for name, one in FAULTS.items()}))
    elif verb == "apply":
        print(apply(rest[0], json.loads(rest[1])))
    elif verb == "heal":
        print(heal(rest))
    elif verb == "exactly":
        print(exactly(json.loads(rest[0])))
    elif verb == "boot":
        FAULTS.get(rest[0], Fault)().boot(json.loads(rest[1]))
    else:
        raise SystemExit(f"no command {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
