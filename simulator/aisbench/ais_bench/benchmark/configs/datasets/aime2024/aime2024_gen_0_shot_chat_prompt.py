datasets = [{"abbr": "aime2024", "path": "ais_bench/datasets/aime/aime.jsonl"}]
