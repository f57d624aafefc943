"""A run's log: one JSON object a line, appended as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtbench.records import write_atomically


class RunLog:
    """``log.jsonl``.

    Args:
        path: The file; made when the first line is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, numbers: dict[str, Any]) -> None:
        """Append a line; ``numbers["updates"]`` says where in the run it belongs."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(numbers) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a kill may have left half of one."""
        if not self._path.exists():
            return []
        lines = []
        for line in self._path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def cut(self, updates: int) -> None:
        """Drop what lies beyond a checkpoint: a resumed run writes it again."""
        kept = [line for line in self.read() if line["updates"] <= updates]
        if self._path.exists():
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(self._path, lambda temporary: temporary.write_text(text))
