# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""HAProxy's sockets, with recorded answers of HAProxy 2.6.12."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.haproxy import (
    Haproxy,
    HaproxyError,
    Request,
    Worker,
)

PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
806             master          1               0d00h03m06s     2.6.12-1+deb12u4
# workers
1372            worker          0               0d00h00m54s     2.6.12-1+deb12u4
# old workers
808             worker          1               0d00h03m06s     2.6.12-1+deb12u4
# programs
"""
HEAD = "# pxname,svname,qcur,qmax,scur,smax,status,"


def stat(blue: int, green: int, crossed: int = 0, green_up: str = "UP") -> str:
    return "\n".join(
        [
            HEAD,
            "clients,FRONTEND,,,9,9,OPEN,",
            f"router_blue,blue,0,0,{blue},9,UP,",
            f"router_blue,green,0,0,{crossed},9,{green_up},",
            f"router_blue,BACKEND,0,0,{blue + crossed},9,UP,",
            f"router_green,green,0,0,{green},9,{green_up},",
            "router_green,blue,0,0,0,9,UP,",
            f"router_green,BACKEND,1,0,{green},9,UP,",
        ]
    )


SESSIONS = """\
0x7f10: src=198.51.100.7:40112 fe=clients be=router_blue srv=blue age=41s calls=4
0x7f20: src=unix:1 fe=GLOBAL be=<NONE> srv=<none> age=0s calls=1
0x7f30: src=198.51.100.8:40113 fe=clients be=router_green srv=green age=1s calls=4
"""


class Master:
    """A master's socket that gives each command its recorded answer, and remembers what it was asked."""

    def __init__(self, path: Path, answers: dict[str, str]) -> None:
        self.answers, self.asked = answers, list[str]()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                link, _ = self.socket.accept()
            except OSError:
                return
            with link:
                command = link.makefile().readline().strip()
                self.asked.append(command)
                link.sendall(self.answers.get(command, "").encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.sock"


@pytest.fixture
def master(path: Path) -> Iterator[Master]:
    made = Master(
        path,
        {
            "show proc": PROC,
            "@!1372 show stat": stat(blue=2, green=3),
            "@!808 show stat": stat(blue=1, green=0, crossed=1),
            "@!1372 show sess": SESSIONS,
            "@!1372 prepare map /keys.map": "New version created: 7",
            "@!808 prepare map /keys.map": "New version created: 3",
        },
    )
    yield made
    made.socket.close()


def test_workers_of_earlier_configurations_are_known(path: Path, master: Master) -> None:
    assert Haproxy(str(path)).workers() == [Worker(1372, True), Worker(808, False)]


def test_requests_are_counted_in_all_workers_and_where_one_router_stands_in_for_the_other(
    path: Path, master: Master
) -> None:
    # Two in the current worker, two on their way in the backend of the old one.
    assert Haproxy(str(path)).running("blue") == 2 + 2
    # Three, one that waits in each worker, and one that the blue router's backend gave to it.
    assert Haproxy(str(path)).running("green") == 3 + 2 + 1


def test_who_is_left_is_named_by_address_and_age(path: Path, master: Master) -> None:
    assert list(Haproxy(str(path)).requests("blue")) == [Request("198.51.100.7", "41s")]


def test_a_router_is_seen_if_the_current_worker_finds_it_up(path: Path, master: Master) -> None:
    assert Haproxy(str(path)).sees("green")
    master.answers["@!1372 show stat"] = stat(0, 0, green_up="DOWN")
    assert not Haproxy(str(path)).sees("green")
    assert Haproxy(str(path)).sees("blue")


def test_the_router_is_switched_in_all_workers(path: Path, master: Master) -> None:
    Haproxy(str(path)).set_map("/router.map", "active", "green")
    assert master.asked[1:] == [
        "@!1372 set map /router.map active green",
        "@!808 set map /router.map active green",
    ]


def test_a_front_is_closed_in_all_workers(path: Path, master: Master) -> None:
    """An entry that is there is set, and one that is not is added; spaces are escaped."""
    master.answers["@!808 set map /router.map closed no\\ decoder"] = "entry not found."
    Haproxy(str(path)).put_map("/router.map", "closed", "no\ndecoder")
    assert master.asked[1:] == [
        "@!1372 set map /router.map closed no\\ decoder",
        "@!808 set map /router.map closed no\\ decoder",
        "@!808 add map /router.map closed no\\ decoder",
    ]


def test_a_front_is_opened_in_all_workers_whether_it_was_closed_or_not(path: Path, master: Master) -> None:
    master.answers["@!1372 del map /router.map closed"] = "Key not found."
    Haproxy(str(path)).drop_map("/router.map", "closed")
    assert master.asked[1:] == ["@!1372 del map /router.map closed", "@!808 del map /router.map closed"]


def test_a_front_that_cannot_be_closed_is_an_error(path: Path, master: Master) -> None:
    for command in ("set map /router.map closed x", "del map /router.map closed"):
        master.answers[f"@!1372 {command}"] = "Unknown map identifier."
    with pytest.raises(HaproxyError, match="set map: Unknown"):
        Haproxy(str(path)).put_map("/router.map", "closed", "x")
    with pytest.raises(HaproxyError, match="del map: Unknown"):
        Haproxy(str(path)).drop_map("/router.map", "closed")


def test_keys_are_replaced_at_once(path: Path, master: Master) -> None:
    Haproxy(str(path)).replace_map("/keys.map", {"ab12": "alice"})
    assert master.asked[1:] == [
        "@!1372 prepare map /keys.map",
        "@!1372 add map @7 /keys.map ab12 alice",
        "@!1372 commit map @7 /keys.map",
        "@!808 prepare map /keys.map",
        "@!808 add map @3 /keys.map ab12 alice",
        "@!808 commit map @3 /keys.map",
    ]


def test_a_map_that_is_not_there_is_an_error(path: Path, master: Master) -> None:
    master.answers["@!1372 prepare map /keys.map"] = "Unknown map identifier."
    with pytest.raises(HaproxyError, match=r"/keys.map is no map"):
        Haproxy(str(path)).replace_map("/keys.map", {})


def test_a_socket_without_haproxy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HaproxyError, match="No such file"):
        Haproxy(str(tmp_path / "none.sock")).workers()


def test_a_command_that_is_not_carried_out_is_an_error_in_the_current_worker_only(
    path: Path, master: Master
) -> None:
    master.answers["@!808 set map /router.map active green"] = "Unknown map identifier."
    Haproxy(str(path)).set_map("/router.map", "active", "green")
    master.answers["@!1372 set map /router.map active green"] = "Unknown map identifier."
    with pytest.raises(HaproxyError, match="set map: Unknown"):
        Haproxy(str(path)).set_map("/router.map", "active", "green")


def test_an_earlier_worker_without_the_map_is_left_alone(path: Path, master: Master) -> None:
    master.answers["@!808 prepare map /keys.map"] = "Unknown map identifier."
    Haproxy(str(path)).replace_map("/keys.map", {"ab12": "alice"})
    assert master.asked[-1] == "@!808 prepare map /keys.map"
