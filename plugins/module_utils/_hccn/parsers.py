# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Parses the output of hccn_tool and npu-smi, and the driver's files.

Pure functions over text. Spaces, tabs, CRLF and full-width colons vary between driver versions, so every
parser looks for its label and forgives the rest. A parser returns None (or None in a field) where the text
does not say the value: whether that is "not configured" or "not understood" is for hccn_report to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

IPV4 = r"(\d{1,3}(?:\.\d{1,3}){3})"
COLON = r"[ \t]*[:：=][ \t]*"
UNSET_ADDRESS = "0.0.0.0"
# `0000:9D:00.0`, a chip's bus id in its second line.
_BUS = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:")

# Compute servers in one super pod. To the driver a higher index means "in no super pod", and -hccs_ping
# refuses addresses of such servers (hccn_product_ext/tool_ext.h A3_SUPERPOD_MAX_NUMS, tool_cmd.c).
SUPER_POD_SERVERS = 48

# What the tools print instead of a result, also with exit status 0.
ERROR_TEXT = re.compile(
    r"\berr(or)?\b|\bfail(ed|ure|s)?\b|\binvalid\b|\bnot support|\bcannot\b|\bunable\b|\bdenied\b"
    r"|\bnot permitted\b|\btime(d)? ?out\b|\bis not exist\b|\bunreachable\b|\bunsupported\b|错误|失败|不支持",
    re.IGNORECASE,
)
# The library under the tools prints this first, even before good output.
NOISE = re.compile(r"^[^\n]*DrvMngGetConsoleLogLevel[^\n]*$", re.MULTILINE)
# How hccn_tool reports that nothing is configured; the exit status differs between drivers:
# "Get ipconf failed, because no ip was preset there!" (hccn_tool/cmd.c).
UNSET_TEXT = re.compile(r"\bno (ip|gateway) was preset\b", re.IGNORECASE)
# "Execute failed: Link status is down.": without a link there is no neighbour.
LINK_DOWN_TEXT = re.compile(r"\blink status is down\b", re.IGNORECASE)
# "No certificate found, please set certs firstly!" (hccn_tool/cmd.c), and its wording in other versions.
NO_CERTIFICATE = re.compile(
    r"\bno certificates?\b|certificates?[ \t]+(?:(?:does|do|is|are|was)[ \t]+)?not[ \t]+(?:found|exist)",
    re.IGNORECASE,
)
# The product, the virtual machine or the driver has no such command: the answer says nothing about the chip.
# The last is "permission denied: pls check this cmd run environment." (ascend950, hccn_tool/tool_cmd_err.c).
UNSUPPORTED_TEXT = re.compile(
    r"\bnot support(ed)?\b|\bunsupported\b|\binvalid major cmd\.|不支持|\bcheck this cmd run environment\b",
    re.IGNORECASE,
)
# "hccn_tool is busy, please try again.", "The device is occupied. Please try again later.", "Get lock failed.
# Please try again." (hccn_tool/cmd.c).
BUSY_TEXT = re.compile(r"\b(please )?try again\b|\bis occupied\b", re.IGNORECASE)
ROOT_TEXT = re.compile(
    r"permission denied(?!: pls check this cmd run environment)"
    r"|operation not permitted|\b(use|as|by|be|only|requires?|needs?) (the )?root\b"
    r"|\broot (user|privilege)|权限",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Gateway:
    address: str
    interface: str | None


@dataclass(frozen=True)
class Address:
    address: str
    netmask: str | None


@dataclass(frozen=True)
class Vnic:
    """The virtual NIC over HCCS, whose address peers ping on Atlas A3."""

    status: str | None
    address: str | None
    netmask: str | None = None


@dataclass(frozen=True)
class Tls:
    """The TLS state. ``expiration``: the worst of all certificates: 0 normal, 1 near, 2 expired;
    ``certificates``: kind and last day of each."""

    switch: int
    expiration: int = 0
    certificates: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ping:
    """The result of a ping. ``sent`` and ``received`` are None if the driver does not count packets."""

    success: bool
    sent: int | None = None
    received: int | None = None


@dataclass(frozen=True)
class SuperPod:
    """A chip's position in its super pod, from ``npu-smi info -t spod-info``."""

    sdid: int
    pod: int
    size: int | None
    server_index: int | None

    @property
    def inside(self) -> bool:
        """Whether the server is in a super pod: its index is within the range of a super pod's servers."""
        return self.server_index is None or self.server_index < SUPER_POD_SERVERS


@dataclass(frozen=True)
class NpuChip:
    """A chip in the table of ``npu-smi info``. Memory in MB."""

    npu: int
    chip: int
    phy_id: int
    name: str
    health: str
    bus_id: str
    hbm_used: int | None = None
    hbm_total: int | None = None


@dataclass(frozen=True)
class NpuProcess:
    npu: int
    chip: int
    pid: int
    name: str
    memory_mb: int | None = None


@dataclass(frozen=True)
class NpuInfo:
    """The table of ``npu-smi info``. ``processes_listed``: it contains a process table; ``unread``: lines of
    that which could not be parsed."""

    version: str | None
    chips: tuple[NpuChip, ...]
    processes: tuple[NpuProcess, ...]
    processes_listed: bool = True
    unread: tuple[str, ...] = ()

    @property
    def processes_known(self) -> bool:
        """Whether the list of processes is complete, as far as npu-smi can see."""
        return self.processes_listed and not self.unread


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").split("\n")


def _labelled(text: str, label: str, value: str, start: str = r"^[ \t]*") -> str | None:
    """Return the value after ``label:``, with any white space around the colon; None if there is none."""
    pattern = re.compile(start + label + COLON + value, re.IGNORECASE)
    for line in _lines(text):
        found = pattern.search(line)
        if found:
            return found.group(1).strip()
    return None


def first_line(text: str, width: int = 160) -> str:
    """Return the first line that is not empty, for the value seen."""
    for line in _lines(text):
        if line.strip():
            return line.strip()[:width]
    return ""


def is_error(text: str) -> bool:
    return ERROR_TEXT.search(NOISE.sub("", text)) is not None


def says_unset(text: str) -> bool:
    """Return whether the tool reports an unset value, which is a valid answer whatever the exit status."""
    return UNSET_TEXT.search(text) is not None


def says_no_link(text: str) -> bool:
    return LINK_DOWN_TEXT.search(text) is not None


def has_no_certificate(text: str) -> bool:
    return NO_CERTIFICATE.search(text) is not None


def is_unsupported(text: str) -> bool:
    return UNSUPPORTED_TEXT.search(text) is not None


def is_busy(text: str) -> bool:
    return BUSY_TEXT.search(text) is not None


def wants_root(text: str) -> bool:
    return ROOT_TEXT.search(text) is not None


def parse_link(text: str) -> str | None:
    """Return "UP" from ``link status: UP``."""
    value = _labelled(text, r"link[ _]status", r"(\w+)")
    return value.upper() if value else None


def parse_net_health(text: str) -> str | None:
    """Return "Receive timeout" from ``net health status: Receive timeout``."""
    return _labelled(text, r"net[ _]health[ _]status", r"(\S.*)")


def parse_netdetect(text: str) -> str | None:
    """Return "11.12.165.1" from ``netdetect addr: 11.12.165.1``; "0.0.0.0" if no target is set.

    `addr` is the driver's source (hccn_tool/tool_ops.c), `address` older documentation.
    """
    return _labelled(text, r"netdetect[ _]addr(?:ess)?", IPV4)


def parse_gateway(text: str) -> Gateway | None:
    """Parse ``default gateway:11.12.165.1, Iface:eth0``."""
    address = _labelled(text, r"default[ _]gateway", IPV4)
    if address is None or address == UNSET_ADDRESS:
        return None
    return Gateway(address, _labelled(text, r"iface", r"(\w[\w.-]*)", start=r"\b"))


def parse_lldp(text: str) -> str | None:
    """Return the switch port from the line ``Ifname: 400GE1/1/5:1`` among the TLVs.

    What stands there is for the switch to say: some have `Local: …` or `MAC: …` under `Port ID TLV`.
    """
    named = _labelled(text, r"ifname", r"(\S.*)")
    if named is not None:
        return named
    lines = _lines(text)
    for line, following in zip(lines, lines[1:]):
        if line.strip().lower() == "port id tlv":
            found = re.match(r"[ \t]*[\w -]+" + COLON + r"(\S.*)", following)
            return found.group(1).strip() if found else None
    return None


def parse_ip(text: str) -> Address | None:
    """Parse ``ipaddr:11.12.165.80`` and ``netmask:255.255.255.0``."""
    address = _labelled(text, r"ip[ _]?addr(?:ess)?", IPV4)
    if address is None or address == UNSET_ADDRESS:
        return None
    return Address(address, _labelled(text, r"netmask", IPV4))


def parse_vnic(text: str) -> Vnic:
    """Parse ``vnic link status: UP``, ``vnic ipaddr: 192.168.2.199`` and ``vnic netmask: …``; lines may be
    missing."""
    status = _labelled(text, r"vnic[ _]link[ _]status", r"(\w+)")
    address = _labelled(text, r"vnic[ _]ip[ _]?addr(?:ess)?", IPV4)
    return Vnic(
        status.upper() if status else None,
        None if address == UNSET_ADDRESS else address,
        _labelled(text, r"vnic[ _]netmask", IPV4),
    )


def parse_tls(text: str) -> Tls | None:
    """Parse ``dev_id:0, tls switch[0](0:disable, …``, then every certificate with its dates and its status.

    None without a certificate, which counts as off. The line `tls expiration status[2]` goes to stderr and
    the others to stdout (hccn_tool/tool_tls.c), so where both are one pipe it can stand before all of them:
    it is not read together with a certificate's other lines.
    """
    found = re.search(r"tls[ \t]+switch[ \t]*\[[ \t]*([01])[ \t]*\]", text, re.IGNORECASE)
    if not found:
        return None
    states = re.findall(r"tls[ \t]+expiration[ \t]+status[ \t]*\[[ \t]*(\d)[ \t]*\]", text, re.IGNORECASE)
    ends = re.findall(
        r"\[([^\]\n]*)\][ \t]*info\b.*?\bend_time[ \t]*\[([^\]\n]*)\]", text, re.IGNORECASE | re.DOTALL
    )
    return Tls(int(found.group(1)), max(map(int, states), default=0), tuple(ends))


def parse_ping(text: str) -> Ping | None:
    """Parse both forms of ``-ping`` and ``-hccs_ping``: a packet count, or ``… ping success``; else None."""
    counted = re.search(
        r"(\d+)\s+packets?\s+transmitted\s*,\s*(\d+)\s+(?:packets?\s+)?received", text, re.IGNORECASE
    )
    if counted:
        sent, received = int(counted.group(1)), int(counted.group(2))
        return Ping(sent > 0 and sent == received, sent, received)
    if re.search(r"\bping[ \t]+success", text, re.IGNORECASE):
        return Ping(True)
    if re.search(r"\bping[ \t]+fail", text, re.IGNORECASE):
        return Ping(False)
    return None


def parse_spod(text: str) -> SuperPod | None:
    """Parse ``SDID : 16777216``, ``Super Pod Size : 384``, ``Super Pod ID : 0`` and ``Server Index : 4``."""
    number = r"(0x[0-9a-fA-F]+|\d+)"

    def labelled(label: str) -> int | None:
        value = _labelled(text, label, number)
        return None if value is None else int(value, 0)

    sdid, pod = labelled(r"SDID"), labelled(r"Super[ _]?Pod[ _]ID")
    if sdid is None or pod is None:
        return None
    size, server_index = labelled(r"Super[ _]?Pod[ _]Size"), labelled(r"Server[ _]Index")
    return SuperPod(sdid=sdid, pod=pod, size=size, server_index=server_index)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def parse_npu_info(text: str) -> NpuInfo | None:
    """Parse the table of ``npu-smi info``: two lines for each chip, then the processes.

    Columns go by their headings: driver 26 adds `Process id in container` to the processes, and Atlas 350 has
    `NPU ID` where the others have `NPU     Chip`. Where an NPU is one chip (Atlas A2) there is no column
    Phy-ID, and the NPU's number is the chip's.
    """
    version = None
    chips: list[NpuChip] = []
    processes: list[NpuProcess] = []
    unread: list[str] = []
    head: tuple[int, str, str] | None = None
    health, bus = 1, 1
    columns: dict[str, int] | None = None
    seen = False
    for line in _lines(text):
        found = re.search(r"npu-smi\s+(\S+)\s+Version" + COLON + r"(\S+)", line)
        if found:
            version = found.group(2)
        if not line.lstrip().startswith("|"):
            continue
        cells = _cells(line)
        if "process id" in (cell.lower() for cell in cells):
            columns = {name.lower(): at for at, name in enumerate(cells)}
        elif "Bus-Id" in cells:
            seen, bus = True, cells.index("Bus-Id")
        elif "Health" in cells:
            health = cells.index("Health")
        elif columns is not None:
            row = _process(cells, columns)
            if row is not None:
                processes.append(row)
            elif not _says_no_process(line, cells):
                unread.append(line.strip())
        elif head is None or _is_head(cells, health):
            words = " ".join(cells[:health]).split()
            if (
                len(cells) > health
                and len(words) > 1
                and words[0].isdigit()
                and not _BUS.match(cells[health])
            ):
                head = (int(words[0]), words[1], cells[health])
        elif len(cells) > bus:
            words = " ".join(cells[:bus]).split()
            if all(word.isdigit() for word in words):
                memory = re.findall(r"(\d+|NA)\s*/\s*(\d+)", cells[-1])
                used, total = memory[-1] if memory else ("", "")
                chip, phy_id = (*map(int, words), *((0, head[0])[len(words) :]))[:2]
                chips.append(
                    NpuChip(
                        head[0], chip, phy_id, head[1], head[2], cells[bus], _number(used), _number(total)
                    )
                )
            head = None
    if not seen and version is None:
        return None
    return NpuInfo(version, tuple(chips), tuple(processes), columns is not None, tuple(unread))


def _is_head(cells: list[str], health: int) -> bool:
    """Return whether this is a chip's first line, which contains its type."""
    words = " ".join(cells[:health]).split()
    return len(words) > 1 and words[0].isdigit() and not words[1].isdigit()


def _number(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None


def _process(cells: list[str], columns: dict[str, int]) -> NpuProcess | None:
    """Parse a row of the process table; return None if it is not one, or cannot be parsed."""
    at = columns["process id"]
    if len(cells) != len(columns):
        return None
    place = " ".join(cells[:at]).split()
    if len(place) not in (1, 2) or not all(word.isdigit() for word in (*place, cells[at])):
        return None
    name, memory = columns.get("process name"), columns.get("process memory(mb)")
    return NpuProcess(
        int(place[0]),
        int(place[1]) if len(place) > 1 else 0,
        int(cells[at]),
        cells[name] if name is not None else "",
        _number(cells[memory]) if memory is not None else None,
    )


def _says_no_process(line: str, cells: list[str]) -> bool:
    """Return whether a row reports no process: ``No running processes found in NPU 1``, only NA (Atlas 350),
    or
    empty."""
    if "no running process" in line.lower():
        return True
    return len(cells) > 1 and all(cell in ("", "NA", "N/A", "-") for cell in cells[1:])


def parse_driver_version(text: str) -> str | None:
    """Return the version from ``Version=25.5.0`` in the driver's version.info; None if there is none."""
    value = _labelled(text, r"version", r"([\w.\-]+)")
    return value or None


def version_key(version: str) -> tuple[Any, ...]:
    """Return a sort key for versions: 25.2.3 < 25.5.rc1 < 25.5.0, a release candidate before its release."""
    return tuple(
        (-1, int(re.sub(r"\D", "", component) or 0))
        if component.lower().startswith("rc")
        else (int("".join(re.findall(r"^\d+", component)) or 0), 0)
        for component in version.split(".")
    )


def parse_hccn_conf(text: str) -> dict[int, dict[str, str]]:
    """Return {3: {"address": "11.12.165.83"}} from ``address_3=11.12.165.83``; other lines are ignored."""
    chips: dict[int, dict[str, str]] = {}
    for line in _lines(text):
        found = re.match(r"[ \t]*([A-Za-z][\w-]*?)_(\d+)[ \t]*=[ \t]*(\S+)[ \t]*$", line)
        if found:
            chips.setdefault(int(found.group(2)), {})[found.group(1).lower()] = found.group(3)
    return chips
