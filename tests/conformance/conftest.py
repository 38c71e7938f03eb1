"""What the conformance tests share: the real parser, and the simulated one.

Run by scripts/conformance.py with the Python of the conformance environment.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "simulator" / "engine" / "rootfs" / "opt" / "pd-sim-engine"
VERSION = os.environ.get("PD_CONFORMANCE_VLLM", "0.13.0")
"""The vLLM of this environment; the release of vllm-ascend has the same number."""
os.environ["PD_SIM_RELEASE"] = f"v{VERSION}"


def source() -> Path:
    """The unpacked source distribution of vLLM."""
    return Path(os.environ["PD_CONFORMANCE_SOURCE"])


def plans() -> Path:
    """The folder with the rendered plans: RELEASE/INVENTORY, and as-written/INVENTORY."""
    return Path(os.environ["PD_CONFORMANCE_PLANS"])


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """scripts/gen_vllm_args.py as a module."""
    spec = importlib.util.spec_from_file_location("gen_vllm_args", ROOT / "scripts" / "gen_vllm_args.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_parser(generator: ModuleType) -> Any:
    """The real parser, `vllm serve …` and all."""
    return generator.load_parser(source())


@pytest.fixture(scope="session")
def simulated_parser() -> Any:
    """The simulated engine's parser."""
    sys.path.insert(0, str(ENGINE))
    from pd_sim_engine import arguments

    return arguments.make_parser()
