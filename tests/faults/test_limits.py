"""Row 47 of docs/reliability.md and the limits below it: many files, many classes, large pictures, long names."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Ended
from encoded import encode
from hostile import fill
from PIL import Image

import transfer as library
from transfer import metrics
from transfer.dataset import Dataset, describe, draw_split, scan
from transfer.report.confusions import top_confusions


def write_files(root: Path, n_files: int, n_classes: int) -> Path:
    """Make files that pass for images: a format's first bytes, and a number that tells them apart."""
    for c in range(n_classes):
        (root / f"class_{c:05}").mkdir(parents=True)
    for i in range(n_files):
        (root / f"class_{i % n_classes:05}" / f"{i:07}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + str(i).encode())
    return root


def peak_of_scan(root: Path) -> tuple[int, Dataset]:
    tracemalloc.start()
    try:
        dataset = scan(root)
        return tracemalloc.get_traced_memory()[1], dataset
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_file_costs_a_scan_no_more_among_many_than_among_few(tmp_path: Path) -> None:
    scan(write_files(tmp_path / "first", 100, 10))  # what is imported, and kept, once
    few, _ = peak_of_scan(write_files(tmp_path / "few", 2_000, 100))
    many, dataset = peak_of_scan(write_files(tmp_path / "many", 10_000, 100))
    assert len(dataset) == 10_000
    per_file = (many - few) / 8_000
    assert 100 < per_file < 700  # its path, its checksum and a row of numbers


@pytest.mark.slow
def test_ten_thousand_classes_are_scanned_split_and_described(tmp_path: Path) -> None:
    dataset = scan(write_files(tmp_path, 30_000, 10_000))
    assert len(dataset.classes) == 10_000
    split = draw_split(dataset)
    assert np.bincount(dataset.labels[split.indices("train")]).min() >= 1
    assert len(describe(dataset, split)["classes"]) == 10_000
    assert max(map(len, [*dataset.notes, *split.reason])) < 300  # names a few of them


def test_scores_of_ten_thousand_classes_need_no_matrix() -> None:
    n_classes, labels = 10_000, np.arange(0, 10_000, 50)
    probabilities = np.zeros((len(labels), n_classes), np.float32)
    probabilities[np.arange(len(labels)), np.where(labels == 50, 7, labels)] = 1
    classes = [f"class {c}" for c in range(n_classes)]
    tracemalloc.start()
    try:
        scores = metrics.evaluate(probabilities, labels, classes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300e6  # a matrix alone has 800 MB
    assert len(json.dumps(scores)) < 3e6
    assert top_confusions(scores["confusion"], classes) == [
        {"label": "class 50", "predicted": "class 7", "n": 1, "share": 1.0}
    ]


def fit_and_report(counts: dict[str, int], weights: Path, tmp_path: Path) -> tuple[library.Run, str]:
    fill(tmp_path / "data", counts)
    run = library.fit(
        tmp_path / "data", "ridge", out=tmp_path / "run", backbone="test_resnet", weights=str(weights), quiet=True
    )
    return run, run.report.path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_sixty_classes_are_reported_by_their_confusions_without_a_matrix(weights: Path, tmp_path: Path) -> None:
    run, page = fit_and_report({f"class {c:02}": 4 for c in range(60)}, weights, tmp_path)
    assert len(run.metrics["test"]["per_class"]) == 60
    assert "class 59" in page
    assert len(page) < 3e6


@pytest.mark.slow
def test_twelve_hundred_classes_are_fitted_reported_and_predicted(weights: Path, tmp_path: Path) -> None:
    run, page = fit_and_report({f"class {c:04}": 3 for c in range(1200)}, weights, tmp_path)
    assert len(page) < 3e6
    assert "class 1199" in page
    assert "<th" in page
    scores = run.metrics["test"]
    assert len(scores["per_class"]) == 1200
    assert len(scores["confusion"]) <= scores["n"]  # counts that are not zero, no matrix
    seen = run.predict([tmp_path / "data/class 0007/000.png"], quiet=True)
    assert np.isfinite(seen.probabilities).all()
    assert seen.probabilities.shape == (1, 1200)


@pytest.mark.slow
def test_a_photograph_of_108_megapixels_is_decoded_at_a_fraction_of_its_memory(tmp_path: Path) -> None:
    Image.new("RGB", (12_000, 9_000), (10, 200, 30)).save(tmp_path / "large.jpg")
    code = (
        "import sys; from transfer.machine import peak_memory; from transfer.images import Preprocessing, load_view\n"
        "load_view(sys.argv[2], Preprocessing()); before = peak_memory()\n"
        "seen = load_view(sys.argv[1], Preprocessing())\n"
        "print(*seen.shape, *seen[:, 100, 100].tolist(), (peak_memory() - before) // 10**6)"
    )
    (tmp_path / "small.png").write_bytes(encode(Image.new("RGB", (300, 300)), "PNG"))
    command = [sys.executable, "-c", code, tmp_path / "large.jpg", tmp_path / "small.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert done[:3] == ["3", "224", "224"]
    assert np.abs(np.array(done[3:6], int) - [10, 200, 30]).max() < 4
    assert int(done[6]) < 60  # in full it takes 324 MB, and as much again to be turned into an array


@pytest.mark.slow
def test_a_png_of_108_megapixels_is_used_and_counted(
    weights: Path, tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    fill(tmp_path / "data", {"a": 5, "b": 5})
    Image.new("1", (12_000, 9_000), 1).save(tmp_path / "data/a/large.png")
    told = json.loads(transfer("inspect", "data", "--json", "-q").out)
    assert told["pixels"]["largest"] == "12000 x 9000"
    assert (told["n_used"], told["n_unreadable"]) == (11, 0)
