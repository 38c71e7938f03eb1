# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Brings an image to one host and shows how far it is; plugins/modules has its documentation."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from ansible import constants as C
from ansible.errors import AnsibleError

from ..module_utils._docker.images import ZSTD_MAGIC
from ..module_utils._findings import Finding, text_of
from ..module_utils._transfer.catalogue import TRANSFER_CHECKS
from ..module_utils._transfer.image_job import GZIP_MAGIC
from ..module_utils._transfer.status import COMPLETE, FAILED, FETCHING, GONE, ImageStatus, TransferStatus
from ..module_utils._transfer.store import CHUNK, chunk_hashes
from ..plugin_utils._distribution import image_assignments, image_state
from ..plugin_utils._distribution.progress import failure, progress
from ..plugin_utils._run.deadlines import LONGEST, SOON, Silence
from ..plugin_utils._run.parent import ParentRun
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine
from ..plugin_utils._run.screen import show

# The finding of a process that left no result.
GONE_CODE = "image-transfer-gone"
# Seconds between two lines of progress of one host.
SHOW_EVERY = 5.0
# The most chunks that go to the server at once: each file costs some round trips. And seconds that such a
# file may take: the other servers wait for news meanwhile.
AT_ONCE = 16
QUICK, SLOW = 1.5, 6.0


class ActionModule(Polling):
    """Drives M(ascend.pd_rollout.docker_image_job) on the host."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "wait": {"type": "bool", "default": False},
        "assignments": {"type": "dict", "required": True},
        "image": {"type": "str", "required": True},
        "address": {"type": "str", "default": "127.0.0.1"},
        "archive": {"type": "str", "default": ""},
        "digest": {"type": "str", "default": ""},
        "mirrors": {"type": "list", "elements": "str", "default": []},
        "login": {"type": "dict", "default": {}, "no_log": True},
        "ca": {"type": "str", "default": ""},
        "insecure": {"type": "list", "elements": "str", "default": []},
        "directory": {"type": "str", "default": "/var/lib/pd_rollout/image"},
        "idle": {"type": "int", "default": 300},
        "patience": {"type": "int", "default": 60},
        "load_timeout": {"type": "int", "default": 1800},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._vars, self._options = task_vars, options
        # Chunks of an archive that go to the server in one file; see _bring.
        self._at_once = 2
        self._host = str(self._vars["inventory_hostname"])
        self._part = self._options["assignments"].get(self._host)
        if not self._part:
            return {"changed": False, "skipped": True, "msg": "nothing is assigned to this host"}
        if self._task.check_mode:
            return {"skipped": True, "msg": "nothing is got in check mode"}
        self._state = image_state.ImageState(Path(C.DEFAULT_LOCAL_TMP) / "pd_rollout_image")
        if self._options["state"] == "absent":
            done = self._end()
        else:
            done = self._wait() if self._options["wait"] else self._start()
        return {"changed": False, **done}

    def _start(self) -> dict[str, Any]:
        options = self._options
        # What an earlier run of this play left on the board is no longer so.
        self._state.publish(self._host, kind=self._part["kind"], failed="", port=0, complete=False)
        order = {
            "kind": self._part["kind"],
            "image": options["image"],
            "address": options["address"],
            "token": self._state.token(),
            "archive": options["archive"] or None,
            "digest": options["digest"],
            "idle": options["idle"],
            "patience": options["patience"],
            "load_timeout": options["load_timeout"],
        }
        if self._part["kind"] == "controller":
            try:
                order.update(self._archive())
            except (OSError, AnsibleError) as error:
                return self._failed(
                    TRANSFER_CHECKS.finding(
                        "image-archive-unreadable",
                        host=self._host,
                        seen=f"on the controller: {error}",
                        archive=options["archive"],
                    ),
                    ImageStatus(),
                )
        if self._part["kind"] == "registry":
            order["places"] = image_assignments.endpoints(
                options["image"], options["mirrors"], options["login"], options["ca"], options["insecure"]
            )
        answer = self._job(**order)
        status = ImageStatus.from_dict(answer["status"]) if answer.get("status") else ImageStatus()
        if answer.get("failed") or not status.port:
            found = status.finding or next(map(Finding.from_dict, answer.get("findings") or ()), None)
            if found is None:
                seen = f"it cannot start: {answer.get('msg') or 'no reason'}"
                found = TRANSFER_CHECKS.finding("image-transfer-failed", seen=seen)
            why = failure(self._host, TransferStatus(FAILED, finding=found), GONE_CODE)
            return self._failed(why, status)
        self._publish(address=options["address"], port=status.port)
        return {"port": status.port}

    def _archive(self) -> dict[str, Any]:
        """What the server needs to know of an archive that lies here."""
        handle = os.open(self._find_needle("files", self._options["archive"]), os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            self._show(f"hashing {size / 1e6:.0f} MB on the controller")
            hashes = [digest for digest, _length in chunk_hashes(handle)]
            packed = os.pread(handle, 4, 0).startswith((GZIP_MAGIC, ZSTD_MAGIC))
        finally:
            os.close(handle)
        return {"archive": None, "hashes": hashes, "size": size, "packed": packed}

    def _bring(self, number: int) -> str:
        """Put the next pieces of the archive on the server; where they are there."""
        piece = Path(C.DEFAULT_LOCAL_TMP) / f"pd_rollout_image_piece.{self._host}"
        with Path(self._find_needle("files", self._options["archive"])).open("rb") as archive:
            archive.seek(number * CHUNK)
            piece.write_bytes(archive.read(self._at_once * CHUNK))
        begun = time.monotonic()
        try:
            with self._within(LONGEST, "a piece of the image was copied there"):
                folder = self._connection._shell.tmpdir or self._make_tmp_path()
                there = self._transfer_file(str(piece), self._connection._shell.join_path(folder, "piece"))
        finally:
            piece.unlink()
        took = time.monotonic() - begun
        if took < QUICK:
            self._at_once = min(AT_ONCE, 2 * self._at_once)
        elif took > SLOW:
            self._at_once = max(1, self._at_once // 2)
        return str(there)

    def _wait(self) -> dict[str, Any]:
        begun, line = time.monotonic(), ProgressLine(f"{self._host} image", SHOW_EVERY)
        gives, run = self._part["kind"] == "docker", ParentRun()
        piece: dict[str, Any] = {}
        brought = -1
        silence = Silence(f"the image on {self._host}")
        while True:
            run.check(f"the image on {self._host}")
            servers = self._state.hosts()
            sources = [
                [name, servers[name]["address"], servers[name]["port"]]
                for name in self._part["order"]
                if name in servers and servers[name]["port"]
            ]
            answer = self._job(wait=True, sources=sources, hold=HOLD, number=brought, **piece)
            piece = {}
            reported = answer.get("status")
            if answer.get("failed") or not reported or "phase" not in reported:
                return {**answer, "failed": True, "msg": answer.get("msg") or "no word of the transfer"}
            status = ImageStatus.from_dict(reported)
            if status.phase == COMPLETE:
                self._publish(complete=True)
                if gives:
                    return {"status": reported}
                self._show(f"there after {time.monotonic() - begun:.0f} s{self._came(status)}")
                return {"changed": True, "status": reported, "loaded": list(status.names or ())}
            if status.phase in (FAILED, GONE):
                return {**self._failed(failure(self._host, status, GONE_CODE), status), "status": reported}
            silence.hear({name: getattr(status, name) for name in ("phase", "source", "done", "wanted")})
            if (found := self._hopeless(servers, status)) is not None:
                return {**self._failed(found, status), "status": reported}
            if status.done:
                line.update(progress(status), status.phase)
            if status.wanted is not None and status.wants_after(brought):
                brought = status.wanted
                piece = {"incoming": self._bring(brought)}

    def _failed(self, finding: Finding, status: ImageStatus) -> dict[str, Any]:
        """The result of a transfer that has failed, which the other workers learn of."""
        self._publish(failed=finding.sentence)
        head = image_state.summary(self._options["image"], self._host, status)
        return {"failed": True, "findings": [finding.to_dict()], "msg": text_of([finding], head)}

    def _hopeless(self, servers: dict[str, dict[str, Any]], status: ImageStatus) -> Finding | None:
        """Why nothing can come any more: whoever gets it from outside has failed, and nobody has all."""
        if self._part["kind"] != "peers" or status.phase != FETCHING:
            return None
        outside = [server for server in servers.values() if server["kind"] != "peers"]
        if not outside or not all(server["failed"] for server in outside):
            return None
        if any(server["complete"] for server in servers.values()):
            return None
        seen = "; ".join(f"{server['host']}: {server['failed']}" for server in outside)
        return TRANSFER_CHECKS.finding("image-source-failed", host=self._host, seen=seen)

    @staticmethod
    def _came(status: ImageStatus) -> str:
        kept = f", {status.kept / 1e6:.0f} MB were there from an earlier run" if status.kept else ""
        return f", from {status.source}{kept}" if status.source else ""

    def _end(self) -> dict[str, Any]:
        """End the process; what has come of an archive stays if it is not loaded yet."""
        status = self._job(state="absent", keep_part=True).get("status") or {}
        return {"served": status.get("served", 0), "fetched": status.get("fetched", 0)}

    def _publish(self, **what: Any) -> None:
        self._state.publish(**{**self._state.hosts()[self._host], **what})

    def _show(self, text: str) -> None:
        show(f"{self._host} image: {text}")

    def _job(self, **arguments: Any) -> dict[str, Any]:
        # Before the first word of a transfer, what an earlier run has left is hashed.
        limit = LONGEST if "kind" in arguments else SOON
        with self._within(limit, f"waiting for the image on {self._host}"):
            answer: dict[str, Any] = self._execute_module(
                module_name="ascend.pd_rollout.docker_image_job",
                module_args={"directory": self._options["directory"], **arguments},
                task_vars=self._vars,
            )
        return answer
