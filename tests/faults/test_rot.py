"""A flipped bit is noticed by a checksum: caches are made again, checkpoints passed over, artefacts refused.

Rows 54 and 55 of docs/reliability.md. What stands beside the code that it is about: a shard in tests/test_cache.py, an
exported array in tests/test_features.py, a model in tests/test_runs.py, a checkpoint in tests/test_training.py.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
from pathlib import Path

import pytest
from faulty_disk import digests, transfer

from transfer.runs import load_run
from transfer.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")
TABLES = ("recipe.yaml", "split.csv", "predictions.csv", "metrics.json", "config.json", "history.csv")


@pytest.fixture(scope="module")
def tiny(weights: Path) -> list[str]:
    return ["--backbone", "test_resnet", "--weights", str(weights), "--exact", "-q"]


@pytest.fixture(scope="module")
def tuned(shapes: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `partial`."""
    folder = tmp_path_factory.mktemp("tuned")
    assert transfer(*partial(shapes, folder / "run", tiny)).code == 0
    return folder / "run"


def partial(shapes: Path, out: Path, tiny: list[str]) -> list[object]:
    return ["fit", shapes, "--recipe", "partial", "--epochs", "2", "--set", "train.min_steps=0", "--out", out, *tiny]


def flip(path: Path, at: float = 0.5) -> None:
    """Flip one bit of a file, by default one in its middle."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", TABLES)
def test_a_run_with_a_flipped_bit_in_a_table_is_refused(tuned: Path, shapes: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tuned, tmp_path / "copy"))
    assert load_run(copy).classes
    flip(copy / name)
    ended = transfer("predict", copy, shapes / "circle/00.png")
    assert ended.code == 4
    assert ended.said == (f"transfer: {copy / name} is missing or has changed since the run was written. Fit again.\n")


def test_every_file_of_a_run_but_its_pages_is_known_by_its_checksum(tuned: Path) -> None:
    info = load_run(tuned).info
    pages = {"README.md", "report.html", "suspects.csv", "near_duplicates.csv"}  # made of the others, at any time
    assert set(digests(tuned)) - pages == {*info["sha256"], "model.safetensors", "run.json"}
    assert set(TABLES) <= set(info["sha256"])


def test_a_run_of_an_earlier_version_has_no_checksums_and_is_read(tuned: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tuned, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    del info["sha256"]
    (copy / "run.json").write_text(json.dumps(info))
    flip(copy / "split.csv")
    assert load_run(copy).classes


def test_a_split_with_a_flipped_bit_is_refused_in_its_run_and_anybodys_own_elsewhere_is_not(
    tuned: Path, shapes: Path, tiny: list[str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tuned, tmp_path / "copy"))
    text = (copy / "split.csv").read_text()
    changed = text.replace(",val,", ",train,", 1)  # it fits the data, and nobody would know
    assert changed != text
    (copy / "split.csv").write_text(changed)
    fit = ["fit", shapes, "--recipe", "ridge", *tiny, "--out", tmp_path / "run", "--split"]
    ended = transfer(*fit, copy / "split.csv")
    assert ended.code == 4
    assert "split.csv has changed since its run was written" in ended.said
    (tmp_path / "mine.csv").write_text(changed)
    assert transfer(*fit, tmp_path / "mine.csv").code == 0


def test_a_cache_with_a_flipped_bit_is_made_again_with_a_line(
    shapes: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    assert transfer("features", shapes, *tiny, "--out", tmp_path / "a").code == 0
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    flip(shard)
    with caplog.at_level(logging.WARNING):
        assert transfer("features", shapes, *tiny, "--out", tmp_path / "b").code == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"Cached rows in {shard.name} are damaged (its checksum does not fit); computing them again."
    ]
    assert digests(tmp_path / "b") == digests(tmp_path / "a")


def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_weights(
    tuned: Path,
    shapes: Path,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)  # a checkpoint after every step
    step = loop._Training._step

    def interrupted(self, *args):
        if self.state.n_done == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    words = [*partial(shapes, tmp_path / "run", tiny), "--resume"]
    monkeypatch.setattr(loop._Training, "_step", interrupted)
    assert transfer(*words).code == 130
    monkeypatch.setattr(loop._Training, "_step", step)
    before, last = sorted((tmp_path / "cache/training").rglob("*.safetensors"))
    flip(last, 0.9)
    with caplog.at_level(logging.WARNING):
        assert transfer(*words).code == 0
    assert f"{last} is damaged; going on from the checkpoint before it." in caplog.text
    assert load_run(tmp_path / "run").info["training"]["was_resumed"]
    assert load_run(tmp_path / "run").info["model"] == load_run(tuned).info["model"]
    assert not before.exists()  # it was of use until the run was written
