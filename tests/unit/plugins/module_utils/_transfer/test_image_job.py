# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One server's part: cut, gone on with, damaged, interrupted. The engine is a stand-in, the rest is real."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pwd
import subprocess
import threading
import time
from typing import ClassVar

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _process
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.private_folder import UnsafeFolder
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import (
    image_folder,
    image_job,
    job_entry,
    store,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TransferError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.image_folder import Folder
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.image_job import Job, Spec
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.registry import (
    Archive,
    Endpoint,
    Reference,
    RegistryError,
    Segment,
)

CHUNK = 1000
CONTENT = os.urandom(10 * CHUNK + 77)
DIGEST = f"sha256:{'d' * 64}"


class Engine:
    """Loads what it gets, and knows it then."""

    def __init__(self) -> None:
        self.loaded, self.records = b"", {}

    def load(self, content, timeout):
        self.loaded = b"".join(content)
        return ["x:1"]

    def inspect(self, reference):
        return {"Id": "sha256:1", "Size": len(CONTENT)} if self.loaded else None

    def save(self, reference):
        yield CONTENT

    def recorded(self, image_id):
        return [digest for digest, known in self.records.items() if known == image_id]

    def record(self, digest, image_id):
        self.records[digest] = image_id


class FakeRegistry:
    """Gives CONTENT; `cut`: at which byte it breaks off, once; `asked`: from where it was asked to go on."""

    cut: int | None = None
    bad: int | None = None
    fails: str = ""
    asked: ClassVar[list] = []

    def __init__(self, endpoint, repository):
        self.endpoint = endpoint

    def archive(self, reference, tag):
        if self.fails and self.endpoint.base.endswith(self.fails):
            raise RegistryError("image-registry-down", f"{self.endpoint.name} cannot be reached")
        return Archive(DIGEST, "sha256:1", (Segment(len(CONTENT), digest=DIGEST),))

    def stream(self, archive, start, read_back):
        FakeRegistry.asked.append(start)
        checked = FakeRegistry.bad is not None and start <= FakeRegistry.bad
        if checked and read_back(0, start) != CONTENT[:start]:
            raise RegistryError("image-registry-digest", "the registry gives other bytes")
        for at in range(start, len(CONTENT), 300):
            if FakeRegistry.cut is not None and at >= FakeRegistry.cut:
                FakeRegistry.cut = None
                raise RegistryError("image-registry-down", "the registry ended the transfer")
            yield CONTENT[at : at + 300]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (store, image_job):
        monkeypatch.setattr(module, "CHUNK", CHUNK)
    monkeypatch.setattr(image_job, "TICK", 0.02)
    monkeypatch.setattr(image_job, "AGAIN", 0.01)
    monkeypatch.setattr(image_job, "Registry", FakeRegistry)
    monkeypatch.setattr(image_folder, "MARGIN", 0)
    monkeypatch.setattr(FakeRegistry, "asked", [])
    monkeypatch.setattr(FakeRegistry, "cut", None)
    monkeypatch.setattr(FakeRegistry, "bad", None)
    monkeypatch.setattr(FakeRegistry, "fails", "")


def spec(path, kind="registry", **more) -> Spec:
    given = {
        "image": "x:1",
        "address": "127.0.0.1",
        "token": "secret",
        "folder": str(path),
        # Until a test sets it to 0: a busy machine may be silent for a while, too.
        "idle_timeout": 60,
        "load_timeout": 5,
        "stall_timeout": 30,
        "endpoints": [Endpoint("https://registry.example")],
        "reference": Reference("x", "1"),
        **more,
    }
    return Spec(kind=kind, **given)


def run(path, engine=None, **more):
    """A whole life: the controller looks on until it is over, then nobody does."""
    folder = Folder(str(path))
    folder.make()
    folder.touch(more.pop("sources", []))
    given = spec(path, **more)
    life = threading.Thread(target=Job(given, engine or Engine()).run)
    life.start()
    deadline = time.monotonic() + 60
    while not (status := folder.read_status()) or status.phase not in ("complete", "failed"):
        folder.touch()
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    given.idle_timeout = 0
    return status, life, folder


def test_it_comes_is_loaded_and_noted(tmp_path):
    engine = Engine()
    status, life, folder = run(tmp_path / "f", engine)
    assert status.phase == "complete", status
    assert engine.loaded == CONTENT
    assert engine.records == {DIGEST: "sha256:1"}
    life.join(60)
    assert not folder.path.exists(), "nobody asks any longer: it ends and leaves nothing"


def test_a_cut_within_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeRegistry, "cut", 6000)
    engine = Engine()
    status, life, _folder = run(tmp_path / "f", engine)
    assert status.phase == "complete", status
    assert engine.loaded == CONTENT
    assert FakeRegistry.asked == [0, 6000]
    life.join(60)


def test_a_run_goes_on_where_another_ended(tmp_path):
    folder = Folder(str(tmp_path / "f"))
    folder.make()
    folder.partial_archive.write_bytes(CONTENT[:6400])
    engine = Engine()
    status, life, _folder = run(tmp_path / "f", engine)
    assert status.phase == "complete", status
    assert status.kept == 6000
    assert FakeRegistry.asked == [6000]
    assert engine.loaded == CONTENT
    life.join(60)


def test_bad_bytes_of_an_earlier_run_cost_one_more_try(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeRegistry, "bad", 9000)
    folder = Folder(str(tmp_path / "f"))
    folder.make()
    folder.partial_archive.write_bytes(bytes(4000))
    engine = Engine()
    status, life, _folder = run(tmp_path / "f", engine)
    assert status.phase == "complete", status
    assert FakeRegistry.asked == [4000, 0]
    assert engine.loaded == CONTENT
    life.join(60)


def test_what_has_come_stays_when_nobody_looks_on(tmp_path, monkeypatch):
    monkeypatch.setattr(image_job, "TRIES", 1)
    monkeypatch.setattr(FakeRegistry, "cut", 6000)
    status, life, folder = run(tmp_path / "f")
    assert status.phase == "failed"
    assert status.finding.code == "image-registry-down"
    assert "ended the transfer" in status.finding.seen
    life.join(60)
    assert [entry.name for entry in folder.path.iterdir()] == ["archive.part"]
    assert folder.partial_archive.read_bytes() == CONTENT[:6000]


def test_the_next_place_is_asked_and_all_reasons_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeRegistry, "fails", "mirror.example")
    endpoints = [Endpoint("https://mirror.example"), Endpoint("https://registry.example")]
    status, life, _folder = run(tmp_path / "f", endpoints=endpoints)
    assert status.phase == "complete", status
    assert status.source == "registry.example"
    life.join(60)
    status, life, _folder = run(tmp_path / "g", endpoints=endpoints[:1])
    assert status.finding.seen == "mirror.example cannot be reached"
    life.join(60)


def test_without_room_no_byte_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "MARGIN", 10**18)
    status, life, _folder = run(tmp_path / "f")
    assert status.finding.code == "image-disk-full"
    assert FakeRegistry.asked == []
    life.join(60)


def test_servers_take_it_from_an_engine_that_has_it(tmp_path):
    giver = Folder(str(tmp_path / "giver"))
    giver.make()
    giver.touch([])
    given = spec(giver.path, kind="docker")
    first = threading.Thread(target=Job(given, _having()).run)
    first.start()
    while not (serving := giver.read_status()) or not serving.port:
        time.sleep(0.02)
    engine = Engine()
    sources = [["giver", "127.0.0.1", serving.port]]
    status, life, _folder = run(tmp_path / "taker", engine, kind="peers", sources=sources)
    assert status.phase == "complete", status
    assert status.source == "giver"
    assert engine.loaded == CONTENT
    assert engine.records == {DIGEST: "sha256:1"}, "its name with a digest came along"
    life.join(60)
    given.idle_timeout = 0
    first.join(60)
    assert not giver.path.exists()


def _having() -> Engine:
    engine = Engine()
    engine.loaded = CONTENT
    engine.record(DIGEST, "sha256:1")
    return engine


def test_a_process_that_dies_at_once_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "run", lambda _self: os._exit(1))
    with pytest.raises(TransferError, match="image-transfer-gone"):
        image_job.start(spec(tmp_path / "f"))


def test_what_an_earlier_run_left_may_be_hashed_for_long(tmp_path, monkeypatch):
    """By a clock that jumps by ten minutes at every look."""
    looks = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: 600.0 * next(looks))
        status = image_job.start(spec(tmp_path / "f"))
    Folder(str(tmp_path / "f")).end_job()
    assert status.port


def test_an_archive_is_read_where_it_lies(tmp_path):
    archive = tmp_path / "x.tar"
    archive.write_bytes(CONTENT)
    engine = Engine()
    status, life, folder = run(tmp_path / "f", engine, kind="archive", archive=str(archive))
    assert status.phase == "complete", status
    assert engine.loaded == CONTENT
    life.join(60)
    assert archive.read_bytes() == CONTENT
    assert not folder.path.exists()


def test_without_any_source_it_says_so(tmp_path):
    status, life, _folder = run(
        tmp_path / "f", kind="peers", stall_timeout=0.5, sources=[["a", "127.0.0.1", 1]]
    )
    assert status.finding.code == "image-source-lost"
    assert "a: " in status.finding.seen
    life.join(60)


def brought(path, archive=CONTENT, at_once=3, upto=None, claimed=None):
    """A whole life with a controller that brings what is wanted; `upto`: it brings no more than that."""
    folder = Folder(str(path))
    folder.make()
    folder.touch([])
    chunks = [archive[at : at + CHUNK] for at in range(0, len(archive), CHUNK)]
    hashes = [hashlib.sha256(one).hexdigest() for one in claimed or chunks]
    given = spec(path, "controller", hashes=hashes, size=len(archive), endpoints=[], reference=None)
    engine, sent = Engine(), []
    before = threading.enumerate()
    life = threading.Thread(target=Job(given, engine).run)
    life.start()
    deadline = time.monotonic() + 60
    while not (status := folder.read_status()) or status.phase not in ("complete", "failed"):
        assert time.monotonic() < deadline, status
        if status and status.wants_after(-1) and (wanted := status.wanted) not in sent:
            if upto is not None and wanted >= upto:
                break
            piece = path.parent / "piece"
            piece.write_bytes(b"".join(chunks[wanted : wanted + at_once]))
            folder.receive(str(piece), wanted)
            sent.append(wanted)
        folder.touch()
        time.sleep(0.01)
    given.idle_timeout = 0
    # A process would end now with all its threads; here they are waited for.
    life.join(60)
    for thread in threading.enumerate():
        if thread not in before and "_work" in thread.name:
            thread.join(60)
    return folder, engine, sent


def test_the_controller_brings_what_is_wanted(tmp_path):
    folder, engine, sent = brought(tmp_path / "f")
    assert (engine.loaded, sent) == (CONTENT, [0, 3, 6, 9])
    assert not folder.path.exists()


def test_it_goes_on_where_the_controller_was_cut_off(tmp_path):
    folder, _engine, sent = brought(tmp_path / "f", upto=6)
    assert sent == [0, 3]
    assert [entry.name for entry in folder.path.iterdir()] == ["archive.part"]
    folder, engine, sent = brought(tmp_path / "f")
    assert (engine.loaded, sent) == (CONTENT, [6, 9])


def test_an_archive_that_changes_meanwhile_is_not_loaded(tmp_path, monkeypatch):
    claimed = [CONTENT[at : at + CHUNK] for at in range(0, len(CONTENT), CHUNK)]
    claimed[4] = b"what it held when it was hashed"
    told = []
    monkeypatch.setattr(Folder, "write_status", lambda _self, status: told.append(status))
    monkeypatch.setattr(Folder, "read_status", lambda _self: told[-1] if told else None)
    folder, engine, _sent = brought(tmp_path / "f", claimed=claimed)
    assert told[-1].finding.code == "image-archive-changed"
    assert "chunk 4 is not what the archive held before" in told[-1].finding.seen
    assert engine.loaded == b""
    assert folder.partial_archive.stat().st_size == 4 * CHUNK


@pytest.fixture
def planted(tmp_path):
    """A folder that a user of the server made first, and has put a number of a process into. Run as root."""
    folder = tmp_path / "image"
    folder.mkdir()
    victim = subprocess.Popen(["sleep", "600"])
    note = {"pid": victim.pid, "started": _process.start_time(victim.pid)}
    for name in ("status.json", "process.json"):
        (folder / name).write_text(json.dumps({**note, "phase": "fetching"}))
    (folder / "archive.part").write_bytes(CONTENT)
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody, -1)
    yield folder
    assert victim.poll() is None, "a process that is not ours was ended"
    victim.kill()
    victim.wait()


def test_a_folder_that_a_user_made_first_is_not_worked_in(planted):
    with pytest.raises(UnsafeFolder, match="a folder of user nobody"):
        image_job.start(spec(planted))
    assert (planted / "archive.part").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("state", "wait"),
    [("present", False), ("present", True), ("absent", False)],
    ids=["start", "wait", "end"],
)
def test_nothing_in_it_is_believed_ended_or_removed(planted, state, wait):
    params = {"state": state, "wait": wait, "directory": str(planted), "keep_part": False, "kind": "peers"}
    params.update(image="x:1", address="127.0.0.1", token="t", idle=1, patience=1, load_timeout=1)
    params.update(archive="", digest="", places=[], hashes=[], size=0, packed=False)
    params.update(sources=[], incoming=None, number=-1, hold=0)
    told = job_entry.job(params)
    if state == "present" and not wait:
        assert told["findings"][0]["code"] == "folder-of-another-user"
        assert told["msg"].startswith("docker_image_directory cannot be used.")
    else:
        assert told["status"] in ({}, {"phase": "gone"})
    assert len(list(planted.iterdir())) == 3
    assert Folder(str(planted)).left() == []


@pytest.mark.parametrize("how", ["of another user", "with two names", "a link"])
def test_a_part_that_others_could_change_meanwhile_is_not_gone_on_with(tmp_path, how):
    """Whoever has a file open can write to it, whatever becomes of the folder. Run as root."""
    folder, other = tmp_path / "f", tmp_path / "other"
    folder.mkdir()
    other.write_bytes(CONTENT)
    if how == "a link":
        (folder / "archive.part").symlink_to(other)
    else:
        os.link(other, folder / "archive.part")
    if how == "of another user":
        other.unlink()
        os.chown(folder / "archive.part", pwd.getpwnam("nobody").pw_uid, -1)
    handle = store.open_partial(folder / "archive.part")
    try:
        assert os.fstat(handle).st_size == 0
    finally:
        os.close(handle)
    handle = store.open_partial(folder / "archive.part")
    os.close(handle)


def test_a_number_in_a_folder_of_ours_is_ended_only_if_it_is_the_transfer(tmp_path):
    """After a reboot, another process may have the number that the note has."""
    folder = Folder(str(tmp_path / "f"))
    folder.make()
    victim = subprocess.Popen(["sleep", "600"])
    note = {"pid": victim.pid, "started": _process.start_time(victim.pid)}
    (folder.path / "process.json").write_text(json.dumps(note))
    assert not folder.running()
    folder.end_job()
    assert victim.poll() is None
    victim.kill()
    victim.wait()


def test_a_transfer_is_ended_by_the_next_one(tmp_path):
    assert image_job.start(spec(tmp_path / "f")).port
    folder = Folder(str(tmp_path / "f"))
    first = _process.noted(folder.path / "process.json")
    assert first
    assert folder.running()
    assert image_job.start(spec(tmp_path / "f")).port
    second = _process.noted(folder.path / "process.json")
    assert second not in (None, first)
    assert _process.start_time(first) is None
    folder.end_job()
    assert not folder.running()
