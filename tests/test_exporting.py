import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import save_file

import transfer
from transfer import cli
from transfer.backbones import build
from transfer.errors import ArtefactError, DataError, ResourceError, UsageError
from transfer.exporting import onnx_models, torch_programs, writing
from transfer.exporting.cards import render_card
from transfer.exporting.onnx_pixels import pixels_to_input
from transfer.exporting.parity import judge
from transfer.files import atomic_folder
from transfer.images import Preprocessing, normalise, view

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["train.min_steps=0", "train.epochs=2", "train.batch_size=16", "train.augment=none"]
HOSTILE = [
    "<script>alert(1)<",
    '"><img src=x onerror=alert(1)>',
    "![x](y) [link](z) `code` |cell|",
    "a$b$ *bold* _it_ ~~no~~ &lt;",
    "\u05e9\u05dc\u05d5\u05dd\u202e",
    "1. two\nlines https:\u2044\u2044evil.example www.evil.example",
    "{{ 7 * 7 }}",
]


def fit(data: Path, weights: Path, out: Path, recipe: str = "linear-svm", settings: list[str] | None = None):
    options = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    return transfer.fit(data, recipe, out=out, settings=settings or [], **options)


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory):
    return fit(shapes, weights, tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture
def copied(run, tmp_path: Path):
    """The run in a folder of its own, to be changed."""
    return transfer.load_run(shutil.copytree(run.path, tmp_path / "run"))


@pytest.fixture
def photo(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.open(shapes / "circle/03.png").resize((90, 70)).save(path)
    return path


def test_timm_loads_an_export_that_says_what_the_run_says(run, shapes: Path, tmp_path: Path) -> None:
    import timm

    export = run.export("timm", tmp_path / "out")
    assert export.model == tmp_path / "out"
    assert set(export.files) == {path.name for path in export.path.iterdir()}
    model = timm.create_model(f"local-dir:{export.path}", pretrained=True).eval()
    see = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    paths = sorted(shapes.glob("*/0*.png"))
    with torch.inference_mode():
        found = torch.cat([model(see(Image.open(path).convert("RGB"))[None]) for path in paths]).softmax(1).numpy()
    np.testing.assert_allclose(run.predict(paths).probabilities, found, atol=5e-3)
    assert "license: unknown" in (export.path / "README.md").read_text()


def test_transformers_loads_the_same_folder(run, shapes: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = run.export("timm", tmp_path / "out").path
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    assert type(model).__name__ == "TimmWrapperForImageClassification"
    assert model.config.id2label == dict(enumerate(run.classes))
    image = Image.open(shapes / "circle/03.png").convert("RGB")
    given = transformers.AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
    with torch.inference_mode():
        found = model(**given).logits.softmax(1).numpy()
    np.testing.assert_allclose(run.predict([image]).probabilities, found, atol=5e-3)


def test_a_program_takes_any_batch_and_holds_no_pickle(run, tmp_path: Path) -> None:
    export = run.export("torch", tmp_path / "out")
    assert (
        export.parity.n_agree == export.parity.n_images == min(32, run.metrics["test"]["n"] + run.metrics["val"]["n"])
    )
    assert export.parity.largest_difference < 1e-5
    extra = {"about.json": ""}
    module = torch.export.load(export.model, extra_files=extra).module()
    images = torch.rand(5, *run.backbone.input_shape)
    expected = run.model(images).softmax(1)
    for n in (1, 2, 5):
        torch.testing.assert_close(module(images[:n]), expected[:n], atol=1e-5, rtol=0)
    assert json.loads(extra["about.json"])["classes"] == list(run.classes)
    assert not torch_programs.find_pickles(export.model.read_bytes())


def test_a_pickle_in_a_program_is_found(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")  # with the example inputs that torch keeps
    assert torch_programs.find_pickles((tmp_path / "a.pt2").read_bytes())


def test_an_onnx_model_says_what_the_run_says_and_what_it_is(run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export = run.export("onnx", tmp_path / "out")
    assert export.parity.largest_difference < 1e-5
    session = onnxruntime.InferenceSession(export.model)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(run.classes)
    assert json.loads(about["preprocessing"])["mean"] == list(run.backbone.preprocessing.mean)
    images = torch.rand(5, *run.backbone.input_shape)
    for n in (1, 5):
        (found,) = session.run(None, {"images": images[:n].numpy()})
        np.testing.assert_allclose(found, run.model(images[:n]).softmax(1).detach().numpy(), atol=1e-5)
    assert str(Path.cwd()).encode() not in export.model.read_bytes()  # no path of this machine


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(
    ("crop_mode", "crop_share"), [("center", 0.875), ("center", 1.5), ("squash", 0.9), ("border", 1)]
)
def test_the_graph_sees_what_a_backbone_sees(crop_mode: str, crop_share: float, interpolation: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    mean, std = (0.48, 0.46, 0.41), (0.23, 0.22, 0.21)
    seen = Preprocessing(33, crop_share, interpolation, mean, std, crop_mode)
    model = pixels_to_input(seen, onnx_models.OPSET, 10, "pixels", "batch")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (50, 91), (91, 50), (20, 30), (33, 38), (1, 1)]
    if crop_mode != "border":  # it makes sides of a few pixels of these, at whose edges ONNX Runtime does otherwise
        shapes += [(20, 190), (401, 40)]
    for shape in shapes:
        smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(
            shape[::-1], Image.Resampling.BICUBIC
        )
        pixels = np.asarray(smooth)
        (found,) = session.run(None, {"pixels": np.stack([pixels, 255 - pixels])})
        expected = normalise(torch.stack([view(pixels, seen), view(255 - pixels, seen)]), seen).numpy()
        assert found.shape == expected.shape
        levels = np.abs(found - expected) * 255 * np.array(std).reshape(3, 1, 1)
        assert levels.max() <= 4, (shape, levels.max())
        assert levels.mean() < 0.1, (shape, levels.mean())


def test_an_onnx_model_with_preprocessing_takes_images_of_any_size(run, shapes: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export = run.export("onnx", tmp_path / "out", with_preprocessing=True)
    session = onnxruntime.InferenceSession(export.model)
    for size in ((64, 64), (200, 120), (31, 50)):
        image = Image.open(shapes / "square/04.png").convert("RGB").resize(size)
        pixels = np.asarray(image)[None].repeat(3, 0)
        (found,) = session.run(None, {"pixels": pixels})
        np.testing.assert_allclose(found, run.predict([image]).probabilities.repeat(3, 0), atol=0.02)


KINDS = {
    "taps of unit length": ("linear-svm", ["tap=[layer2, features]", "features.power=0.5", "features.pool=gem"]),
    "a mirror image": ("logistic", ["features.views=2"]),
    "pairs": ("linear-svm", ["head.multiclass=pairs"]),
    "neighbours": ("knn", []),
    "partial": ("partial", QUICK),
    "full": ("full", QUICK),
    "ridge": ("ridge", []),
    "frozen": ("frozen", []),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in ("full", "ridge", "frozen") else []) for k in KINDS]
)
def test_what_a_head_reads_and_how_it_decides_is_exported(
    kind: str, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    recipe, settings = KINDS[kind]
    trained = fit(shapes, weights, tmp_path / "run", recipe, settings)
    assert trained.export("torch").parity.largest_difference < 1e-4
    if trained.info["model"]["timm"]:
        trained.export("timm")
    else:
        with pytest.raises(UsageError, match="--to onnx or --to torch"):
            trained.export("timm")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_that_goes_into_onnx_too(kind: str, shapes: Path, weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    recipe, settings = KINDS[kind]
    trained = fit(shapes, weights, tmp_path / "run", recipe, settings)
    assert trained.export("onnx").parity.largest_difference < 1e-4
    trained.export("onnx", with_preprocessing=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["test_vit", "test_convnext", "torchvision/squeezenet1_1", "torchvision/mobilenet_v3_small", "pixels"]
)
def test_networks_of_all_kinds_are_exported(name: str, shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    weights = None
    if name != "pixels":
        torch.manual_seed(0)
        weights = str(tmp_path / "w.safetensors")
        save_file(build(name).state_dict(), weights)
    trained = transfer.fit(shapes, "ridge", out=tmp_path / "run", backbone=name, weights=weights, quiet=True)
    for to in ("torch", "onnx"):
        assert trained.export(to).parity.largest_difference < 1e-4
    if trained.info["model"]["timm"]:
        trained.export("timm")
    else:
        with pytest.raises(UsageError, match="load_run"):
            trained.export("timm")


def test_a_class_without_training_images_gets_nothing() -> None:
    from transfer.exporting.networks import _Neighbours, _Pairs
    from transfer.heads import NeighbourHead, PairwiseHead

    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 4)).astype(np.float32)
    rows = rng.normal(size=(30, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    neighbours = NeighbourHead(rows, rng.choice([0, 2, 3], 30), 5, 10, 1.7)
    pairs = PairwiseHead(rng.normal(size=(3, 4)), rng.normal(size=3), np.array([0, 2, 3]), 5, 0.3)
    for head, layer in ((neighbours, _Neighbours(neighbours)), (pairs, _Pairs(pairs))):
        found = layer.probabilities(layer(torch.from_numpy(X))).numpy()
        np.testing.assert_allclose(found, head.probabilities(X), atol=1e-5)
        assert (found[:, [1, 4]] == 0).all()


@pytest.mark.parametrize("recipe", ["hog-color", "ten views"])
def test_what_no_model_can_hold_is_refused(recipe: str, run, shapes: Path, weights: Path, tmp_path: Path) -> None:
    if recipe == "hog-color":
        trained = transfer.fit(shapes, recipe, out=tmp_path / "run", quiet=True)
    else:
        trained = fit(shapes, weights, tmp_path / "run", "ridge", ["features.views=10"])
    for to in ("torch", "timm"):
        with pytest.raises(UsageError, match=r"run.predict|load_run|--to onnx"):
            trained.export(to)


def test_an_export_that_disagrees_leaves_nothing(
    copied, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(copied.path.iterdir())
    honest = writing.build_network

    def wrong(run):
        network = honest(run)
        network.scores.linear.bias.data += torch.tensor([3.0, 0.0, 0.0])
        return network

    monkeypatch.setattr(writing, "build_network", wrong)
    monkeypatch.setattr(sys, "argv", ["transfer", "export", str(copied.path), "--to", "torch"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert "does not say what the run says" in capsys.readouterr().err
    assert sorted(copied.path.iterdir()) == before

    monkeypatch.setattr(writing, "build_network", honest)
    export = copied.export("torch")
    kept = export.model.read_bytes()
    monkeypatch.setattr(writing, "build_network", wrong)
    with pytest.raises(ArtefactError):
        copied.export("torch", force=True)
    assert export.model.read_bytes() == kept  # what was there before stays


def test_agreement_is_judged_by_class_and_by_probability() -> None:
    expected = np.array([[0.6, 0.4], [0.5001, 0.4999]])
    assert judge(expected, expected + np.array([[0.0, 0.0], [-0.0003, 0.0003]]), 1e-3).n_agree == 1  # a tie either way
    assert judge(expected, expected, 1e-3).n_agree == 2
    for wrong in ([[0.01, -0.01], [0.0, 0.0]], [[np.nan, 0.0], [0.0, 0.0]]):
        with pytest.raises(ArtefactError):
            judge(expected, expected + wrong, 1e-3)
    with pytest.raises(ArtefactError):  # within the tolerance, but clearly another class
        judge(np.array([[0.6, 0.4]]), np.array([[0.45, 0.55]]), 0.16)
    with pytest.raises(ArtefactError):
        judge(expected, expected[:, :1], 1e-3)


def test_an_export_replaces_another_only_when_told_to(copied) -> None:
    first = copied.export("torch")
    with pytest.raises(UsageError, match="--force"):
        copied.export("torch")
    (first.path / "more.txt").write_text("x")
    again = copied.export("torch", force=True)
    assert {path.name for path in again.path.iterdir()} == {"model.pt2", "export.json"}
    assert not list(copied.path.glob(".*"))
    with pytest.raises(UsageError, match="no export of this toolkit"):  # a run is none
        copied.export("torch", copied.path, force=True)
    assert (copied.path / "run.json").exists()


def test_a_folder_is_put_back_when_it_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if (self / "new").exists():
            raise OSError(5, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ResourceError), atomic_folder(tmp_path / "a", replace=True) as building:
        (building / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_without_the_images_others_have_to_be_named(copied, shapes: Path, tmp_path: Path) -> None:
    info = json.loads((copied.path / "run.json").read_text())
    moved = Path(shutil.copytree(shapes, tmp_path / "moved"))
    info["data"]["root"] = str(moved)
    (copied.path / "run.json").write_text(json.dumps(info))
    for path in moved.glob("*/*.png"):
        Image.new("RGB", (9, 9)).save(path)  # there, but not the same
    gone = transfer.load_run(copied.path)
    with pytest.raises(DataError, match="gone or changed.*--images FOLDER"):
        gone.export("torch")
    assert not (copied.path / "torch").exists()
    assert gone.export("torch", images=shapes).parity.n_images == 32
    with pytest.raises(UsageError, match="nothing_here"):
        gone.export("torch", tmp_path / "out", images=tmp_path / "nothing_here")


def test_a_missing_package_is_named_with_its_remedy(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ResourceError, match="pip install onnxscript") as raised:
        run.export("onnx", tmp_path / "out")
    assert raised.value.exit_code == 5


def test_an_unknown_format_is_refused(run) -> None:
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        run.export("onx")
    with pytest.raises(UsageError, match="goes with --to onnx"):
        run.export("torch", with_preprocessing=True)


def test_the_command_prints_what_the_check_found(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["transfer", "export", str(run.path), "--to", "torch", "--out", str(tmp_path / "out")]
    for more in ([], ["--json", "--force"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        said = capsys.readouterr().out
        if more:
            assert json.loads(said)["checked"]["n_agree"] > 0
        else:
            assert "model.pt2" in said
            assert re.search(r"same for (\d+) of \1 images, probabilities differ by at most", said)


def test_a_card_has_the_numbers_of_the_run_and_no_path(run, shapes: Path) -> None:
    text = (run.path / "README.md").read_text(encoding="utf-8")
    assert "were measured in" not in text  # but in float32
    _, front, body = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "timm"
    assert metadata["datasets"] == ["shapes"]
    test = run.metrics["test"]
    values = [row["value"] for row in metadata["model-index"][0]["results"][0]["metrics"]]
    assert values == [round(test[key], 4) for key in ("accuracy", "balanced_accuracy", "macro_f1")]
    low, high = test["accuracy_interval"]
    assert f"| test | {test['n']} | {100 * test['accuracy']:.1f} % | {100 * low:.1f} % to" in body
    assert f"to {100 * high:.1f} %" in body
    for told in (run.info["data"]["fingerprint"], "Trust the cross-validation", *run.classes):
        assert told in body
    for path in (shapes.parent, run.path, Path.home()):
        assert str(path) not in text


@pytest.mark.parametrize("recipe", ["ridge", "partial"])
def test_numbers_that_were_measured_in_bfloat16_are_said_to_be(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transfer.machine.narrow_types", lambda device: ["bfloat16"])
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    settings = QUICK if recipe == "partial" else []
    rounded = transfer.fit(shapes, recipe, out=tmp_path / "run", settings=settings, **options)
    assert rounded.info["computed_in"] == "bfloat16"
    assert "measured in bfloat16" in (rounded.path / "README.md").read_text()
    done = rounded.export("timm")
    assert done.note.startswith("The run's accuracy was measured in bfloat16")
    assert "measured in bfloat16" in done._repr_html_()
    about = json.loads((done.path / "export.json").read_text())
    assert (about["computed_in"], about["run_computed_in"]) == ("float32", "bfloat16")


def test_a_card_says_how_many_test_images_are_unknown(copied) -> None:
    copied.info["novelty"] = {"kept_of_val": 0.95, "unknown_of_test": 0.125}
    assert "12.5 % of the test images were" in render_card(copied)
    copied.info["novelty"] = None
    assert "unknown:" not in render_card(copied)


def test_names_in_a_card_are_text(shapes: Path, weights: Path, tmp_path: Path) -> None:
    data = tmp_path / HOSTILE[-1] / "a # <b> data"
    for name in HOSTILE:
        (data / name.replace("/", "")).mkdir(parents=True)
        for i in range(4):
            shutil.copy(shapes / "circle" / f"{(len(name) + i) % 20:02d}.png", data / name / f"{i}.png")
            with Image.open(data / name / f"{i}.png") as image:  # other contents for each class
                pixels = np.array(image)
            pixels[0, 0] = len(name), i, ord(name[0]) % 256
            Image.fromarray(pixels).save(data / name / f"{i}.png")
    trained = fit(data, weights, tmp_path / "run", "ridge")
    text = (trained.path / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["datasets"] == ["a-b-data"]
    tokens = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"]).parse(body)
    inline = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "strong_open", "s_open"}
    shown = "".join(child.content for child in inline)
    for name in HOSTILE:
        assert transfer.dataset.display(name) in shown
    rows = [token for token in tokens if token.type == "tr_open"]
    cells = [token for token in tokens if token.type in ("td_open", "th_open")]
    n_readings = sum(part in trained.metrics for part in ("test", "val", "cross_validation"))
    assert len(rows) == 2 + n_readings + len(HOSTILE)
    assert len(cells) == 7 * (1 + n_readings) + 6 * (1 + len(HOSTILE))


SNIPPETS = re.findall(
    r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL
)
NEEDS = {"timm": "timm", "ONNX Runtime, preprocessing inside": "onnx-with-preprocessing"}
NEEDS |= {"ONNX Runtime, preprocessing outside": "onnx", "torch.export": "torch", "Hugging Face transformers": "timm"}


@pytest.mark.parametrize(("title", "code"), SNIPPETS, ids=[title for title, _ in SNIPPETS])
@pytest.mark.slow
def test_the_documented_code_loads_an_export_without_this_package(
    title: str, code: str, run, photo: Path, tmp_path: Path
) -> None:
    for package in ("transformers", "onnxruntime"):
        if package in code:
            pytest.importorskip(package, reason=f"{package} is not installed")
    to = NEEDS[title]
    run.export(to.partition("-")[0], tmp_path / to, with_preprocessing=to.endswith("preprocessing"))
    script = f"import sys; sys.modules['transfer'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()
    best = run.predict([photo]).top(1)[0]
    assert label == best["label"]
    assert float(probability) == pytest.approx(best["probability"], abs=0.02)


def test_every_format_has_documented_code() -> None:
    assert {title for title, _ in SNIPPETS} == set(NEEDS)


def test_split_rows_of_the_run_are_what_is_compared_on(run) -> None:
    from transfer.exporting.parity import find_examples

    rows = list(csv.DictReader((run.path / "split.csv").read_text().splitlines()))
    named = {row["path"] for row in rows if row["split"] in ("test", "val")}
    root = Path(run.info["data"]["root"])
    found = [Path(path).relative_to(root).as_posix() for path in find_examples(run)]
    assert set(found) <= named
    assert len(set(found)) == min(32, len(named))
