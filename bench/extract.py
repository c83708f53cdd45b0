"""Frozen features of a folder: `transfer` against ImageFolder + DataLoader(64, 2 workers) + timm in float32.

    python bench/extract.py ../shared/data/clothing ../shared/data/hymenoptera [--exact] [--rounds 3]

Each side runs in a process of its own, in turn, with an empty cache; the clock starts when the libraries are imported
and covers everything after that, building the network included. The ratio is that of the medians. Beside it: how
close the features are, what a linear SVM makes of them, the two limits (network alone, decoding alone) and which
share of the best possible overlap of the two the pipeline reaches, and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

BATCH = 8
SECONDS = 5.0  # for each limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--exact", action="store_true", help="float32 on our side too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["plain", "ours", "limits"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        {"plain": _plain, "ours": _ours, "limits": _limits}[arguments.side](arguments)
        return
    for folder in arguments.folders:
        _compare(folder, arguments)


def _compare(folder: Path, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sides: dict[str, list[dict]] = {"plain": [], "ours": []}
        for i in range(arguments.rounds):
            for side, results in sides.items():
                results.append(_run(folder, side, Path(scratch) / f"{side}{i}", arguments.exact))
        limits = _run(folder, "limits", Path(scratch) / "limits", arguments.exact)
        rows = {side: _load(Path(scratch) / f"{side}0") for side in sides}
    order = {path: i for i, path in enumerate(rows["plain"]["paths"].tolist())}
    plain_X = rows["plain"]["X"][[order[path] for path in rows["ours"]["paths"].tolist()]]
    ours_X, y = rows["ours"]["X"], rows["ours"]["y"]
    cosine = (plain_X * ours_X).sum(1) / np.linalg.norm(plain_X, axis=1) / np.linalg.norm(ours_X, axis=1)
    speed = {side: statistics.median(r["images_per_second"] for r in results) for side, results in sides.items()}
    spread = {side: [r["images_per_second"] for r in results] for side, results in sides.items()}
    best = 1 / (1 / limits["network"] + 1 / limits["decode"])
    print(f"\n{folder.name}: {len(y)} images, medians of {arguments.rounds} rounds")
    for side, name in (("plain", "ImageFolder + DataLoader + timm"), ("ours", "transfer")):
        low, high = min(spread[side]), max(spread[side])
        print(f"  {name:32} {speed[side]:7.1f} images/s ({low:.1f} to {high:.1f})", end="")
        print(f"   peak {max(r['peak_mb'] for r in sides[side]):.0f} MB")
    print(f"  ratio                            {speed['ours'] / speed['plain']:7.1f}")
    print(f"  pipeline alone, without set-up   {max(r['pipeline'] for r in sides['ours']):7.1f} images/s")
    print(f"  network alone / decoding alone   {limits['network']:7.1f} / {limits['decode']:.1f} images/s")
    print(f"  share of the best overlap        {max(r['pipeline'] for r in sides['ours']) / best:7.0%} of {best:.1f}")
    print(f"  cosine to the plain features     {cosine.mean():.5f} on average, {cosine.min():.5f} at worst")
    accuracies = [_svm_accuracy(X, y) for X in (plain_X, ours_X)]
    print(f"  linear SVM, 5-fold accuracy      {accuracies[0]:.2%} plain, {accuracies[1]:.2%} ours")
    print(f"  plan: {sides['ours'][0]['plan']}", flush=True)


def _run(folder: Path, side: str, out: Path, exact: bool) -> dict:
    command = [sys.executable, __file__, str(folder), "--side", side, "--out", str(out)] + ["--exact"] * exact
    subprocess.run(command, check=True)
    return json.loads(out.with_suffix(".json").read_text())


def _load(out: Path) -> dict[str, np.ndarray]:
    with np.load(out.with_suffix(".npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def _parts(folder: Path) -> list[Path]:
    """Return the folders whose children are classes."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return inside if any(child.is_dir() for child in inside[0].iterdir()) else [folder]


def _plain(arguments: argparse.Namespace) -> None:
    import plain
    import torch

    parts = _parts(arguments.folders[0])
    started = time.perf_counter()
    model, config = plain.load_network()
    model.eval()
    rows, labels, paths = [], [], []
    with torch.no_grad():
        for part in parts:
            loader = plain.folder_loader(part, config)
            paths += [path for path, _ in loader.dataset.samples]
            for images, targets in loader:
                rows.append(model(images).numpy())
                labels.append(targets.numpy())
    seconds = time.perf_counter() - started
    _save(arguments.out, np.concatenate(rows), np.concatenate(labels), paths, seconds, seconds, "float32, batch 64")


def _ours(arguments: argparse.Namespace) -> None:
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    from transfer import backbones, dataset, features
    from transfer.progress import Progress

    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        images = dataset.scan(arguments.folders[0])
        backbone = backbones.load_backbone()
        done = features.extract(
            images, backbone, exact=arguments.exact, cache=Path(cache), progress=Progress(quiet=True)
        )
        X = done.rows()
        seconds = time.perf_counter() - started
        pipeline = done.seconds_running
    _save(arguments.out, X, images.labels, images.paths, seconds, pipeline, str(done.plan))


def _limits(arguments: argparse.Namespace) -> None:
    """Measure the network on images in memory, and decoding without a network, on all cores."""
    from transfer import backbones, dataset, features, images

    images_here = dataset.scan(arguments.folders[0])
    backbone = backbones.load_backbone()
    with tempfile.TemporaryDirectory() as cache:
        plans = features.Plans(backbone, ["features"], "cpu", arguments.exact, Path(cache))
        runner = features.Runner(backbone, ["features"], plans, images_here.paths, exact=arguments.exact)
    size = runner.plan.batch_size
    batch = runner.load(runner.plan, range(size))

    def network(_: int) -> int:
        runner.forward(runner.plan, batch)
        return size

    def decode(i: int) -> int:
        images.load_view(images_here.paths[i * 7919 % len(images_here)], backbone.preprocessing)
        return 1

    speeds = {"network": _throughput(network), "decode": _throughput(decode)}
    arguments.out.with_suffix(".json").write_text(json.dumps(speeds))


def _throughput(work) -> float:
    import torch

    from transfer import machine

    counts = [0] * machine.count_cores()
    end = time.perf_counter() + SECONDS

    def loop(worker: int) -> None:
        torch.set_num_threads(1)
        i = worker
        while time.perf_counter() < end:
            counts[worker] += work(i)
            i += len(counts)

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(len(counts))]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def _save(out: Path, X, y, paths, seconds: float, pipeline_seconds: float, plan: str) -> None:
    absolute = np.array([str(Path(path).resolve()) for path in paths])
    np.savez(out.with_suffix(".npz"), X=X, y=y, paths=absolute)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children) / 1024
    result = {
        "images_per_second": len(X) / seconds,
        "pipeline": len(X) / pipeline_seconds,
        "peak_mb": peak,
        "plan": plan,
    }
    out.with_suffix(".json").write_text(json.dumps(result))


def _svm_accuracy(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import LinearSVC

    return float(cross_val_score(LinearSVC(C=0.003, max_iter=5000), X, y, cv=5, n_jobs=2).mean())


if __name__ == "__main__":
    main()
