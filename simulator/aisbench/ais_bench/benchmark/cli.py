"""`ais_bench --models … --datasets … --mode all`: ask, score, write the summary."""

from __future__ import annotations

import argparse
import http.client
import json
import re
import runpy
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).resolve().parent / "configs"


def load(kind: str, name: str, config_dir: str, variable: str) -> list[dict[str, Any]]:
    """A configuration by its file name, one's own first."""
    file = name if name.endswith(".py") else f"{name}.py"
    for folder in (Path(config_dir) / kind, CONFIGS / kind):
        for path in sorted(folder.rglob(file)):
            found: list[dict[str, Any]] = runpy.run_path(str(path))[variable]
            return found
    sys.exit(f"ais_bench - ERROR - no config {name} in {kind}")


def ask(model: dict[str, Any], question: str) -> str | None:
    """The answer's text, None when there is none."""
    body = {
        "model": model["model"],
        "messages": [{"role": "user", "content": question}],
        "max_tokens": model["max_out_len"],
        "stream": False,
        **model["generation_kwargs"],
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {model['api_key']}"}
    for _attempt in range(model["retry"] + 1):
        try:
            connection = http.client.HTTPConnection(model["host_ip"], model["host_port"], timeout=60)
            connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            connection.close()
            return str(answer["choices"][0]["message"]["content"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            time.sleep(0.1)
    return None


def evaluate(model: dict[str, Any], dataset: dict[str, Any], work: Path) -> str:
    """A data set's line of the summary."""
    lines = (ROOT / dataset["path"]).read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines if line.strip()]
    with ThreadPoolExecutor(model["batch_size"]) as pool:
        answers = []
        for answer in pool.map(lambda item: ask(model, item["origin_prompt"]), items):
            answers.append(answer)
            print(
                f"{len(answers) / len(items):4.0%}|#| {len(answers)}/{len(items)} [00:00<?]", file=sys.stderr
            )
    rows = []
    right = 0
    for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
        numbers = re.findall(r"-?\d+", answer or "")
        right += bool(numbers) and numbers[-1] == item["gold_answer"]
        row = {"data_abbr": dataset["abbr"], "id": number, "success": answer is not None}
        rows.append({**row, "prediction": answer or "", "gold": item["gold_answer"]})
    place = work / "predictions" / model["abbr"]
    place.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (place / f"{dataset['abbr']}.jsonl").write_text(text, encoding="utf-8")
    return f"{dataset['abbr']},000000,accuracy,gen,{100 * right / len(items):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="ais_bench")
    for flag in ("--models", "--datasets"):
        parser.add_argument(flag, nargs="+", required=True)
    parser.add_argument("-m", "--mode", choices=["all"], default="all")
    parser.add_argument("-w", "--work-dir", default="outputs/default")
    parser.add_argument("--config-dir", default="configs")
    for flag in ("--merge-ds", "--dump-eval-details", "--debug"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    (model,) = load("models", args.models[0], args.config_dir, "models")
    now = time.strftime("%Y%m%d_%H%M%S")
    work = Path(args.work_dir) / now
    print(f"Current exp folder: {work}", flush=True)
    datasets = [one for name in args.datasets for one in load("datasets", name, args.config_dir, "datasets")]
    lines = [f"dataset,version,metric,mode,{model['abbr']}"]
    lines += [evaluate(model, dataset, work) for dataset in datasets]
    summary = work / "summary"
    summary.mkdir(parents=True)
    (summary / f"summary_{now}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"write csv to {summary / f'summary_{now}.csv'}")
