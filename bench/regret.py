"""Regret: what it costs to let `auto` choose, against the best way of training in hindsight and against fixed rules.

    python bench/regret.py ../shared/data/cifar10 ../shared/data/clothing --per-class 2,5,10,25,100,all --seeds 2
    python bench/regret.py --show [--csv bench/results/regret.csv] [--figure docs/regret.svg]

A cell is a dataset, a number of images per class and a seed; in each, every arm alone and `auto` with and without its
race are a `transfer fit` as a process of its own. A JSON line per fit in `--out`; what is there is not run again, so
the grid can grow by and by. FOLDER is any folder that `fit` takes.

The frozen features of a dataset are extracted once, before its first cell, and every fit starts from a cache that has
them and nothing else. `seconds` is the fit's own time; `feature_seconds` what the features of its images took, which is
added once to the time of a policy, and once to that of running every arm. Where machines of two kinds took part in a
cell, its times are not compared.

A test part of a few hundred images tells two ways apart by some points only. So a run is also scored on images that its
seed has not drawn (`--others`, at most so many; with `all` there are none), where `transfer evaluate` does so after the
seconds have been read; accuracy is then that on both together, in cells where every arm and `auto` have them. A row
without them is compared on the test part alone.

Regret is the test accuracy of the oracle's arm less that of a policy, in points. The oracle's arm is the best by mean
accuracy on the *other* seeds of the same dataset and size, and it is scored on this one, since the best of several
noisy readings flatters itself; with a single seed it is the best on that very seed, and the table says so. Policies:

* always one arm: `taps` is `linear-svm` on the layers, or two of them, that do best in cross-validation;
* `threshold`: `linear-svm` below a number of images per class, from there on one deeper arm, both fitted on the other
  datasets (leave-one-dataset-out);
* `auto`, and `auto, no race`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from cells import add_cell, read_cells

ARMS = ("linear-svm", "frozen", "taps", "partial", "full")  # from the cheapest on
EXTRA = {"taps": ["--recipe", "linear-svm", "--tap", "search"]}  # what is not a recipe's name
AUTO = {"auto": [], "auto, no race": ["--no-race"]}
_DIFFERING = 10  # one image in so many, where it is said what chance alone would do
Cell = tuple[str, str, int]  # dataset, images per class, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--per-class", default="2,5,10,25,100,all")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--policies", default=",".join([*ARMS, "auto", "auto-no-race"]))
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--others", type=int, default=1500, help="images besides the test part to score on, at most")
    parser.add_argument("--out", type=Path, default=Path("bench/results/regret.jsonl"))
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    known = read_cells(arguments.out)
    if not arguments.show:
        frozen = FrozenFeatures(arguments.settings)
        wanted = [name.replace("auto-no-race", "auto, no race") for name in arguments.policies.split(",")]
        for size, seed, folder in itertools.product(
            arguments.per_class.split(","), range(arguments.seeds), arguments.folders
        ):
            for policy in wanted:
                key = [folder.name, size, seed, policy, sorted(arguments.settings)]
                if key not in [row["cell"] for row in known]:
                    row = _fit(folder, size, seed, policy, arguments.settings, frozen, arguments.others)
                    add_cell(arguments.out, known, {"cell": key, **row})
    known = [row for row in known if row["cell"][-1] == sorted(arguments.settings)]
    table = _by_cell(known)
    print(f"\n{len(table)} cells, of which {len(_complete(table))} have every arm and auto.\n")
    _print_accuracies(table)
    _print_regrets(_complete(table))
    if arguments.csv:
        _write_csv(arguments.csv, known)
    if arguments.figure:
        _draw(arguments.figure, _complete(table))


class FrozenFeatures:
    """Caches with the frozen features of whole datasets, made when they are first asked for; beside each is its run."""

    def __init__(self, settings: list[str]) -> None:
        self._settings = [each for each in settings if not each.startswith("train.")]
        self._scratch = tempfile.TemporaryDirectory()
        self._made: dict[Path, tuple[Path, float]] = {}

    def of(self, folder: Path) -> tuple[Path, float]:
        """Return a cache that has them, and what an image took, in seconds."""
        if folder not in self._made:
            home = Path(self._scratch.name) / str(len(self._made))
            command = [sys.executable, "-m", "transfer.cli", "fit", str(folder), "--recipe", "linear-svm", "-q"]
            command += ["--no-report", "--out", str(home / "run")]
            command += [word for each in self._settings for word in ("--set", each)]
            _run(command, home / "cache")
            info = json.loads((home / "run" / "run.json").read_text())
            self._made[folder] = home / "cache", info["seconds"]["features"] / info["data"]["n_used"]
        return self._made[folder]


def _run(command: list[str], cache: Path) -> str:
    environment = {**os.environ, "TRANSFER_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def _fit(
    folder: Path, size: str, seed: int, policy: str, settings: list[str], frozen: FrozenFeatures, n_others: int
) -> dict:
    features, seconds_per_image = frozen.of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        way = EXTRA.get(policy, ["--recipe", "auto" if policy in AUTO else policy])
        command = [sys.executable, "-m", "transfer.cli", "fit", str(folder), *way, "--seed", str(seed)]
        command += ["--out", str(run), "--json", "-q", "--no-report", *AUTO.get(policy, [])]
        command += ["--per-class", size] * (size != "all")
        trains = policy not in ("linear-svm", "frozen", "taps")
        command += [word for each in settings if trains or not each.startswith("train.") for word in ("--set", each)]
        cache = Path(scratch) / "cache"
        shutil.copytree(features, cache)
        started = time.perf_counter()
        scores = json.loads(_run(command, cache))
        seconds = round(time.perf_counter() - started, 1)
        info = json.loads((run / "run.json").read_text())
        choice = json.loads((run / "choice.json").read_text()) if policy in AUTO else None
        images = _read_split(run)
        others = _choose_others(_read_split(features.parent / "run"), images, n_others)
        accuracy = _score(run, folder, others, cache) if others else None
    return {
        "test": scores["test"]["accuracy"],
        "n": scores["test"]["n"],
        "others": accuracy,
        "n_others": len(others),
        "seconds": seconds,
        "feature_seconds": round(len(images) * seconds_per_image, 1),
        "chosen": choice["chosen"] if choice else policy,
        "arms": [[arm["name"], arm["accuracy"], arm["gap"], arm["standard_error"]] for arm in choice["arms"]]
        if choice
        else None,
        "was_bound": choice["budget"]["was_bound"] if choice else None,
        "machine": info["machine"],
    }


def _read_split(run: Path) -> list[dict]:
    with open(run / "split.csv", newline="") as source:
        return list(csv.DictReader(source))


def _choose_others(rows: list[dict], known: list[dict], most: int) -> list[dict]:
    """Return at most so many images that a run knows nothing of, each content once; the same ones for every policy."""
    contents = {row["sha256"] for row in known}
    unknown = {row["sha256"]: row for row in rows if row["sha256"] not in contents}
    return [unknown[content] for content in sorted(unknown)[:most]]  # as good as at random


def _score(run: Path, folder: Path, images: list[dict], cache: Path) -> float:
    table = run.parent / "others.csv"
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label"])
        writer.writerows(((folder / row["path"]).resolve(), row["label"]) for row in images)
    command = [sys.executable, "-m", "transfer.cli", "evaluate", str(run), str(table), "--json", "-q"]
    scores = json.loads(_run(command, cache))
    assert (scores["n"], scores["n_seen_in_training"]) == (len(images), 0)
    return scores["accuracy"]


def _by_cell(rows: list[dict]) -> dict[Cell, dict[str, dict]]:
    table: dict[Cell, dict[str, dict]] = defaultdict(dict)
    for row in rows:
        name, size, seed, policy, _ = row["cell"]
        table[name, size, seed][policy] = dict(row)
    for found in table.values():
        has_others = all(found[policy].get("n_others") for policy in (*ARMS, "auto") if policy in found)
        for row in found.values():
            n_others = row.get("n_others", 0) if has_others else 0
            row["n_scored"] = row["n"] + n_others
            row["accuracy"] = (row["n"] * row["test"] + n_others * (row.get("others") or 0.0)) / row["n_scored"]
    return dict(table)


def _complete(table: dict[Cell, dict[str, dict]]) -> dict[Cell, dict[str, dict]]:
    return {cell: found for cell, found in table.items() if {*ARMS, "auto"} <= set(found)}


def _print_accuracies(table: dict[Cell, dict[str, dict]]) -> None:
    policies = [*ARMS, *AUTO]
    print(f"| data | images per class | seed | {' | '.join(policies)} | auto chose |")
    print("|---" * (len(policies) + 4) + "|")
    for (name, size, seed), found in sorted(
        table.items(), key=lambda item: (item[0][0], _number(item[0][1]), item[0][2])
    ):
        shown = [
            f"{100 * found[p]['accuracy']:.1f} ({found[p]['seconds']:.0f} s)" if p in found else "" for p in policies
        ]
        print(f"| {name} | {size} | {seed} | {' | '.join(shown)} | {found.get('auto', {}).get('chosen', '')} |")


def _print_regrets(table: dict[Cell, dict[str, dict]]) -> None:
    if not table:
        return
    sizes = sorted({size for _, size, _ in table}, key=_number)
    n_cells = {size: sum(cell[1] == size for cell in table) for size in sizes}
    print("\nMean regret in points, the largest in brackets:\n")
    print("| policy |", " | ".join(f"{size} per class ({n_cells[size]} cells)" for size in sizes), end="")
    print(f" | all {len(table)} | 95th percentile | seconds, share of running every arm |")
    print("|---" * (len(sizes) + 4) + "|")
    for policy, regrets in sorted(_regrets(table).items(), key=lambda item: statistics.mean(item[1].values())):
        values = sorted(regrets.values())
        of_size = [[value for cell, value in regrets.items() if cell[1] == size] for size in sizes]
        by_size = " | ".join(f"{statistics.mean(each):.1f} ({max(each):.1f})" if each else "" for each in of_size)
        name = policy if len(values) == len(table) else f"{policy} ({len(values)} cells)"
        high = values[min(len(values) - 1, math.ceil(0.95 * len(values)) - 1)]
        shares = _shares(table, policy)
        share = f"{statistics.mean(shares):.0%}" if shares else ""
        print(f"| {name} | {by_size} | {statistics.mean(values):.2f} | {high:.1f} | {share} |")
    print(
        f"\nA policy that answers one image in {_DIFFERING} otherwise than the oracle's arm, as often right, "
        f"has a 95th percentile of {_chance(table):.1f} by chance alone."
    )
    alone = sum(len(_others(table, cell)) == 0 for cell in table)
    if alone:
        print(
            f"\n{alone} of {len(table)} cells have one seed: their oracle is picked on the seed that it is scored on."
        )


def _regrets(table: dict[Cell, dict[str, dict]]) -> dict[str, dict[Cell, float]]:
    """Return points below the oracle's arm, by policy and cell."""
    found: dict[str, dict[Cell, float]] = defaultdict(dict)
    for cell, policies in table.items():
        best = policies[_oracle(table, cell)]
        chosen = {policy: policies[policy] for policy in (*ARMS, *AUTO) if policy in policies}
        if len({name for name, _, _ in table}) > 1:
            chosen["threshold on images per class"] = policies[_threshold_arm(table, cell)]
        for policy, row in chosen.items():
            measure = "accuracy" if row["n_scored"] == best["n_scored"] else "test"
            found[policy][cell] = 100 * (best[measure] - row[measure])
    return found


def _chance(table: dict[Cell, dict[str, dict]]) -> float:
    """Return the 95th percentile of differences that only the choice of the test images makes, in points."""
    errors = [100 * math.sqrt(1 / _DIFFERING / found[ARMS[0]]["n_scored"]) for found in table.values()]
    draws = sorted(statistics.NormalDist(0, error).inv_cdf((i + 0.5) / 200) for error in errors for i in range(200))
    return draws[round(0.95 * len(draws))]


def _shares(table: dict[Cell, dict[str, dict]], policy: str) -> list[float]:
    """Return the time of a policy as a share of running every arm, in each cell that one kind of machine has run.

    The features are counted once in both.
    """
    shares = []
    for found in table.values():
        if policy in found and len({found[each]["machine"] for each in (policy, *ARMS)}) == 1:
            features = found[policy]["feature_seconds"]
            every_arm = sum(found[arm]["seconds"] for arm in ARMS)
            shares.append((features + found[policy]["seconds"]) / (features + every_arm))
    return shares


def _others(table: dict[Cell, dict[str, dict]], cell: Cell) -> list[Cell]:
    """Return the same dataset and size with other seeds."""
    return [other for other in table if other[:2] == cell[:2] and other != cell]


def _oracle(table: dict[Cell, dict[str, dict]], cell: Cell) -> str:
    judges = _others(table, cell) or [cell]
    return max(ARMS, key=lambda arm: statistics.mean(table[other][arm]["accuracy"] for other in judges))


def _threshold_arm(table: dict[Cell, dict[str, dict]], cell: Cell) -> str:
    """Return the arm of the best threshold and deeper arm on all other datasets."""
    others = [other for other in table if other[0] != cell[0]]
    bounds = [*sorted({_number(size) for _, size, _ in table}), math.inf]

    def total(bound: float, arm: str) -> float:
        return sum(table[o][arm if _number(o[1]) >= bound else ARMS[0]]["accuracy"] for o in others)

    bound, arm = max(itertools.product(bounds, ARMS[1:]), key=lambda pair: total(*pair))
    return arm if _number(cell[1]) >= bound else ARMS[0]


def _number(size: str) -> float:
    return 1e9 if size == "all" else float(size)


def _write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as out:
        writer = csv.writer(out)
        columns = ["chosen", "test", "n", "others", "n_others", "seconds", "feature_seconds", "machine"]
        writer.writerow(["data", "per_class", "seed", "policy", *columns])
        for row in rows:
            name, size, seed, policy, _ = row["cell"]
            writer.writerow([name, size, seed, policy, *(row.get(column) for column in columns)])


def _draw(path: Path, table: dict[Cell, dict[str, dict]]) -> None:
    """Draw mean regret against time as a share of running every arm, a point for each policy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for policy, regrets in _regrets(table).items():
        shares = _shares(table, policy)
        if shares and len(regrets) == len(table):  # of other cells it would not compare
            x, y = statistics.mean(shares), statistics.mean(regrets.values())
            axes.scatter(x, y, s=60, color="C1" if policy in AUTO else "C0")
            axes.annotate(policy, (x, y), xytext=(6, 6), textcoords="offset points")
    axes.set_xlabel("time, as a share of running every arm")
    axes.set_ylabel("mean regret, points of test accuracy")
    axes.set_xlim(0, 1.1)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
