"""Fine-tuning deeper layers: `transfer fit` against the plain way, same weights, data, resolution and epochs.

    python bench/finetune.py ../shared/data/clothing [--epochs 10] [--full-epochs 3] [--plain-epochs 2]

`partial` trains the last two stages of EfficientNet-Lite0 from cached views, `full` all layers from decoded images. The
plain way: ImageFolder, timm's training transform (random resized crops, flips), DataLoader(32, 2 workers), float32 in
the default layout, AdamW, the same layers trainable and the others in eval mode without gradients. Every side is a
process of its own with an empty cache, its clock starts with the process. Both go through as many epochs: the second
training on train and val, which transfer adds by default where images are few, is left out. The plain way does the
same work in every epoch, so only the first `--plain-epochs` are run, and their mean stands for the others.

Printed: seconds of the whole job (imports, features, head, cache building, epochs, report), seconds of a later epoch,
and the ratios.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with train/ and other parts")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--full-epochs", type=int, default=3)
    parser.add_argument("--plain-epochs", type=int, default=2)
    parser.add_argument("--only", choices=["partial", "full"])
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        _plain(arguments.folder, arguments.run, arguments.plain, arguments.plain_epochs, arguments.only == "full")
        return
    for strategy, n_epochs in (("partial", arguments.epochs), ("full", arguments.full_epochs)):
        if arguments.only in (None, strategy):
            _compare(arguments.folder, strategy, n_epochs, arguments.plain_epochs)


def _compare(folder: Path, strategy: str, n_epochs: int, plain_epochs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        fit = ["fit", str(folder), "--recipe", strategy, "--epochs", str(n_epochs), "--out", str(run), "-q"]
        fit += ["--set", "train.min_steps=0", "--set", "train.refit=false", "--no-report"]
        environment = {**os.environ, "TRANSFER_CACHE": str(Path(scratch) / "cache"), "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        command = [sys.executable, "-m", "transfer.cli", *fit]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        ours = time.perf_counter() - started
        with open(run / "history.csv", newline="") as source:
            seconds = [float(row["seconds"]) for row in csv.DictReader(source)]
        info = json.loads((run / "run.json").read_text())
        our_epoch = (seconds[-1] - seconds[1]) / (len(seconds) - 2)
        out = Path(scratch) / "plain.json"
        command = [sys.executable, __file__, str(folder), "--plain", str(out), "--run", str(run), "--only", strategy]
        started = time.perf_counter()
        subprocess.run([*command, "--plain-epochs", str(plain_epochs)], env=environment, check=True)
        plain = json.loads(out.read_text())
        start_up = time.perf_counter() - started - sum(plain["epochs"])
    plain_epoch = sum(plain["epochs"]) / plain_epochs
    whole = start_up + n_epochs * plain_epoch
    print(f"\n{folder.name}, {strategy}, {n_epochs} epochs of {plain['n_train']} images and {plain['n_val']} of val")
    print(f"  trained in {info['training']['dtype']}, {info['training']['views']} views; {info['seconds']}")
    print(f"  whole job       {ours:8.1f} s   plain {whole:8.1f} s   ratio {whole / ours:5.1f}")
    print(f"  a later epoch   {our_epoch:8.1f} s   plain {plain_epoch:8.1f} s   ratio {plain_epoch / our_epoch:5.1f}")


def _plain(folder: Path, run: Path, out: Path, n_epochs: int, is_full: bool) -> None:
    import plain

    done = plain.fine_tune(folder, run, n_epochs, freeze=0 if is_full else 5)
    out.write_text(
        json.dumps({"epochs": done.seconds, "n_train": done.n_images["train"], "n_val": done.n_images["val"]})
    )


if __name__ == "__main__":
    main()
