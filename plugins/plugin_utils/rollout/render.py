# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The plan's files, and the summary that is printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .diagram import sizes, svg, title
from .findings import FEW, Finding, render_markdown, shown
from .plan_dict import EngineDict, PlanDict, PortDict
from .ports import span


def files(plan: PlanDict) -> dict[str, str]:
    """Return every file of a plan: its path below the plan's directory, and its text."""
    result = {
        "plan.json": json.dumps(plan, indent=2, ensure_ascii=False) + "\n",
        "topology.md": markdown(plan),
        "topology.svg": svg(plan),
    }
    for host, share in plan["hosts"].items():
        for engine in share["engines"]:
            result[f"{host}/{engine['instance']}.sh"] = engine["script"]
        for router in share["routers"]:
            result[f"{host}/{Path(router['script_path']).name}"] = router["script"]
        if share["front"] is not None:
            result[f"{host}/haproxy.cfg"] = share["front"]["config"]
            if share["front"]["shared"] is not None:
                result[f"{host}/keepalived.conf"] = share["front"]["shared"]["config"]
    return result


def write(directory: Path, plan: PlanDict, *, dry_run: bool) -> dict[str, tuple[str, str]]:
    """Write the files that have changed to ``directory``, and remove an earlier plan's scripts.

    Returns the texts before and after, by path below the directory; with ``dry_run`` nothing is written. Only
    their owner can read the files, because an environment may hold secrets; wider permissions from an
    earlier release are removed, too.
    """
    wanted = files(plan)
    changes: dict[str, tuple[str, str]] = {}
    folders = sorted({(directory / name).parent for name in wanted})
    if not dry_run:
        ours = any((directory / name).is_file() for name in ("plan.json", "check.json"))
        for folder in folders:
            make_folder(folder, close=ours and not _shared(directory))
    for name, text in wanted.items():
        path = directory / name
        mode = 0o700 if name.endswith(".sh") else 0o600
        before = _text(path)
        if before == text:
            if not dry_run:
                _close(path, mode)
            continue
        changes[name] = (before or "", text)
        if not dry_run:
            private(path, text, mode)
    if not dry_run:
        for path in filter(Path.is_file, (directory / "check.json", directory / "check.md")):
            _close(path, 0o600)
    for name in _left_over(directory, wanted):
        changes[name] = (_text(directory / name) or "", "")
        if not dry_run:
            (directory / name).unlink()
            if not any((directory / name).parent.iterdir()):
                (directory / name).parent.rmdir()
    return changes


def private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file atomically; at no time can anybody but its owner read it. ``mode``: its permissions."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(handle, mode)
        stream.write(text)
    part.replace(path)


def make_folder(folder: Path, *, close: bool = False) -> None:
    """Create a folder that only its owner can enter; with ``close``, also restrict an existing folder."""
    if folder.is_dir():
        if close:
            _close(folder, 0o700)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(0o700)


def _close(path: Path, mode: int) -> None:
    """Remove other users' permissions on a file or a folder; those of another owner are not changed."""
    status = path.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(mode)


def _shared(directory: Path) -> bool:
    """Whether a folder is not for a plan only: the working directory, one above it, or a repository."""
    here, found = Path.cwd(), directory.resolve()
    return (
        found in (here, *here.parents, Path(os.environ.get("HOME") or "/root"), Path("/tmp"))
        or (found / ".git").exists()
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError:
        return ""


def _left_over(directory: Path, wanted: Mapping[str, str]) -> list[str]:
    """Return launch scripts of an earlier plan that this plan does not have. Other files are left alone."""
    return sorted(
        name
        for pattern in ("*/*.sh", "*/haproxy.cfg", "*/keepalived.conf")
        for path in directory.glob(pattern)
        if (name := f"{path.parent.name}/{path.name}") not in wanted
        and "Written by ascend.pd_rollout" in (_text(path) or "")
    )


def summary(plan: PlanDict, directory: str, changed: Sequence[str], *, dry_run: bool) -> str:
    """Return what ``plan.yml`` prints: where the files are, and the ports that processes listen on."""
    verb = "would change" if dry_run else "changed"
    state = f"{verb} {len(changed)} of its files" if changed else "up to date"
    lines = [
        f"{title(plan)}: {plan['topology']} with {plan['release']['name']}. {directory}: {state}.",
        "",
    ]
    rows = [row for row in plan["ports"] if row["bound"]]
    lines.extend(port_lines(rows[:40]))
    if len(rows) > 40:
        lines.append(f"… {len(rows) - 40} more in topology.md")
    hints = sum(finding["severity"] == "hint" for finding in plan["findings"])
    if hints:
        lines.extend(["", f"{hints} hint{'s' if hints > 1 else ''} in topology.md"])
    return "\n".join(lines)


def port_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return port rows as an aligned table."""
    head = ("host", "port", "purpose", "instance")
    cells = [_row(row) for row in rows]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [head, *cells]
    ]


def _row(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return row["host"], span(row["first"], row["last"]), row["purpose"], row["instance"] or ""


def markdown(plan: PlanDict) -> str:
    """Return topology.md: what runs where, every port, and the findings."""
    return "\n".join(_markdown(plan)) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"
    yield ""


def _cell(value: object) -> str:
    return _prose(value).replace("\\", "\\\\").replace("|", "\\|")


def _prose(value: object) -> str:
    """Return text as one line without HTML tags."""
    return shown(value, 10_000).replace("<", "&lt;")


def _code(value: object) -> str:
    """Return any text as Markdown code, between more backticks than it contains."""
    text = shown(value, 10_000)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{text}{ticks}" if len(ticks) == 1 else f"{ticks} {text} {ticks}"


def _markdown(plan: PlanDict) -> Iterator[str]:
    release = plan["release"]
    alone = plan["topology"] == "colocated"
    yield f"# {_prose(title(plan))}: {plan['topology']}"
    yield ""
    yield "![topology](topology.svg)"
    yield ""
    yield f"- Release: vllm-ascend {release['name']}, vLLM {release['vllm']}, CANN {release['cann']}"
    yield f"- Image: {_code(plan['image'])}"
    yield f"- Model: {_code(plan['model']['path'])}, served as {_code(plan['model']['served_name'])}"
    yield f"- KV connector: {'none' if alone else plan['connector']}"
    yield f"- API key of the engines: {'required' if plan['api_key'] else 'none'}"
    yield f"- Guard: {_guard(plan)}"
    yield f"- Plan: `{plan['hash'][:12]}`"
    yield ""
    yield "## Instances"
    yield ""
    rows = []
    for instance in plan["instances"]:
        for rank, host in enumerate(instance["nodes"]):
            share = plan["hosts"][host]
            engine = next(e for e in share["engines"] if e["instance"] == instance["name"])
            rows.append(
                (
                    instance["name"],
                    "prefill and decode" if alone else instance["role"],
                    sizes(instance["parallel"]),
                    f"{host} ({share['address']})",
                    f"{rank} (head)" if rank == 0 else rank,
                    _chips(engine["chips"]),
                    *(() if alone else (engine["engine_id"], engine["kv_port"])),
                    _apis(engine),
                )
            )
    transfer = () if alone else ("engine id", "kv_port")
    yield from _table(("instance", "role", "sizes", "host", "node", "chips", *transfer, "API"), rows)
    fronts = any(share["front"] for share in plan["hosts"].values())
    yield "## What clients ask" if alone or fronts else "## Proxy"
    yield ""
    for host, share in plan["hosts"].items():
        if share["entry"] is not None:
            yield f"- {host}: `{share['entry']['scheme']}://{share['entry']['host']}:{share['entry']['port']}`"
    yield ""
    yield from _fronts(plan)
    yield "## Ports"
    yield ""
    yield "*listens*: a process listens on each of them. *takes*: a library uses some of them, at random or"
    yield "as needed. *reserved*: set aside, and opened by no process."
    yield ""
    port_rows = [(*_row(row), _use(row)) for row in plan["ports"]]
    yield from _table(("host", "port", "purpose", "instance", ""), port_rows)
    if plan["findings"]:
        yield "## Findings"
        yield ""
        yield from render_markdown(map(Finding.from_dict, plan["findings"]), FEW)


def _guard(plan: PlanDict) -> str:
    ports = {guard["port"] for share in plan["hosts"].values() if (guard := share["guard"]) is not None}
    return f"on every server, port {ports.pop()}" if ports else "none"


def _fronts(plan: PlanDict) -> Iterator[str]:
    """Yield what stands behind the address for clients, and where each part has its metrics."""
    rows = []
    for host, share in plan["hosts"].items():
        front = share["front"]
        if front is None:
            continue
        name = f", as {front['name']}" if front["name"] else ""
        keys = "with" if front["keys"] else "without"
        metrics = f"`http://{front['host']}:{front['metrics_port']}/metrics`"
        rows.append((host, f"front {keys} API keys{name}", f"{front['host']}:{front['port']}", metrics))
        for router in share["routers"]:
            port = router["metrics_port"]
            metrics = f"`http://{router['host']}:{port}/metrics`" if port else ""
            rows.append((host, f"{router['colour']} router", f"{router['host']}:{router['port']}", metrics))
    if rows:
        yield "## Front and routers"
        yield ""
        yield "One of the two routers gets the requests."
        yield ""
        yield from _table(("host", "", "address", "metrics"), rows)


def _apis(engine: EngineDict) -> str:
    """Return the engine's URL; with several ranks, the first and the last port."""
    if not engine["api"]:
        return "headless"
    url = f"http://{engine['api']['host']}:{engine['api']['port']}"
    ranks = engine["ranks"]
    return f"{url} … {ranks[-1]['api']['port']}" if len(ranks) > 1 else url


def _use(row: PortDict) -> str:
    if row["bound"]:
        return "listens"
    return "reserved" if row["instance"] else "takes"


def _chips(chips: Sequence[int]) -> str:
    if len(chips) > 2 and chips[-1] - chips[0] == len(chips) - 1:
        return f"{chips[0]}-{chips[-1]}"
    return ", ".join(map(str, chips))
