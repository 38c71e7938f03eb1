# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the modules front and front_requests_info, in plain Python."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._files import safe_paths
from .._findings import RolloutError
from . import files, systemd
from .catalogue import FRONT_CHECKS
from .haproxy import Haproxy, HaproxyError

# Seconds: between two looks, for a worker of a new configuration, for the check of a router.
POLL = 0.1
RELOAD_TIMEOUT, ROUTER_TIMEOUT = 30.0, 30.0

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "front": {"type": "dict"},
    "directory": {"type": "str"},
    "certificate": {"type": "str", "default": "", "no_log": True},
    "keys": {"type": "dict", "default": {}, "no_log": False},
    "engine_key": {"type": "str", "default": "", "no_log": True},
    "colour": {"type": "str", "choices": list(files.COLOURS)},
}


class FrontError(RolloutError):
    """The front could not be brought into the state of the plan."""


def failed(code: str, front: Mapping[str, Any], seen: str, **words: Any) -> FrontError:
    """Return the error with one finding about a front."""
    check = FRONT_CHECKS.finding(code, seen=seen, unit=front["unit"], **words)
    return FrontError(check)


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module front. The option ``_check_mode`` is whether check mode is on."""
    try:
        if options["state"] == "absent":
            return Absent(options).result()
        return Present(options).result()
    except RolloutError as error:
        return error.failure()
    except HaproxyError as error:
        return failed(
            "front-silent", options["front"], str(error), path=f"{options['front']['run']}"
        ).failure()
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"{error.filename or ''}: {error.strerror or error}"}


class Absent:
    """Removes the front: its unit and its files."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.folder = Path(
            safe_paths.directory(options["directory"], "directory (pd_host_dir and pd_deployment)"), "front"
        )
        self.unit = f"{self.folder.parent.name}-front"
        self.path = files.unit_path({"unit": self.unit})
        self.check_mode = options["_check_mode"]

    def result(self) -> dict[str, Any]:
        safe_paths.trust(str(self.folder.parent.parent), "directory (pd_host_dir and pd_deployment)")
        unit = self.path.exists() and not files.foreign(self.path)
        folder = self.folder.is_dir() and not self.folder.is_symlink()
        if self.check_mode or not (unit or folder):
            return {"changed": unit or folder, "done": []}
        if unit:
            systemd.systemctl("disable", "--now", f"{self.unit}.service")
            self.path.unlink()
            systemd.systemctl("daemon-reload")
        if folder:
            for name in files.NAMES:
                for path in (self.folder / name, self.folder / f".{name}.new"):
                    if path.exists() or path.is_symlink():
                        path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        return {"changed": True, "done": ["removed"]}


class Present:
    """Brings files, unit, process and the choice of the router into the state of the plan, in this order."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.front: Mapping[str, Any] = options["front"]
        self.folder = Path(self.front["directory"])
        self.colour: str | None = options["colour"]
        self.check_mode: bool = options["_check_mode"]
        self.texts = files.wanted(self.front, options["certificate"], options["keys"], options["engine_key"])
        self.keys: Mapping[str, str] = options["keys"]
        self.haproxy = Haproxy(f"{self.front['run']}/master.sock")
        # Whether an earlier run has written files that the running front has not read.
        self.interrupted = False
        self.done: list[str] = []

    def result(self) -> dict[str, Any]:
        variable = "the front's directory (pd_host_dir and pd_deployment)"
        safe_paths.directory(str(self.folder.parent), variable)
        changed = files.outdated(self.folder, files.digests(self.texts))
        unit = files.unit_outdated(self.front, files.digest(self.front["service"]))
        if files.foreign(files.unit_path(self.front)):
            raise failed("front-unit-foreign", self.front, "", path=str(files.unit_path(self.front)))
        before = self._config()
        self.interrupted = (self.folder / files.PENDING).exists()
        if self.check_mode:
            switch = self.colour is not None and files.active(self.folder) != self.colour
            would = bool(
                changed or unit or switch or self.interrupted or not systemd.is_active(self.front["unit"])
            )
            return {"changed": would, "done": [], "diff": self._diff(before)}
        safe_paths.existing(str(self.folder.parent), variable)
        self.folder.mkdir(files.FOLDER_MODE, exist_ok=True)
        if set(changed) - {files.KEYS}:
            self._validate()
        if changed:
            # Before the first file: a run that ends here leaves a front that has not read them.
            files.write(self.folder / files.PENDING, "reload\n")
        self._write(changed)
        self._install(unit)
        self._run(changed)
        if (self.folder / files.PENDING).exists():
            (self.folder / files.PENDING).unlink()
        self._switch()
        return {"changed": bool(self.done), "done": self.done, "diff": self._diff(before)}

    def _config(self) -> str:
        try:
            return (self.folder / files.CONFIG).read_text(encoding="utf-8")
        except OSError:
            return ""

    def _diff(self, before: str) -> dict[str, str]:
        header = str(self.folder / files.CONFIG)
        after = self.front["config"]
        return {"before_header": header, "after_header": header, "before": before, "after": after}

    def _validate(self) -> None:
        """Have HAProxy judge the new configuration, with all its files, beside the one in use."""
        with tempfile.TemporaryDirectory(prefix=".check-", dir=str(self.folder)) as name:
            draft = Path(name)
            for file, text in self.texts.items():
                if text is not None:
                    files.write(draft / file, text.replace(f"{self.folder}/", f"{draft}/"))
            files.write(draft / files.ROUTER, files.router_map("blue"))
            status, said = systemd.run(["/usr/sbin/haproxy", "-c", "-q", "-f", str(draft / files.CONFIG)])
        if status:
            lines = [line for line in said.replace(f"{draft}/", f"{self.folder}/").splitlines() if line]
            raise failed("front-config-refused", self.front, "; ".join(lines[-6:]) or f"exit status {status}")

    def _write(self, changed: list[str]) -> None:
        if files.active(self.folder) is None:
            files.write(self.folder / files.ROUTER, files.router_map(self.colour or "blue"))
        for name in changed:
            text = self.texts[name]
            if text is not None:
                files.write(self.folder / name, text)
            elif (self.folder / name).exists():
                (self.folder / name).unlink()
        self.done += [f"wrote {name}" for name in changed]

    def _install(self, unit: bool) -> None:
        name = f"{self.front['unit']}.service"
        if unit:
            files.write(files.unit_path(self.front), self.front["service"], files.UNIT_MODE)
            systemd.systemctl("daemon-reload")
            self.done.append(f"wrote {name}")
        if not systemd.is_enabled(self.front["unit"]):
            status, said = systemd.systemctl("enable", name)
            if status:
                raise failed("front-not-started", self.front, said)
            self.done.append("enabled")

    def _run(self, changed: list[str]) -> None:
        """Start it, or have it take what has changed: keys at once, everything else by a reload."""
        unit = f"{self.front['unit']}.service"
        if not systemd.is_active(self.front["unit"]):
            status, said = systemd.systemctl("restart", unit)
            if status:
                raise failed("front-not-started", self.front, "; ".join([said, *systemd.journal(unit[:-8])]))
            self.done.append("started")
        elif set(changed) - {files.KEYS} or self.interrupted:
            self._reload(unit)
        elif changed:
            self.haproxy.replace_map(str(self.folder / files.KEYS), dict(self.keys))
            self.done.append("keys")

    def _reload(self, unit: str) -> None:
        before = {worker.pid for worker in self.haproxy.workers() if worker.current}
        status, said = systemd.systemctl("reload", unit)
        if status or not _within(RELOAD_TIMEOUT, lambda: self._renewed(before)):
            raise failed("front-not-reloaded", self.front, "; ".join([said, *systemd.journal(unit[:-8])]))
        self.done.append("reloaded")

    def _renewed(self, before: set[int]) -> bool:
        """Return whether a worker accepts connections that did not before the reload."""
        try:
            return bool({worker.pid for worker in self.haproxy.workers() if worker.current} - before)
        except HaproxyError:
            return False  # The master starts anew.

    def _switch(self) -> None:
        if self.colour is None:
            return
        colour = self.colour
        if not _within(ROUTER_TIMEOUT, lambda: self.haproxy.sees(colour)):
            raise failed("front-router-unseen", self.front, f"{colour} is not up")
        if files.active(self.folder) != colour:
            path = self.folder / files.ROUTER
            # The file last: a run that ends in between chooses this router again, and then writes it.
            self.haproxy.set_map(str(path), "active", colour)
            files.write(path, files.router_map(colour))
            self.done.append(f"switched to {colour}")


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    """Return whether something becomes true within a number of seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


REQUESTS_ARGUMENTS: dict[str, Any] = {
    "front": {"type": "dict", "required": True},
    "colour": {"type": "str", "choices": list(files.COLOURS), "required": True},
    "hold": {"type": "float", "default": 0.0},
}


def requests(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module front_requests: who still waits for an answer of a router."""
    front, colour = options["front"], options["colour"]
    haproxy = Haproxy(f"{front['run']}/master.sock")
    try:
        _within(options["hold"], lambda: haproxy.running(colour) == 0)
        count = haproxy.running(colour)
        left = [{"client": one.client, "age": one.age} for one in haproxy.requests(colour)] if count else []
    except HaproxyError as error:
        if not systemd.is_active(front["unit"]):
            # Without a front nothing runs through it.
            return {"changed": False, "running": 0, "left": []}
        return failed("front-silent", front, str(error), path=haproxy.path).failure()
    return {"changed": False, "running": count, "left": left}
