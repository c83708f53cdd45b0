"""Model card: a run described for others, in Markdown with the metadata that Hugging Face reads.

Only numbers that are in the run. Names of folders and classes are text, never markup, and no path of this machine is in
it but the name of the data's folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from transfer.dataset import display
from transfer.errors import ArtefactError
from transfer.exporting.records import Record, rounded_in
from transfer.images import Preprocessing
from transfer.report.records import require_complete
from transfer.report.tables import read_parts

_MOST_CLASSES = 100  # that are listed; metrics.json has all
_FEW = 20  # test images of a class, below which its numbers say little


def render_card(run: Record, name: str = "") -> str:
    """Return the model card of a run, README.md in its folder.

    Parameters
    ----------
    name
        What a run is called whose images came as lists; by default its folder's name.

    Raises
    ------
    ArtefactError
        The run lacks something.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_neutral,
    )
    environment.filters |= {"percent": _percent}
    require_complete(run, "preprocessing")
    try:
        content = _content(run, name)
        return environment.get_template("card.md.j2").render(content)
    except (KeyError, TypeError, ValueError, jinja2.UndefinedError) as error:
        raise ArtefactError(f"{run.path} is not what this version writes ({error}). Fit again.") from error


def escape(text: str) -> str:
    r"""Return `text` so that Markdown shows it as it is, on one line: no link, no tag, no cell of a table of its own.

    >>> print(escape("<b>|a_b [x](y)"))
    \<b\>\|a\_b \[x\]\(y\)
    >>> print(escape("https://a.b"), escape("1. one"), escape("www.a.b"), escape("1.5"))
    https\://a.b 1\. one www\.a.b 1.5
    """
    text = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$@^])", r"\\\1", display(text))
    text = re.sub(r"(?i)(:(?=\S))|((?<=www)\.)", r"\\\g<0>", text)  # what looks like an address, or an emoji
    return re.sub(r"^(\s*)(?=[-=])|^(\s*\d+)(?=\.(\s|$))", r"\g<0>\\", text)  # what a list or a line starts with


def _neutral(value: Any) -> Any:
    """Return what the template prints; text that was not made for it becomes harmless."""
    from markupsafe import Markup

    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content(run: Record, name: str) -> dict[str, Any]:
    from markupsafe import Markup

    data, info = run.info["data"], run.info
    joined = data["domains"] or {}
    domains = {part: _folder(joined[part]["root"]) for part in ("source", "target") if part in joined}
    name_of_data = " to ".join(domains.values()) if domains else _folder(data["root"], name or run.path.name)
    readings = [
        {"title": title, **run.metrics[part]}
        for part, title in (("test", "test"), ("cross_validation", "cross-validation"), ("val", "validation"))
        if part in run.metrics
    ]
    per_class = sorted(run.metrics["test"]["per_class"], key=lambda row: (row["f1"] is None, row["f1"] or 0.0))
    return {
        "metadata": Markup(_metadata(run, name_of_data)),
        "name_of_data": name_of_data,
        "domains": domains,
        "info": info,
        "choice": run.choice,
        "readings": readings,
        "chose_epoch": "val" in run.metrics and bool((info.get("training") or {}).get("best_epoch")),
        "test": run.metrics["test"],
        "trusted": run.metrics.get(run.metrics.get("trust", "")),
        "classes": per_class[:_MOST_CLASSES],
        "n_classes": len(run.classes),
        "n_small": sum(row["n"] < _FEW for row in per_class),
        "few": _FEW,
        "parts": read_parts(run.path / "split.csv"),
        "weights": _source(info["weights"]["source"]),
        "preprocessing": Preprocessing.from_dict(info["preprocessing"]).describe(),
        "representation": run.representation.describe(),
        "novelty": info.get("novelty"),
        "rounded_in": rounded_in(run),
        "minutes": sum(info["seconds"].values()) / 60,
        "is_calibrated": info["head"]["is_calibrated"],
        "weights_licence": _licence(run),
    }


def _metadata(run: Record, name_of_data: str) -> str:
    """Return what Hugging Face reads of a card, as YAML."""
    import yaml

    test, name = run.metrics["test"], display(name_of_data)
    measured = [
        {"type": kind, "name": title, "value": round(test[key], 4)}
        for kind, title, key in (
            ("accuracy", "Accuracy", "accuracy"),
            ("accuracy", "Balanced accuracy", "balanced_accuracy"),
            ("f1", "Macro F1", "macro_f1"),
        )
        if test[key] is not None
    ]
    library = "timm" if run.info["model"]["timm"] else "transfer"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": name, "type": _identifier(name), "split": "test"},
        "metrics": measured,
    }
    values = {
        "license": "unknown",
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", library, run.info["strategy"]],
        "datasets": [_identifier(name)],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": f"{name}, {run.info['backbone']}", "results": [result]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)


def _identifier(name: str) -> str:
    """Return a name made of what the id of a dataset may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:96] or "data"


def _folder(root: str | None, otherwise: str = "lists") -> str:
    return Path(root).name or otherwise if root else otherwise


def _source(source: str) -> str:
    """Return where weights came from, without the folders of this machine."""
    return Path(source).name if "/" in source or "\\" in source else source


def _licence(run: Record) -> str:
    """Return what timm says of the licence of the pretrained weights; empty where it says nothing."""
    path = run.path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return str(config.get("pretrained_cfg", {}).get("license") or "")


def _percent(share: float | None) -> str:
    """Return a share in percent; nothing is rounded to perfection.

    >>> _percent(0.9996), _percent(1.0), _percent(None)
    ('> 99.9 %', '100.0 %', '–')
    """
    if share is None:
        return "–"
    if share < 1 and round(100 * share, 1) == 100:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"
