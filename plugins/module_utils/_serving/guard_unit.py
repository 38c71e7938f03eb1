# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard of a deployment on a server: its unit, files and command, compared, written and removed.

What the guard does is in module_utils/_guard, which is shipped as an archive that Python runs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _systemd as systemd
from .._files import own_files, safe_paths
from .._files.contents import read_json, text_sha256
from .._findings import RolloutError
from .catalogue import GUARD_CHECKS

PROGRAM, CONFIG, SECRET, STATE = safe_paths.GUARD_FILES
# There while files have been written that the running guard has not read.
PENDING = safe_paths.GUARD_PENDING
STATUS = "status.json"
# Where the unit names the Python of the server.
PYTHON = "@PYTHON@"
COMMAND = "/usr/local/bin/pd-guard"
COMMAND_MODE = 0o755
VARIABLE = "the guard's directory (pd_host_dir and pd_deployment)"
# What the guards of a deployment have in common, as hexadecimal digits.
SECRET_FORM = re.compile("[0-9a-f]{64}")
# Seconds in which a start may fail and be repeated by systemd.
START_TIMEOUT = 15.0


def unit_of(directory: str) -> str:
    """Return the name of the guard's unit, given the deployment's directory."""
    return f"{Path(directory).name}-guard"


def folder_of(directory: str) -> Path:
    """Return the directory of the guard below that of its deployment."""
    return Path(directory, safe_paths.GUARD)


def look(guard: Mapping[str, Any] | None, directory: str) -> dict[str, Any]:
    """Return what deployment_info says of the guard of a server.

    guard: from the filter guard_digests; None: not to be compared; empty: the plan has none here.
    directory: the deployment's directory.
    """
    unit, folder = unit_of(directory), folder_of(directory)
    path = systemd.unit_path(unit)
    there = path.exists() and not systemd.foreign(path)
    found: dict[str, Any] = {
        "present": there or (folder.is_dir() and not folder.is_symlink()),
        "outdated": [],
        "active": there and systemd.is_active(unit),
        "settled": True,
        "status": read_json(Path("/run", unit, STATUS)),
        "secret_id": secret_id(read_secret(folder)),
    }
    if guard is None:
        return found
    if not guard:
        return {**found, "settled": not found["present"]}
    found["status"] = read_json(Path(guard["run"], STATUS))
    found["outdated"] = outdated(guard, guard["digests"])
    return {**found, "settled": not found["outdated"] and found["active"]}


def outdated(guard: Mapping[str, Any], digests: Mapping[str, str]) -> list[str]:
    """Return the names of files of the guard that differ from what they must be.

    guard: the guard in the plan.
    digests: the SHA-256 of its files whose content is known; the secret need only be one.
    """
    folder = Path(guard["directory"])
    names = own_files.outdated(folder, digests)
    if SECRET not in digests and not read_secret(folder):
        names.append(SECRET)
    if (folder / PENDING).exists():
        names.append(PENDING)
    names += [f"{unit}.service" for unit in systemd.units_outdated({guard["unit"]: _service_digest(guard)})]
    if not (systemd.foreign(Path(COMMAND)) or _commanded()):
        names.append(Path(COMMAND).name)
    return names


def service(guard: Mapping[str, Any]) -> str:
    """Return the text of the unit on this server."""
    return str(guard["service"]).replace(PYTHON, sys.executable)


def _service_digest(guard: Mapping[str, Any]) -> str:
    return text_sha256(service(guard))


def read_secret(folder: Path) -> str:
    """Return the secret in a directory of a guard; empty without one, or where others may have read it."""
    path = folder / SECRET
    try:
        status = path.lstat()
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    own = status.st_mode & 0o777 == own_files.FILE_MODE and status.st_uid == os.geteuid()
    return text if own and SECRET_FORM.fullmatch(text) else ""


def secret_id(secret: str) -> str:
    """Return by what secrets can be compared without being known; empty without one."""
    return hashlib.sha256(f"id of {secret}".encode()).hexdigest()[:16] if secret else ""


def _command(folder: Path) -> str:
    """Return the command that runs the archive in a directory."""
    words = f"exec {shlex.quote(sys.executable)} -I {shlex.quote(str(folder / PROGRAM))}"
    return f'#!/bin/sh\n{words} "$@"  # {systemd.MARK.decode()}\n'


def _commanded() -> bool:
    """Return whether the command runs the guard of a deployment on this server, whichever."""
    try:
        words = shlex.split(Path(COMMAND).read_text(encoding="utf-8").splitlines()[1], comments=True)
        python, program = words[1], Path(words[3])
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        return False
    return os.access(python, os.X_OK) and program in [folder / PROGRAM for folder in _folders().values()]


def _folders() -> dict[str, Path]:
    """Return the directories of the guards on this server whose archives are there, by unit."""
    found = {}
    for path in sorted(Path(systemd.UNITS).glob("*-guard.service")):
        folder = _folder_in(path)
        if folder is not None and (folder / PROGRAM).is_file():
            found[path.stem] = folder
    return found


def _folder_in(path: Path) -> Path | None:
    """Return the directory that a guard's unit names; None if it is no unit of a guard."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    if line is None or systemd.MARK.decode() not in text:
        return None
    try:
        words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line[1])]
    except ValueError:
        return None
    return next((Path(word).parent for word in words if Path(word).name == PROGRAM), None)


def clear(folder: Path) -> None:
    """Remove the files of a guard from its directory, and the directory if it is then empty."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if safe_paths.is_guard_file(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


class Absent:
    """Removes the guard: its unit, its files, and the command if it is the last one."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        directory = safe_paths.directory(options["directory"], VARIABLE)
        self.folder = folder_of(directory)
        self.path = systemd.unit_path(unit_of(directory))
        self.check_mode: bool = options["_check_mode"]

    def result(self) -> dict[str, Any]:
        """Do it, and return the result of the module. Raises Refused, OSError."""
        safe_paths.trust(str(self.folder.parent.parent), VARIABLE)
        unit = self.path.exists() and not systemd.foreign(self.path)
        folder = self.folder.is_dir() and not self.folder.is_symlink()
        if self.check_mode or not (unit or folder):
            return {"changed": unit or folder, "done": []}
        if unit:
            systemd.remove_unit(self.path)
        clear(self.folder)
        self._hand_over()
        return {"changed": True, "done": ["removed"]}

    def _hand_over(self) -> None:
        """Leave the command to the guard of another deployment, if there is one."""
        command = Path(COMMAND)
        if not command.exists() or systemd.foreign(command) or _commanded():
            return
        others = [*_folders().values()]
        if others:
            own_files.write(command, _command(others[0]), COMMAND_MODE)
        else:
            command.unlink()


class Present:
    """Brings files, unit and process into the state of the plan."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.guard: Mapping[str, Any] = options["guard"]
        self.unit: str = self.guard["unit"]
        self.folder = Path(self.guard["directory"])
        self.check_mode: bool = options["_check_mode"]
        self.contents: dict[str, bytes] = {
            PROGRAM: base64.b64decode(options["program"]),
            CONFIG: options["config"].encode(),
            SECRET: f"{options['secret']}\n".encode(),
        }
        self.done: list[str] = []

    def result(self) -> dict[str, Any]:
        """Do it, and return the result of the module. Raises RolloutError, OSError."""
        safe_paths.directory(str(self.folder.parent), VARIABLE)
        path = systemd.unit_path(self.unit)
        if systemd.foreign(path):
            raise self._failed("guard-unit-foreign", str(path), path=str(path))
        if not Path(sys.executable or ".").is_absolute():
            raise self._failed("guard-not-started", f"the path of Python is {sys.executable!r}")
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.contents.items()}
        changed = outdated(self.guard, digests)
        diff = self._diff(path)
        if self.check_mode:
            stopped = not systemd.is_active(self.unit)
            return {"changed": bool(changed) or stopped, "done": [], "diff": diff}
        self._write(changed, path)
        self._run(changed)
        return {"changed": bool(self.done), "done": self.done, "diff": diff}

    def _diff(self, path: Path) -> dict[str, str]:
        """Return how the unit changes, which has no secrets."""
        try:
            before = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            before = ""
        header = str(path)
        return {
            "before_header": header,
            "after_header": header,
            "before": before,
            "after": service(self.guard),
        }

    def _write(self, changed: list[str], path: Path) -> None:
        safe_paths.make(str(self.folder.parent), VARIABLE)
        self.folder.mkdir(own_files.FOLDER_MODE, exist_ok=True)
        moved_from = _folder_in(path)
        if changed:
            # Before the first file: a run that ends here leaves a guard that has not read them.
            own_files.write(self.folder / PENDING, "")
        for name, content in self.contents.items():
            if name in changed:
                own_files.write(self.folder / name, content)
        if path.name in changed:
            own_files.write(path, service(self.guard), systemd.UNIT_MODE)
            systemd.systemctl("daemon-reload")
        if moved_from not in (None, self.folder):
            clear(moved_from)
        command = Path(COMMAND)
        if not (systemd.foreign(command) or _commanded()):
            command.parent.mkdir(parents=True, exist_ok=True)
            own_files.write(command, _command(self.folder), COMMAND_MODE)
        self.done += [f"wrote {name}" for name in changed if name != PENDING]

    def _run(self, changed: list[str]) -> None:
        """Enable the unit, and start it, or start it anew where it has to read what has changed."""
        unit = f"{self.unit}.service"
        if not systemd.is_enabled(self.unit):
            self._ordered("enable", unit)
            self.done.append("enabled")
        if {*changed} - {Path(COMMAND).name} or not systemd.is_active(self.unit):
            systemd.systemctl("reset-failed", unit)
            failed, _said = systemd.systemctl("restart", unit)
            if failed and not systemd.within(START_TIMEOUT, lambda: systemd.is_active(self.unit)):
                self._ordered("restart", unit)
            if not systemd.within(START_TIMEOUT, lambda: systemd.is_active(self.unit)):
                raise self._failed("guard-not-started", "; ".join(systemd.journal(self.unit)))
            self.done.append("started")
        if (self.folder / PENDING).exists():
            (self.folder / PENDING).unlink()

    def _ordered(self, verb: str, unit: str) -> None:
        """Have systemd do something with the unit. Raises RolloutError, with the unit's last lines."""
        status, said = systemd.systemctl(verb, unit)
        if status:
            raise self._failed("guard-not-started", "; ".join([said, *systemd.journal(self.unit)]))

    def _failed(self, code: str, seen: str, **words: Any) -> RolloutError:
        return RolloutError(GUARD_CHECKS.finding(code, seen=seen, unit=self.unit, **words))


ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "guard": {"type": "dict"},
    "settings": {"type": "dict", "default": {}},
    "directory": {"type": "str"},
    "secret": {"type": "str", "default": "", "no_log": True},
    # It has the launch scripts of routers, which may hold secrets.
    "config": {"type": "str", "default": "", "no_log": True},
    # Nothing secret, but long.
    "program": {"type": "str", "default": "", "no_log": True},
}


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module guard. The option ``_check_mode`` is whether check mode is on."""
    try:
        return (Absent if options["state"] == "absent" else Present)(options).result()
    except RolloutError as error:
        return error.failure()
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"{error.filename or ''}: {error.strerror or error}"}


SECRET_ARGUMENTS: dict[str, Any] = {"directory": {"type": "str", "required": True}}


def secret(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module guard_secret_info."""
    try:
        directory = safe_paths.directory(options["directory"], VARIABLE)
    except safe_paths.Refused as error:
        return error.failure()
    return {"changed": False, "secret": read_secret(folder_of(directory))}
