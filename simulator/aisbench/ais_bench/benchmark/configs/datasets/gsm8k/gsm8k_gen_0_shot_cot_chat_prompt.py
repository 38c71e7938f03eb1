datasets = [{"abbr": "gsm8k", "path": "ais_bench/datasets/gsm8k/test.jsonl"}]
