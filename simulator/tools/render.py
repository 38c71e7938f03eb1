"""Renders the answers of the simulated hccn_tool and npu-smi from the state of the simulated server.

Started by tool.sh whenever server.json or faults.json has changed: `render.py STATE_DIR CACHE_DIR`.
`render.py --faults` prints every fault that these tools know, as JSON: name → [parameters, what shows].

Runs with `python3 -S -E` on any Python from 3.9 on; standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

# Every fault of the tools: its parameters and what it shows. `chips` (physical ids) defaults to all chips.
FAULTS = {
    "link_down": ("chips", "hccn_tool -link says DOWN"),
    "net_health": ("chips, value=Fault", "hccn_tool -net_health says the value"),
    "netdetect_unset": ("chips", "hccn_tool -netdetect says 0.0.0.0"),
    "gateway_unset": ("chips", "hccn_tool -gateway says that none was preset, with an exit status"),
    "gateway": ("chips, value", "hccn_tool -gateway shows another address than hccn.conf"),
    "lldp_missing": ("chips", "hccn_tool -lldp has no Ifname line"),
    "roce_unused": ("chips", "RoCE was never configured: no address, gateway, detection address, link, LLDP"),
    "ip_unset": ("chips", "hccn_tool -ip says that none was preset, with an exit status"),
    "ip": ("chips, value", "hccn_tool -ip shows another address than hccn.conf"),
    "vnic_down": ("chips", "hccn_tool -vnic says DOWN; pings of the chip fail"),
    "vnic_missing": ("chips", "hccn_tool -vnic shows no address"),
    "vnic_address": ("chips, value", "hccn_tool -vnic shows this address (e.g. one of another chip)"),
    "tls_on": ("chips", "hccn_tool -tls says switch 1"),
    "tls_missing": ("chips", "hccn_tool -tls finds no certificate and prints no switch"),
    "tls_expired": (
        "chips, status=2",
        "hccn_tool -tls says that a certificate has expired (2) or soon will (1)",
    ),
    "ping_fail": ("chips, to=all", "hccn_tool -ping to these chip or server addresses fails"),
    "hccs_ping_fail": ("chips, to=all", "hccn_tool -hccs_ping to these chip or server addresses fails"),
    "hccs_ping_hang": ("chips, to=all", "hccn_tool -hccs_ping to these chip addresses never returns"),
    "hccs_ping_form": (
        "value=success|packets",
        "hccn_tool -hccs_ping says success only, or counts packets as -ping does, as some driver versions do",
    ),
    "ping_busy": ("chips", "hccn_tool -ping and -hccs_ping say that the device is occupied"),
    "super_pod": ("chips, id", "npu-smi spod-info says another Super Pod ID; no HCCS to other servers"),
    "super_pod_size": ("chips, value", "npu-smi spod-info says another Super Pod Size"),
    "sdid": ("chips, value", "npu-smi spod-info says this SDID (e.g. one of another chip)"),
    "server_index": ("chips, value", "npu-smi spod-info says this Server Index"),
    "spod_unsupported": ("chips", "npu-smi spod-info is not supported by the driver"),
    "npu_health": ("chips, value=Alarm", "npu-smi info says this Health"),
    "npu_missing": ("chips", "npu-smi info does not list the chips"),
    "npu_process": (
        "chips, pid=4242, name=python3, memory=1024",
        "npu-smi info lists a process on the chips",
    ),
    "npu_table": (
        "value=26|unknown",
        "npu-smi info prints the table of driver 26, or one whose processes nobody knows",
    ),
    "hbm_used": ("chips, value=60000", "npu-smi info says that this many MB of HBM are used"),
    "firmware": ("value=7.1.0.3.220", "npu-smi names another firmware"),
    "tool_slow": ("seconds", "every query of hccn_tool and npu-smi takes this long"),
    "tool_hang": ("tool=all, chips, query=all", "hccn_tool or npu-smi never returns and ignores SIGTERM"),
    "tool_error": (
        "tool=all, chips, query=all, exit=0, message",
        "the tool prints an error, by default with exit 0",
    ),
    "tool_empty": ("tool=all, chips, query=all, exit=0", "the tool prints nothing"),
    "tool_needs_root": ("tool=all", "the tool refuses users other than root"),
    "tool_format": ("value=spaces|tabs|crlf|bare", "the same answers in another version's white space"),
}

HCCN_QUERIES = (
    "link",
    "net_health",
    "netdetect",
    "gateway",
    "lldp",
    "ip",
    "vnic",
    "tls",
    "ping",
    "hccs_ping",
)
HBM_MB = 65536

# What hccn_tool prints and exits with instead of an answer (the driver's source: hccn_tool/cmd.c).
NO_IP = ("Get ipconf failed, because no ip was preset there!\n", 13)
NO_GATEWAY = ("Get gateway failed, because no gateway was preset there!\n", 2)
NO_CERTIFICATE = ("No certificate found, please set certs firstly!\n", 14)
UNSUPPORTED = ("The command is not supported on this product.\n", 13)
OCCUPIED = ("The device is occupied. Please try again later.\n", 31)


def words(value: object) -> str:
    """A list of addresses, or a single one, as words for the shell."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class Server:
    """The simulated server: its state and the faults that are on."""

    def __init__(self, state: dict[str, Any], faults: dict[str, dict[str, Any] | None]) -> None:
        self.state = state
        self.faults = {name: params or {} for name, params in faults.items()}
        self.timing = state.get("timing") or {}
        self.count = int(state.get("chips", 16))
        self.index = int(state.get("server_index", 0))
        # Atlas A2: an NPU is one chip, there is no super pod, and the network is RoCE.
        self.a2 = str(state.get("soc", "")).startswith("Ascend910B")
        self.per_npu = 1 if self.a2 else 2
        self.npu_name = str(state["soc"]).removeprefix("Ascend") if self.a2 else "Ascend910"
        given = {int(entry.get("id", at)): entry for at, entry in enumerate(state.get("chip") or [])}
        self.chips = {chip: {**self.usual(chip), **given.get(chip, {})} for chip in range(self.count)}

    def usual(self, chip: int) -> dict[str, Any]:
        """What a chip says of itself where server.json says nothing."""
        return {
            "sdid": (self.index << 22) | (chip // 2 << 18) | (chip % 2 << 16) | chip,
            "vnic_ip": f"192.168.{self.index}.{chip + 1}",
            "ip": f"11.12.{self.index}.{chip + 1}",
            "gateway": f"11.12.{self.index}.254",
            "netdetect": f"11.12.{self.index}.254",
            "lldp_ifname": f"400GE1/{self.index}/{chip // 8 + 1}:{chip % 8 + 1}",
        }

    def fault(self, name: str, chip: int | None = None, **where: str) -> dict[str, Any] | None:
        """The parameters of the fault when it is on for this chip (and tool and query), else None."""
        params = self.faults.get(name)
        if params is None:
            return None
        chips = params.get("chips")
        if chips is not None and chip is not None and chip not in [int(one) for one in as_list(chips)]:
            return None
        for key, value in where.items():
            if params.get(key, "all") not in ("all", value) and value not in as_list(params.get(key)):
                return None
        return params

    def value(self, name: str, chip: int, usual: object, key: str = "value") -> object:
        """The value that a fault sets for the chip, or the usual one."""
        params = self.fault(name, chip)
        return usual if params is None else params.get(key, usual)

    @property
    def driver(self) -> str:
        changed = self.faults.get("driver_version")
        return str(self.state.get("driver", "25.5.0") if changed is None else changed.get("value", "24.1.0"))

    @property
    def firmware(self) -> str:
        changed = self.faults.get("firmware")
        usual = str(self.state.get("firmware", "7.8.0.2.212"))
        return usual if changed is None else str(changed.get("value", "7.1.0.3.220"))

    def seconds(self, key: str, usual: float) -> float:
        slow = self.faults.get("tool_slow")
        return float(slow["seconds"] if slow and "seconds" in slow else self.timing.get(key, usual))


def as_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [word for word in value.replace(",", " ").split() if word]
    return [value]


def hccn_text(server: Server, chip: int, query: str) -> tuple[str, int]:
    """What hccn_tool prints for a query that is not a ping, and its exit status."""
    own = server.chips[chip]
    unused = server.fault("roce_unused", chip) is not None
    down = unused or server.fault("link_down", chip) is not None
    no_target = unused or server.fault("netdetect_unset", chip) is not None
    if query == "link":
        return f"link status: {'DOWN' if down else 'UP'}\n", 0
    if query == "net_health":
        usual = "Init" if no_target else "Fault" if down else "Success"
        bad = server.fault("net_health", chip)
        return f"net health status: {bad.get('value', 'Fault') if bad is not None else usual}\n", 0
    if query == "netdetect":
        return f"netdetect addr: {'0.0.0.0' if no_target else own['netdetect']}\n", 0
    if query == "gateway":
        if unused or server.fault("gateway_unset", chip) is not None:
            return NO_GATEWAY
        return f"default gateway:{server.value('gateway', chip, own['gateway'])}, Iface:eth0\n", 0
    if query == "lldp":
        if unused:
            return "\n", 0
        ifname = (
            ""
            if server.fault("lldp_missing", chip) is not None
            else f"Port ID TLV\n\tIfname: {own['lldp_ifname']}\n"
        )
        return (
            "Chassis ID TLV\n\tMAC: 7c:33:f9:10:00:01\n"
            f"{ifname}"
            "Time to Live TLV\n\t120\nPort Description TLV\n\tto-npu\n"
            "System Name TLV\n\tleaf-1\nEnd of LLDPDU TLV\n",
            0,
        )
    if query == "ip":
        if unused or server.fault("ip_unset", chip) is not None:
            return NO_IP
        return f"ipaddr:{server.value('ip', chip, own['ip'])}\nnetmask:255.255.255.0\n", 0
    if query == "vnic":
        if server.fault("vnic_missing", chip) is not None:
            return "vnic link status: DOWN\n", 0
        status = "DOWN" if server.fault("vnic_down", chip) is not None else "UP"
        # Outside of super pods every server has the same ones.
        usual = f"192.168.2.{199 - chip}" if server.a2 else own["vnic_ip"]
        address = server.value("vnic_address", chip, usual)
        return f"vnic link status: {status}\nvnic ipaddr: {address}\nvnic netmask: 255.255.255.0\n", 0
    if server.fault("tls_missing", chip) is not None:
        return NO_CERTIFICATE
    return tls_text(server, chip), 0


def tls_text(server: Server, chip: int) -> str:
    """The switch, then the certificate; of one that has expired the last line comes first, from stderr."""
    switch = 1 if server.fault("tls_on", chip) is not None else 0
    expired = server.fault("tls_expired", chip)
    status = 0 if expired is None else int(expired.get("status", 2))
    last = f"\t tls expiration status[{status}](0:normal, 1:near expiration, 2:has expired)\n"
    year = {0: 2053, 1: 2027, 2: 2025}.get(status, 2025)
    text = (
        f"dev_id:{chip}, tls switch[{switch}](0:disable, 1:enable), "
        "tls preconfigured[1](0:non-preset, 1:preset), tls alarm time threshold[60]days\n"
        f"dev_id:{chip}, [pub cert] info:\n\t subject[/C=CN/O=Huawei/CN=npu]\n"
        "\t issuer[/C=CN/O=Huawei/CN=Huawei IT Product CA]\n"
        f"\t start_time[Sat Jan 31 03:10:27 2015 GMT]\n\t end_time[Wed Jun 18 03:10:27 {year} GMT]\n"
    )
    return last + text if status == 2 else text + last


def ping_settings(server: Server, chip: int, query: str) -> dict[str, str]:
    """Which pings of the chip fail or hang; the rest is found out by reaching the other server."""
    state = server.state
    own_fault = server.fault(f"{query}_fail", chip)
    fails = [words(own_fault.get("to", "all"))] if own_fault is not None else []
    form = "ping"
    if query == "hccs_ping":
        form = str(
            (server.faults.get("hccs_ping_form") or {}).get("value", state.get("hccs_ping_form", "driver"))
        )
        if server.fault("vnic_down", chip) is not None or server.fault("vnic_missing", chip) is not None:
            fails.append("all")
        if server.fault("super_pod", chip) is not None:
            others = {str(host) for host in (state.get("peers") or {}).values()} - {
                str(state.get("address", ""))
            }
            fails += sorted(others)
    elif any(server.fault(name, chip) is not None for name in ("link_down", "ip_unset", "roce_unused")):
        fails.append("all")
    hang = server.fault("hccs_ping_hang", chip) if query == "hccs_ping" else None
    return {
        "form": form,
        "fails_to": " ".join(fails),
        "hang_to": words(hang.get("to", "all")) if hang is not None else "",
        "self": str(state.get("address", "")),
    }


def spod_text(server: Server, chip: int) -> str:
    if server.a2 or server.fault("spod_unsupported", chip) is not None:
        return "This device does not support querying spod-info.\n"
    own = server.chips[chip]
    rows = (
        ("SDID", server.value("sdid", chip, own["sdid"])),
        ("Super Pod Size", server.value("super_pod_size", chip, server.state.get("super_pod_size", 384))),
        ("Super Pod ID", server.value("super_pod", chip, server.state.get("super_pod_id", 0), key="id")),
        ("Server Index", server.value("server_index", chip, server.index)),
    )
    return "".join(f"\t{name:<30} : {value}\n" for name, value in rows)


def listed(server: Server) -> list[int]:
    """The chips that npu-smi lists."""
    return [chip for chip in server.chips if server.fault("npu_missing", chip) is None]


def health(server: Server, chip: int) -> str:
    bad = server.fault("npu_health", chip)
    return "OK" if bad is None else str(bad.get("value", "Alarm"))


def info_text(server: Server) -> str:
    """The table of `npu-smi info`: two lines a chip, then the processes.

    From driver 26 on it is wider, and its processes have a column more.
    """
    form = (server.faults.get("npu_table") or {}).get("value", 26 if "npu_table" in server.faults else None)
    wide = form is not None or server.driver.startswith("26.")
    # Blanks between the values of the last column, and how wide it is.
    gaps, last = ((20, 23, 70), 70) if wide else ((11, 17, 52), 52)
    rule = f"+{'-' * 27}+{'-' * 15}+{'-' * last}+\n"
    double = rule.replace("-", "=")
    whole = 44 + last
    text = "+" + "-" * whole + "+\n"
    text += f"| npu-smi {server.driver:<24} Version: {server.driver:<{whole - 43}}|\n{rule}"
    heads = (
        ("Power(W)", "Temp(C)", "Hugepages-Usage(page)"),
        ("AICore(%)", "Memory-Usage(MB)", "HBM-Usage(MB)"),
    )
    lines = [f" {one:<{gaps[0]}} {two:<{gaps[1]}} {three}"[:last].ljust(last) for one, two, three in heads]
    text += f"| NPU   Name                | Health        |{lines[0]}|\n"
    text += f"| Chip  {'' if server.a2 else 'Phy-ID':<19} | Bus-Id        |{lines[1]}|\n"
    text += double
    for chip in listed(server):
        npu, half = divmod(chip, server.per_npu)
        power = "173.3" if half == 0 else "-"
        full = server.fault("hbm_used", chip)
        used = 3100 + 13 * chip if full is None else int(full.get("value", 60000))
        text += f"| {npu:<5} {server.npu_name:<20}| {health(server, chip):<14}|"
        text += f" {power:<{gaps[0]}} {41:<{gaps[1]}} {'0    / 0':<{last - gaps[0] - gaps[1] - 3}}|\n"
        text += f"| {half:<5} {'' if server.a2 else chip:<20}| 0000:{0x9D + 2 * chip:02X}:00.0  "
        memory = f"{used:<5}/ {HBM_MB}"
        text += f"| {0:<{gaps[0]}} {'0    / 0':<{gaps[1]}} {memory:<{last - gaps[0] - gaps[1] - 3}}|\n"
        text += double if half == server.per_npu - 1 else "+" + "-" * whole + "+\n"
    return text + rule + process_table(server, whole, form, wide=wide)


def process_table(server: Server, width: int, form: object, *, wide: bool) -> str:
    """The processes on the chips. Each NPU has at least one line.

    width: characters of a line between its ends.
    form: "unknown" for a table whose columns nobody knows.
    wide: with the column that driver 26 has added.
    """
    columns = [("Process name", 24), ("Process memory(MB)", 23)]
    if wide:
        columns = [("Process name", 18), ("Process memory(MB)", 21), ("Process id in container", 23)]
    double = f"+{'=' * 27}+{'=' * 15}+{'=' * (width - 44)}+\n"
    titles = "".join(f"| {title:<{size}} " for title, size in columns)
    text = f"| NPU     Chip              | Process id    {titles}|\n{double}"
    running = server.faults.get("npu_process") or {}
    values = (running.get("name", "python3"), running.get("memory", 1024), "NA")
    row = "".join(
        f"| {value!s:<{size}} "
        for value, (_title, size) in zip(values, columns)  # noqa: B905 - Python 3.9
    )
    if form == "unknown":
        row = "| running "
    for npu in range(server.count // server.per_npu):
        chips = range(npu * server.per_npu, (npu + 1) * server.per_npu)
        busy = [chip for chip in chips if server.fault("npu_process", chip) is not None]
        for chip in busy:
            text += f"| {npu:<7} {chip % server.per_npu:<18}| {running.get('pid', 4242):<14}{row}|\n"
        if not busy:
            text += f"| {f'No running processes found in NPU {npu}':<{width - 1}}|\n"
        text += double
    return text


def npu_answers(server: Server) -> dict[str, tuple[str, int | None]]:
    """Every answer of npu-smi by file name: its text and the chip it concerns."""
    answers: dict[str, tuple[str, int | None]] = {
        "info": (info_text(server), None),
        "version": (f"npu-smi version: {server.driver}\n", None),
    }
    mapping = f"\t{'NPU ID':<31}{'Chip ID':<31}{'Chip Logic ID':<31}{'Chip Phy-ID':<31}Chip Name\n"
    listing = f"\t{'Total Count':<31}: {len({chip // server.per_npu for chip in listed(server)})}\n"
    for chip in server.chips:
        npu, half = divmod(chip, server.per_npu)
        place = f".{npu}.{half}"
        if server.fault("npu_missing", chip) is not None:
            continue
        mapping += f"\t{npu:<31}{half:<31}{chip:<31}{chip:<31}{server.npu_name}\n"
        answers[f"spod-info{place}"] = (spod_text(server, chip), chip)
        answers[f"health{place}"] = (f"\t{'Health':<31}: {health(server, chip)}\n", chip)
        busy = server.fault("npu_process", chip)
        answers[f"proc-mem{place}"] = (
            f"\t{'NPU ID':<31}: {npu}\n\t{'Chip ID':<31}: {half}\n"
            + (
                f"\tProcess id:{busy.get('pid', 4242)}    Process name:{busy.get('name', 'python3')}"
                f"    Process memory(MB):{busy.get('memory', 1024)}\n"
                if busy is not None
                else "\tNo process in device.\n"
            ),
            chip,
        )
        if half == 0:
            listing += f"\n\t{'NPU ID':<31}: {npu}\n\t{'Chip Count':<31}: {server.per_npu}\n"
            board = (
                f"\t{'NPU ID':<31}: {npu}\n\t{'Product Name':<31}: IT21HMDB01-B2\n"
                f"\t{'Software Version':<31}: {server.driver}\n"
                f"\t{'Firmware Version':<31}: {server.firmware}\n"
                f"\t{'Compatibility':<31}: OK\n\t{'Chip Count':<31}: {server.per_npu}\n"
            )
            answers[f"board.{npu}"] = (board, None)
            share = f"\t{'NPU ID':<31}: {npu}\n\t{'Chip Count':<31}: {server.per_npu}\n\n"
            for own in range(server.per_npu):
                share += f"\t{'Device-share Status':<31}: False\n\t{'Chip ID':<31}: {own}\n"
            answers[f"device-share.{npu}"] = (share, None)
            answers[f"health.{npu}"] = (f"\t{'Health':<31}: {health(server, chip)}\n", chip)
        answers[f"board{place}"] = (
            f"\t{'NPU ID':<31}: {npu}\n\t{'Chip ID':<31}: {half}\n\t{'Chip Type':<31}: Ascend\n"
            f"\t{'Chip Name':<31}: {server.npu_name}\n\t{'Chip Version':<31}: V1\n"
            f"\t{'Chip Phy-ID':<31}: {chip}\n",
            chip,
        )
    answers["map"] = (mapping, None)
    answers["list"] = (listing, None)
    return answers


def reformatted(text: str, form: str | None) -> str:
    """The same answer with the white space of another version."""
    if form == "tabs":
        return text.replace(": ", ":\t")
    if form == "crlf":
        return text.replace("\n", "\r\n")
    if form == "bare":
        return text.replace(" : ", ":").replace(": ", ":")
    if form == "spaces":
        return text.replace(": ", ":").replace(":", " :  ") if ":00." not in text else text
    return text


def fragment(
    server: Server,
    tool: str,
    chip: int | None,
    query: str,
    delay: float,
    answer: tuple[str, int],
    **more: str,
) -> str:
    """The shell file of one answer, with the faults that hold for every query."""
    text, rc = answer
    form = server.faults.get("tool_format")
    text = reformatted(text, None if form is None else form.get("value", "spaces"))
    empty = server.fault("tool_empty", chip, tool=tool, query=query)
    error = server.fault("tool_error", chip, tool=tool, query=query)
    if empty is not None:
        text, rc = "", int(empty.get("exit", 0))
    if error is not None:
        text, rc = (
            str(error.get("message", "Error: the operation failed, error code 0x5")) + "\n",
            int(error.get("exit", 0)),
        )
    settings = {"delay": f"{delay:g}", "rc": str(rc), "out": text, **more}
    if server.fault("tool_hang", chip, tool=tool, query=query) is not None:
        settings["hang"] = "1"
    if server.fault("tool_needs_root", tool=tool) is not None:
        settings["root"] = "1"
    return "".join(f"{name}={quoted(value)}\n" for name, value in settings.items())


def files(server: Server) -> dict[str, str]:
    """Every file of the rendered state, by its path."""
    made: dict[str, str] = {}
    query_seconds = server.seconds("query_seconds", 0.05)
    for chip in server.chips:
        for query in HCCN_QUERIES:
            if query.endswith("ping"):
                delay, answer = server.seconds("ping_seconds", 1.0), ("", 0)
                more = ping_settings(server, chip, query)
                if server.fault("ping_busy", chip) is not None:
                    delay, answer, more = query_seconds, OCCUPIED, {}
                # The ping over HCCS is for Atlas A3 only (hccn_product_ext/tool_cmd.c).
                if server.a2 and query == "hccs_ping":
                    delay, answer, more = query_seconds, UNSUPPORTED, {}
            else:
                delay, answer, more = query_seconds, hccn_text(server, chip, query), {}
            made[f"hccn/{chip}/{query}"] = fragment(server, "hccn_tool", chip, query, delay, answer, **more)
    for name, (text, of_chip) in npu_answers(server).items():
        made[f"npu/{name}"] = fragment(
            server, "npu-smi", of_chip, name.split(".")[0], query_seconds, (text, 0)
        )
    for address, host in (server.state.get("peers") or {}).items():
        made[f"peer/{address}"] = f"{host}\n"
    for own in server.chips.values():
        for address in (own["vnic_ip"], own["ip"]):
            made.setdefault(f"peer/{address}", f"{server.state.get('address', '')}\n")
    return made


def render(state_dir: Path, cache: Path) -> None:
    """Write the rendered state beside the present one, then switch over to it in one step."""
    server, faults = state_dir / "server.json", state_dir / "faults.json"
    # Times first, contents after: what changes in between is newer than the stamp, and is rendered anew.
    newest = max(path.stat().st_mtime_ns for path in (server, faults, Path(__file__)) if path.exists())
    with_faults = faults.exists()
    present = Server(
        json.loads(server.read_text(encoding="utf-8")),
        json.loads(faults.read_text(encoding="utf-8") or "{}") if with_faults else {},
    )
    target = cache / f"state.{time.time_ns()}"
    for name, text in files(present).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    for name in ("stamp", "with-faults") if with_faults else ("stamp",):
        (target / name).touch()
        os.utime(target / name, ns=(newest, newest))
    link, link_new = cache / "current", cache / "current.new"
    before = link.resolve() if link.is_symlink() else None
    link_new.unlink(missing_ok=True)
    link_new.symlink_to(target)
    link_new.replace(link)
    for old in cache.glob("state.*"):
        # The state before this one may still be read by a tool that runs.
        if old not in (target, before):
            shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--faults"]:
        print(json.dumps(FAULTS, indent=1))
    else:
        render(Path(sys.argv[1]), Path(sys.argv[2]))
