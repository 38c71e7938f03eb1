# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""AISBench's configuration, summary and verdicts. C(recorded) comes from a real AISBench 3.1.20260630."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ascend.pd_rollout.plugins.filter.accuracy_datasets import accuracy_datasets
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._benchmark import accuracy

ROOT = Path(__file__).resolve().parents[5]
RECORDED = Path(__file__).parent / "recorded"


def summary(run: Path) -> list[accuracy.Score]:
    return accuracy.read_summary(next(iter(run.glob(accuracy.SUMMARY))).read_text(encoding="utf-8"))


# -- the recorded runs -----------------------------------------------------------------------------


def test_a_recorded_run_is_judged() -> None:
    run = accuracy.newest_run(RECORDED / "good")
    assert run is not None
    assert accuracy.unanswered(run) == {"aime2024": (0, 3)}
    (verdict,) = accuracy.judge(
        [{"name": "aime2024", "reference": 66.67}], summary(run), accuracy.unanswered(run), 1
    )
    assert verdict.score == 66.67
    assert verdict.problem is None
    (verdict,) = accuracy.judge([{"name": "aime2024", "reference": 86.67}], summary(run), {}, 3.4)
    assert verdict.problem == "aime2024: 66.67 is below 83.27 (reference 86.67, tolerance 3.4)"


def test_a_run_that_nobody_answered_does_not_pass() -> None:
    run = accuracy.newest_run(RECORDED / "nobody_answered")
    assert run is not None
    (verdict,) = accuracy.judge([{"name": "aime2024", "reference": None}], summary(run), {}, 3.4)
    assert verdict.problem == "aime2024: AISBench has no score"


def test_the_newest_run_counts_and_a_run_itself_is_one(tmp_path: Path) -> None:
    # As it is fetched: below AISBench's own outputs/default.
    runs = tmp_path / "outputs" / "default"
    for name in ("20260101_000000", "20260102_000000"):
        (runs / name / "summary").mkdir(parents=True)
        (runs / name / "summary" / f"summary_{name}.csv").touch()
    newest = accuracy.newest_run(tmp_path)
    assert newest == runs / "20260102_000000"
    assert accuracy.newest_run(newest) == newest
    assert accuracy.newest_run(tmp_path / "none") is None


# -- the summary -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dataset,version,metric,mode,m\naime2024,-,accuracy,gen,86.67\n", 86.67),
        ("dataset,version,metric,mode,total_count,m\naime2024,ab,accuracy,gen,30,86.67 (26/30)\n", 86.67),
        ("dataset,version,metric,mode,m\naime2024,-,-,-,-\n", None),
    ],
    ids=["the guide's", "with counts", "no score"],
)
def test_a_summary_is_read(text: str, value: float | None) -> None:
    assert accuracy.headline(accuracy.read_summary(text), "aime2024") == accuracy.Score(
        "aime2024", text.splitlines()[1].split(",")[2], value
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with dataset"),
        ("a,b\n", "does not begin with dataset"),
        ("dataset,version,metric,mode,m\naime2024,-\n", "a line has 2 columns"),
        ("dataset,version,metric,mode,m\naime2024,-,accuracy,gen,good\n", "'good' is not a score"),
    ],
    ids=["empty", "another table", "a short line", "a word"],
)
def test_another_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(accuracy.BadSummary, match=message):
        accuracy.read_summary(text)


def test_questions_without_answers_fail_whatever_the_score(tmp_path: Path) -> None:
    place = tmp_path / "predictions" / "m"
    place.mkdir(parents=True)
    rows = [{"prediction": "5"}, {"prediction": ""}, {"prediction": "7", "success": False}]
    (place / "aime2024.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    answers = accuracy.unanswered(tmp_path)
    assert answers == {"aime2024": (2, 3)}
    scores = [accuracy.Score("aime2024", "accuracy", 99.0)]
    (verdict,) = accuracy.judge([{"name": "aime2024", "reference": 86.67}], scores, answers, 3.4)
    assert verdict.problem == "aime2024: 2 of 3 questions have no answer"


def test_the_table() -> None:
    scores = [accuracy.Score("aime2024", "accuracy", 90.0), accuracy.Score("gsm8k", "accuracy", 50.0)]
    wanted = [{"name": "aime2024", "reference": 86.67}, {"name": "gsm8k", "reference": 95, "tolerance": 2}]
    verdicts = accuracy.judge([*wanted, {"name": "gpqa"}], scores, {}, 3.4)
    lines = accuracy.screen(verdicts)
    assert [colour for _, colour in lines] == [None, "green", "red", "red"]
    assert "+3.33" in lines[1][0]
    assert "gsm8k: 50.00 is below 93.00" in lines[2][0]
    assert "| aime2024 | 90.00 | 86.67 | +3.33 | 3.4 | good |" in accuracy.markdown("t", verdicts)


# -- data sets -------------------------------------------------------------------------------------


def test_known_data_sets_and_ones_own() -> None:
    own = {"name": "mine", "config": "mine_gen.py", "folder": "mine"}
    found = accuracy_datasets(["aime2024", {"name": "gsm8k", "reference": 95}, "math500", own])
    assert [one["key"] for one in found] == ["aime2024", "gsm8k", "math500", "mine"]
    assert found[0]["reference"] == 86.67
    assert found[1]["config"] == "gsm8k_gen_0_shot_cot_chat_prompt.py"
    assert found[1]["reference"] == 95
    assert found[2]["name"] == "math_prm800k_500"


def test_everything_that_is_wrong_with_data_sets_is_said() -> None:
    wanted = ["aime", 7, {"name": "gsm8k", "ref": 1}, {"name": "m", "config": "../c.py", "folder": "m"}]
    with pytest.raises(AnsibleFilterError) as error:
        accuracy_datasets(wanted)
    for part in ("aime is not known", "7 has no name", "unknown fields: ref", "plain names, not ../c.py"):
        assert part in str(error.value)
    with pytest.raises(AnsibleFilterError, match="plain names"):
        accuracy_datasets([{"name": "m", "config": "c.py", "folder": "m\n"}])
    with pytest.raises(AnsibleFilterError, match="the list of data sets is empty"):
        accuracy_datasets([])
    with pytest.raises(AnsibleFilterError, match="expected a list"):
        accuracy_datasets(3)


# -- AISBench's configuration ----------------------------------------------------------------------

SHIPPED = """
from ais_bench.benchmark.models import VLLMCustomAPIChat
models = [dict(attr="service", type=VLLMCustomAPIChat, abbr="a", path="", model="", api_key="",
               host_ip="localhost", host_port=8080, max_out_len=512, batch_size=1,
               generation_kwargs=dict(temperature=0.01, ignore_eos=False))]
"""
VALUES = {
    "path": "/w",
    "model": "deepseek_v3",
    "host_ip": "10.0.0.1",
    "host_port": 8005,
    "generation_kwargs": {"temperature": 0.6, "top_k": 10},
    "trust_remote_code": False,
}


@pytest.fixture
def prepare() -> ModuleType:
    """The role's script as a module."""
    spec = importlib.util.spec_from_file_location(
        "prepare", ROOT / "roles" / "accuracy" / "files" / "prepare.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"VLLMCustomAPIChat": object}
    exec(text.split("\n", 1)[1], names)
    found: dict[str, Any] = names["models"][0]
    return found


def test_the_shipped_configuration_is_aimed_at_the_proxy(prepare: ModuleType) -> None:
    text = prepare.configured(SHIPPED.lstrip(), VALUES, {"api_key": "k", "url": "u"})
    model = model_of(text)
    assert (model["host_ip"], model["host_port"], model["model"]) == ("10.0.0.1", 8005, "deepseek_v3")
    assert model["generation_kwargs"] == {"temperature": 0.6, "ignore_eos": False, "top_k": 10}
    assert model["trust_remote_code"] is False
    assert model["max_out_len"] == 512
    assert model["api_key"] == "k"
    assert "url" not in model, "a key that this version has not is not given to it"


def test_a_configuration_without_a_model_is_refused(prepare: ModuleType) -> None:
    with pytest.raises(ValueError, match="no list `models`"):
        prepare.configured("models = []\n", VALUES, {})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AISBench of one configuration."""
    package = tmp_path / "site" / "ais_bench"
    for kind, name, text in (("models", "chat.py", SHIPPED), ("datasets", "aime.py", "")):
        (package / "benchmark" / "configs" / kind).mkdir(parents=True)
        (package / "benchmark" / "configs" / kind / name).write_text(text, encoding="utf-8")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "ais_bench", raising=False)
    return package


def settings(tmp_path: Path, **changes: Any) -> str:
    given = {
        "config": "chat",
        "name": "chat_pd",
        "values": VALUES,
        "datasets": [{"config": "aime.py", "folder": "aime", "data": str(tmp_path / "data")}],
        "cure": {"aisbench": "Get AISBench.", "dataset": "Get the data."},
        **changes,
    }
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    return str(path)


def test_prepare_writes_the_configuration_and_places_the_data(
    prepare: ModuleType, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "aime").mkdir(parents=True)
    (tmp_path / "data" / "aime" / "aime.jsonl").touch()
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    for _again in range(2):
        assert prepare.main(settings(tmp_path), str(tmp_path / "configs")) == 0
    made = tmp_path / "configs" / "models" / "chat_pd.py"
    assert "'a-key'" in made.read_text(encoding="utf-8")
    assert made.stat().st_mode & 0o077 == 0
    assert (installed / "datasets" / "aime" / "aime.jsonl").exists()


def test_prepare_says_all_that_is_missing(
    prepare: ModuleType,
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    datasets = [{"config": "gsm8k.py", "folder": "gsm8k", "data": str(tmp_path / "none")}]
    assert prepare.main(settings(tmp_path, config="other", datasets=datasets), str(tmp_path / "configs")) == 3
    said = capsys.readouterr().out
    assert "MISSING: this AISBench has no model configuration other" in said
    assert "MISSING: this AISBench has no data set configuration gsm8k.py" in said
    assert "Get the data." in said


def test_prepare_without_aisbench_says_how_to_get_it(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "package_folder", lambda: None)
    assert prepare.main(settings(tmp_path), str(tmp_path)) == 3
    assert "Get AISBench." in capsys.readouterr().out
