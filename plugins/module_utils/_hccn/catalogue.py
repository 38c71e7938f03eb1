# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The catalogue of the HCCN and NPU checks: code, reason, severity on each fabric, and cure.

docs/checks.md is generated from this table. A cure is a command; ``{chips}`` in it stands for the ids of the
affected chips, ``{chip}`` for the first of them.

Severity by fabric: between servers in one super pod, HCCL and the KV transfer use HCCS. There the vNIC and
TLS matter, while the RoCE port may be unused and then shows link DOWN and net_health Init although everything
works. Over RoCE it is the reverse. Each check therefore has two severities, and those of the unused network
never stop a rollout. If the plan's environment sends part of the traffic over RoCE and the rest over HCCS
(fabric ``both``), the worse of the two counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._findings import ByFabric, Catalogue, Check, numbers

PD_GUIDE = "vllm-ascend v0.13.0, docs: PD disaggregation, Mooncake, multi-node: verify the environment"
INSTALL = "vllm-ascend v0.13.0, installation.md, verify the network"
TLS_SOURCE = "the driver's source: hccn_tool/tool_tls.c"
PING_SOURCE = "the driver's source: hccn_tool/cmd.c, hccn_product_ext/tool_cmd.c"


HCCN_CHECKS = Catalogue(
    # The tools
    Check(
        "hccn-tool-missing",
        "A driver tool is missing",
        "Without hccn_tool and npu-smi the NPU network cannot be checked.",
        "error",
        "hccn_tool and npu-smi of the NPU driver are installed",
        "ls -l /usr/local/Ascend/driver/tools/hccn_tool /usr/local/bin/npu-smi  # install the driver",
        INSTALL,
    ),
    Check(
        "hccn-tool-not-executable",
        "A driver tool cannot be executed",
        "The driver installation is incomplete, or it is for another architecture.",
        "error",
        "hccn_tool and npu-smi can be executed",
        "chmod 0755 /usr/local/Ascend/driver/tools/hccn_tool /usr/local/bin/npu-smi",
        INSTALL,
    ),
    Check(
        "hccn-tool-needs-root",
        "A driver tool needs root",
        "hccn_tool refuses other users on most driver versions.",
        "error",
        "the check runs as root on the server",
        "ansible-playbook … --become",
        "hccn_tool's own message",
    ),
    Check(
        "hccn-tool-hangs",
        "A driver tool does not answer",
        "If a query hangs in the driver, HCCL will hang on that chip too.",
        "error",
        "an answer within the timeout",
        "npu-smi info; dmesg | tail  # the driver logs the reason; do not reset a chip that others use",
        "hccn_check_timeout",
    ),
    Check(
        "hccn-query-failed",
        "A query of a driver tool failed",
        "The tool printed an error instead of a result, whatever its exit status.",
        "error",
        "an answer",
        "hccn_tool -i {chip} -link -g; npu-smi info  # and check dmesg for the driver's message",
        PD_GUIDE,
    ),
    Check(
        "hccn-answer-unreadable",
        "The output of a driver tool could not be parsed",
        "Output that cannot be parsed must not count as a pass.",
        "error",
        "the output format of the driver tools, versions 23 to 26",
        "hccn_tool -i {chip} -link -g; npu-smi info  # report the output if the driver is newer",
        "this collection's parsers",
    ),
    # The NPUs
    Check(
        "npu-missing",
        "npu-smi does not list a chip",
        "vLLM stops at startup if a device in its list is missing.",
        "error",
        "every planned chip is listed by `npu-smi info`",
        "npu-smi info -m; lspci | grep -c d80[0-9]; dmesg | grep -i davinci | tail",
        "vllm-ascend v0.13.0, installation.md: `npu-smi info`",
    ),
    Check(
        "npu-unhealthy",
        "npu-smi reports an alarm",
        "A chip with an alarm fails under load, if not immediately.",
        "error",
        "Health OK",
        "npu-smi info -t health -i $(({chip} / 2)) -c $(({chip} % 2))",
        "npu-smi reference: Health OK, Warning, Alarm, Critical, UNKNOWN",
    ),
    Check(
        "npu-warning",
        "npu-smi reports a warning",
        "A chip that is not OK is worth checking before the weights load for twenty minutes.",
        "warning",
        "Health OK",
        "npu-smi info -t health -i $(({chip} / 2)) -c $(({chip} % 2))",
        "npu-smi reference: Health OK, Warning, Alarm, Critical, UNKNOWN",
    ),
    Check(
        "npu-driver-unknown",
        "The driver's version.info cannot be read",
        "The image needs a driver that matches its CANN version, and the containers mount this file.",
        "warning",
        "`Version=…` in /usr/local/Ascend/driver/version.info",
        "cat /usr/local/Ascend/driver/version.info",
        "vllm-ascend v0.13.0, installation.md",
    ),
    Check(
        "npu-driver-old",
        "The driver is older than required",
        "CANN rejects a driver that is too old, but only minutes after launch.",
        "error",
        "the driver version in hccn_check_driver_minimum, or newer",
        "cat /usr/local/Ascend/driver/version.info  # then install the newer driver and firmware, and reboot",
        "the release notes of the image's CANN",
    ),
    # The RoCE port of each chip
    Check(
        "hccn-link-down",
        "The link of a chip is down",
        "Over RoCE, HCCL fails with EI0006 after HCCL_CONNECT_TIMEOUT. In a super pod the port may be "
        "unused.",
        ByFabric("warning", "error"),
        "link status: UP",
        "hccn_tool -i {chip} -optical -g; hccn_tool -i {chip} -link_stat -g  # cable, optics, switch port",
        INSTALL,
    ),
    Check(
        "hccn-net-health",
        "The network health of a chip is bad",
        "The chip cannot reach its detection address over RoCE.",
        ByFabric("warning", "error"),
        "net health status: Success",
        "hccn_tool -i {chip} -netdetect -g; hccn_tool -i {chip} -gateway -g; hccn_tool -i {chip} -ip -g",
        INSTALL,
    ),
    Check(
        "hccn-netdetect-unset",
        "No detection address is set",
        "Without one, net_health stays at Init and carries no information; this is not a broken link.",
        "hint",
        "the address of the gateway or of another host in the RoCE network",
        "for i in {chips}; do hccn_tool -i $i -netdetect -s address GATEWAY; done",
        INSTALL,
        hccs_cure="hccn_tool -i {chip} -netdetect -g  # nothing to do where HCCS carries the traffic",
    ),
    Check(
        "hccn-gateway-unset",
        "No gateway is set",
        "Chips in other subnets cannot be reached over RoCE.",
        ByFabric("hint", "warning"),
        "a default gateway",
        "for i in {chips}; do hccn_tool -i $i -gateway -s gateway GATEWAY; done",
        INSTALL,
        hccs_cure="hccn_tool -i {chip} -gateway -g  # nothing to do where HCCS carries the traffic",
    ),
    Check(
        "hccn-lldp-missing",
        "The switch port of a chip is unknown",
        "LLDP names the port at the other end. NPUs that are cabled back to back show none.",
        "hint",
        "a line `Ifname: …`, or another line under `Port ID TLV`",
        "hccn_tool -i {chip} -lldp -g  # enable LLDP on the switch",
        INSTALL,
    ),
    Check(
        "hccn-ip-unset",
        "A chip has no RoCE address",
        "Over RoCE, HCCL has no address to connect to. In a super pod the address may be unused.",
        ByFabric("hint", "error"),
        "an address and a netmask",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        INSTALL,
        hccs_cure="hccn_tool -i {chip} -ip -g  # nothing to do where HCCS carries the traffic",
    ),
    # HCCS
    Check(
        "hccn-vnic-down",
        "The vNIC of a chip is down",
        "The chip has no HCCS link to other servers: HCCL fails with EI0006 after HCCL_CONNECT_TIMEOUT.",
        ByFabric("error", "hint"),
        "vnic link status: UP",
        "hccn_tool -i {chip} -vnic -g; npu-smi info -t hccs -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-vnic-missing",
        "A chip has no vNIC address",
        "Peers use the vNIC address to reach the chip over HCCS.",
        ByFabric("error", "hint"),
        "vnic ipaddr: an address",
        "hccn_tool -i {chip} -vnic -g; npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-vnic-duplicate",
        "Two chips have the same vNIC address",
        "Peers reach the wrong chip.",
        ByFabric("error", "hint"),
        "every vNIC address is unique in the cluster",
        "for i in {chips}; do hccn_tool -i $i -vnic -g; done  # two servers with one Server Index cause this",
        PD_GUIDE,
    ),
    Check(
        "hccn-spod-unknown",
        "The position of a chip in its super pod is unknown",
        "HCCS only connects servers in the same super pod.",
        ByFabric("error", "hint"),
        "SDID, Super Pod ID and Server Index",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-super-pod-mixed",
        "The chips of one server report different super pods",
        "A server is in one super pod only, so some of its chips are misconfigured.",
        ByFabric("error", "warning"),
        "the same Super Pod ID on all chips of the server",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-super-pod-unexpected",
        "The server is not in the declared super pod",
        "HCCS only connects servers in the same super pod.",
        ByFabric("error", "warning"),
        "the Super Pod ID in hccn_check_super_pod",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-server-index-mixed",
        "The chips of one server report different server indexes",
        "HCCL treats them as chips of different servers.",
        ByFabric("error", "warning"),
        "the same Server Index on all chips of the server",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        "CANN: the Server Index is the same for all NPUs of one server",
    ),
    Check(
        "hccn-sdid-duplicate",
        "Two chips have the same SDID",
        "HCCL stops with EI0014, superDeviceId already exists.",
        ByFabric("error", "warning"),
        "every SDID is unique in a super pod",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))  # correct the server's index",
        "CANN, fault EI0014",
    ),
    # TLS
    Check(
        "hccn-tls-mixed",
        "TLS is on for some chips of a server and off for others",
        "Chips with different TLS settings never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "the same TLS switch everywhere; 0 is recommended",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-on",
        "TLS is on for all chips of a server",
        "This works only if it is on for every chip of every server with valid certificates; off is "
        "recommended.",
        "warning",
        "tls switch[0]",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done  # or declare hccn_check_tls: on",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-unexpected",
        "The TLS switch is not as declared",
        "Chips with different TLS settings never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "the TLS switch as declared in hccn_check_tls",
        "for i in {chips}; do hccn_tool -i $i -tls -g; done",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-expired",
        "TLS is on, and a certificate has expired",
        "HCCL does not connect with an expired certificate: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "tls expiration status[0]",
        "hccn_tool -i {chip} -tls -g  # renew it (-tls -s path … pri … pub … ca1 …), or TLS off everywhere",
        TLS_SOURCE,
    ),
    Check(
        "hccn-tls-expiring",
        "TLS is on, and a certificate expires soon",
        "From its last day on, an engine that starts cannot connect to others.",
        "warning",
        "tls expiration status[0]",
        "hccn_tool -i {chip} -tls -g  # renew it in time: -tls -s path … pri … pub … ca1 …",
        TLS_SOURCE,
    ),
    # hccn.conf
    Check(
        "hccn-conf-missing",
        "/etc/hccn.conf is missing",
        "The engines start normally but give wrong answers; only the decoder's log shows it. Over HCCS, if "
        "the chips have no RoCE address, the file may be empty and this is a warning. The engines' "
        "containers mount it and do not start without it, so `deploy` then creates it empty, as the "
        "driver's installer does.",
        "error",
        "/etc/hccn.conf with an address for every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711; hixl v8.5.0, rank_table_generator.cc (GetDeviceIp); the driver's "
        "run_driver_install.sh",
        hccs_cure="for i in {chips}; do hccn_tool -i $i -ip -g; done  # set the addresses again with -ip -s",
    ),
    Check(
        "hccn-conf-empty",
        "/etc/hccn.conf lists no chip",
        "As with a missing file, the engines start normally but give wrong answers. Over HCCS, if the chips "
        "have no RoCE address, the file may be empty and this is a warning: the driver's installer "
        "leaves it empty.",
        "error",
        "`address_<chip>=…` for every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711; hixl v8.5.0, rank_table_generator.cc (GetDeviceIp); the driver's "
        "run_driver_install.sh",
        hccs_cure="for i in {chips}; do hccn_tool -i $i -ip -g; done  # set the addresses again with -ip -s",
    ),
    Check(
        "hccn-conf-incomplete",
        "/etc/hccn.conf has no address for a chip",
        "The KV transfer of that chip has no device IP: the engines start normally but give wrong answers.",
        "error",
        "`address_<chip>=…` for every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711",
    ),
    Check(
        "hccn-conf-disagrees",
        "/etc/hccn.conf and the chip disagree",
        "The KV transfer advertises an address that the chip does not have. A different netmask, gateway or "
        "detection address is a warning, because only the driver reads it, at the next boot.",
        "error",
        "the address, gateway and detection address that the chip reports",
        "hccn_tool -i {chip} -ip -g; hccn_tool -i {chip} -gateway -g; grep _{chip}= /etc/hccn.conf",
        "vllm-ascend issue 7711",
    ),
    # Between servers
    Check(
        "hccn-not-checked",
        "A server could not be checked",
        "Its state is unknown: the server is off, it refuses the login or sudo, or a check failed.",
        "error",
        "a result from hccn_check",
        "ansible {host} -m ansible.builtin.ping --become",
        "this collection",
        between=True,
    ),
    Check(
        "hccn-tls-differs",
        "TLS is on for some servers and off for others",
        "Their chips never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "the same TLS switch everywhere; 0 is recommended",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done  # on the servers that have it on",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-super-pod-differs",
        "Servers are in different super pods",
        "HCCS does not connect them: HCCL and the KV transfer use RoCE between super pods. A warning if "
        "every chip has a RoCE address and a link, because that works, only slower; otherwise an error.",
        ByFabric("error", "hint"),
        "the same Super Pod ID on all servers",
        "npu-smi info -t spod-info -i 0 -c 0  # or give every chip a RoCE address and a link",
        "HCCL user guide, rank table of Atlas A3: with several super pods device_ip must be configured",
        between=True,
    ),
    Check(
        "hccn-server-index-duplicate",
        "Two servers have the same server index",
        "HCCL treats their chips as those of one server; SDIDs and vNIC addresses are derived from it.",
        ByFabric("error", "warning"),
        "every Server Index is unique in a super pod",
        "npu-smi info -t spod-info -i 0 -c 0  # correct the index of one server through its BMC",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-ip-duplicate",
        "Two chips have the same RoCE address",
        "Peers reach the wrong chip, or sometimes one and sometimes the other.",
        ByFabric("hint", "error"),
        "every RoCE address is unique in the cluster",
        "for i in {chips}; do hccn_tool -i $i -ip -g; done",
        INSTALL,
        between=True,
    ),
    Check(
        "npu-driver-differs",
        "Servers have different drivers",
        "Upstream tests with one driver version throughout a cluster; a mix is untested.",
        "warning",
        "the same driver version on all servers",
        "cat /usr/local/Ascend/driver/version.info",
        "vllm-ascend v0.13.0, installation.md",
        between=True,
    ),
    Check(
        "hccn-fabric-differs",
        "Servers detect different fabrics",
        "Some servers have HCCS and some do not: declare the fabric to use.",
        "error",
        "the same fabric on all servers",
        "hccn_check_fabric: hccs  # or roce, in group_vars",
        "hccn_check_fabric",
        between=True,
    ),
    # The ping mesh
    Check(
        "hccn-ping-failed",
        "A chip cannot reach a chip that it must communicate with",
        "HCCL or the KV transfer fails between the two, minutes after launch.",
        "error",
        "every ping succeeds, in both directions",
        "{command}",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-ping-unknown",
        "A ping from a chip could not be run",
        "The tool did not send a ping: another process is using it, or this product or driver does not "
        "support this ping. The state of the connection is unknown.",
        "warning",
        "every ping succeeds, in both directions",
        "{command}",
        PING_SOURCE,
        between=True,
    ),
    Check(
        "hccn-ping-optional",
        "A chip cannot reach a chip on a server that it does not have to communicate with",
        "The plan does not use this pair; a later topology may.",
        "warning",
        "every ping succeeds, in both directions",
        "{command}",
        PD_GUIDE,
        between=True,
    ),
)


def chip_words(chips: Iterable[int]) -> str:
    """Return the chips as text: ``chip 3``, ``chips 3, 7``, or, from four chips on, ``16 chips (0-15)``."""
    ordered = sorted(set(chips))
    if len(ordered) == 1:
        return f"chip {ordered[0]}"
    return f"chips {numbers(ordered)}" if len(ordered) < 4 else f"{len(ordered)} chips ({numbers(ordered)})"
