# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The report: worst first, grouped, with waivers that need a reason and an end."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import Finding
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.catalogue import HCCN_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.catalogue import HOST_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import report as r

TODAY = datetime.date(2027, 1, 15)


def finding(code: str = "host-thp", host: str | None = "p1", message: str = "off", **more) -> Finding:
    return HOST_CHECKS.finding(code, message, host=host, **more)


def waiver(code: str = "host-thp", place: str = "p1", expires: object = "2027-01-31", **more) -> dict:
    return {"code": code, "place": place, "reason": "known", "expires": expires, **more}


def make(findings: list[Finding], waivers: list | None = None) -> r.Report:
    return r.make("Checks: 2 servers", findings, waivers or [], TODAY, ["server  chips"])


def text(report: r.Report) -> str:
    return "\n".join(line for line, _severity in r.screen(report, "plans/x"))


def test_all_good() -> None:
    assert make([]).headline == "Checks: 2 servers: all good"
    assert not make([]).errors


def test_worst_first_and_the_same_of_several_servers_is_one_line() -> None:
    report = make(
        [
            finding(),
            finding(host="p2"),
            finding("host-port-taken", message="port 8004 (API) is taken: x", seen="x listens", port=8004),
            finding("host-mtu-differs", host="p2, d1", message="another MTU"),
        ]
    )
    assert [(one.code, one.host) for one in report.shown] == [
        ("host-port-taken", "p1"),
        ("host-mtu-differs", "p2, d1"),
        ("host-thp", "p1, p2"),
    ]
    assert report.headline == "Checks: 2 servers: 1 error, 1 warning, 1 hint"
    assert len(report.findings) == 4
    said = text(report)
    assert "  cure      ss -ltnp sport = :8004" in said
    # Hints only in the table.
    assert "HINT" not in said
    assert "plans/x/check.md" in said


def test_what_differs_is_told_apart() -> None:
    report = make([finding(seen="a"), finding(host="p2", seen="b"), finding(host="p3", seen="a")])
    (one,) = report.shown
    assert one.seen == "p1, p3: a; p2: b"


def many(message: str, number: int = 300, **more: str) -> list[Finding]:
    """A finding of many servers; {} is the server's number."""
    return [
        finding(
            "host-memory",
            f"s{at:03}",
            message.format(at),
            **{key: value.format(at) for key, value in more.items()},
        )
        for at in range(number)
    ]


@pytest.mark.parametrize(
    "message",
    [
        "no image",
        "no NIC carries 10.0.1.{}",
        "10.0.1.{} is on eth1, not on eth0",
        "chip 3: in use by python3 (pid 4{}), which does not belong to this deployment",
        "{}.5 GB of memory available",
        "{} MB free at /data",
    ],
)
def test_one_cause_at_hundreds_of_servers_is_one_finding(message: str) -> None:
    report = make(many(message, seen="seen {}", expected="10.0.1.{}"))
    assert report.headline == "Checks: 2 servers: 1 error"
    (one,) = report.shown
    assert len(one.hosts) == 300
    assert "s299: seen 299" in one.seen
    # A screen has a few of them, and says of how many.
    said = text(report)
    assert "s000, s001 and 298 more" in said
    assert len(said.splitlines()) < 40
    assert "s299" not in said
    page = r.markdown(report, {})
    assert "s299: seen 299" in page
    assert [one["host"] for one in r.document(report, {})["findings"]] == [f"s{at:03}" for at in range(300)]


def test_two_of_one_server_are_two() -> None:
    both = [
        finding(host=host, message=f"in use (pid {pid})") for host in ("p1", "p2") for pid in (host, 7, 8)
    ]
    numbered = [replace(one, message=one.message.replace("pid p", "pid 1")) for one in both]
    assert [one.host for one in make(numbered).shown] == ["p1, p2"] * 3
    assert len(make([finding(), finding()]).shown) == 1


def test_a_message_of_one_server_says_so() -> None:
    (one,) = make(many("no NIC carries 10.0.1.{}", 2)).shown
    assert one.message == "no NIC carries 10.0.1.0 (s000, and likewise the others)"


@pytest.mark.parametrize(
    "message",
    [
        "port 80{} (API) is taken",
        "NIC eth{} does not exist",
        "driver 25.{} is older than 26.0",
        "chip {}: link down",
        "kernel.x is {}",
    ],
)
def test_different_causes_stay_apart(message: str) -> None:
    assert len(make(many(message, 5)).shown) == 5


def test_a_few_servers_are_all_named() -> None:
    said = text(make(many("no image", 8)))
    assert "s000, s001, s002, s003, s004, s005, s006, s007" in said
    assert "s000, s001 and 7 more" in text(make(many("no image", 9)))


@pytest.mark.parametrize(
    ("raw", "standing", "waived"),
    [
        (waiver(), [], 1),
        (waiver(place="p*"), [], 1),
        (waiver(expires=datetime.date(2027, 1, 15)), [], 1),
        (waiver(expires="2027-01-14"), ["check-waiver-expired", "host-thp"], 0),
        (waiver(place="p2"), ["check-waiver-unused", "host-thp"], 0),
        (waiver(code="host-governor"), ["check-waiver-unused", "host-thp"], 0),
        (waiver(reason=""), ["check-waiver-invalid", "host-thp"], 0),
        (waiver(expires="soon"), ["check-waiver-invalid", "host-thp"], 0),
        ({"code": "host-thp"}, ["check-waiver-invalid", "host-thp"], 0),
        (waiver(who="me"), ["check-waiver-invalid", "host-thp"], 0),
        ("host-thp", ["check-waiver-invalid", "host-thp"], 0),
    ],
    ids=[
        "waived",
        "by pattern",
        "the last day",
        "expired",
        "another place",
        "another code",
        "without reason",
        "no date",
        "incomplete",
        "unknown key",
        "no mapping",
    ],
)
def test_waivers(raw: object, standing: list[str], waived: int) -> None:
    report = make([finding()], [raw])
    assert [one.code for one in report.shown] == standing
    assert len(report.waived) == waived


def test_a_finding_between_servers_needs_a_waiver_for_all_of_them() -> None:
    between = finding("host-mtu-differs", host="p2, d1")
    assert make([between], [waiver("host-mtu-differs", "p2")]).waived == ()
    assert len(make([between], [waiver("host-mtu-differs", "*")]).waived) == 1


def test_a_waiver_at_one_server_leaves_the_other() -> None:
    report = make([finding(), finding(host="p2")], [waiver()])
    assert [one.host for one in report.shown] == ["p2"]
    assert "waived until 2027-01-31: host-thp at p1: known" in text(report)


def test_a_server_that_nobody_could_check_is_one_finding() -> None:
    both = [
        HCCN_CHECKS.finding("hccn-not-checked", "could not be checked", host="p1"),
        finding("host-not-checked"),
    ]
    assert [one.code for one in make(both).shown] == ["hccn-not-checked"]
    other = [HCCN_CHECKS.finding("hccn-not-checked", "no", host="p2"), finding("host-not-checked")]
    assert len(make(other).shown) == 2


def test_files() -> None:
    report = make([finding("host-port-taken", message="a | b", port=1)], [waiver()])
    head = {"cluster": "c", "plan": "abc", "time": "2027-01-15T00:00:00+00:00"}
    document = r.document(report, head)
    assert json.loads(json.dumps(document))["ok"] is False
    assert document["findings"][0]["code"] == "host-port-taken"
    page = r.markdown(report, head)
    assert page.startswith("# Checks: 2 servers: 1 error, 1 hint\n")
    assert "| error | `host-port-taken` | p1 | a \\| b |" in page
    assert "- cure: `ss -ltnp sport = :1`" in page
