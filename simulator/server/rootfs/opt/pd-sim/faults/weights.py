"""Faults of the weights on the disk."""

from __future__ import annotations

import json
from pathlib import Path

from .base import Fault, Parameters, PathMissing, keep, model, of_model, shard


class WeightsAbsent(PathMissing):
    """the folder of the weights is not there"""

    def path(self, parameters: Parameters) -> Path:
        """The folder."""
        return model()


class WeightsAbsentIndex(PathMissing):
    """the weights' index is not there"""

    def path(self, parameters: Parameters) -> Path:
        """The index."""
        return of_model("*.safetensors.index.json")


class WeightsMissingShard(PathMissing):
    """a shard of the weights is not there"""

    parameters = "number=43"

    def path(self, parameters: Parameters) -> Path:
        """The shard."""
        return shard(parameters)


class WeightsTruncatedShard(PathMissing):
    """a shard of the weights ends early, as after a broken-off copy"""

    parameters = "number=43"

    def path(self, parameters: Parameters) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: Parameters) -> None:
        """Keep the first half only."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content[: len(content) // 2])


class WeightsUnreadable(PathMissing):
    """a shard of the weights is a link to a place that is not mounted"""

    parameters = "number=43"

    def path(self, parameters: Parameters) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: Parameters) -> None:
        """Put a link to nowhere in its place."""
        path = self.path(parameters)
        keep(path)
        path.symlink_to(f"/mnt/weights/{path.name}")


class WeightsWrongDtype(PathMissing):
    """config.json names another torch_dtype"""

    parameters = "value=float16"

    def path(self, parameters: Parameters) -> Path:
        """The configuration of the model."""
        return model() / "config.json"

    def apply(self, parameters: Parameters) -> None:
        """Change that value."""
        path = self.path(parameters)
        config = json.loads(path.read_text())
        keep(path)
        config["torch_dtype"] = parameters.get("value", "float16")
        path.write_text(json.dumps(config, indent=2) + "\n")


class WeightsBrokenConfig(WeightsWrongDtype):
    """config.json is no JSON"""

    parameters = ""

    def apply(self, parameters: Parameters) -> None:
        """Keep the first half only."""
        path = self.path(parameters)
        content = path.read_text()
        keep(path)
        path.write_text(content[: len(content) // 2])


class WeightsLeftover(Fault):
    """a download has left something behind: a file that is not complete, or its lock"""

    parameters = "name=model.safetensors.incomplete"

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return model() / str(parameters.get("name", "model.safetensors.incomplete"))

    def apply(self, parameters: Parameters) -> None:
        """Lay it down."""
        self.path(parameters).write_bytes(b"\0" * 100)

    def heal(self, parameters: Parameters) -> None:
        """Remove it."""
        self.path(parameters).unlink(missing_ok=True)


class WeightsDiffer(PathMissing):
    """a small file of the weights is of another version, and all is well in itself"""

    parameters = "name=generation_config.json"

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return model() / str(parameters.get("name", "generation_config.json"))

    def apply(self, parameters: Parameters) -> None:
        """Add a blank, which changes nothing but the content."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content + b" ")


class WeightsBitFlipped(PathMissing):
    """one bit of a shard is wrong, as after a bad copy; size and header are right"""

    parameters = "number=43"

    def path(self, parameters: Parameters) -> Path:
        """The shard."""
        return shard(parameters)

    def apply(self, parameters: Parameters) -> None:
        """Turn the last bit."""
        path = self.path(parameters)
        content = path.read_bytes()
        keep(path)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


FAULTS: dict[str, type[Fault]] = {
    "weights_absent": WeightsAbsent,
    "weights_absent_index": WeightsAbsentIndex,
    "weights_missing_shard": WeightsMissingShard,
    "weights_truncated_shard": WeightsTruncatedShard,
    "weights_unreadable": WeightsUnreadable,
    "weights_wrong_dtype": WeightsWrongDtype,
    "weights_broken_config": WeightsBrokenConfig,
    "weights_leftover": WeightsLeftover,
    "weights_differ": WeightsDiffer,
    "weights_bit_flipped": WeightsBitFlipped,
}
