"""vllm-router: the committed data file is the real parser's, which also takes what is planned."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from .conftest import ROOT, plans

DATA = ROOT / "plugins" / "plugin_utils" / "rollout" / "data"


@pytest.fixture(scope="session")
def router() -> ModuleType:
    """scripts/gen_router_args.py as a module."""
    spec = importlib.util.spec_from_file_location("gen_router_args", ROOT / "scripts" / "gen_router_args.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parser(router: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> argparse.ArgumentParser:
    """The real parser, from the pinned wheel."""
    wheel = Path(os.environ["PD_CONFORMANCE_ROUTER"])
    found: argparse.ArgumentParser = router.parser_of(router.load(wheel, tmp_path_factory.mktemp("router")))
    return found


def test_the_data_file_is_the_real_parsers(router: ModuleType, parser: argparse.ArgumentParser) -> None:
    written = (DATA / "router_options" / f"{router.pinned()[0]}.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(written)["options"] == router.options(parser)


def test_the_real_parser_takes_what_is_planned(parser: argparse.ArgumentParser) -> None:
    planned = [
        share["proxy"]
        for path in sorted(plans().rglob("plan.json"))
        for share in json.loads(path.read_text(encoding="utf-8"))["hosts"].values()
        if share["proxy"] and share["proxy"]["router"] == "vllm_router"
    ]
    assert planned
    for proxy in planned:
        begin = proxy["argv"].index("vllm_router.launch_router") + 1
        taken = parser.parse_args(proxy["argv"][begin:])
        assert [url for (url,) in taken.decode] == proxy["expected"]["decode"]
        assert [url for (url,) in taken.prefill] == proxy["expected"]["prefill"]
        assert (taken.host, taken.port) == (proxy["host"], proxy["port"])


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["--request-timeout", "60"], True),
        (["--log_level", "info"], False),
        (["--log-level", "warn"], False),
        (["--queue-size", "many"], False),
        (["--e", "1"], False),
        (["--log-dir=-here"], True),
        (["--pd-kv-events", "u=a", "--pd-kv-events", "v=b"], True),
    ],
    ids=["abbreviated", "underscores", "choice", "number", "ambiguous", "dash", "repeated"],
)
def test_what_it_takes_and_refuses(
    parser: argparse.ArgumentParser, words: list[str], taken: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """As rules/router.py and launch/router.py suppose; underscores become dashes in the launch script."""
    try:
        parser.parse_args(words)
    except SystemExit:
        assert not taken, capsys.readouterr().err
    else:
        assert taken
