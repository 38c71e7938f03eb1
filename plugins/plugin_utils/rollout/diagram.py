# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""topology.svg: a diagram of the cluster. Requests flow from top to bottom, KV cache from left to right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal
from xml.sax.saxutils import escape

from .findings import shown
from .plan_dict import EndpointDict, EngineDict, InstanceDict, ParallelDict, PlanDict, Slice
from .ports import span
from .variables import DEPLOYMENT

# Dimensions in pixels.
_SERVER = 300
_GAP = 24
_PAD = 20
_MARGIN = 40
_CHIP = 14
_CHIP_GAP = 3
_CHIPS_IN_ROW = 16
_COLUMN_GAP = 150
# Servers of one instance that are drawn; a line gives the number of the others.
_DRAWN_NODES = 8
_DRAWN_INSTANCES = 8
# Arrows from prefillers to decoders that are drawn one by one.
_DRAWN_ARROWS = 12
# The longest engine id beside the ports, in characters; the name of the instance is above it.
_ID = 18

_FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_INK, _SOFT, _LINE, _PAPER = "#1f2933", "#616e7c", "#cbd2d9", "#ffffff"
# Fill, line and strong colour by role; distinguishable without seeing red and green apart.
_ROLES = {
    "prefiller": ("#eef4ff", "#9dbdf5", "#2459b8"),
    "decoder": ("#fff4e6", "#f3c68b", "#b25e09"),
    "proxy": ("#eef7f4", "#93cdb9", "#14705a"),
}
# The router's box, and how much lower it is if a front stands above it.
_PROXY_TOP, _PROXY_WIDTH, _PROXY_HEIGHT = 96, 250, 60
_FRONT_LIFT = 104
# The labels of the arrows if decoders pull the cache, and if prefillers push it: from the proxy to the
# prefillers, from the prefillers to the decoders, from the proxy to the decoders.
_PULLED = ("1 prompt", "2 KV cache", "3 answer")
_PUSHED = ("2 prompt", "3 KV cache", "1 request, answer")
_TITLES = {"prefiller": "Prefill", "decoder": "Decode"}


def svg(plan: PlanDict) -> str:
    """Return the diagram of a plan as SVG."""
    columns = {role: [i for i in plan["instances"] if i["role"] == role] for role in ("prefiller", "decoder")}
    inner = _SERVER + 2 * _PAD
    left = _MARGIN
    # A colocated engine is drawn alone, without a proxy above it.
    alone = plan["topology"] == "colocated"
    right = left if alone else left + inner + _COLUMN_GAP
    width = right + inner + _MARGIN
    lift = _FRONT_LIFT if any(share["front"] for share in plan["hosts"].values()) else 0
    top = 96 if alone else 226 + lift
    parts: list[str] = []
    # Upper and lower edge of each frame, by role.
    frames: dict[str, list[tuple[float, float]]] = {}
    bottom = float(top)
    for role, x in (("prefiller", left), ("decoder", right)):
        y = float(top)
        for instance in columns[role][:_DRAWN_INSTANCES]:
            height, drawn = _instance(plan, instance, x, y)
            parts.extend(drawn)
            frames.setdefault(role, []).append((y, y + height))
            y += height + _GAP
        if len(columns[role]) > _DRAWN_INSTANCES:
            more = len(columns[role]) - _DRAWN_INSTANCES
            parts.append(
                _text(x + inner / 2, y + 8, f"and {more} more instances", 13, _SOFT, anchor="middle")
            )
            y += 34
        bottom = max(bottom, y)
    proxy_x = width / 2
    parts.extend(_front(plan, proxy_x))
    parts.extend(_proxy(plan, proxy_x, _PROXY_TOP + lift))
    labels = _PUSHED if _decoders_listen(plan) else _PULLED
    edges = (left + inner, right)
    arrows = list(_arrows(frames, edges, inner, proxy_x, top, labels)) if "prefiller" in frames else []
    height = bottom + 34
    foot = [f"plan {plan['hash'][:12]}"] if plan["hash"] else []
    foot += [] if alone else [plan["connector"]]
    foot.append("one square is one chip")
    if any(instance["parallel"]["data"] > 1 for instance in plan["instances"]):
        foot.append("shades distinguish data-parallel ranks")
    # In a narrow diagram, one line each.
    lines = [" · ".join(foot)] if not alone else foot
    height += 15 * (len(lines) - 1)
    feet = [
        _text(_MARGIN, height - 14 - 15 * above, line, 11, _SOFT, limit=100)
        for above, line in enumerate(reversed(lines))
    ]
    return "\n".join([*_head(plan, width, height), *arrows, *parts, *feet, "</svg>"]) + "\n"


def title(plan: PlanDict) -> str:
    """Return the cluster's name, and the deployment's if it is not the default."""
    name = "" if plan["deployment"] == DEPLOYMENT.default else f" · {plan['deployment']}"
    return shown(f"{plan['cluster']}{name}")


def _head(plan: PlanDict, width: float, height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" font-family="{_FONT}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title(plan))}: {plan["topology"]}</title>',
        "<defs>",
        *_marker("request", _ROLES["proxy"][2]),
        *_marker("cache", _INK),
        "</defs>",
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
        _text(_MARGIN, 44, title(plan), 20, _INK, weight=600),
        _text(_MARGIN, 66, _subtitle(plan), 13, _SOFT),
    ]


def _decoders_listen(plan: PlanDict) -> bool:
    """Whether prefillers push the cache and the proxy contacts the decoder first."""
    engines = (engine for share in plan["hosts"].values() for engine in share["engines"])
    return any(engine["role"] == "decoder" and engine["handshake_ports"] for engine in engines)


def _subtitle(plan: PlanDict) -> str:
    release = plan["release"]
    return f"{plan['topology']} · {plan['model']['served_name']} · vllm-ascend {release['name']}"


def _marker(name: str, colour: str) -> Iterator[str]:
    yield (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    colour: str,
    *,
    weight: int = 400,
    anchor: str = "start",
    limit: int = 64,
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(_cut(text, limit))}</text>'
    )


def _cut(text: str, limit: int) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _box(x: float, y: float, w: float, h: float, fill: str, line: str, radius: int = 10) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius}" fill="{fill}" '
        f'stroke="{line}" stroke-width="1.2"/>'
    )


def _front(plan: PlanDict, x: float) -> Iterator[str]:
    """Yield the front, the arrow of its clients, and the one to the router."""
    fill, line, strong = _ROLES["proxy"]
    hosts = [(name, found) for name, share in plan["hosts"].items() if (found := share["front"]) is not None]
    if not hosts:
        return
    y, left = _PROXY_TOP, x - _PROXY_WIDTH / 2
    host, front = hosts[0]
    scheme = "https" if front["tls"] else "http"
    yield _box(left, y, _PROXY_WIDTH, _PROXY_HEIGHT, fill, line)
    yield _text(x, y + 25, "Front (HAProxy)", 15, strong, weight=600, anchor="middle")
    more = f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""
    place = f"{host}{more} · {front['host']}:{front['port']}"
    yield _text(x, y + 45, place, 12, _INK, anchor="middle")
    below = y + _PROXY_HEIGHT
    for path in (
        f"M{left - 110:.0f} {y + 30}L{left - 4:.0f} {y + 30}",
        f"M{x:.0f} {below}L{x:.0f} {y + _FRONT_LIFT - 4}",
    ):
        yield f'<path d="{path}" fill="none" stroke="{strong}" stroke-width="2" marker-end="url(#request)"/>'
    yield _text(left - 60, y + 20, f"clients, {scheme}", 12, strong, anchor="middle")


def _proxy(plan: PlanDict, x: float, y: float) -> Iterator[str]:
    fill, line, strong = _ROLES["proxy"]
    hosts = [(h, s["proxy"]) for h, s in plan["hosts"].items() if s["proxy"] is not None]
    if not hosts:
        return
    yield _box(x - _PROXY_WIDTH / 2, y, _PROXY_WIDTH, _PROXY_HEIGHT, fill, line)
    host, proxy = hosts[0]
    behind = proxy["colour"] is not None
    name = "Router" if behind else "Proxy"
    title = name if proxy["router"] == "upstream" else f"{name} (vllm-router)"
    yield _text(x, y + 25, title, 15, strong, weight=600, anchor="middle")
    more = f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""
    place = f"{host}{more} · {proxy['host']}:{proxy['port']}"
    if behind:
        routers = plan["hosts"][host]["routers"]
        place = " or ".join(f"{router['colour']} :{router['port']}" for router in routers)
    yield _text(x, y + 45, place, 12, _INK, anchor="middle")


def _instance(plan: PlanDict, instance: InstanceDict, x: float, y: float) -> tuple[float, list[str]]:
    """Return one instance as a frame around its servers: its height, and the SVG elements."""
    fill, line, strong = _ROLES[instance["role"]]
    parts = [
        _text(x + _PAD, y + 28, _title(instance, plan["topology"] == "colocated"), 15, strong, weight=600),
        _text(x + _PAD, y + 47, sizes(instance["parallel"]), 12, _SOFT),
    ]
    at = y + 62
    for rank, host in enumerate(instance["nodes"][:_DRAWN_NODES]):
        share = plan["hosts"][host]
        engine = next(e for e in share["engines"] if e["instance"] == instance["name"])
        height, drawn = _server(host, share, engine, rank, x + _PAD, at, (line, strong))
        parts.extend(drawn)
        at += height + 12
    if len(instance["nodes"]) > _DRAWN_NODES:
        parts.append(
            _text(x + _PAD, at + 14, f"and {len(instance['nodes']) - _DRAWN_NODES} more nodes", 12, _SOFT)
        )
        at += 26
    height = at - y + _PAD - 12
    return height, [_box(x, y, _SERVER + 2 * _PAD, height, fill, line, 14), *parts]


def _title(instance: InstanceDict, alone: bool) -> str:
    title = "Prefill and decode" if alone else _TITLES[instance["role"]]
    nodes = len(instance["nodes"])
    return f"{title} · {instance['name']}" + (f" · {nodes} nodes" if nodes > 1 else "")


_Size = Literal["tensor", "prefill_context", "decode_context", "pipeline", "data"]
_SIZES: tuple[tuple[_Size, str], ...] = (
    ("tensor", "TP"),
    ("prefill_context", "PCP"),
    ("decode_context", "DCP"),
    ("pipeline", "PP"),
    ("data", "DP"),
)


def sizes(parallel: ParallelDict) -> str:
    """Return the parallel sizes in short form: TP always, the others if they are not 1."""
    return ", ".join(
        f"{word} {parallel[key]}" for key, word in _SIZES if key == "tensor" or parallel[key] > 1
    )


def _server(
    host: str,
    share: Slice,
    engine: EngineDict,
    rank: int,
    x: float,
    y: float,
    colours: tuple[str, str],
) -> tuple[float, list[str]]:
    line, strong = colours
    chips: Sequence[int] = engine["chips"][:64]
    rows = -(-len(chips) // _CHIPS_IN_ROW)
    identity = f"engine id {_cut(engine['engine_id'], _ID)}"
    facts = ["no KV transfer" if engine["kv_role"] is None else identity]
    if engine["handshake_ports"]:
        facts.append(f"KV {engine['handshake_ports'][0]}-{engine['handshake_ports'][-1]}")
    apis: list[EndpointDict | None] = [rank["api"] for rank in engine["ranks"]] or [engine["api"]]
    ports = [api["port"] for api in apis if api is not None]
    served = f"API :{span(ports[0], ports[-1])}" if ports else "headless"
    local = engine["data_parallel_size_local"]
    place = f"node {rank}"
    if local > 1:
        place += f" · ranks {span(engine['data_parallel_rank'], engine['data_parallel_rank'] + local - 1)}"
    size = max(1, engine["local_world_size"] // max(1, local))
    height = 80 + rows * (_CHIP + _CHIP_GAP)
    parts = [
        _box(x, y, _SERVER, height, _PAPER, line),
        _text(x + 14, y + 25, host, 14, _INK, weight=600),
        _text(x + _SERVER - 14, y + 25, str(share["address"]), 12, _SOFT, anchor="end"),
        _text(x + 14, y + 45, f"{place} · {served}", 12, _INK),
        _text(x + 14, y + 63, " · ".join(facts), 12, _SOFT),
    ]
    for nth, chip in enumerate(chips):
        cx = x + 14 + (nth % _CHIPS_IN_ROW) * (_CHIP + _CHIP_GAP)
        cy = y + 74 + (nth // _CHIPS_IN_ROW) * (_CHIP + _CHIP_GAP)
        used = nth < engine["local_world_size"]
        # Neighbouring data-parallel ranks have different shades.
        shade = "0.85" if local == 1 or nth // size % 2 == 0 else "0.5"
        look = f'fill="{strong}" fill-opacity="{shade}"' if used else f'fill="none" stroke="{_LINE}"'
        parts.append(
            f'<rect x="{cx:.0f}" y="{cy:.0f}" width="{_CHIP}" height="{_CHIP}" rx="3" {look}>'
            f"<title>chip {chip}</title></rect>"
        )
    return height, parts


def _arrows(
    frames: Mapping[str, Sequence[tuple[float, float]]],
    edges: tuple[float, float],
    inner: float,
    proxy_x: float,
    top: float,
    labels: tuple[str, str, str],
) -> Iterator[str]:
    """Return the arrows: requests from the proxy to each side's first instance, and the cache from the
    prefillers to the decoders."""
    left_edge, right_edge = edges
    to_prefiller, cache, to_decoder = labels
    green = _ROLES["proxy"][2]
    low = top - 70
    ends = ((left_edge - inner / 2, to_prefiller, -1), (right_edge + inner / 2, to_decoder, 1))
    for x, label, shift in ends:
        start = proxy_x + shift * 60
        yield (
            f'<path d="M{start:.0f} {low}C{start:.0f} {low + 50} {x:.0f} {low + 10} {x:.0f} {top - 4}" '
            f'fill="none" stroke="{green}" stroke-width="2" marker-end="url(#request)"/>'
        )
        yield _text((start + x) / 2 + shift * 14, low + 18, label, 12, green, anchor="middle")
    middle = (left_edge + right_edge) / 2
    lefts, rights = frames.get("prefiller", ()), frames.get("decoder", ())
    if not lefts or not rights:
        return
    if len(lefts) * len(rights) > _DRAWN_ARROWS:
        y = (lefts[0][0] + lefts[0][1]) / 2
        yield _cache_arrow(left_edge, right_edge, y, y)
        yield _text(middle, y - 12, cache, 12, _INK, anchor="middle")
        yield _text(middle, y + 22, "all to all", 12, _SOFT, anchor="middle")
        return
    levels = [_levels(left, right) for left in lefts for right in rights]
    for start_y, end_y in levels:
        yield _cache_arrow(left_edge, right_edge, start_y, end_y)
    label_y = min((start_y + end_y) / 2 for start_y, end_y in levels)
    yield _text(middle, label_y - 12, cache, 12, _INK, anchor="middle")


def _cache_arrow(left_edge: float, right_edge: float, start_y: float, end_y: float) -> str:
    middle = (left_edge + right_edge) / 2
    return (
        f'<path d="M{left_edge + 2:.0f} {start_y:.0f}C{middle:.0f} {start_y:.0f} {middle:.0f} {end_y:.0f} '
        f'{right_edge - 4:.0f} {end_y:.0f}" fill="none" stroke="{_INK}" stroke-width="2" '
        'stroke-dasharray="6 4" marker-end="url(#cache)"/>'
    )


def _levels(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    """Return where an arrow starts and ends: straight across if the frames face each other, else in the
    quarters that are next to each other."""
    upper, lower = max(left[0], right[0]), min(left[1], right[1])
    if upper < lower:
        return (upper + lower) / 2, (upper + lower) / 2
    near, far = (0.25, 0.75) if left[0] > right[0] else (0.75, 0.25)
    return left[0] + near * (left[1] - left[0]), right[0] + far * (right[1] - right[0])
