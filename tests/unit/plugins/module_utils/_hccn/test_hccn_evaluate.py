# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Each bad state of a server gives exactly its finding, with the severity of the fabric."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._commands import Answer
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import SEVERITIES, numbers
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import evaluate as v
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.catalogue import HCCN_CHECKS, chip_words
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.query import ServerAnswers
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.readings import Expectations

CHIPS = range(4)


def good(chip: int) -> dict[str, str]:
    return {
        "link": "link status: UP\n",
        "net_health": "net health status: Success\n",
        "netdetect": "netdetect address: 11.12.1.254\n",
        "gateway": "default gateway:11.12.1.254, Iface:eth0\n",
        "lldp": "Port ID TLV\n\tIfname: 400GE1/1/5:1\n",
        "ip": f"ipaddr:11.12.1.{chip}\nnetmask:255.255.255.0\n",
        "vnic": f"vnic link status: UP\nvnic ipaddr: 192.168.1.{chip}\n",
        "tls": f"dev_id:{chip}, tls switch[0](0:disable, 1:enable), tls preconfigured[1]\n",
        "spod-info": (f"\tSDID : {chip}\n\tSuper Pod Size : 384\n\tSuper Pod ID : 0\n\tServer Index : 1\n"),
    }


def table(chips=CHIPS, health: dict[int, str] | None = None) -> str:
    text = "| npu-smi 25.5.0   Version: 25.5.0   |\n| Chip  Phy-ID   | Bus-Id  | AICore(%)  |\n"
    for chip in chips:
        text += f"| {chip // 2} Ascend910 | {(health or {}).get(chip, 'OK')} | - 40 0 / 0 |\n"
        text += f"| {chip % 2} {chip} | 0000:9D:00.0 | 0 0 / 0 3422 / 65536 |\n"
    return text


CONF = "".join(
    f"address_{c}=11.12.1.{c}\nnetmask_{c}=255.255.255.0\ngateway_{c}=11.12.1.254\n" for c in CHIPS
)


def judged(
    changes=None, *, info=None, conf: str | None = CONF, version: str | None = "Version=25.5.0\n", **expect
):
    """The findings of a good server with some answers changed: {(chip or None for all, query): answer}."""
    asked = {}
    for chip in CHIPS:
        texts = good(chip)
        for (which, query), answer in (changes or {}).items():
            if which is None or chip == which or (isinstance(which, tuple) and chip in which):
                texts[query] = answer.replace("{chip}", str(chip)) if isinstance(answer, str) else answer
        asked[chip] = {
            query: answer
            if isinstance(answer, Answer)
            else Answer("npu-smi" if query == "spod-info" else "hccn_tool", query, answer, 0)
            for query, answer in texts.items()
        }
    info = info if isinstance(info, Answer) else Answer("npu-smi", "info", info or table(), 0)
    return v.judge(ServerAnswers(asked, info, version, conf, 0.5), Expectations(**expect))


def codes(state) -> list[tuple[str, str, list[int]]]:
    return [(one.code, one.severity, list(one.chips)) for one in state.findings]


ALL = list(CHIPS)
# hccn_tool/cmd.c
NO_IP = "Get ipconf failed, because no ip was preset there!\n"
NO_GATEWAY = "Get gateway failed, because no gateway was preset there!\n"
NOISE = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n"
NO_POD = "This device does not support querying spod-info.\n"

CASES = [
    # what is changed, code, severity on HCCS and on RoCE, chips
    ({(3, "link"): "link status: DOWN\n"}, "hccn-link-down", "warning", "error", [3]),
    ({(None, "link"): "link status: DOWN\n"}, "hccn-link-down", "warning", "error", ALL),
    ({(1, "net_health"): "net health status: Fault\n"}, "hccn-net-health", "warning", "error", [1]),
    # Nothing is known yet.
    ({(1, "net_health"): "net health status: Init\n"}, "hccn-net-health", "warning", "warning", [1]),
    ({(1, "net_health"): "net health status: Thread error\n"}, "hccn-net-health", "warning", "warning", [1]),
    ({(1, "net_health"): "net health status: Detect ip set\n"}, "hccn-net-health", "warning", "warning", [1]),
    ({(1, "net_health"): "net health status: Unknown\n"}, "hccn-net-health", "warning", "warning", [1]),
    ({(1, "net_health"): "net health status: Unreachable\n"}, "hccn-net-health", "warning", "error", [1]),
    ({(1, "net_health"): "net health status: Socket fail\r\n"}, "hccn-net-health", "warning", "error", [1]),
    (
        {(1, "net_health"): "net health status: Fault\n", (1, "link"): "link status: DOWN\n"},
        "hccn-link-down",
        "warning",
        "error",
        [1],
    ),
    ({(2, "netdetect"): "netdetect address: 0.0.0.0\n"}, "hccn-netdetect-unset", "hint", "hint", [2]),
    (
        {(2, "netdetect"): "netdetect address: 0.0.0.0\n", (2, "net_health"): "net health status: Init\n"},
        "hccn-netdetect-unset",
        "hint",
        "hint",
        [2],
    ),
    ({(0, "gateway"): "default gateway is not set\n"}, "hccn-gateway-unset", "hint", "warning", [0]),
    ({(0, "lldp"): ""}, "hccn-lldp-missing", "hint", "hint", [0]),
    ({(0, "lldp"): "Chassis ID TLV\n\tMAC: 7c:33:f9:10:00:01\n"}, "hccn-lldp-missing", "hint", "hint", [0]),
    ({(0, "ip"): "ip address is not configured\n"}, "hccn-ip-unset", "hint", "error", [0]),
    # The tool's own words and exit status for what is not configured; what it says every time says nothing.
    ({(0, "ip"): Answer("hccn_tool", "ip", NO_IP, 13)}, "hccn-ip-unset", "hint", "error", [0]),
    ({(None, "ip"): Answer("hccn_tool", "ip", NOISE + NO_IP, 13)}, "hccn-ip-unset", "hint", "error", ALL),
    (
        {(0, "gateway"): Answer("hccn_tool", "gateway", NO_GATEWAY, 2)},
        "hccn-gateway-unset",
        "hint",
        "warning",
        [0],
    ),
    (
        {(0, "gateway"): Answer("hccn_tool", "gateway", NO_GATEWAY, 12)},
        "hccn-gateway-unset",
        "hint",
        "warning",
        [0],
    ),
    (
        {(0, "lldp"): Answer("hccn_tool", "lldp", "Execute failed: Link status is down.\n", 22)},
        "hccn-lldp-missing",
        "hint",
        "hint",
        [0],
    ),
    ({(0, "lldp"): NOISE}, "hccn-lldp-missing", "hint", "hint", [0]),
    ({(2, "netdetect"): "netdetect addr: 0.0.0.0\n"}, "hccn-netdetect-unset", "hint", "hint", [2]),
    # A command that a product does not have says nothing of the chip.
    (
        {(1, "tls"): Answer("hccn_tool", "tls", "The command is not supported on this product.\n", 13)},
        "hccn-query-failed",
        "warning",
        "warning",
        [1],
    ),
    (
        {(1, "ip"): Answer("hccn_tool", "ip", "The VM does not support this command.\n", 21)},
        "hccn-query-failed",
        "hint",
        "warning",
        [1],
    ),
    # A certificate that is bad is not one that is missing.
    (
        {(1, "tls"): Answer("hccn_tool", "tls", "The Certificate has expired!\n", 23)},
        "hccn-query-failed",
        "error",
        "error",
        [1],
    ),
    (
        {(3, "vnic"): "vnic link status: DOWN\nvnic ipaddr: 192.168.1.3\n"},
        "hccn-vnic-down",
        "error",
        "hint",
        [3],
    ),
    ({(3, "vnic"): "vnic ipaddr: 192.168.1.3\n"}, "hccn-vnic-down", "error", "hint", [3]),
    ({(3, "vnic"): "vnic link status: DOWN\n"}, "hccn-vnic-missing", "error", "hint", [3]),
    (
        {(3, "vnic"): "vnic link status: UP\nvnic ipaddr: 192.168.1.2\n"},
        "hccn-vnic-duplicate",
        "error",
        "hint",
        [2, 3],
    ),
    ({((1, 2), "tls"): "dev_id:1, tls switch[1](0:…\n"}, "hccn-tls-mixed", "error", "error", [1, 2]),
    ({(None, "tls"): "dev_id:1, tls switch[1](0:…\n"}, "hccn-tls-on", "warning", "warning", ALL),
    (
        {(3, "spod-info"): "SDID : 3\nSuper Pod ID : 7\nServer Index : 1\n"},
        "hccn-super-pod-mixed",
        "error",
        "warning",
        [3],
    ),
    (
        {(3, "spod-info"): "SDID : 3\nSuper Pod ID : 0\nServer Index : 2\n"},
        "hccn-server-index-mixed",
        "error",
        "warning",
        [3],
    ),
    (
        {(3, "spod-info"): "SDID : 2\nSuper Pod ID : 0\nServer Index : 1\n"},
        "hccn-sdid-duplicate",
        "error",
        "warning",
        [2, 3],
    ),
    # Answers that are none
    ({(1, "spod-info"): "Error: internal error\n"}, "hccn-query-failed", "error", "hint", [1]),
    ({(1, "vnic"): ""}, "hccn-answer-unreadable", "error", "hint", [1]),
    ({(1, "link"): "链路状态正常\n"}, "hccn-answer-unreadable", "warning", "error", [1]),
    ({(1, "tls"): ""}, "hccn-answer-unreadable", "error", "error", [1]),
    (
        {(1, "link"): "Error: get link status failed, code 0x5\n"},
        "hccn-query-failed",
        "warning",
        "error",
        [1],
    ),
    ({(1, "tls"): "Error: device {chip} is busy\n"}, "hccn-query-failed", "error", "error", [1]),
    ({(None, "tls"): "Error: device {chip} is busy\n"}, "hccn-query-failed", "error", "error", ALL),
    (
        {(1, "ip"): Answer("hccn_tool", "ip", "", 255)},
        "hccn-query-failed",
        "hint",
        "error",
        [1],
    ),
    (
        {(None, "tls"): Answer("hccn_tool", "tls", problem="timeout")},
        "hccn-tool-hangs",
        "error",
        "error",
        ALL,
    ),
    (
        {
            (None, query): "hccn_tool: Permission denied, please use root\n"
            for query in good(0)
            if query != "spod-info"
        },
        "hccn-tool-needs-root",
        "error",
        "error",
        [],
    ),
    (
        {
            (None, query): Answer(
                "hccn_tool", query, "[Errno 13] Permission denied", problem="not_executable"
            )
            for query in good(0)
            if query != "spod-info"
        },
        "hccn-tool-not-executable",
        "error",
        "error",
        [],
    ),
    (
        {
            (None, query): Answer("hccn_tool", query, "[Errno 2] No such file", problem="missing")
            for query in good(0)
            if query != "spod-info"
        },
        "hccn-tool-missing",
        "error",
        "error",
        [],
    ),
]


@pytest.mark.parametrize(
    ("changes", "code", "hccs", "roce", "chips"),
    CASES,
    ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)],
)
@pytest.mark.parametrize("fabric", ["hccs", "roce"])
def test_one_finding(changes, code, hccs, roce, chips, fabric) -> None:
    state = judged(changes, fabric=fabric)
    assert codes(state) == [(code, hccs if fabric == "hccs" else roce, chips)]
    assert state.ok is (state.findings[0].severity != "error")
    finding = state.findings[0]
    assert "{" not in finding.cure.replace("{print", "")
    assert finding.seen and finding.expected and finding.source and finding.message


def test_a_good_server() -> None:
    state = judged()
    assert state.findings == []
    assert (state.ok, state.fabric, state.driver) == (True, "hccs", "25.5.0")
    assert state.to_dict()["chips"][3] == {
        "chip": 3,
        "link": "UP",
        "net_health": "Success",
        "netdetect": "11.12.1.254",
        "gateway": "11.12.1.254",
        "lldp": "400GE1/1/5:1",
        "ip": "11.12.1.3",
        "vnic": "192.168.1.3",
        "vnic_status": "UP",
        "tls": 0,
        "sdid": 3,
        "super_pod": 0,
        "super_pod_size": 384,
        "server_index": 1,
        "npu_health": "OK",
    }
    assert v.summary(state) == "4 chips, HCCS, driver 25.5.0: all good (37 queries in 0.5 s)"


def test_a_chip_without_super_pod() -> None:
    outside = {(3, "spod-info"): "This device does not support querying spod-info.\n"}
    assert codes(judged(outside)) == [("hccn-spod-unknown", "error", [3])]
    assert judged(outside, fabric="roce").findings == []


def test_a_chip_that_is_not_listed_is_one_finding() -> None:
    gone = {(3, "spod-info"): "This device does not support querying spod-info.\n"}
    assert codes(judged(gone, info=table(range(3)))) == [("npu-missing", "error", [3])]
    gone = {(3, "spod-info"): "Error: invalid chip\n"}
    assert codes(judged(gone, info=table(range(3)))) == [("npu-missing", "error", [3])]


def test_what_was_not_asked_any_more_weighs_too() -> None:
    hung = {(3, query): Answer("hccn_tool", query, problem="not_asked") for query in good(0)}
    hung |= {(3, query): Answer("hccn_tool", query, problem="timeout") for query in ("link", "net_health")}
    assert codes(judged(hung)) == [("hccn-tool-hangs", "error", [3])]


def test_no_certificate_counts_as_tls_off() -> None:
    assert judged({(2, "tls"): "the certificate does not exist\n"}).findings == []
    assert judged({(2, "tls"): "Error: tls certificate is not found\n"}).findings == []
    none = Answer("hccn_tool", "tls", "No certificate found, please set certs firstly!\n", 14)
    assert judged({(2, "tls"): none}).findings == []


@pytest.mark.parametrize(
    ("conf", "code", "chips"),
    [
        (None, "hccn-conf-missing", ALL),
        ("", "hccn-conf-empty", ALL),
        ("# nothing\nnetmask_0=255.255.255.0\n", "hccn-conf-empty", ALL),
        (CONF.replace("address_2=11.12.1.2\n", ""), "hccn-conf-incomplete", [2]),
        (CONF.replace("address_2=11.12.1.2\n", "address_2=11.12.1.77\n"), "hccn-conf-disagrees", [2]),
    ],
)
def test_hccn_conf(conf, code, chips) -> None:
    assert codes(judged(conf=conf)) == [(code, "error", chips)]


@pytest.mark.parametrize("fabric", ["hccs", "roce"])
@pytest.mark.parametrize(
    "conf",
    [
        CONF.replace("gateway_1=11.12.1.254", "gateway_1=11.12.1.1"),
        CONF.replace("netmask_1=255.255.255.0", "netmask_1=255.255.0.0"),
        CONF + "netdetect_1=11.12.1.9\n",
    ],
    ids=["gateway", "netmask", "netdetect"],
)
def test_what_only_the_driver_reads_in_hccn_conf_is_a_warning(conf, fabric) -> None:
    assert codes(judged(conf=conf, fabric=fabric)) == [("hccn-conf-disagrees", "warning", [1])]


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"info": table(range(3))}, [("npu-missing", "error", [3])]),
        ({"info": table(health={1: "Alarm"})}, [("npu-unhealthy", "error", [1])]),
        ({"info": table(health={1: "Warning", 2: "Warning"})}, [("npu-warning", "warning", [1, 2])]),
        ({"info": "dcmi module initialize failed. ret is -8005\n"}, [("hccn-query-failed", "error", [])]),
        ({"info": Answer("npu-smi", "info", problem="timeout")}, [("hccn-tool-hangs", "error", [])]),
        ({"version": None}, [("npu-driver-unknown", "warning", [])]),
        ({"version": "nothing\n"}, [("npu-driver-unknown", "warning", [])]),
        ({"driver_minimum": "25.5.0"}, []),
        ({"driver_minimum": "25.5.1"}, [("npu-driver-old", "error", [])]),
        ({"version": "Version=25.5.rc1\n", "driver_minimum": "25.5.0"}, [("npu-driver-old", "error", [])]),
        ({"super_pod": 0}, []),
        ({"super_pod": 1}, [("hccn-super-pod-unexpected", "error", ALL)]),
        ({"tls": "off"}, []),
        ({"tls": "on"}, [("hccn-tls-unexpected", "error", ALL)]),
    ],
)
def test_npus_driver_and_declared(keywords, expected) -> None:
    assert codes(judged(**keywords)) == expected


def test_declared_tls_replaces_the_advice() -> None:
    on = {(None, "tls"): "tls switch[1]\n"}
    assert judged(on, tls="on").findings == []
    assert codes(judged(on, tls="off")) == [("hccn-tls-unexpected", "error", ALL)]


# Atlas A2: spod-info is not for it, -vnic answers with what every server has.
A2 = {(None, "spod-info"): NO_POD}
# An A3 server outside of super pods.
ALONE = {
    (chip, "spod-info"): f"SDID : {chip}\nSuper Pod Size : 0\nSuper Pod ID : 9\nServer Index : 1023\n"
    for chip in CHIPS
}


@pytest.mark.parametrize(
    ("changes", "planned", "fabric"),
    [
        ({}, "auto", "hccs"),
        ({**A2, (None, "vnic"): "not set\n"}, "auto", "roce"),
        (A2, "auto", "roce"),
        ({(3, "spod-info"): NO_POD}, "auto", "hccs"),
        (ALONE, "auto", "roce"),
        ({key: text for key, text in ALONE.items() if key[0] < 3}, "auto", "hccs"),
        ({(None, query): Answer("x", query, problem="timeout") for query in good(0)}, "auto", "hccs"),
        ({(None, query): "Error: driver is not loaded\n" for query in good(0)}, "auto", "hccs"),
        # What is planned decides, not one answer.
        ({}, "roce", "roce"),
        ({}, "both", "both"),
        ({(None, query): Answer("x", query, problem="timeout") for query in good(0)}, "roce", "roce"),
        ({}, "hccs", "hccs"),
        (A2, "hccs", "hccs"),
        (ALONE, "hccs", "roce"),
        (ALONE, "both", "roce"),
    ],
)
def test_automatic_fabric(changes, planned, fabric) -> None:
    assert judged(changes, planned=planned).fabric == fabric
    assert judged(changes, planned=planned, fabric="hccs").fabric == "hccs"


def test_inside_one_server_hccs_connects_the_chips() -> None:
    unused = {**UNUSED, **ALONE}
    state = judged(unused, planned="hccs", alone=True, conf="")
    assert (state.fabric, state.ok) == ("hccs", True)
    # Atlas A2, too.
    assert judged({**UNUSED, **A2}, planned="hccs", alone=True, conf="").ok
    # With a second server, or with RoCE by the environment the chips need their addresses.
    assert not judged(unused, planned="hccs", conf="").ok
    assert not judged(unused, planned="roce", alone=True, conf="").ok
    assert not judged({**UNUSED, **A2}, planned="roce", alone=True, conf="").ok
    # Without a plan nothing is known of the servers.
    assert not judged(unused, alone=True, conf="").ok
    unknown = {(None, "spod-info"): NO_POD}
    assert codes(judged(unknown, planned="hccs", alone=True)) == [("hccn-spod-unknown", "hint", ALL)]
    assert codes(judged(unknown, planned="hccs")) == [("hccn-spod-unknown", "error", ALL)]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("vnic link status: DOWN\nvnic ipaddr: 192.168.1.{chip}\n", "hccn-vnic-down"),
        ("vnic link status: DOWN\n", "hccn-vnic-missing"),
        (Answer("hccn_tool", "vnic", "Command execute failed!\n", 1), "hccn-query-failed"),
        (Answer("hccn_tool", "vnic", problem="timeout"), "hccn-tool-hangs"),
    ],
)
def test_the_vnic_is_for_other_servers(answer, code) -> None:
    for alone, severity in ((True, "warning"), (False, "error")):
        found = codes(judged({(None, "vnic"): answer}, planned="hccs", alone=alone))
        assert found == [(code, severity, ALL)]
    # A tool that does not work at all is no matter of the vNIC.
    nothing = {(None, query): Answer("hccn_tool", query, "Error 5\n", 1) for query in ("link", "vnic", "tls")}
    assert not judged(nothing, planned="hccs", alone=True).ok


def test_an_a2_server_and_one_outside_of_super_pods_are_clean() -> None:
    assert codes(judged(A2, planned="roce")) == []
    assert codes(judged(ALONE)) == []
    assert judged(ALONE).to_dict()["chips"][0]["server_index"] is None
    # Whoever declares HCCS hears what speaks against it.
    assert ("hccn-spod-unknown", "error", ALL) in codes(judged(A2, fabric="hccs"))


def test_where_both_networks_carry_traffic_the_worse_severity_counts() -> None:
    bad = {(1, "link"): "link status: DOWN\n", (2, "vnic"): "vnic link status: DOWN\nvnic ipaddr: 1.2.3.4\n"}
    assert codes(judged(bad, planned="both")) == [
        ("hccn-link-down", "error", [1]),
        ("hccn-vnic-down", "error", [2]),
    ]
    assert "HCCS and RoCE" in v.summary(judged(bad, planned="both"))


UNUSED = {
    (None, "link"): "link status: DOWN\n",
    (None, "net_health"): "net health status: Init\n",
    (None, "netdetect"): "netdetect address: 0.0.0.0\n",
    (None, "gateway"): Answer("hccn_tool", "gateway", NO_GATEWAY, 12),
    (None, "lldp"): "",
    (None, "ip"): Answer("hccn_tool", "ip", NO_IP, 13),
}


@pytest.mark.parametrize("conf", [None, "", "tls_enable_0=0\n"])
def test_a_pod_without_roce_needs_no_hccn_conf(conf) -> None:
    code = "hccn-conf-missing" if conf is None else "hccn-conf-empty"
    state = judged(UNUSED, conf=conf)
    (one,) = [finding for finding in state.findings if finding.code == code]
    assert (one.severity, state.ok, state.fabric) == ("warning", True, "hccs")
    assert state.make_conf is (conf is None)
    # The cure is to have the file, not sixteen addresses for links that are down.
    assert all("-ip -s" not in finding.cure for finding in state.findings)
    if conf is None:
        assert one.cure.startswith("touch /etc/hccn.conf")


@pytest.mark.parametrize(
    ("changes", "expect"),
    [
        (UNUSED, {"fabric": "roce"}),
        (UNUSED, {"planned": "roce"}),
        (UNUSED, {"planned": "both"}),
        # The chips have addresses, so somebody has lost the file.
        ({}, {}),
        ({**UNUSED, (2, "ip"): "ipaddr:11.12.1.2\nnetmask:255.255.255.0\n"}, {}),
        # Nobody knows.
        ({(None, "ip"): Answer("hccn_tool", "ip", "Command execute failed!\n", 1)}, {}),
    ],
)
@pytest.mark.parametrize(("conf", "code"), [(None, "hccn-conf-missing"), ("", "hccn-conf-empty")])
def test_hccn_conf_is_needed_where_addresses_are(changes, expect, conf, code) -> None:
    state = judged(changes, conf=conf, **expect)
    assert [one.severity for one in state.findings if one.code == code] == ["error"]
    assert not state.make_conf


TLS = (
    "dev_id:0, tls switch[{switch}](0:disable, 1:enable), tls preconfigured[0]\n"
    "dev_id:0, [pub cert] info:\n\t start_time[Sat Jan 31 03:10:27 2015 GMT]\n"
    "\t end_time[Wed Jun 18 03:10:27 2025 GMT]\n"
    "\t tls expiration status[{status}](0:normal, 1:near expiration, 2:has expired)\n"
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, []),
        (1, [("hccn-tls-expiring", "warning", ALL)]),
        (2, [("hccn-tls-expired", "error", ALL)]),
    ],
)
@pytest.mark.parametrize("fabric", ["hccs", "roce"])
def test_certificates_expire_where_tls_is_on(status, expected, fabric) -> None:
    on = {(None, "tls"): TLS.format(switch=1, status=status)}
    assert codes(judged(on, tls="on", fabric=fabric)) == expected
    seen = [one.seen for one in judged(on, tls="on", fabric=fabric).findings]
    assert all("pub cert: Wed Jun 18 03:10:27 2025 GMT" in words for words in seen)
    assert all(one in codes(judged(on, fabric=fabric)) for one in expected)
    off = {(None, "tls"): TLS.format(switch=0, status=status)}
    assert codes(judged(off, fabric=fabric)) == []


def test_one_certificate_that_has_expired() -> None:
    on = {
        (None, "tls"): TLS.format(switch=1, status=0),
        (3, "tls"): TLS.format(switch=1, status=2),
    }
    assert codes(judged(on, tls="on")) == [("hccn-tls-expired", "error", [3])]


def test_a_link_that_is_down_in_an_unused_port_does_not_stop_hccs() -> None:
    unused = {
        (None, "link"): "link status: DOWN\n",
        (None, "net_health"): "net health status: Init\n",
        (None, "netdetect"): "netdetect address: 0.0.0.0\n",
        (None, "ip"): "ip address is not configured\n",
    }
    state = judged(unused)
    assert state.ok
    assert [code for code, _severity, _chips in codes(state)] == [
        "hccn-link-down",
        "hccn-ip-unset",
        "hccn-netdetect-unset",
    ]
    assert not judged(unused, fabric="roce").ok


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (Answer("hccn_tool", "hccs_ping", "This pkt ping success\n", 0), None),
        (Answer("hccn_tool", "hccs_ping", "3 packets transmitted, 3 received, 0.00% packet loss\n", 0), None),
        (Answer("hccn_tool", "ping", "3 packets transmitted, 2 received\n", 0), "2 of 3 packets received"),
        (
            Answer("hccn_tool", "hccs_ping", "device 0 PING A\nThis pkt ping failed\n", 0),
            "device 0 PING A; This pkt ping failed",
        ),
        (
            Answer(
                "hccn_tool",
                "hccs_ping",
                "device 0 PING A\n\nThis pkt send fail!\nrecv seq 0, time = 0.000us\n\n"
                "This pkt ping not start to send!\n"
                "2 packets transmitted, 0 received, 100.00% packets loss\nCmd executed successfully!\n",
                0,
            ),
            "0 of 2 packets received (This pkt send fail!)",
        ),
        (
            Answer("hccn_tool", "hccs_ping", "The command is not supported on this product.\n", 13),
            "The command is not supported on this product.",
        ),
        (Answer("hccn_tool", "hccs_ping", "Error: busy\n", 0), "Error: busy"),
        (Answer("hccn_tool", "hccs_ping", "", 0), "no output, exit status 0"),
        (Answer("hccn_tool", "hccs_ping", problem="timeout"), "no answer within 10 s, killed"),
        (Answer("hccn_tool", "hccs_ping", "No such file", problem="missing"), "No such file"),
    ],
)
def test_ping_failure(answer, seen) -> None:
    assert v.ping_failure(answer, 10) == seen


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("The command is not supported on this product.\n", True),
        ("Get invalid major cmd.\nEnter [ hccn_tool -h ] for more details.\n", True),
        ("The device is occupied. Please try again later.\n", True),
        ("Command execute failed!\n", False),
        ("3 packets transmitted, 0 received, 100.00% packets loss\n", False),
        ("", False),
    ],
)
def test_a_ping_that_was_not_made_says_nothing(text, unknown) -> None:
    assert v.ping_unknown(Answer("hccn_tool", "hccs_ping", text, 13)) is unknown
    assert not v.ping_unknown(Answer("hccn_tool", "hccs_ping", text, problem="timeout"))


def test_no_cure_resets_a_chip() -> None:
    cures = " ".join(check.cure + check.hccs_cure for check in HCCN_CHECKS.values())
    assert "-t reset" not in cures and "needs a reset" not in cures


def test_the_table_of_checks_is_sound() -> None:
    for code, check in HCCN_CHECKS.items():
        assert code == check.code
        assert code.startswith(("hccn-", "npu-"))
        assert {check.severity_over(fabric) for fabric in ("hccs", "roce", "both")} <= set(SEVERITIES)
        assert all((check.title, check.why, check.expected, check.cure, check.source))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([3], "3"),
        ([0, 1, 2, 3], "0-3"),
        ([7, 3, 4], "3-4, 7"),
        ([], ""),
        ([1, 1, 3], "1, 3"),
    ],
)
def test_numbers(values, text) -> None:
    assert numbers(values) == text


def test_chip_words() -> None:
    assert chip_words([3]) == "chip 3"
    assert chip_words([3, 7]) == "chips 3, 7"
    assert chip_words(range(16)) == "16 chips (0-15)"
