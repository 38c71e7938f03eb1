# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What hccn_tool and npu-smi print, in the variants of driver versions, shells and accidents."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import parsers as p

NOTHING = [
    "",
    "\n",
    "   \r\n",
    "command not found\n",
    "错误：设备不存在\n",
    "Error: get info failed, code 0x5\n",
]

# As hccn_tool/tool_tls.c prints it.
TLS = """\
dev_id:3, tls switch[{switch}](0:disable, 1:enable), tls preconfigured[0](0:non-preset, 1:preset), tls alarm \
time threshold[60]days
dev_id:3, [pub cert] info:
\t subject[/C=CN/O=x/CN=www]
\t issuer[/C=CN/O=x/CN=x RSA PSS Sub CA]
\t start_time[Sat Jan 31 03:10:27 2015 GMT]
\t end_time[Wed Jun 18 03:10:27 2025 GMT]
\t tls expiration status[{first}](0:normal, 1:near expiration, 2:has expired)
dev_id:3, [ca1 cert] info:
\t issuer[/C=CN/O=x/CN=x RSA CA]
\t start_time[Sat Jan 31 03:10:27 2015 GMT]
\t end_time[Thu Feb  3 03:10:27 2056 GMT]
\t tls expiration status[{second}](0:normal, 1:near expiration, 2:has expired)
"""
ENDS = (("pub cert", "Wed Jun 18 03:10:27 2025 GMT"), ("ca1 cert", "Thu Feb  3 03:10:27 2056 GMT"))

CASES = {
    p.parse_link: [
        ("link status: UP\n", "UP"),
        ("link status: DOWN\n", "DOWN"),
        ("link status:UP", "UP"),
        ("link status :  UP  \n", "UP"),
        ("\tlink status:\tUP\r\n", "UP"),
        ("Link Status: up\n", "UP"),
        ("link status：UP\n", "UP"),
        ("[info] ready\nlink status: UP\n", "UP"),
    ],
    p.parse_net_health: [
        ("net health status: Success\n", "Success"),
        ("net health status: Fault\n", "Fault"),
        ("net health status: Receive timeout\r\n", "Receive timeout"),
        ("net health status:\tSocket fail \n", "Socket fail"),
        ("net health status:Init", "Init"),
    ],
    p.parse_netdetect: [
        ("netdetect address: 11.12.165.1\n", "11.12.165.1"),
        ("netdetect address:0.0.0.0\r\n", "0.0.0.0"),
        ("netdetect address : \t11.12.165.1\n", "11.12.165.1"),
        ("netdetect addr: 11.12.165.1\n", "11.12.165.1"),
        ("netdetect addr: 0.0.0.0\n", "0.0.0.0"),
    ],
    p.parse_gateway: [
        ("default gateway:11.12.165.1, Iface:eth0\n", p.Gateway("11.12.165.1", "eth0")),
        ("default gateway: 11.12.165.1, Iface: eth0\r\n", p.Gateway("11.12.165.1", "eth0")),
        ("default gateway:\t11.12.165.1\n", p.Gateway("11.12.165.1", None)),
        ("default gateway:0.0.0.0, Iface:eth0\n", None),
        ("default gateway:\n", None),
    ],
    p.parse_lldp: [
        ("Port ID TLV\n\tIfname: 400GE1/1/5:1\nTime to Live TLV\n\t120\n", "400GE1/1/5:1"),
        ("\tIfname:400GE1/1/5:1\r\n", "400GE1/1/5:1"),
        ("  ifname :\t400GE1/1/5:1\n", "400GE1/1/5:1"),
        ("Chassis ID TLV\n\tMAC: 7c:33:f9:10:00:01\n", None),
        # Switches of other makers.
        ("Chassis ID TLV\n\tMAC: 7c:33:f9:10:00:01\nPort ID TLV\n\tLocal: Eth1/1\n", "Eth1/1"),
        ("Port ID TLV\r\n\tMAC: 7c:33:f9:10:00:02\r\n", "7c:33:f9:10:00:02"),
        ("Port ID TLV\nTime to Live TLV\n\t120\n", None),
        ("Port ID TLV\n", None),
    ],
    p.parse_ip: [
        ("ipaddr:11.12.165.80\nnetmask:255.255.255.0\n", p.Address("11.12.165.80", "255.255.255.0")),
        ("ipaddr: 11.12.165.80\r\nnetmask: 255.255.255.0\r\n", p.Address("11.12.165.80", "255.255.255.0")),
        ("ipaddr\t:\t11.12.165.80\n", p.Address("11.12.165.80", None)),
        ("ipaddr:0.0.0.0\nnetmask:0.0.0.0\n", None),
        ("vnic ipaddr: 192.168.2.199\n", None),
    ],
    p.parse_tls: [
        (
            "dev_id:0, tls switch[0](0:disable, 1:enable), tls preconfigured[1](0:non-preset, 1:preset)",
            p.Tls(0),
        ),
        (
            "dev_id:0, tls switch[1](0:disable, 1:enable), tls alarm time threshold[60]days\r\n",
            p.Tls(1),
        ),
        ("dev_id:0,\ttls  switch [ 1 ](0:disable, 1:enable)\n", p.Tls(1)),
        (TLS.format(switch=1, first=0, second=0), p.Tls(1, 0, ENDS)),
        (TLS.format(switch=1, first=0, second=1), p.Tls(1, 1, ENDS)),
        (TLS.format(switch=1, first=2, second=1), p.Tls(1, 2, ENDS)),
        # The status of what has expired comes through stderr, before everything that stdout holds back.
        (
            "\t tls expiration status[2](0:normal, 1:near expiration, 2:has expired)\n"
            + TLS.format(switch=1, first=0, second=0),
            p.Tls(1, 2, ENDS),
        ),
        ("tls preconfigured[1](0:non-preset, 1:preset)\n", None),
        ("the certificate does not exist\n", None),
        ("No certificate found, please set certs firstly!\n", None),
        ("The Certificate has expired!\n", None),
    ],
    p.parse_ping: [
        (
            "device 0 PING A\nrecv seq=0,time=0.1ms\n3 packets transmitted, 3 received, 0.00% packet loss\n",
            p.Ping(True, 3, 3),
        ),
        ("3 packets transmitted, 1 received, 66.67% packet loss\r\n", p.Ping(False, 3, 1)),
        ("3 packets transmitted,3 packets received\n", p.Ping(True, 3, 3)),
        ("0 packets transmitted, 0 received\n", p.Ping(False, 0, 0)),
        ("device 0 PING A\nThis pkt ping success\n", p.Ping(True)),
        ("This pkt ping failed, recv timeout\n", p.Ping(False)),
        # hccn_product_ext/tool_cmd.c: every packet, then the count; executed, whatever came of it.
        (
            "device 3 PING 192.4.2.199\n\nThis pkt ping success!\n"
            "recv seq 0, time = 12.345us, L1 plane check result = 0x0\n\n"
            "1 packets transmitted, 1 received, 0.00% packets loss\nmax time 12.345us\n",
            p.Ping(True, 1, 1),
        ),
        (
            "device 3 PING 192.4.2.199\n\nThis pkt send fail!\n"
            "recv seq 0, time = 0.000us, L1 plane check result = 0x0\n\nThis pkt ping not start to send!\n"
            "2 packets transmitted, 0 received, 100.00% packets loss\nCmd executed successfully!\n",
            p.Ping(False, 2, 0),
        ),
    ],
    p.parse_spod: [
        (
            "\tSDID : 16777216\n\tSuper Pod Size : 384\n\tSuper Pod ID : 0\n\tServer Index : 4\n",
            p.SuperPod(16777216, 0, 384, 4),
        ),
        (
            "SDID                : 0x1000000\r\nSuper Pod Size:384\r\nSuper Pod ID:\t2\r\nServer Index:4\r\n",
            p.SuperPod(16777216, 2, 384, 4),
        ),
        (
            "\tSDID                           : 4521987\n\tSuper Pod Size                 : 384\n"
            "\tSuper Pod ID                   : 1\n\tServer Index                   : 1\n",
            p.SuperPod(4521987, 1, 384, 1),
        ),
        ("SDID : 0\nSuper Pod ID : 0\n", p.SuperPod(0, 0, None, None)),
        ("This device does not support querying spod-info.\n", None),
        ("SDID : 16777216\n", None),
    ],
    p.parse_driver_version: [
        ("Version=25.5.0\nascendhal_version=7.35.23\n", "25.5.0"),
        ("version: 24.1.rc3\r\n", "24.1.rc3"),
        ("\n Version = 25.2.0 \n", "25.2.0"),
    ],
}


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        pytest.param(parser, text, value, id=f"{parser.__name__}-{number}")
        for parser, cases in CASES.items()
        for number, (text, value) in enumerate(cases)
    ],
)
def test_value(parser, text, value) -> None:
    assert parser(text) == value


@pytest.mark.parametrize("parser", CASES, ids=lambda parser: parser.__name__)
@pytest.mark.parametrize("text", NOTHING)
def test_no_value(parser, text) -> None:
    assert parser(text) is None


@pytest.mark.parametrize(
    ("text", "vnic"),
    [
        (
            "vnic link status: UP\nvnic ipaddr: 192.168.2.199\nvnic netmask: 255.255.255.0\n",
            p.Vnic("UP", "192.168.2.199", "255.255.255.0"),
        ),
        ("vnic link status:UP\r\nvnic ipaddr:192.168.2.199\r\n", p.Vnic("UP", "192.168.2.199")),
        ("vnic link status:\tDOWN\nvnic ipaddr:\t192.168.2.199\n", p.Vnic("DOWN", "192.168.2.199")),
        ("vnic link status: DOWN\n", p.Vnic("DOWN", None)),
        ("vnic ipaddr: 192.168.2.199\n", p.Vnic(None, "192.168.2.199")),
        ("vnic link status: UP\nvnic ipaddr: 0.0.0.0\n", p.Vnic("UP", None)),
        *((text, p.Vnic(None, None)) for text in NOTHING),
    ],
)
def test_vnic(text, vnic) -> None:
    assert p.parse_vnic(text) == vnic


NPU_INFO = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.0                   Version: 25.5.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 4     Ascend910           | OK            | 169.7       41                0    / 0             |
| 0     8                   | 0000:9D:00.0  | 0           0    / 0          3422 / 65536         |
+------------------------------------------------------------------------------------------------+
| 4     Ascend910           | Warning       | -           40                0    / 0             |
| 1     9                   | 0000:9F:00.0  | 0           0    / 0          62449/ 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 4       1                 | 824166        | VLLMWorker_TP            | 59316                   |
+===========================+===============+====================================================+
| No running processes found in NPU 5                                                            |
"""


@pytest.mark.parametrize("text", [NPU_INFO, NPU_INFO.replace("\n", "\r\n")], ids=["lf", "crlf"])
def test_npu_info(text) -> None:
    info = p.parse_npu_info(text)
    assert info is not None
    assert info.version == "25.5.0"
    assert [(c.npu, c.chip, c.phy_id, c.health, c.hbm_used, c.hbm_total) for c in info.chips] == [
        (4, 0, 8, "OK", 3422, 65536),
        (4, 1, 9, "Warning", 62449, 65536),
    ]
    assert info.processes == (p.NpuProcess(4, 1, 824166, "VLLMWorker_TP", 59316),)


def test_npu_info_where_an_npu_is_one_chip() -> None:
    info = p.parse_npu_info("""\
| npu-smi 25.5.0                   Version: 25.5.0                                               |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 2     910B3               | OK            | 93.4        40                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3161 / 65536         |
| 3     910B3               | Alarm         | 90.1        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3162 / 65536         |
""")
    assert info is not None
    assert [(c.npu, c.chip, c.phy_id, c.name, c.health, c.hbm_used) for c in info.chips] == [
        (2, 0, 2, "910B3", "OK", 3161),
        (3, 0, 3, "910B3", "Alarm", 3162),
    ]


NPU_INFO_26 = """\
+------------------------------------------------------------------------------------------------------------+
| npu-smi 26.0.rc2                            Version: 26.0.rc2                                              |
+---------------------------+---------------+----------------------------------------------------------------+
| NPU   Name          | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip  Phy-ID              | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)     |
+===========================+===============+================================================================+
| 0     Ascend910           | OK            | 160.0                35                      0    / 0          |
| 0     0                   | 0000:9D:00.0  | 0                    0    / 0                56000/ 65536      |
+------------------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -                    35                      0    / 0          |
| 1     1                   | 0000:9F:00.0  | 0                    0    / 0                2900 / 65536      |
+===========================+===============+================================================================+
+---------------------------+---------------+----------------------------------------------------------------+
| NPU   Chip          | Process id    | Process name       | Process memory(MB)    | Process id in container |
+===========================+===============+================================================================+
| 0       0                 | 4242          | VLLMWorker_TP      | 53000                 | NA                |
| 0       1                 | 4243          | python3            | 197                   | 17                |
+===========================+===============+================================================================+
| No running processes found in NPU 1                                                                        |
+===========================+===============+================================================================+
"""


def test_npu_info_of_driver_26_has_a_column_more() -> None:
    info = p.parse_npu_info(NPU_INFO_26)
    assert info is not None
    assert info.processes == (
        p.NpuProcess(0, 0, 4242, "VLLMWorker_TP", 53000),
        p.NpuProcess(0, 1, 4243, "python3", 197),
    )
    assert [(one.phy_id, one.hbm_used) for one in info.chips] == [(0, 56000), (1, 2900)]
    assert info.processes_known


def test_npu_info_without_a_chip_s_own_column() -> None:
    # As Atlas 350 prints it: the NPU is the chip, names have columns of their own, NA is no process.
    info = p.parse_npu_info("""\
| npu-smi 25.6.rc1.b143                       Version: 25.6.rc1.b143                               |
| NPU ID | Name             | Health        | Power(W)   Temp(C)            Hugepages-Usage(page)    |
|        |                  | Bus-Id        | NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB)            |
| 0      | Ascend950DT      | OK            | 100.0      40                 0     / 0                |
|        |                  | NA            | 5          0     / 0          4096 / 65536             |
| 3      | Ascend950DT      | Alarm         | 100.0      40                 0     / 0                |
|        |                  | NA            | 5          0     / 0          NA   / 65536             |
| NPU ID                    | Process id    | Process name | Process memory(MB) | Process id in container |
| 0                         | 1001          | python       | 4096.5             | NA                      |
| 3                         | NA            | NA           | NA                 | NA                      |
""")
    assert info is not None
    assert [(c.npu, c.chip, c.phy_id, c.name, c.health, c.hbm_used, c.hbm_total) for c in info.chips] == [
        (0, 0, 0, "Ascend950DT", "OK", 4096, 65536),
        (3, 0, 3, "Ascend950DT", "Alarm", None, 65536),
    ]
    assert info.processes == (p.NpuProcess(0, 0, 1001, "python", 4096),)
    assert info.processes_known


def test_npu_info_of_inference_cards_has_no_hbm() -> None:
    info = p.parse_npu_info("""\
| npu-smi 24.1.rc2                                 Version: 24.1.rc2                                     |
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
| 1       310P3                 | OK              | NA           59                0     / 0             |
| 0       2                     | 0000:01:00.0    | 0            1397 / 44280                            |
| 5       310                   | OK              | NA           59                0     / 0             |
| 1       3                     | NA              | 0            NA / 44280                              |
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
| 5       0                     | 904545          | python3                  | 101                       |
""")
    assert info is not None
    assert [(c.npu, c.chip, c.phy_id, c.name, c.hbm_used) for c in info.chips] == [
        (1, 0, 2, "310P3", 1397),
        (5, 1, 3, "310", None),
    ]
    assert info.processes == (p.NpuProcess(5, 0, 904545, "python3", 101),)


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ("| 0       0                 | 4242          | VLLMWorker_TP      | 53000                 |", 1),
        (
            "| NPU0    0                 | 4242          | python3            | 197                 | NA   |",
            1,
        ),
        (
            "| 0       0                 | pid 4242      | python3            | 197                 | NA   |",
            1,
        ),
        (
            "| Failed to get the processes of NPU 0                                                        |",
            1,
        ),
        (
            "| No running processes found in NPU 0                                                         |",
            0,
        ),
        (
            "|                           |               |                    |                       |    |",
            0,
        ),
    ],
)
def test_rows_of_processes_that_nobody_knows_are_kept(row: str, unread: int) -> None:
    head, _rows = NPU_INFO_26.split("| 0       0                 | 4242")
    info = p.parse_npu_info(f"{head}{row}\n")
    assert info is not None
    assert info.unread == (row,) * unread
    assert info.processes == ()
    assert info.processes_known is (not unread)


def test_a_table_without_processes_says_nothing_of_them() -> None:
    info = p.parse_npu_info(NPU_INFO_26.split("| NPU   Chip")[0])
    assert info is not None
    assert len(info.chips) == 2
    assert not info.processes_known


@pytest.mark.parametrize("text", NOTHING)
def test_npu_info_of_nothing(text) -> None:
    assert p.parse_npu_info(text) is None


def test_hccn_conf() -> None:
    text = (
        "# by hand\naddress_0=11.12.1.1\r\nnetmask_0=255.255.255.0\n"
        " gateway_10 = 11.12.1.254 \nsend_arp_status_0=1\nnoise\n"
    )
    assert p.parse_hccn_conf(text) == {
        0: {"address": "11.12.1.1", "netmask": "255.255.255.0", "send_arp_status": "1"},
        10: {"gateway": "11.12.1.254"},
    }


def test_versions_are_ordered() -> None:
    versions = ["24.1.rc3", "24.1.0", "25.2.0", "25.2.3", "25.5.rc1", "25.5.0"]
    assert sorted(versions, key=p.version_key) == versions


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Permission denied, please use root to execute this command", True),
        ("hccn_tool: operation not permitted", True),
        ("This command requires root", True),
        ("permission denied: pls check this cmd run permission.", True),
        ("permission denied: pls check this cmd run environment.", False),
        ("link status: UP", False),
        ("net health status: Fault", False),
    ],
)
def test_wants_root(text, wanted) -> None:
    assert p.wants_root(text) is wanted


def test_a_server_beyond_a_super_pod_stands_in_none() -> None:
    assert p.SuperPod(0, 0, 384, None).inside
    assert p.SuperPod(0, 0, 384, 47).inside
    assert not p.SuperPod(0, 0, 384, 48).inside
    assert not p.SuperPod(0, 0, 384, 1023).inside


@pytest.mark.parametrize(
    ("text", "unset", "no_certificate", "unsupported", "busy"),
    [
        ("Get ipconf failed, because no ip was preset there!\n", True, False, False, False),
        ("Get ip failed, because no ip was preset there!\n", True, False, False, False),
        ("Get gateway failed, because no gateway was preset there!\n", True, False, False, False),
        ("No certificate found, please set certs firstly!\n", False, True, False, False),
        ("the certificate does not exist\n", False, True, False, False),
        ("Error: tls certificate is not found\n", False, True, False, False),
        ("The Certificate has expired!\n", False, False, False, False),
        ("The certificates are illegal!\n", False, False, False, False),
        ("Failed to verify the certificate chain, make sure …\n", False, False, False, False),
        ("The command is not supported on this product.\n", False, False, True, False),
        ("The VM does not support this command.\n", False, False, True, False),
        ("permission denied: pls check this cmd run environment.\n", False, False, True, False),
        ("permission denied: pls check this cmd run permission.\n", False, False, False, False),
        ("Get invalid major cmd.\nEnter [ hccn_tool -h ] for more details.\n", False, False, True, False),
        ("Get invalid major cmd number. Please check your input.\n", False, False, False, False),
        ("hccn_tool is busy, please try again.\n", False, False, False, True),
        ("The device is occupied. Please try again later.\n", False, False, False, True),
        ("Get lock failed. Please try again.\n", False, False, False, True),
        ("Command execute failed!\n", False, False, False, False),
    ],
)
def test_what_is_no_answer_is_told_apart(text, unset, no_certificate, unsupported, busy) -> None:
    assert p.says_unset(text) is unset
    assert p.has_no_certificate(text) is no_certificate
    assert p.is_unsupported(text) is unsupported
    assert p.is_busy(text) is busy


def test_what_the_driver_says_every_time_is_no_error() -> None:
    noise = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n"
    assert not p.is_error(noise)
    assert not p.is_error(noise + "Chassis ID TLV\n")
    assert p.is_error(noise + "Command execute failed!\n")
    assert p.is_error("The device is not exist!\n")
