"""CompilationConfig: which graphs are captured."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Graphs:
    """The graphs of the model: in which mode, and for which numbers of tokens."""

    mode: str
    sizes: list[int] = field(default_factory=list)


def make_graphs(args: argparse.Namespace, max_num_seqs: int) -> Graphs:
    """The graphs to capture; the default sizes depend on the requests of one step."""
    if args.enforce_eager:
        return Graphs("NONE")
    compilation = args.compilation_config if isinstance(args.compilation_config, dict) else {}
    mode = str(compilation.get("cudagraph_mode") or "PIECEWISE")
    if mode == "FULL_AND_PIECEWISE":
        mode = "PIECEWISE"
    sizes = args.cudagraph_capture_sizes or compilation.get("cudagraph_capture_sizes")
    if sizes is None:
        largest = min(max_num_seqs * 2, 512)
        sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest]
    return Graphs(mode, sorted(int(size) for size in sizes))
