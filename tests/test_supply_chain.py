"""Licences and vulnerabilities: what is refused, and what is not known is not called sound."""

import pytest
from supply_chain import installed, is_permissive, refuse, sort_out


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "BSD License",
        "Apache 2.0",
        "Apache Software License",
        "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSL-1.0",
        "MPL-2.0 AND MIT",
        "GPL-2.0-only OR MIT",
        "MIT License; Mozilla Public License 2.0 (MPL 2.0)",
    ],
)
def test_permissive_licences_pass(licence: str) -> None:
    assert is_permissive(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "GPL-3.0-only",
        "GNU Affero General Public License v3",
        "AGPL-3.0-or-later",
        "LGPL-2.1-only",
        "MIT AND GPL-3.0-only",
        "MIT License; GNU General Public License (GPL)",
        "Apache-2.0 WITH Commons-Clause",
        "UNKNOWN",
        "",
    ],
)
def test_others_are_refused(licence: str) -> None:
    assert refuse({"thing": licence})


def test_a_reviewed_package_passes_whatever_its_metadata_says() -> None:
    assert not refuse({"nvidia-cublas": "Other/Proprietary License", "cuda-toolkit": "UNKNOWN"})


def test_what_was_skipped_is_not_called_sound() -> None:
    answer = [
        {"name": "Sound", "version": "1", "vulns": []},
        {"name": "skipped", "skip_reason": "not found"},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
    ]
    vulnerable, unknown = sort_out(answer, {"sound": "1", "skipped": "1", "bad": "2", "silent": "1"})
    assert vulnerable == ["bad 2: PYSEC-1, mended in 3"]
    assert unknown == ["skipped", "silent"]


def test_what_a_user_installs_has_the_libraries_and_no_test_tools() -> None:
    packages = installed("transfer")
    assert {"torch", "numpy", "timm", "click"} <= set(packages)
    assert not {"pytest", "mypy", "ruff"} & set(packages)
