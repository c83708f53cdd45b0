"""The whole job: `transfer fit`, which chooses for itself, against plain fine-tuning of all layers for five epochs.

    python bench/whole.py ../shared/data/clothing [--epochs 5] [--lr 0.001,0.0003] [--out bench/results/whole.jsonl]

Both are processes of their own with an empty cache; the clock starts with the process. The plain way (`plain.py`):
ImageFolder's loading on the same split, timm's training transform, DataLoader(32, 2 workers), float32, AdamW with one
cycle of the rate, a new head, val read in every epoch and test once at the end. It is run once for each rate of `--lr`.
`transfer fit` prints, checks and reports whatever it usually does, its page included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import add_cell, read_cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", default="0.001,0.0003")
    parser.add_argument("--out", type=Path, default=Path("bench/results/whole.jsonl"))
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        _plain(arguments.folder, arguments.run, arguments.plain, arguments.epochs, float(arguments.lr))
        return
    known = read_cells(arguments.out)
    with tempfile.TemporaryDirectory() as scratch:
        row = {"cell": [arguments.folder.name], "auto": _fit(arguments.folder, Path(scratch)), "plain": []}
        for lr in arguments.lr.split(","):
            command = [sys.executable, __file__, str(arguments.folder), "--plain", f"{scratch}/plain.json", "--lr", lr]
            command += ["--epochs", str(arguments.epochs), "--run", f"{scratch}/run"]
            seconds = _time(command, os.environ)
            row["plain"].append(
                {"lr": float(lr), "seconds": seconds, **json.loads(Path(scratch, "plain.json").read_text())}
            )
    add_cell(arguments.out, known, row)
    ours = row["auto"]
    print(f"auto, chose {ours['chosen']}: {ours['seconds']:.0f} s, test {ours['test']:.1%} of {ours['n']}")
    for theirs in row["plain"]:
        print(f"plain, {arguments.epochs} epochs at {theirs['lr']}: {theirs['seconds']:.0f} s "
              f"({theirs['seconds'] / ours['seconds']:.1f} times), test {theirs['test']:.1%}")  # fmt: skip


def _fit(folder: Path, scratch: Path) -> dict:
    environment = {**os.environ, "TRANSFER_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "transfer.cli", "fit", str(folder), "--out", str(scratch / "run"), "-q"]
    seconds = _time(command, environment)
    info = json.loads((scratch / "run" / "run.json").read_text())
    test = json.loads((scratch / "run" / "metrics.json").read_text())["test"]
    choice = json.loads((scratch / "run" / "choice.json").read_text())
    return {
        "seconds": seconds,
        "chosen": choice["chosen"],
        "test": test["accuracy"],
        "n": test["n"],
        "parts": info["seconds"],
        "machine": info["machine"],
    }


def _plain(folder: Path, run: Path, out: Path, n_epochs: int, lr: float) -> None:
    import plain

    done = plain.fine_tune(folder, run, n_epochs, lr=lr, is_annealed=True, test=True)
    out.write_text(json.dumps({"test": done.correct["test"], "val": done.correct["val"], "epochs": done.seconds}))


def _time(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - started, 1)


if __name__ == "__main__":
    main()
