# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The module front, with systemd and HAProxy replaced by records of what they were told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.filter.front_digests import front_digests
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _systemd as systemd
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import entry, files, present, state
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.haproxy import (
    Haproxy,
    HaproxyError,
    Request,
    Worker,
)


class Server:
    """A server: whether the front runs, what HAProxy says, and what it was told."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "etc" / "pd" / "front"
        self.folder.parent.mkdir(parents=True)
        self.folder.parent.chmod(0o700)
        self.units = root / "units"
        self.units.mkdir()
        self.run_units = root / "run_units"
        self.run_units.mkdir()
        self.running: set[str] = set()
        self.enabled: set[str] = set()
        self.told: list[str] = []
        self.refused = ""
        self.worker = 1
        self.renews = True
        self.up = {"blue", "green"}
        self.left: list[Request] = []

    def run(self, words: list[str]) -> tuple[int, str]:
        self.told.append(" ".join(words[:2]))
        if "-c" in words:
            bad = self.refused and self.refused in Path(words[-1]).read_text()
            return (1, f"[ALERT] {words[-1]}: {self.refused}") if bad else (0, "")
        if words[:2] == ["systemctl", "is-active"]:
            self.told.pop()
            return (0 if words[-1] in self.running else 3), ""
        if words[:2] == ["systemctl", "is-enabled"]:
            self.told.pop()
            return (0 if words[-1] in self.enabled else 1), ""
        if words[1:2] == ["enable"]:
            self.enabled.add(words[-1])
        if words[1:2] == ["restart"]:
            self.running.add(words[-1])
        if words[1:2] == ["reload"] and self.renews:
            self.worker += 1
        if "--now" in words:
            self.running.discard(words[-1])
        if words[0] == "ip":
            return 0, "1: lo inet 127.0.0.1/8 scope host\n7: eth1 inet 198.51.100.1/24 scope global"
        return 0, ""

    def options(self, **changes: Any) -> dict[str, Any]:
        front = {
            "unit": "pd-front",
            "directory": str(self.folder),
            "run": "/run/pd-front",
            "config": "global\n",
            "service": "# Written by ascend.pd_rollout\n",
            "lua": None,
            "tls": True,
            "keys": True,
            "engine_key": False,
            "host": "198.51.100.1",
            "port": 8443,
            "shared": None,
            "packages": ["haproxy"],
            **changes.pop("front", {}),
        }
        keys = {"alice": "ab"}
        defaults = {"certificate": "PEM", "keys": keys, "engine_key": "", "colour": None, "drain": 0.0}
        return {
            "state": "present",
            "front": front,
            "directory": str(self.folder.parent),
            "_check_mode": False,
            **defaults,
            **changes,
        }

    def present(self, **changes: Any) -> dict[str, Any]:
        self.told.clear()
        return entry.result(self.options(**changes))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path)
    monkeypatch.setattr(systemd, "UNITS", str(made.units))
    monkeypatch.setattr(systemd, "RUN_UNITS", str(made.run_units))
    monkeypatch.setattr(systemd, "run", made.run)
    monkeypatch.setattr(present.safe_paths, "existing", lambda *_: None)
    monkeypatch.setattr(present.safe_paths, "trust", lambda *_: None)
    monkeypatch.setattr(present, "RELOAD_TIMEOUT", 0.0)
    monkeypatch.setattr(present, "ROUTER_TIMEOUT", 0.0)
    monkeypatch.setattr(Haproxy, "workers", lambda _: [Worker(made.worker, True)])
    monkeypatch.setattr(Haproxy, "sees", lambda _, colour: colour in made.up)
    monkeypatch.setattr(Haproxy, "running", lambda *_: len(made.left))
    monkeypatch.setattr(Haproxy, "requests", lambda *_: iter(made.left))
    monkeypatch.setattr(Haproxy, "set_map", lambda _, *words: made.told.append(f"set_map {words[1:]}"))
    monkeypatch.setattr(Haproxy, "drop_map", lambda _, *words: made.told.append(f"drop_map {words[1:]}"))
    monkeypatch.setattr(Haproxy, "replace_map", lambda *_: made.told.append("replace_map"))
    return made


def test_it_is_written_started_and_enabled(server: Server) -> None:
    result = server.present(colour="blue")
    assert result["changed"]
    assert "started" in result["done"] and "enabled pd-front" in result["done"]
    assert files.active(server.folder) == "blue"
    assert (server.folder / "keys.map").read_text() == "ab alice\n"
    assert not (server.folder / files.PENDING).exists()


def test_again_nothing_changes(server: Server) -> None:
    server.present(colour="blue")
    result = entry.result(server.options(colour="blue"))
    assert not result["changed"] and result["done"] == []


def again(server: Server, **changes: Any) -> dict[str, Any]:
    """The second call, for a unit that is enabled."""
    server.present(colour="blue")
    server.told.clear()
    return entry.result(server.options(**{"colour": "blue", **changes}))


def test_another_key_needs_no_reload(server: Server) -> None:
    result = again(server, keys={"alice": "ab", "bob": "cd"})
    assert result["done"] == ["wrote keys.map", "keys"]
    assert not any("reload" in words for words in server.told)


def test_another_certificate_is_taken_by_a_reload(server: Server) -> None:
    result = again(server, certificate="NEW")
    assert result["done"] == ["wrote front.pem", "reloaded"]


def test_a_configuration_that_haproxy_refuses_replaces_nothing(server: Server) -> None:
    server.refused = "nonsense"
    result = again(server, front={"config": "nonsense\n"})
    assert result["failed"] and result["findings"][0]["code"] == "front-config-refused"
    # What it says names the file in use, not the draft that it has read.
    assert f"{server.folder}/haproxy.cfg: nonsense" in result["findings"][0]["seen"]
    assert (server.folder / "haproxy.cfg").read_text() == "global\n"
    assert sorted(path.name for path in server.folder.iterdir()) == [
        "front.pem",
        "haproxy.cfg",
        "keys.map",
        "router.map",
    ]


def test_a_run_that_ended_before_the_reload_is_completed(server: Server) -> None:
    server.renews = False
    first = again(server, certificate="NEW")
    assert first["findings"][0]["code"] == "front-not-reloaded"
    assert (server.folder / files.PENDING).exists()
    server.renews = True
    assert entry.result(server.options(colour="blue", certificate="NEW"))["done"] == ["reloaded"]
    assert not (server.folder / files.PENDING).exists()


def test_the_switch_comes_before_its_record(server: Server) -> None:
    result = again(server, colour="green")
    assert result["done"] == ["switched to green"]
    assert "set_map ('active', 'green')" in server.told
    assert files.active(server.folder) == "green"


@pytest.mark.parametrize(("colour", "done"), [("green", "switched to green"), ("blue", "opened")])
def test_a_change_opens_a_front_that_the_guard_has_closed(server: Server, colour: str, done: str) -> None:
    server.present(colour="blue")
    router_map = server.folder / "router.map"
    router_map.write_text(files.router_map("blue", "no decoder answers"))
    would = entry.result(server.options(colour=colour, _check_mode=True))
    assert would["changed"] and files.closed(server.folder)
    result = entry.result(server.options(colour=colour))
    assert result["done"] == [done]
    assert "drop_map ('closed',)" in server.told
    assert router_map.read_text() == f"active {colour}\n"


def test_without_a_choice_of_the_router_it_stays_closed(server: Server) -> None:
    server.present(colour="blue")
    (server.folder / "router.map").write_text(files.router_map("blue", "no decoder answers"))
    assert not entry.result(server.options())["changed"]
    assert files.closed(server.folder) == "no decoder answers"


def test_a_router_that_the_front_does_not_see_gets_nothing(server: Server) -> None:
    server.up = {"blue"}
    result = again(server, colour="green")
    assert result["findings"][0]["code"] == "front-router-unseen"
    assert files.active(server.folder) == "blue"


def test_a_unit_of_another_is_not_replaced(server: Server) -> None:
    (server.units / "pd-front.service").write_text("[Unit]\n")
    result = server.present(colour="blue")
    assert result["findings"][0]["code"] == "front-unit-foreign"
    assert not server.folder.exists()


def test_check_mode_writes_nothing(server: Server) -> None:
    result = entry.result({**server.options(colour="blue"), "_check_mode": True})
    assert result["changed"] and not server.folder.exists()


def test_it_is_removed_with_its_unit(server: Server) -> None:
    server.present(colour="blue")
    (server.folder / "of-somebody").write_text("")
    gone = entry.result(server.options(state="absent"))
    assert gone == {"changed": True, "done": ["removed"]}
    assert [path.name for path in server.folder.iterdir()] == ["of-somebody"]
    assert not list(server.units.iterdir()) and not server.running


def test_where_nothing_is_nothing_is_removed(server: Server) -> None:
    assert entry.result(server.options(state="absent")) == {"changed": False, "done": []}


def test_a_foreign_unit_stays(server: Server) -> None:
    (server.units / "pd-front.service").write_text("[Unit]\n")
    assert not entry.result(server.options(state="absent"))["changed"]
    assert list(server.units.iterdir())


def test_a_silent_socket_is_a_finding(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Haproxy, colour: str) -> bool:
        raise HaproxyError("/run/pd-front/master.sock: Connection refused")

    monkeypatch.setattr(Haproxy, "sees", silent)
    assert server.present(colour="blue")["findings"][0]["code"] == "front-silent"


def test_requests_that_are_left_are_listed(server: Server) -> None:
    server.left = [Request("198.51.100.7", "41s")]
    options = {"front": server.options()["front"], "colour": "blue", "hold": 0.0}
    assert entry.requests(options) == {
        "changed": False,
        "running": 1,
        "left": [{"client": "198.51.100.7", "age": "41s"}],
    }


def test_without_a_front_no_request_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Haproxy, colour: str) -> int:
        raise HaproxyError("gone")

    monkeypatch.setattr(Haproxy, "running", silent)
    options = {"front": server.options()["front"], "colour": "blue", "hold": 0.0}
    assert entry.requests(options)["running"] == 0
    server.running.add("pd-front.service")
    assert entry.requests(options)["findings"][0]["code"] == "front-silent"


def test_the_state_says_what_differs(server: Server) -> None:
    front = server.options()["front"]
    known = {
        "unit": "pd-front",
        "host": front["host"],
        "port": 8443,
        "packages": [],
        "shared": None,
        "units": files.digests(files.units(front)),
    }
    digests = files.digests(files.wanted(front, "PEM", {"ab": "alice"}, ""))
    assert not state.look(known, digests, server.folder)["settled"]
    server.present(colour="blue")
    assert state.look(known, digests, server.folder)["settled"]
    assert state.look(known, digests, server.folder)["active"] == "blue"
    server.running.clear()
    assert state.look(known, digests, server.folder)["outdated"] == ["pd-front.service"]
    assert state.look(None, {}, server.folder) == {
        "present": True,
        "active": "blue",
        "closed": "",
        "missing": [],
        "outdated": [],
        "settled": False,
    }


def test_a_closed_front_is_not_settled(server: Server) -> None:
    front = server.options()["front"]
    known, digests = front_digests(front, "PEM", {"alice": "ab"}, "").values()
    server.present(colour="blue")
    (server.folder / "router.map").write_text(files.router_map("blue", "no decoder answers"))
    found = state.look(known, digests, server.folder)
    assert (found["closed"], found["settled"]) == ("no decoder answers", False)


SHARED = {
    "unit": "pd-address",
    "address": "198.51.100.9",
    "config": "interface @NIC@\n",
    "service": "# Written by ascend.pd_rollout\n",
    "check": "sys.exit(0)\n",
}


def test_a_shared_address_has_its_own_unit_and_the_servers_nic(server: Server) -> None:
    result = again(server, front={"shared": SHARED})
    assert "started pd-address" in result["done"] and "reloaded" not in result["done"]
    assert (server.folder / "keepalived.conf").read_text() == "interface eth1\n"
    assert server.running == {"pd-front.service", "pd-address.service"}
    assert not entry.result(server.options(colour="blue", front={"shared": SHARED}))["changed"]


def test_another_configuration_of_the_address_leaves_haproxy_alone(server: Server) -> None:
    again(server, front={"shared": SHARED})
    result = entry.result(server.options(colour="blue", front={"shared": {**SHARED, "config": "x @NIC@\n"}}))
    assert result["done"] == ["wrote keepalived.conf", "reloaded pd-address"]


def test_an_address_that_is_no_longer_shared_is_given_up(server: Server) -> None:
    again(server, front={"shared": SHARED})
    result = entry.result(server.options(colour="blue"))
    assert result["done"] == ["wrote keepalived.conf", "wrote serves.py", "removed pd-address.service"]
    assert server.running == {"pd-front.service"}
    assert not (server.folder / "keepalived.conf").exists()


def test_the_state_knows_the_nic(server: Server) -> None:
    front = server.options(front={"shared": SHARED})["front"]
    known, digests = front_digests(front, "PEM", {"alice": "ab"}, "").values()
    again(server, front={"shared": SHARED})
    assert state.look(known, digests, server.folder)["outdated"] == []
    assert state.look({**known, "shared": "other"}, digests, server.folder)["outdated"] == ["keepalived.conf"]


MOVED = "# Written by ascend.pd_rollout\nExecStart=/usr/sbin/haproxy -Ws -f {}/haproxy.cfg -p x\n"


def test_another_host_dir_starts_it_anew_with_its_files_there(server: Server) -> None:
    old = server.folder
    again(server, front={"service": MOVED.format(old)})
    server.folder = old.parent.parent / "other" / "front"
    server.folder.parent.mkdir()
    front = server.options(front={"service": MOVED.format(server.folder)})["front"]
    known, digests = front_digests(front, "PEM", {"alice": "ab"}, "").values()
    # The router that serves is known from the files that the running front reads.
    assert state.look(known, digests, server.folder)["active"] == "blue"
    result = entry.result(server.options(colour="green", front={"service": MOVED.format(server.folder)}))
    assert "started" in result["done"] and "reloaded" not in result["done"]
    assert not old.exists() and files.active(server.folder) == "green"


def test_a_move_that_ended_before_the_start_is_completed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = server.folder
    again(server, front={"service": MOVED.format(old)})
    server.folder = old.parent.parent / "other" / "front"
    server.folder.parent.mkdir()
    options = server.options(colour="green", front={"service": MOVED.format(server.folder)})
    with monkeypatch.context() as patched:
        patched.setattr(present.Present, "_run", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert entry.result(options)["failed"]
    # The unit names the new folder already, but what runs reads the old one.
    assert MOVED.format(server.folder) == (server.units / "pd-front.service").read_text()
    result = entry.result(options)
    assert "started" in result["done"] and "reloaded" not in result["done"]
    assert not old.exists() and not (server.folder / files.PENDING).exists()


def test_what_a_killed_check_has_left_is_removed(server: Server) -> None:
    server.present(colour="blue")
    left = server.folder / ".check-abc"
    left.mkdir()
    (left / "front.pem").write_text("PEM")
    again(server)
    assert not left.exists()


def test_a_start_that_fails_at_first_may_succeed_by_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = server.run

    def late(words: list[str]) -> tuple[int, str]:
        status, said = run(words)
        return (1, "its port is in use") if words[1:2] == ["restart"] else (status, said)

    monkeypatch.setattr(systemd, "run", late)
    assert "started" in server.present(colour="blue")["done"]


def test_it_finishes_before_it_is_removed(server: Server) -> None:
    server.present(colour="blue")
    server.told.clear()
    entry.result(server.options(state="absent", drain=0.1))
    # systemd would start it again.
    assert server.told[:3] == ["systemctl daemon-reload", "systemctl kill", "systemctl disable"]
    assert not list(server.run_units.iterdir())


def test_a_stop_does_not_wait(server: Server) -> None:
    server.present(colour="blue")
    server.told.clear()
    entry.result(server.options(state="absent"))
    assert server.told[0] == "systemctl disable"
