"""Choosing C and fitting a linear SVM: `transfer` beside scikit-learn's grid search, and how it grows.

    python bench/linear.py ../shared/data/clothing ../shared/data/signdigits ../shared/data/cifar10 [--rounds 3]
    python bench/linear.py --scaling [--n 5000,20000,50000] [--d 512,1280,2048]

Of each set 1,500 images of 10 classes are fitted on, the others are scored; the features are EfficientNet-Lite0's, from
the cache, and both sides get the very same rows. The plain side is `GridSearchCV(LinearSVC(), 7 values of C, cv=5)`.
`--scaling` fits on synthetic features in a .npy file that is memory-mapped, each in a process of its own: seconds, and
the most memory that the process had of its own (mapped files, which the system can take back, are counted apart).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

N_TRAIN = 1500
GRID = [10.0**e for e in range(-4, 3)]  # 7 values of C
N_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--n", default="5000,20000,50000")
    parser.add_argument("--d", default="512,2048")
    parser.add_argument("--kinds", default="linear-svm,logistic,ridge")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _one(arguments.one[0], Path(arguments.one[1]))
    elif arguments.scaling:
        _scaling(arguments)
    else:
        _compare(arguments.folders, arguments.rounds)


def _compare(folders: list[Path], rounds: int) -> None:
    print("| set | images fitted on, scored | plain: s | ours: s | ratio | plain: accuracy | ours |")
    print("|---|---|---|---|---|---|---|")
    for folder in folders:
        X, y, fitted_on, scored = _rows(folder)
        plain, ours = [], []
        for _ in range(rounds):  # one after the other, so that both meet the same machine
            plain.append(_plain(X[fitted_on], y[fitted_on], X[scored], y[scored]))
            ours.append(_ours(X[fitted_on], y[fitted_on], X[scored], y[scored]))
        slow, fast = (statistics.median(seconds for seconds, _ in side) for side in (plain, ours))
        print(
            f"| {folder.name} | {len(fitted_on)} x {X.shape[1]}, {len(scored)} | {slow:.1f} | {fast:.1f} | "
            f"{slow / fast:.1f} | {plain[0][1]:.1%} | {ours[0][1]:.1%} |",
            flush=True,
        )


def _rows(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features and labels, and the positions that are fitted on and scored; copies are not parted."""
    from transfer import extract_features

    found = extract_features(folder, quiet=True)
    _, first = np.unique(np.array(found.dataset.hashes), return_index=True)
    order = np.random.default_rng(0).permutation(first)
    per_class = N_TRAIN // N_CLASSES
    fitted_on = np.concatenate([order[found.y[order] == c][:per_class] for c in range(N_CLASSES)])
    scored = np.setdiff1d(order, fitted_on)
    return found.X, found.y, fitted_on, scored


def _plain(X: np.ndarray, y: np.ndarray, X_new: np.ndarray, y_new: np.ndarray) -> tuple[float, float]:
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import LinearSVC

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many of its fits do not converge in 1,000 iterations
        search = GridSearchCV(LinearSVC(), {"C": GRID}, cv=5, n_jobs=-1).fit(X, y)
    return time.perf_counter() - started, float(search.score(X_new, y_new))


def _ours(X: np.ndarray, y: np.ndarray, X_new: np.ndarray, y_new: np.ndarray) -> tuple[float, float]:
    from transfer.heads import fit_head

    started = time.perf_counter()
    head = fit_head("linear-svm", X, y, N_CLASSES).head
    return time.perf_counter() - started, float((head.predict(X_new) == y_new).mean())


def _scaling(arguments: argparse.Namespace) -> None:
    print("| n | d | head | s | memory of its own, MB | of it above an empty process |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for d in map(int, arguments.d.split(",")):
            for n in map(int, arguments.n.split(",")):
                path = Path(folder) / f"{n}x{d}.npy"
                _write_synthetic(path, n, d)
                for kind in arguments.kinds.split(","):
                    command = [sys.executable, __file__, "--one", kind, str(path)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                    print(f"| {n} | {d} | {kind} | {done[0]} | {done[1]} | {done[2]} |", flush=True)
                path.unlink()


def _write_synthetic(path: Path, n: int, d: int) -> None:
    """Write features that look like pooled activations: positive, of decaying variance, ten classes that overlap."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, d)) * 0.15
    scale = (1 + np.arange(d)) ** -0.5
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    y = np.arange(n) % N_CLASSES
    for start in range(0, n, 5000):
        some = y[start : start + 5000]
        rows[start : start + 5000] = np.maximum((centres[some] + rng.normal(size=(len(some), d)) * scale) @ mixing, 0)
    rows.flush()


def _one(kind: str, path: Path) -> None:
    from transfer.heads import fit_head

    X = np.load(path, mmap_mode="r")
    y = np.arange(len(X)) % N_CLASSES
    fit_head(kind, np.asarray(X[:100]), y[:100], N_CLASSES)  # what is imported is not counted
    before, peak, is_over = _own_memory(), [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            peak[0] = max(peak[0], _own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    fit_head(kind, X, y, N_CLASSES)
    seconds = time.perf_counter() - started
    is_over.set()
    watcher.join()
    print(f"{seconds:.1f} {peak[0] / 1e6:.0f} {(peak[0] - before) / 1e6:.0f}")


def _own_memory() -> int:
    """Return the bytes of memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
