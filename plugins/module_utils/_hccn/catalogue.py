# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The table of the HCCN and NPU checks: every code, why it matters, how bad it is on which fabric, its cure.

docs/checks.md is made from this table. A cure is a command; `{chips}` in it stands for the ids of the chips
concerned, `{chip}` for the first of them.

Which severity on which fabric. Between the servers of one super pod HCCL and the KV transfer go over HCCS:
there the vNIC and TLS decide, while the RoCE port may be unused and then shows link DOWN and net_health Init
although everything works. Over RoCE it is the other way round. So each check has two severities, and those of
the unused network never stop a rollout. Where the plan's environment sends one part of the traffic over RoCE
and leaves the other to HCCS (fabric `both`), the worse of the two counts.
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
        "A tool of the driver is missing",
        "Without hccn_tool and npu-smi nothing is known of the NPU network.",
        "error",
        "hccn_tool and npu-smi of the NPU driver are installed",
        "ls -l /usr/local/Ascend/driver/tools/hccn_tool /usr/local/bin/npu-smi  # install the driver",
        INSTALL,
    ),
    Check(
        "hccn-tool-not-executable",
        "A tool of the driver cannot be executed",
        "The driver is installed incompletely, or for another architecture.",
        "error",
        "hccn_tool and npu-smi can be executed",
        "chmod 0755 /usr/local/Ascend/driver/tools/hccn_tool /usr/local/bin/npu-smi",
        INSTALL,
    ),
    Check(
        "hccn-tool-needs-root",
        "The tool needs root",
        "hccn_tool refuses other users on most driver versions.",
        "error",
        "the check runs as root on the server",
        "ansible-playbook … --become",
        "hccn_tool's own message",
    ),
    Check(
        "hccn-tool-hangs",
        "A tool does not answer",
        "A query that hangs in the driver means a chip that HCCL will hang on too.",
        "error",
        "an answer within the time-out",
        "npu-smi info; dmesg | tail  # the driver says why; a chip that others use is not to be reset",
        "hccn_check_timeout",
    ),
    Check(
        "hccn-query-failed",
        "A query failed",
        "The tool printed an error instead of an answer, with whatever exit status.",
        "error",
        "an answer",
        "hccn_tool -i {chip} -link -g; npu-smi info  # and look for the driver's message in dmesg",
        PD_GUIDE,
    ),
    Check(
        "hccn-answer-unreadable",
        "An answer was not understood",
        "An answer that cannot be read must not pass for a good one.",
        "error",
        "the format of the tools of driver 23 to 26",
        "hccn_tool -i {chip} -link -g; npu-smi info  # report the output if the driver is newer",
        "this collection's parsers",
    ),
    # The NPUs
    Check(
        "npu-missing",
        "npu-smi does not list a chip",
        "vLLM stops at start when a device of its list is absent.",
        "error",
        "every chip of the plan in `npu-smi info`",
        "npu-smi info -m; lspci | grep -c d80[0-9]; dmesg | grep -i davinci | tail",
        "vllm-ascend v0.13.0, installation.md: `npu-smi info`",
    ),
    Check(
        "npu-unhealthy",
        "npu-smi reports an alarm",
        "A chip with an alarm fails under load, if not at once.",
        "error",
        "Health OK",
        "npu-smi info -t health -i $(({chip} / 2)) -c $(({chip} % 2))",
        "npu-smi reference: Health OK, Warning, Alarm, Critical, UNKNOWN",
    ),
    Check(
        "npu-warning",
        "npu-smi reports a warning",
        "A chip that is not OK deserves a look before twenty minutes of loading.",
        "warning",
        "Health OK",
        "npu-smi info -t health -i $(({chip} / 2)) -c $(({chip} % 2))",
        "npu-smi reference: Health OK, Warning, Alarm, Critical, UNKNOWN",
    ),
    Check(
        "npu-driver-unknown",
        "The driver's version.info cannot be read",
        "The image needs a driver that fits its CANN, and the containers mount this file.",
        "warning",
        "`Version=…` in /usr/local/Ascend/driver/version.info",
        "cat /usr/local/Ascend/driver/version.info",
        "vllm-ascend v0.13.0, installation.md",
    ),
    Check(
        "npu-driver-old",
        "The driver is older than required",
        "CANN refuses drivers that are too old, minutes after launch.",
        "error",
        "the driver of hccn_check_driver_minimum or newer",
        "cat /usr/local/Ascend/driver/version.info  # then install the newer driver and firmware, and reboot",
        "the release notes of the image's CANN",
    ),
    # The RoCE port of each chip
    Check(
        "hccn-link-down",
        "The link of a chip is down",
        "Over RoCE HCCL fails with EI0006 after HCCL_CONNECT_TIMEOUT. In a super pod the port may be unused.",
        ByFabric("warning", "error"),
        "link status: UP",
        "hccn_tool -i {chip} -optical -g; hccn_tool -i {chip} -link_stat -g  # cable, optics, switch port",
        INSTALL,
    ),
    Check(
        "hccn-net-health",
        "The network health of a chip is not good",
        "The chip does not reach its detection address over RoCE.",
        ByFabric("warning", "error"),
        "net health status: Success",
        "hccn_tool -i {chip} -netdetect -g; hccn_tool -i {chip} -gateway -g; hccn_tool -i {chip} -ip -g",
        INSTALL,
    ),
    Check(
        "hccn-netdetect-unset",
        "No detection address is set",
        "Then net_health stays at Init and says nothing; this is not a broken link.",
        "hint",
        "the address of the gateway or of another host of the RoCE network",
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
        "a line `Ifname: …`, or another one under `Port ID TLV`",
        "hccn_tool -i {chip} -lldp -g  # switch on LLDP at the switch",
        INSTALL,
    ),
    Check(
        "hccn-ip-unset",
        "A chip has no RoCE address",
        "Over RoCE HCCL has nothing to connect to. Within a super pod the address may be unused.",
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
        "The chip has no HCCS to other servers: HCCL fails with EI0006 after HCCL_CONNECT_TIMEOUT.",
        ByFabric("error", "hint"),
        "vnic link status: UP",
        "hccn_tool -i {chip} -vnic -g; npu-smi info -t hccs -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-vnic-missing",
        "A chip has no vNIC address",
        "The vNIC address is what peers reach the chip by over HCCS.",
        ByFabric("error", "hint"),
        "vnic ipaddr: an address",
        "hccn_tool -i {chip} -vnic -g; npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-vnic-duplicate",
        "Two chips have one vNIC address",
        "Peers reach the wrong chip.",
        ByFabric("error", "hint"),
        "each vNIC address once in the cluster",
        "for i in {chips}; do hccn_tool -i $i -vnic -g; done  # two servers with one Server Index show this",
        PD_GUIDE,
    ),
    Check(
        "hccn-spod-unknown",
        "The place of a chip in its super pod is unknown",
        "HCCS connects the servers of one super pod only.",
        ByFabric("error", "hint"),
        "SDID, Super Pod ID and Server Index",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-super-pod-mixed",
        "The chips of one server name different super pods",
        "One server stands in one super pod: some chips are configured wrongly.",
        ByFabric("error", "warning"),
        "one Super Pod ID on all chips of the server",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-super-pod-unexpected",
        "The server is in another super pod than declared",
        "HCCS connects the servers of one super pod only.",
        ByFabric("error", "warning"),
        "the Super Pod ID of hccn_check_super_pod",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        PD_GUIDE,
    ),
    Check(
        "hccn-server-index-mixed",
        "The chips of one server name different server indexes",
        "HCCL takes them for chips of different servers.",
        ByFabric("error", "warning"),
        "one Server Index on all chips of the server",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))",
        "CANN: the Server Index is the same for all NPUs of one server",
    ),
    Check(
        "hccn-sdid-duplicate",
        "Two chips have one SDID",
        "HCCL stops with EI0014, superDeviceId already exists.",
        ByFabric("error", "warning"),
        "each SDID once in a super pod",
        "npu-smi info -t spod-info -i $(({chip} / 2)) -c $(({chip} % 2))  # correct the server's index",
        "CANN, fault EI0014",
    ),
    # TLS
    Check(
        "hccn-tls-mixed",
        "TLS is on for some chips of a server and off for others",
        "Chips with different switches never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "one switch everywhere, 0 is advised",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-on",
        "TLS is on for all chips of a server",
        "It works if it is on for every chip of every server with valid certificates; off is advised.",
        "warning",
        "tls switch[0]",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done  # or declare hccn_check_tls: on",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-unexpected",
        "The TLS switch is not as declared",
        "Chips with different switches never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "the switch of hccn_check_tls",
        "for i in {chips}; do hccn_tool -i $i -tls -g; done",
        PD_GUIDE,
    ),
    Check(
        "hccn-tls-expired",
        "TLS is on, and a certificate has expired",
        "HCCL does not connect with a certificate that has expired: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "tls expiration status[0]",
        "hccn_tool -i {chip} -tls -g  # renew it (-tls -s path … pri … pub … ca1 …), or TLS off everywhere",
        TLS_SOURCE,
    ),
    Check(
        "hccn-tls-expiring",
        "TLS is on, and a certificate will soon expire",
        "From its last day on no engine that starts anew connects to others.",
        "warning",
        "tls expiration status[0]",
        "hccn_tool -i {chip} -tls -g  # renew it in time: -tls -s path … pri … pub … ca1 …",
        TLS_SOURCE,
    ),
    # hccn.conf
    Check(
        "hccn-conf-missing",
        "/etc/hccn.conf is missing",
        "The engines start normally and answer wrongly: only the decoder's log says so. Over HCCS, with "
        "chips that have no RoCE address, nothing in it is needed, and this is a warning: but the engines' "
        "containers mount it, and do not start without it. `deploy` makes it then, empty as the driver's "
        "installer does.",
        "error",
        "/etc/hccn.conf with an address of every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711; hixl v8.5.0, rank_table_generator.cc (GetDeviceIp); the driver's "
        "run_driver_install.sh",
        hccs_cure="for i in {chips}; do hccn_tool -i $i -ip -g; done  # set their answers again with -ip -s",
    ),
    Check(
        "hccn-conf-empty",
        "/etc/hccn.conf names no chip",
        "As with a missing file the engines start normally and answer wrongly. Over HCCS, with chips that "
        "have no RoCE address, nothing in it is needed, and this is a warning: the driver's installer leaves "
        "it so.",
        "error",
        "`address_<chip>=…` for every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711; hixl v8.5.0, rank_table_generator.cc (GetDeviceIp); the driver's "
        "run_driver_install.sh",
        hccs_cure="for i in {chips}; do hccn_tool -i $i -ip -g; done  # set their answers again with -ip -s",
    ),
    Check(
        "hccn-conf-incomplete",
        "/etc/hccn.conf has no address of a chip",
        "The KV transfer of that chip has no device ip: the engines start normally and answer wrongly.",
        "error",
        "`address_<chip>=…` for every chip",
        "for i in {chips}; do hccn_tool -i $i -ip -s address ADDRESS netmask NETMASK; done",
        "vllm-ascend issue 7711",
    ),
    Check(
        "hccn-conf-disagrees",
        "/etc/hccn.conf and the chip disagree",
        "The KV transfer advertises an address that the chip does not have. Another netmask, gateway or "
        "detection address is a warning: only the driver reads it, when the server starts the next time.",
        "error",
        "the address, gateway and detection address that the chip answers with",
        "hccn_tool -i {chip} -ip -g; hccn_tool -i {chip} -gateway -g; grep _{chip}= /etc/hccn.conf",
        "vllm-ascend issue 7711",
    ),
    # Between servers
    Check(
        "hccn-not-checked",
        "A server could not be checked",
        "Nothing is known of it: it is off, refuses the login or sudo, or a check broke.",
        "error",
        "a result of hccn_check",
        "ansible {host} -m ansible.builtin.ping --become",
        "this collection",
        between=True,
    ),
    Check(
        "hccn-tls-differs",
        "TLS is on at some servers and off at others",
        "Their chips never connect: EI0006 after HCCL_CONNECT_TIMEOUT.",
        "error",
        "one switch everywhere, 0 is advised",
        "for i in {chips}; do hccn_tool -i $i -tls -s enable 0; done  # on the servers that have it on",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-super-pod-differs",
        "Servers are in different super pods",
        "There is no HCCS between them: HCCL and the KV transfer take RoCE from one super pod to another. A "
        "warning where every chip has a RoCE address and a link, since that works, slower; else an error.",
        ByFabric("error", "hint"),
        "one Super Pod ID on all servers",
        "npu-smi info -t spod-info -i 0 -c 0  # or give every chip a RoCE address and a link",
        "HCCL user guide, rank table of Atlas A3: with several super pods device_ip must be configured",
        between=True,
    ),
    Check(
        "hccn-server-index-duplicate",
        "Two servers have one server index",
        "HCCL takes their chips for those of one server; SDIDs and vNIC addresses follow from it.",
        ByFabric("error", "warning"),
        "each Server Index once in a super pod",
        "npu-smi info -t spod-info -i 0 -c 0  # correct the index of one server through its BMC",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-ip-duplicate",
        "Two chips have one RoCE address",
        "Peers reach the wrong chip, or now one and now the other.",
        ByFabric("hint", "error"),
        "each RoCE address once in the cluster",
        "for i in {chips}; do hccn_tool -i $i -ip -g; done",
        INSTALL,
        between=True,
    ),
    Check(
        "npu-driver-differs",
        "Servers have different drivers",
        "Upstream tests one driver throughout a cluster; mixed ones are a guess.",
        "warning",
        "one driver version on all servers",
        "cat /usr/local/Ascend/driver/version.info",
        "vllm-ascend v0.13.0, installation.md",
        between=True,
    ),
    Check(
        "hccn-fabric-differs",
        "Servers see different fabrics",
        "Some have HCCS and some have not: declare which one is meant.",
        "error",
        "one fabric",
        "hccn_check_fabric: hccs  # or roce, in group_vars",
        "hccn_check_fabric",
        between=True,
    ),
    # The ping mesh
    Check(
        "hccn-ping-failed",
        "A chip does not reach a chip that it must talk to",
        "HCCL or the KV transfer fails between the two, minutes after launch.",
        "error",
        "every ping succeeds, in both directions",
        "{command}",
        PD_GUIDE,
        between=True,
    ),
    Check(
        "hccn-ping-unknown",
        "A chip could not be pinged from",
        "The tool did not ping: it is occupied by another one, or this product or driver has no such ping. "
        "Nothing is known of the connection.",
        "warning",
        "every ping succeeds, in both directions",
        "{command}",
        PING_SOURCE,
        between=True,
    ),
    Check(
        "hccn-ping-optional",
        "A chip does not reach a chip of a server that it need not talk to",
        "The plan does not need this pair; a later topology may.",
        "warning",
        "every ping succeeds, in both directions",
        "{command}",
        PD_GUIDE,
        between=True,
    ),
)


def chip_words(chips: Iterable[int]) -> str:
    """`chip 3`, `chips 3, 7` or `16 chips`, counted from four on."""
    ordered = sorted(set(chips))
    if len(ordered) == 1:
        return f"chip {ordered[0]}"
    return f"chips {numbers(ordered)}" if len(ordered) < 4 else f"{len(ordered)} chips ({numbers(ordered)})"
