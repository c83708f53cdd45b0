"""Killed at random moments and started again, a command gives what one that was left alone gives, to the bit.

    python bench/kills.py ../shared/data/signdigits [--kills 50] [--jobs features partial] [--tiny]

Ten images of each class; `fit` sees them at 96 pixels. Each command is killed with SIGKILL after a random time, once it
has begun to work, started again (a training with `--resume`), and killed again, until one gets through; the next one
starts with an empty cache. Shards hold 16 rows and a checkpoint is written after every step, so that there is always a
write to be killed in. Printed: how many kills it took, how many of those that got through have the files of the quiet
one to the bit, and how many half-written files were left. With `--out`, a line of JSON for each job is added to a file.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

JOBS = ("features", "linear-svm", "frozen", "partial", "full", "auto")
_PER_CLASS = 10
_IMPORTED = ["torch", "timm", "sklearn.linear_model", "transfer.cli", "transfer.strategies", "transfer.features"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=["partial"])
    parser.add_argument("--tiny", action="store_true", help="timm's test_resnet with random weights")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, help="a JSON lines file to add to")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("forkserver")  # what takes seconds to import is imported once
    context.set_forkserver_preload(_IMPORTED)
    for job in arguments.jobs:
        with tempfile.TemporaryDirectory() as scratch:
            row = Kills(arguments, job, Path(scratch), context).run()
        print(json.dumps(row), flush=True)
        if arguments.out:
            with open(arguments.out, "a", encoding="utf-8") as target:
                target.write(json.dumps(row) + "\n")


class Kills:
    """The kills of one command, in a folder of their own."""

    def __init__(self, arguments: argparse.Namespace, job: str, scratch: Path, context: ForkServerContext) -> None:
        self.arguments, self.job, self.scratch, self.context = arguments, job, scratch, context
        self.data = scratch / "data"
        classes = sorted(path for path in arguments.folder.rglob("*") if path.is_dir() and list(path.glob("*.*")))
        for folder in {path.name: path for path in classes}.values():
            (self.data / folder.name).mkdir(parents=True)
            for image in sorted(folder.glob("*.*"))[:_PER_CLASS]:
                shutil.copy(image, self.data / folder.name)
        if arguments.tiny:
            _write_tiny_weights(scratch / "tiny.safetensors")

    def run(self) -> dict:
        """Kill until there were as many kills as asked for; return what was seen."""
        self.start("first").join()  # of which only the caches of the libraries are wanted
        started = time.perf_counter()
        quiet = self.start("quiet")
        while quiet.is_alive() and not list(self.cache("quiet").glob("*")):
            time.sleep(0.005)
        begun = time.perf_counter() - started
        quiet.join()
        assert quiet.exitcode == 0, (self.scratch / "said").read_text()
        seconds = time.perf_counter() - started
        expected = self.result("quiet")
        rng = random.Random(0)
        n_kills = n_done = n_same = 0
        while n_kills < self.arguments.kills or self.is_unfinished(f"{n_done}"):
            name = f"{n_done}"
            running = self.start(name)
            running.join(rng.uniform(begun, seconds) if n_kills < self.arguments.kills else None)
            if running.is_alive():
                running.kill()
                running.join()
                n_kills += 1
                if not (self.scratch / name).exists():
                    continue  # else it was on its way out, all done
            else:
                assert running.exitcode == 0, (self.scratch / "said").read_text()
            n_done += 1
            found = self.result(name)
            differing = sorted(file for file in {*found, *expected} if found.get(file) != expected.get(file))
            n_same += not differing
            if differing:
                furthest = self.furthest(name) if found.keys() == expected.keys() else math.inf
                print(f"{name} differs in {', '.join(differing)}: numbers by {furthest:.1g} at most", flush=True)
            print(f"{self.job}: {n_kills} kills, {n_same} of {n_done} that got through are the same", flush=True)
        return {
            "job": self.job,
            "backbone": "test_resnet" if self.arguments.tiny else "tf_efficientnet_lite0",
            "n_kills": n_kills,
            "n_through": n_done,
            "n_same": n_same,
            "n_left": len(list(self.scratch.rglob("*.partial"))),
            "seconds": round(seconds, 1),
            "begun_after": round(begun, 1),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }

    def start(self, name: str) -> BaseProcess:
        """Start the command; what it measured of the machine comes from the quiet one, so that all compute alike."""
        if name.isdigit() and not self.cache(name).exists():
            self.cache(name).mkdir()
            for memo in self.cache("quiet").glob("*.json"):
                shutil.copy(memo, self.cache(name))
        words = ["features", str(self.data)]
        if self.job != "features":
            words = ["fit", str(self.data), "--recipe", self.job, "--no-report"]
            words += ["--set", "features.image_size=96"]
        if self.job in ("partial", "full", "auto"):
            words += ["--set", "train.min_steps=0", "--set", "train.views=2", "--epochs", str(self.arguments.epochs)]
            words += ["--resume"]
        if self.arguments.tiny:
            words += ["--backbone", "test_resnet", "--weights", str(self.scratch / "tiny.safetensors")]
        words += ["--out", str(self.scratch / name), "--exact", "-q"]
        running = self.context.Process(target=_run, args=(words, self.cache(name), self.scratch / "said"))
        running.start()
        return running

    def cache(self, name: str) -> Path:
        """Return the folder of the cache of one chain of kills."""
        return self.scratch / f"cache-{name}"

    def is_unfinished(self, name: str) -> bool:
        """Whether a chain of kills was begun and has not got through."""
        return self.cache(name).exists()

    def result(self, name: str) -> dict[str, str]:
        """Return the checksums of what must be the same to the bit."""
        kinds = ("*.npy", "index.csv", "*.safetensors", "split.csv", "predictions.csv")
        found = [path for kind in kinds for path in (self.scratch / name).glob(kind)]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def furthest(self, name: str) -> float:
        """Return the largest difference between the arrays of a command and those of the quiet one."""
        largest = 0.0
        for path in (self.scratch / "quiet").rglob("*"):
            if path.suffix in (".npy", ".safetensors"):
                ours, theirs = _arrays(self.scratch / name / path.name), _arrays(path)
                for key, array in theirs.items():
                    largest = max(largest, float(np.abs(ours[key].astype(float) - array).max(initial=0.0)))
        return largest


def _arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path) if path.suffix == ".safetensors" else {"": np.load(path)}


def _run(words: list[str], cache: Path, said: Path) -> None:
    from transfer import cli
    from transfer.cache import filling
    from transfer.training import loop

    os.environ["TRANSFER_CACHE"], os.environ["HF_HUB_OFFLINE"] = str(cache), "1"
    with open(said, "wb") as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
    filling._SHARD_ROWS, loop._SAVE_SECONDS = 16, 0.0
    sys.argv = ["transfer", *words]
    cli.main()


def _write_tiny_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from transfer.backbones import build

    torch.manual_seed(0)
    save_file(build("test_resnet").state_dict(), path)


if __name__ == "__main__":
    main()
