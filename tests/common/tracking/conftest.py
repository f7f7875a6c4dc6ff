"""Job folders as the pipeline writes them, and a reader of W&B's offline files."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.tracking.record import Recorder

Make = Callable[..., Path]


@pytest.fixture
def make_job(tmp_path: Path) -> Make:
    def make(
        number: int = 0,
        rows: int = 5,
        *,
        done: bool = True,
        stage: str = "imitate",
        inputs: dict[str, list[str]] | None = None,
        **config: Any,
    ) -> Path:
        fingerprint = (
            (stage.encode().hex()[:8] + f"{number:08x}") * 4 if inputs is not None else f"{number:08x}" * 8
        )
        folder = tmp_path / "results" / ".runs" / "thesis" / stage / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        axes = {"method": "opirl", "seed": number}
        (folder / "config.yaml").write_text(yaml.safe_dump({"agent": {"lr": 1e-3}, "axes": axes, **config}))
        record = {
            "git": {"commit": "c0" * 20},
            "parts": {"inputs": {"expert": ["ef" * 32]} if inputs is None else inputs},
        }
        (folder / "provenance.json").write_text(json.dumps(record))
        with Recorder(folder) as recorder:
            for row in range(rows):
                recorder.log(10 * row, **{"loss/total": 1 / (row + number + 1), "episodes": row})
        if done:
            (folder / "metrics.json").write_text('{"final_return": 12.5}')
            (folder / "DONE").touch()
        return folder

    return make


@pytest.fixture
def wandb_directory(tmp_path: Path) -> Path:
    return tmp_path / "results" / ".runs" / "wandb"


@pytest.fixture
def read_run() -> Callable[[Path], dict[str, Any]]:
    """What is in ``offline-run-*/run-*.wandb``: rows without W&B's own keys, config, summary, tags, ..."""
    wandb = pytest.importorskip("wandb")
    if not wandb.__version__.startswith("0.31."):
        pytest.skip(
            f"the file format is private, and read here as wandb 0.31 writes it, not {wandb.__version__}"
        )
    return _read_run


def _read_run(folder: Path) -> dict[str, Any]:
    from wandb.proto import wandb_internal_pb2 as proto

    (path,) = folder.glob("run-*.wandb")
    found: dict[str, Any] = {
        "rows": [],
        "steps": [],
        "summary": {},
        "config": {},
        "artifacts": [],
        "metrics": [],
    }
    for data in _records(path.read_bytes()):
        record = proto.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {
                "id": run.run_id,
                "project": run.project,
                "group": run.run_group,
                "name": run.display_name,
            }
            found |= {"job_type": run.job_type, "tags": list(run.tags)}
            found["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            found["steps"].append(int(row["_step"]))
            found["rows"].append({key: json.loads(value) for key, value in row.items() if key[0] != "_"})
        elif kind == "summary":
            found["summary"] |= {item.key: json.loads(item.value_json) for item in record.summary.update}
        elif kind == "metric":
            found["metrics"].append((record.metric.glob_name, record.metric.step_metric))
        elif kind == "artifact":
            found["artifacts"].append((record.artifact.name, json.loads(record.artifact.metadata)))
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format: a 7-byte header, then 32 KiB blocks of (crc32, length, type, payload)."""
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        payload = data[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(payload, zlib.crc32(bytes([kind])))
        position += 7 + length
        parts = payload if kind in (1, 2) else parts + payload
        if kind in (1, 4):
            yield parts
