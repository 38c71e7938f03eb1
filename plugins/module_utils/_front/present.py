# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Brings the front of a server into the state of the plan, or removes it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .. import _systemd as systemd
from .._files import own_files, safe_paths
from . import files, nic
from .errors import failed
from .haproxy import Haproxy, HaproxyError

# Seconds: for a worker of a new configuration, for the check of a router.
RELOAD_TIMEOUT, ROUTER_TIMEOUT = 30.0, 30.0
# In which a start may fail and be repeated by systemd: another process may be letting go of its port.
START_TIMEOUT = 10.0
# What HAProxy reads at its start and in a reload, and keepalived likewise. Keys can be changed at once.
OF_HAPROXY = frozenset({files.CONFIG, files.PEM, files.LUA, files.ENGINES})
OF_KEEPALIVED = frozenset({files.SHARED, files.CHECK})


class Absent:
    """Removes the front: its unit and its files."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.folder = Path(
            safe_paths.directory(options["directory"], "directory (pd_host_dir and pd_deployment)"), "front"
        )
        deployment = self.folder.parent.name
        self.paths = [systemd.unit_path(f"{deployment}-{purpose}") for purpose in ("address", "front")]
        self.check_mode = options["_check_mode"]
        self.drain = float(options["drain"])

    def result(self) -> dict[str, Any]:
        """Do it, and return the result of the module. Raises Refused, OSError."""
        safe_paths.trust(str(self.folder.parent.parent), "directory (pd_host_dir and pd_deployment)")
        units = [path for path in self.paths if path.exists() and not systemd.foreign(path)]
        folder = self.folder.is_dir() and not self.folder.is_symlink()
        if self.check_mode or not (units or folder):
            return {"changed": bool(units) or folder, "done": []}
        # The shared address first, so that another front has it while this one finishes.
        for path in units:
            if path == self.paths[-1]:
                self._drain(path.stem)
            systemd.remove_unit(path)
        if folder:
            files.clear(self.folder)
        return {"changed": True, "done": ["removed"]}

    def _drain(self, unit: str) -> None:
        """Accept no more connections, and finish the requests that run. HAProxy ends after its last one; kept
        connections get one more answer. systemd must not start it again."""
        if not self.drain or not systemd.is_active(unit):
            return
        once = systemd.drop_in(unit)
        once.parent.mkdir(parents=True, exist_ok=True)
        own_files.write(once, "[Service]\nRestart=no\n", systemd.UNIT_MODE)
        systemd.systemctl("daemon-reload")
        systemd.systemctl("kill", "--kill-who=main", "--signal=USR1", f"{unit}.service")
        systemd.within(self.drain, lambda: not systemd.is_active(unit))


class Present:
    """Brings files, units, processes and the choice of the router into the state of the plan."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.front: Mapping[str, Any] = options["front"]
        self.folder = Path(self.front["directory"])
        self.colour: str | None = options["colour"]
        self.check_mode: bool = options["_check_mode"]
        self.texts = files.wanted(self.front, options["certificate"], options["keys"], options["engine_key"])
        shared = self.texts[files.SHARED]
        if shared is not None:
            self.texts[files.SHARED] = nic.filled(shared, self.front["host"])
        self.keys: Mapping[str, str] = options["keys"]
        self.haproxy = Haproxy(f"{self.front['run']}/master.sock")
        # Whether an earlier run has written files that the running front has not read.
        self.interrupted = False
        # The folder of a front that runs with files of another pd_host_dir.
        self.moved_from: Path | None = None
        self.done: list[str] = []

    def result(self) -> dict[str, Any]:
        """Do it, and return the result of the module. Raises RolloutError, HaproxyError, OSError."""
        variable = "the front's directory (pd_host_dir and pd_deployment)"
        safe_paths.directory(str(self.folder.parent), variable)
        changed = own_files.outdated(self.folder, files.digests(self.texts))
        units = systemd.units_outdated(files.digests(files.units(self.front)))
        self._refuse_foreign_units()
        before = self._config()
        self.interrupted = (self.folder / files.PENDING).exists()
        self.moved_from = files.moved_from(self.front["unit"], self.folder)
        if self.check_mode:
            switch = self.colour is not None and not self._serves(self.colour)
            stopped = any(not systemd.is_active(unit) for unit in files.units(self.front))
            would = bool(changed or units or switch or self.interrupted or stopped)
            return {"changed": would, "done": [], "diff": self._diff(before)}
        safe_paths.existing(str(self.folder.parent), variable)
        self.folder.mkdir(own_files.FOLDER_MODE, exist_ok=True)
        files.clear_drafts(self.folder)
        if set(changed) - {files.KEYS}:
            self._validate()
        if changed or self.moved_from is not None:
            # Before the first file: a run that ends here leaves a front that has not read them.
            own_files.write(self.folder / files.PENDING, f"{self.moved_from or ''}\n")
        self._write(changed)
        self._install(units)
        self._run(changed)
        self._switch()
        self._share(changed)
        if self.moved_from is not None:
            files.clear(self.moved_from)
        if (self.folder / files.PENDING).exists():
            (self.folder / files.PENDING).unlink()
        return {"changed": bool(self.done), "done": self.done, "diff": self._diff(before)}

    def _refuse_foreign_units(self) -> None:
        for unit in files.units(self.front):
            path = systemd.unit_path(unit)
            if systemd.foreign(path):
                raise failed("front-unit-foreign", self.front, str(path), path=str(path))

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
        """Have HAProxy and keepalived judge the new configuration, beside the one in use."""
        with tempfile.TemporaryDirectory(prefix=files.DRAFTS, dir=str(self.folder)) as name:
            draft = Path(name)
            for file, text in self.texts.items():
                if text is not None:
                    own_files.write(draft / file, text.replace(f"{self.folder}/", f"{draft}/"))
            own_files.write(draft / files.ROUTER, files.router_map("blue"))
            self._judged(
                ["/usr/sbin/haproxy", "-c", "-q", "-f"], draft / files.CONFIG, "front-config-refused"
            )
            if self.texts[files.SHARED] is not None:
                check = ["/usr/sbin/keepalived", "--config-test", "--use-file"]
                self._judged(check, draft / files.SHARED, "front-address-refused")

    def _judged(self, command: list[str], draft: Path, code: str) -> None:
        status, said = systemd.run([*command, str(draft)])
        if status:
            said = said.replace(f"{draft.parent}/", f"{self.folder}/")
            lines = [line for line in said.splitlines() if line]
            raise failed(code, self.front, "; ".join(lines[-6:]) or f"exit status {status}")

    def _write(self, changed: Collection[str]) -> None:
        if files.active(self.folder) is None:
            own_files.write(self.folder / files.ROUTER, files.router_map(self.colour or "blue"))
        for name in changed:
            text = self.texts[name]
            if text is not None:
                own_files.write(self.folder / name, text)
            elif (self.folder / name).exists():
                (self.folder / name).unlink()
        self.done += [f"wrote {name}" for name in changed]

    def _install(self, changed: Collection[str]) -> None:
        for unit, text in files.units(self.front).items():
            path = systemd.unit_path(unit)
            if unit in changed:
                own_files.write(path, text, systemd.UNIT_MODE)
                systemd.systemctl("daemon-reload")
                self.done.append(f"wrote {path.name}")
            if not systemd.is_enabled(unit):
                self._ordered("enable", unit)
                self.done.append(f"enabled {unit}")

    def _ordered(self, verb: str, unit: str, code: str = "front-not-started") -> None:
        """Have systemd do something with a unit. Raises FrontError, with the unit's last lines."""
        status, said = systemd.systemctl(verb, f"{unit}.service")
        if status:
            lines = "; ".join([said, *systemd.journal(unit)])
            raise failed(code, {"unit": unit}, lines)

    def _run(self, changed: Collection[str]) -> None:
        """Start HAProxy, or have it take what has changed: keys at once, everything else by a reload."""
        unit = self.front["unit"]
        if not systemd.is_active(unit) or self.moved_from is not None:
            # It reads its files where its unit says, also in a reload: another folder needs another process.
            systemd.systemctl("reset-failed", f"{unit}.service")
            if systemd.systemctl("restart", f"{unit}.service")[0] and not systemd.within(
                START_TIMEOUT, lambda: systemd.is_active(unit)
            ):
                self._ordered("restart", unit)
            self.done.append("started")
        elif OF_HAPROXY.intersection(changed) or self.interrupted:
            self._reload(unit)
        elif files.KEYS in changed:
            self.haproxy.replace_map(str(self.folder / files.KEYS), dict(self.keys))
            self.done.append("keys")

    def _reload(self, unit: str) -> None:
        before = {worker.pid for worker in self.haproxy.workers() if worker.current}
        self._ordered("reload", unit, "front-not-reloaded")
        if not systemd.within(RELOAD_TIMEOUT, lambda: self._renewed(before)):
            raise failed("front-not-reloaded", self.front, "; ".join(systemd.journal(unit)))
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
        if not systemd.within(ROUTER_TIMEOUT, lambda: self.haproxy.sees(colour)):
            raise failed("front-router-unseen", self.front, f"{colour} is not up")
        if not self._serves(colour):
            opened = files.active(self.folder) == colour
            path = self.folder / files.ROUTER
            # The file last: a run that ends in between chooses this router again, and then writes it.
            # What has closed the front was about what ran before; what runs now has been tested.
            self.haproxy.set_map(str(path), "active", colour)
            self.haproxy.drop_map(str(path), "closed")
            own_files.write(path, files.router_map(colour))
            self.done.append("opened" if opened else f"switched to {colour}")

    def _serves(self, colour: str) -> bool:
        """Return whether this router gets the requests."""
        return files.active(self.folder) == colour and not files.closed(self.folder)

    def _share(self, changed: Collection[str]) -> None:
        """Take part in the fronts' shared address, or no longer."""
        shared = self.front["shared"]
        if shared is None:
            path = systemd.unit_path(f"{self.folder.parent.name}-address")
            if path.exists() and not systemd.foreign(path):
                systemd.remove_unit(path)
                self.done.append(f"removed {path.name}")
        elif not systemd.is_active(shared["unit"]):
            self._ordered("restart", shared["unit"])
            self.done.append(f"started {shared['unit']}")
        elif OF_KEEPALIVED.intersection(changed) or self.interrupted:
            self._ordered("reload", shared["unit"], "front-not-reloaded")
            self.done.append(f"reloaded {shared['unit']}")
