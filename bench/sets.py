"""What `linear-svm` reaches on real sets, beside scikit-learn's LinearSVC on plainly extracted features.

    python bench/sets.py ../shared/data/* [--recipe NAME] [--only-ours]

Both see the same split. Plain: timm's own transform with Pillow, float32, then GridSearchCV(LinearSVC, C from 1e-5 to
1e-1 in 5 steps, 5 folds) on train and val together. Printed: test accuracy with its 95 % Wilson interval, and the exact
p-value of the difference on the same test images. No seconds: `extract.py` and `head.py` measure speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe", default="linear-svm")
    parser.add_argument("--only-ours", action="store_true", help="leave out the plain side, which takes minutes a set")
    parser.add_argument("--side", choices=["plain"], help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        _plain(arguments.folders[0], arguments.run)
        return
    print("| data | classes | train + val | test | transfer | plain LinearSVC | p |")
    print("|---|---|---|---|---|---|---|")
    for folder in arguments.folders:
        if folder.is_dir():
            print(_row(folder, arguments.recipe, arguments.only_ours), flush=True)


def _row(folder: Path, recipe: str, only_ours: bool) -> str:
    from transfer.metrics import paired_p_value
    from transfer.runs import load_run

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        environment = {**os.environ, "TRANSFER_CACHE": str(Path(scratch) / "cache"), "HF_HUB_OFFLINE": "1"}
        fit = ["fit", str(folder), "--recipe", recipe, "--out", str(out), "-q", "--no-report"]
        subprocess.run([sys.executable, "-m", "transfer.cli", *fit], env=environment, check=True, capture_output=True)
        run = load_run(out)
        test = run.metrics["test"]
        table = _table(out / "predictions.csv")
        ours = np.array([row["label"] == row["predicted"] for row in table])
        n_trained = sum(row["split"] != "test" for row in _table(out / "split.csv"))
        cells = [folder.name, str(len(run.classes)), str(n_trained), str(test["n"]), _accuracy(ours)]
        if only_ours:
            return "| " + " | ".join([*cells, "", ""]) + " |"
        command = [sys.executable, __file__, str(folder), "--side", "plain", "--run", str(out)]
        subprocess.run(command, env=environment, check=True)
        right = json.loads((out.parent / "plain.json").read_text())
        plain = np.array([right[row["path"]] for row in table])
        p = paired_p_value(ours, plain)
        return "| " + " | ".join([*cells, _accuracy(plain), f"{p:.2f}"]) + " |"


def _accuracy(correct: np.ndarray) -> str:
    from transfer.metrics import wilson

    low, high = wilson(int(correct.sum()), len(correct))
    return f"{correct.mean():.1%} ({low:.1%} to {high:.1%})"


def _plain(folder: Path, run: Path) -> None:
    import plain
    import timm
    import torch
    from PIL import Image
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import LinearSVC

    rows = _table(run / "split.csv")
    model, config = plain.load_network()
    model.eval()
    see = timm.data.create_transform(**config, is_training=False)

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> torch.Tensor:
            with Image.open(folder / rows[i]["path"]) as image:
                return see(image.convert("RGB"))

    with torch.no_grad():
        loader = torch.utils.data.DataLoader(Images(), batch_size=64, num_workers=2)
        X = np.concatenate([model(images).numpy() for images in loader])
    y = np.array([row["label"] for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    search = GridSearchCV(LinearSVC(), {"C": np.logspace(-5, -1, 5)}, cv=5, n_jobs=2).fit(X[~test], y[~test])
    predicted = search.predict(X)
    right = {rows[i]["path"]: bool(predicted[i] == y[i]) for i in np.flatnonzero(test)}
    (run.parent / "plain.json").write_text(json.dumps(right))


def _table(path: Path) -> list[dict[str, str]]:
    import csv

    with open(path, encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


if __name__ == "__main__":
    main()
