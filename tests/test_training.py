import dataclasses
import itertools
import math
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from transfer import cuts
from transfer.backbones import Backbone, load_backbone
from transfer.dataset import Dataset, scan
from transfer.errors import UsageError
from transfer.features import Plans, Runner, extract
from transfer.heads import fit_head
from transfer.images import (
    AUGMENTATIONS,
    RandomView,
    decode,
    find_augmentation,
    generator_for,
    load_view,
    normalise,
    random_view,
)
from transfer.progress import Progress
from transfer.training import (
    CachedExamples,
    Checkpoints,
    DecodedPixels,
    LivePrefixExamples,
    Pace,
    PixelExamples,
    Trainee,
    TrainingSettings,
    choose_pace,
    keep_pixels,
    parameter_groups,
    rate_at,
    train,
)
from transfer.training import pace as pacing
from transfer.training.history import is_as_good
from transfer.training.mixing import mix

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Progress(quiet=True)
FLOAT32 = Pace(torch.device("cpu"), "float32", channels_last=False, exact=True)
SETTINGS = TrainingSettings(
    n_epochs=3,
    batch_size=16,
    warmup=0.1,
    clip=1.0,
    label_smoothing=0.0,
    mixup=0.0,
    cutmix=0.0,
    ema=0.0,
    patience=9,
    seed=0,
)
CUTS = {"test_resnet": "layer2", "test_vit": "blocks.3"}


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return scan(shapes)


def trainee_of(backbone: Backbone, at: str, X: np.ndarray, y: np.ndarray) -> Trainee:
    fitted = fit_head("logistic", X, y, 3).head
    weight, bias = fitted.folded()
    head = nn.Linear(weight.shape[1], 3)
    head.weight.data, head.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    _, suffix = cuts.cut(backbone.model, at, backbone.input_shape)
    return Trainee(backbone, suffix, head, freeze_batchnorm=True)


def groups_of(trainee: Trainee, backbone: Backbone, lr: float = 1e-2, share: float = 0.1) -> list[dict]:
    return parameter_groups(
        trainee.suffix.named_parameters(),
        trainee.head.parameters(),
        cuts.parameter_depths(backbone.model, backbone.input_shape),
        lr=lr,
        backbone_share=share,
        layer_decay=0.75,
        weight_decay=0.05,
    )


class Setting:
    """A network cut in two, its rows at the cut on disk, and a head that is solved."""

    def __init__(self, name: str, dataset: Dataset, folder: Path) -> None:
        self.backbone = load_backbone(name, "random")
        self.at = CUTS[name]
        self.dataset = dataset
        options = {"exact": True, "cache": folder, "progress": QUIET}
        self.X = extract(dataset, self.backbone, **options).rows()
        self.cache = extract(dataset, self.backbone, (self.at,), pool="none", **options).caches[self.at]
        self.trainee = trainee_of(self.backbone, self.at, self.X, dataset.labels)

    @property
    def cached(self) -> CachedExamples:
        return CachedExamples([self.cache], self.dataset.hashes, self.dataset.labels, 0)

    def train(self, examples, settings: TrainingSettings = SETTINGS, **options):
        lr = options.pop("lr", 1e-2)
        groups = groups_of(self.trainee, self.backbone, lr, options.pop("share", 0.1))
        also = options.pop("after_step", lambda n_done: None)

        def after_step(n_done: int) -> None:
            self.last = self.trainee.state()  # the best epoch's weights take their place in the end
            also(n_done)

        return train(self.trainee, groups, examples, self.cached, settings, FLOAT32, after_step=after_step, **options)


@pytest.fixture(params=["test_resnet", "test_vit"])
def setting(request: pytest.FixtureRequest, dataset: Dataset, tmp_path: Path) -> Setting:
    return Setting(request.param, dataset, tmp_path)


@pytest.fixture
def resnet(dataset: Dataset, tmp_path: Path) -> Setting:
    return Setting("test_resnet", dataset, tmp_path)


def copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_cached_equals_live_bit_for_bit(setting: Setting, dataset: Dataset, tmp_path: Path) -> None:
    before = setting.trainee.state()
    setting.train(setting.cached)
    assert not same(setting.last, before)
    again = Setting(setting.backbone.name, dataset, tmp_path)
    plans = Plans(again.backbone, [again.at], "cpu", True, tmp_path)
    runner = Runner(again.backbone, [again.at], plans, dataset.paths, contents=dataset.hashes, pool="none", exact=True)
    live = LivePrefixExamples(runner, dataset.labels, AUGMENTATIONS["none"], 0)
    again.train(live)
    assert same(again.last, setting.last)


def test_the_start_is_the_solved_head_and_what_is_left_of_the_cut_never_moves(setting: Setting) -> None:
    before = copies(setting.backbone.model.state_dict())
    trained = {name for name, _ in setting.trainee.suffix.named_parameters()}
    expected = setting.X @ setting.trainee.head.weight.detach().numpy().T + setting.trainee.head.bias.detach().numpy()
    after: dict[str, torch.Tensor] = {}
    outcome = setting.train(
        setting.cached, after_step=lambda n: after.update(copies(setting.backbone.model.state_dict()))
    )
    accuracy = float((expected.argmax(1) == setting.dataset.labels).mean())
    assert outcome.history[0].val_accuracy == pytest.approx(accuracy)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert moved <= trained  # no weight left of the cut, and no running statistics anywhere


def test_batchnorm_statistics_move_where_that_is_wanted(resnet: Setting) -> None:
    before = copies(resnet.backbone.model.state_dict())
    resnet.trainee.freeze_batchnorm = False
    after: dict[str, torch.Tensor] = {}
    resnet.train(resnet.cached, after_step=lambda n: after.update(copies(resnet.backbone.model.state_dict())))
    moved = {name for name in before if name.endswith("running_mean") and not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("layer3", "layer4")) for name in moved)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_draws_alone(
    resnet: Setting, dataset, tmp_path
) -> None:
    settings = dataclasses.replace(SETTINGS, mixup=0.2, label_smoothing=0.1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    resnet.train(resnet.cached, settings)
    assert torch.equal(torch.rand(1), expected)
    again = Setting("test_resnet", dataset, tmp_path)
    again.train(again.cached, settings)
    assert same(again.last, resnet.last)
    other = Setting("test_resnet", dataset, tmp_path)
    other.train(other.cached, dataclasses.replace(settings, seed=1))
    assert not same(other.last, resnet.last)


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("at_step", [1, 3, 4, 6, 8, 11])
def test_a_training_that_was_cut_off_goes_on_exactly(
    dataset: Dataset, tmp_path: Path, at_step: int, ema: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.training.loop._SAVE_SECONDS", 0.0)  # a checkpoint after every step
    settings = dataclasses.replace(SETTINGS, ema=ema)
    straight = Setting("test_resnet", dataset, tmp_path)
    expected = straight.train(straight.cached, settings)

    def cut_off(n_done: int) -> None:
        if n_done == at_step:
            raise CutOffError

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    broken = Setting("test_resnet", dataset, tmp_path)
    with pytest.raises(CutOffError):
        broken.train(broken.cached, settings, checkpoints=checkpoints, after_step=cut_off)
    resumed = Setting("test_resnet", dataset, tmp_path)
    outcome = resumed.train(resumed.cached, settings, checkpoints=checkpoints)
    assert outcome.was_resumed == (at_step > 1)
    assert same(resumed.last, straight.last)
    assert same(resumed.trainee.state(), straight.trainee.state())
    assert [row.val_loss for row in outcome.history] == [row.val_loss for row in expected.history]
    assert [row.loss for row in outcome.history] == [row.loss for row in expected.history]
    finished = Setting("test_resnet", dataset, tmp_path)
    again = finished.train(finished.cached, settings, checkpoints=checkpoints)  # nothing is left to be done
    assert again.history == outcome.history
    assert same(finished.trainee.state(), straight.trainee.state())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, caplog) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.load() is None
    for i in range(4):
        checkpoints.save({"x": torch.full((3,), float(i))}, {"i": i})
    files = sorted((tmp_path / "c").iterdir())
    assert len(files) == 2
    data = bytearray(files[-1].read_bytes())
    data[-1] ^= 1
    files[-1].write_bytes(bytes(data))
    tensors, state = checkpoints.load()
    assert state == {"i": 2}
    assert tensors["x"].tolist() == [2.0, 2.0, 2.0]
    assert "is damaged" in caplog.text


def test_an_old_checkpoint_stays_until_the_new_training_has_saved(tmp_path: Path) -> None:
    old = Checkpoints(tmp_path / "c", about={"n_epochs": 7})
    old.save({"x": torch.zeros(1)}, {"n": 1})
    assert old.load_about() == {"n_epochs": 7}
    new = Checkpoints(tmp_path / "c", resume=False)
    assert new.load() is None
    assert Checkpoints(tmp_path / "c").load()[1] == {"n": 1}
    new.save({"x": torch.ones(1)}, {"n": 2})
    assert [path.name[:8] for path in sorted((tmp_path / "c").iterdir())] == ["00000002"]
    assert Checkpoints(tmp_path / "c").load()[1] == {"n": 2}


def test_a_folder_that_cannot_be_written_costs_the_checkpoints_and_no_more(
    resnet: Setting, tmp_path: Path, caplog
) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = resnet.train(resnet.cached, checkpoints=Checkpoints(tmp_path / "file" / "c"))
    assert len(outcome.history) == 4
    assert "No checkpoint of this training" in caplog.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends(resnet: Setting, tmp_path: Path, number: int, code: int | None) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def kill(n_done: int) -> None:
        if n_done == 2:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as ended:
        resnet.train(resnet.cached, checkpoints=checkpoints, after_step=kill)
    assert code is None or ended.value.code == code
    assert checkpoints.load()[1]["n_done"] == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_not_finite_ends_it_and_the_best_weights_stay(resnet: Setting) -> None:
    before = resnet.trainee.state()
    outcome = resnet.train(resnet.cached, lr=float("inf"))
    assert "no longer finite" in outcome.stopped
    assert len(outcome.history) == 1
    assert "lower train.lr" in outcome.stopped
    assert outcome.best_epoch == 0
    assert same(resnet.trainee.state(), before)


def test_an_epoch_is_kept_that_is_as_good_as_the_best_and_better_than_the_start(resnet: Setting) -> None:
    start = resnet.trainee.state()
    outcome = resnet.train(resnet.cached, dataclasses.replace(SETTINGS, n_epochs=6), lr=0.3)  # far too high
    first, kept = outcome.history[0], outcome.history[outcome.best_epoch]
    resnet.trainee.eval()
    with torch.inference_mode():
        scores = resnet.trainee(next(resnet.cached.batches([np.arange(60)], 0))).numpy()
    assert (scores.argmax(1) == resnet.dataset.labels).mean() == pytest.approx(kept.val_accuracy)
    if outcome.best_epoch:
        assert (kept.val_accuracy, -kept.val_loss) > (first.val_accuracy, -first.val_loss)
    else:
        assert same(resnet.trainee.state(), start)


def test_where_val_does_not_choose_the_epoch_the_last_one_is_kept_however_bad(resnet: Setting) -> None:
    start, settings = resnet.trainee.state(), dataclasses.replace(SETTINGS, n_epochs=6, chooses_epoch=False)
    outcome = resnet.train(resnet.cached, settings, lr=0.3)  # far too high
    assert outcome.best_epoch == 6
    assert not same(resnet.trainee.state(), start)
    resnet.trainee.eval()
    with torch.inference_mode():
        scores = resnet.trainee(next(resnet.cached.batches([np.arange(60)], 0))).numpy()
    assert (scores.argmax(1) == resnet.dataset.labels).mean() == pytest.approx(outcome.history[-1].val_accuracy)
    assert max(row.val_accuracy for row in outcome.history) > outcome.history[-1].val_accuracy


def test_late_epochs_are_kept_unless_they_are_worse_by_more_than_noise() -> None:
    best = "1" * 90 + "0" * 10
    assert is_as_good(best, best)
    assert is_as_good("0" + best[1:], best)  # one image
    assert is_as_good("0" * 3 + "1" * 89 + "0" * 8, best)  # three lost, two won
    assert not is_as_good("0" * 6 + best[6:], best)  # six lost, none won


def test_patience_and_deadline_end_it(resnet: Setting, dataset: Dataset, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, n_epochs=50, patience=2)
    outcome = resnet.train(resnet.cached, settings, lr=1e-12)
    assert outcome.stopped == "no better epoch on val in 2"
    assert len(outcome.history) == 1 + 3
    outcome = resnet.train(resnet.cached, settings, deadline=time.perf_counter())
    assert "time was over in epoch 1" in outcome.stopped
    assert len(outcome.history) == 2


def test_a_training_that_ran_to_its_end_was_not_stopped(resnet: Setting) -> None:
    assert resnet.train(resnet.cached, dataclasses.replace(SETTINGS, patience=3), lr=1e-12).stopped == ""


def test_patience_that_ran_out_has_run_out_after_a_resume_too(dataset: Dataset, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, n_epochs=50, patience=2)
    checkpoints = Checkpoints(tmp_path / "c")
    first = Setting("test_resnet", dataset, tmp_path)
    outcome = first.train(first.cached, settings, lr=1e-12, checkpoints=checkpoints)
    second = Setting("test_resnet", dataset, tmp_path)
    again = second.train(second.cached, settings, lr=1e-12, checkpoints=checkpoints)
    assert again.history == outcome.history
    assert again.stopped == outcome.stopped


@pytest.mark.parametrize("batchnorm", [True, False])
def test_a_last_batch_of_one_reaches_the_network_with_the_one_before(resnet: Setting, batchnorm: bool) -> None:
    resnet.trainee.freeze_batchnorm = batchnorm
    seen: list[int] = []
    resnet.trainee.suffix.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    resnet.train(resnet.cached, dataclasses.replace(SETTINGS, n_epochs=1, batch_size=59))
    assert seen == [60]


def test_a_signal_during_the_judgement_is_heeded(resnet: Setting, dataset: Dataset, tmp_path: Path) -> None:
    straight = Setting("test_resnet", dataset, tmp_path)
    expected = straight.train(straight.cached)
    checkpoints = Checkpoints(tmp_path / "c")
    n_judged = 0

    class Val(CachedExamples):
        def batches(self, order, epoch):
            nonlocal n_judged
            n_judged += 1
            if n_judged == 3:
                signal.raise_signal(signal.SIGINT)
            return super().batches(order, epoch)

    val = Val([resnet.cache], dataset.hashes, dataset.labels, 0)
    with pytest.raises(KeyboardInterrupt):
        train(
            resnet.trainee,
            groups_of(resnet.trainee, resnet.backbone),
            resnet.cached,
            val,
            SETTINGS,
            FLOAT32,
            checkpoints=checkpoints,
        )
    resumed = Setting("test_resnet", dataset, tmp_path)
    outcome = resumed.train(resumed.cached, checkpoints=checkpoints)
    assert outcome.was_resumed
    assert [row.val_loss for row in outcome.history] == [row.val_loss for row in expected.history]
    assert same(resumed.trainee.state(), straight.trainee.state())


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(dataset: Dataset, tmp_path: Path) -> None:
    straight = Setting("test_resnet", dataset, tmp_path)
    straight.train(straight.cached)
    small = Setting("test_resnet", dataset, tmp_path)
    forward = small.trainee.forward

    def with_little_memory(inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 5 and torch.is_grad_enabled() and small.trainee.training:
            raise torch.OutOfMemoryError("no room")
        return forward(inputs)

    small.trainee.forward = with_little_memory
    said: list[str] = []
    small.train(small.cached, say=said.append)
    assert any("micro-batches of 5" in line for line in said)
    for name, value in small.last.items():
        torch.testing.assert_close(value, straight.last[name], rtol=1e-3, atol=1e-3)


def test_layers_learn_the_slower_the_nearer_they_are_to_the_image(resnet: Setting) -> None:
    groups = groups_of(resnet.trainee, resnet.backbone, lr=1.0)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    head = resnet.trainee.head
    assert rate[id(head.weight)] == 1.0
    rates = {name: rate[id(p)] for name, p in resnet.trainee.suffix.named_parameters()}
    assert max(rates.values()) == pytest.approx(0.1)
    assert rates["layer3.0.conv1.weight"] < rates["layer4.0.conv1.weight"]
    assert decay[id(head.bias)] == 0
    assert decay[id(head.weight)] == 0.05
    norms = [p for name, p in resnet.trainee.suffix.named_parameters() if ".bn" in name]
    assert {decay[id(p)] for p in norms} == {0.0}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_depths_follow_the_order_of_execution(name: str) -> None:
    backbone = load_backbone(name, "random")
    depths = cuts.parameter_depths(backbone.model, backbone.input_shape)
    names = [name for name, _ in backbone.model.named_parameters()]
    assert set(depths) == set(names)
    assert sorted(set(depths.values())) == list(range(max(depths.values()) + 1))
    assert max(depths.values()) >= 4
    first = next(name for name in names if name.endswith("weight"))
    assert depths[first] == 0
    assert depths[names[-1]] == max(depths.values())


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 50, 0.2) for step in range(50)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rate_at(0, 1, 0.0) == 1.0


# augmentation and examples


@pytest.mark.parametrize("name", ["light", "standard", "strong"])
def test_a_random_view_depends_on_its_seed_alone(dataset: Dataset, name: str) -> None:
    backbone = load_backbone("test_resnet", "random")
    pixels = decode(dataset.paths[0])
    views = [
        random_view(pixels, backbone.preprocessing, AUGMENTATIONS[name], np.random.default_rng(seed))
        for seed in [*range(12), 0]
    ]
    assert all(view.shape == backbone.input_shape and view.dtype == torch.uint8 for view in views)
    assert torch.equal(views[0], views[-1])
    assert len({view.numpy().tobytes() for view in views}) > 8
    first, again = (RandomView(AUGMENTATIONS[name], 0, 1).see(pixels, backbone.preprocessing, "ab" * 32) for _ in "12")
    assert torch.equal(first, again)


def test_augmentation_is_known_by_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'standard'"):
        find_augmentation("standart")


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
def test_odd_images_have_random_views_too(size: tuple[int, int]) -> None:
    backbone = load_backbone("test_resnet", "random")
    pixels = np.zeros((*size, 3), np.uint8)
    for seed in range(20):
        view = random_view(pixels, backbone.preprocessing, AUGMENTATIONS["strong"], np.random.default_rng(seed))
        assert view.shape == backbone.input_shape


def test_live_views_behind_the_frozen_part_are_those_of_the_cache(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):  # large JPEGs, which are decoded at a fraction of their size where nothing is drawn
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            noise = Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)).resize((1000, 800))
            noise.save(tmp_path / "data" / name / f"{i}.jpg")
    dataset = scan(tmp_path / "data")
    backbone, augmentation = load_backbone("test_resnet", "random"), AUGMENTATIONS["standard"]
    cached = extract(
        dataset,
        backbone,
        ("layer2",),
        pool="none",
        dtype="float16",
        views=[RandomView(augmentation, 0, 1)],
        cache=tmp_path,
        progress=QUIET,
    ).caches["layer2"]
    runner = Runner(
        backbone,
        ["layer2"],
        Plans(backbone, ["layer2"], "cpu", False, tmp_path),
        dataset.paths,
        contents=dataset.hashes,
        pool="none",
    )
    live = LivePrefixExamples(runner, dataset.labels, augmentation, 0, "float16")
    order = [np.array([4, 0, 5]), np.array([2]), np.array([1, 3])]
    for positions, rows in zip(order, live.batches(order, 1), strict=True):
        np.testing.assert_array_equal(rows.numpy(), cached.rows([dataset.hashes[i] for i in positions]))


def test_no_two_purposes_draw_alike() -> None:
    draws = [generator_for(*what).random() for what in (("order", 0, 1), ("mix", 0, 1), ("mix", 0, 1, 0), ("order", 0))]
    assert len(set(draws)) == 4
    assert generator_for("order", 0, 1).random() == draws[0]


def test_live_examples_change_from_epoch_to_epoch_and_not_with_their_company(dataset: Dataset) -> None:
    backbone = load_backbone("test_resnet", "random")
    pixels = DecodedPixels(dataset.paths, dataset.hashes, backbone.preprocessing, AUGMENTATIONS["standard"])
    live = PixelExamples(pixels, dataset.labels, backbone.preprocessing, AUGMENTATIONS["standard"], 0)
    (together,) = live.batches([np.array([3, 7, 9])], 1)
    alone = list(live.batches([np.array([7]), np.array([9])], 1))
    assert torch.equal(together[1], alone[0][0])
    assert torch.equal(together[2], alone[1][0])
    (later,) = live.batches([np.array([3, 7, 9])], 2)
    assert not torch.equal(later, together)


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_images_that_are_kept_decoded_are_those_decoded_anew(
    dataset: Dataset, augment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    monkeypatch.setattr("transfer.cache.filling._SHARD_ROWS", 16)
    backbone, augmentation = load_backbone("test_resnet", "random"), AUGMENTATIONS[augment]
    decoded = DecodedPixels(dataset.paths, dataset.hashes, backbone.preprocessing, augmentation)
    kept = keep_pixels(decoded, "Decoding", QUIET)
    assert len(list(kept.cache.folder.glob("*.safetensors"))) == 4
    live, cached = (
        PixelExamples(pixels, dataset.labels, backbone.preprocessing, augmentation, 0) for pixels in (decoded, kept)
    )
    order = [np.array([3, 7, 9]), np.array([59, 0])]
    for one, other in zip(live.batches(order, 1), cached.batches(order, 1), strict=True):
        assert torch.equal(one, other)
    standard = np.stack([load_view(path, backbone.preprocessing).numpy() for path in np.array(dataset.paths)[[59, 0]]])
    is_standard = torch.equal(one, normalise(torch.from_numpy(standard), backbone.preprocessing))
    assert is_standard == (augment == "none")


def test_images_are_kept_no_larger_than_the_smallest_crop_needs(tmp_path: Path) -> None:
    preprocessing = load_backbone("test_resnet", "random").preprocessing
    for name, size in (("wide", (900, 600)), ("small", (40, 50))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    dataset = scan(([str(tmp_path / "wide.png"), str(tmp_path / "small.png")], ["a", "b"]))
    pixels = DecodedPixels(dataset.paths, dataset.hashes, preprocessing, AUGMENTATIONS["standard"])
    side = math.ceil(preprocessing.input_size / math.sqrt(0.35))
    assert pixels.read(0).shape == (side, round(side * 1.5), 3)
    assert pixels.read(1).shape == (50, 40, 3)


def test_an_epoch_draws_among_the_cached_views(resnet: Setting, dataset: Dataset, tmp_path: Path) -> None:
    caches = [
        extract(
            dataset,
            resnet.backbone,
            (resnet.at,),
            pool="none",
            dtype="float16",
            views=[RandomView(AUGMENTATIONS["standard"], 0, k)],
            exact=True,
            cache=tmp_path,
            progress=QUIET,
        ).caches[resnet.at]
        for k in range(3)
    ]
    examples = CachedExamples(caches, dataset.hashes, dataset.labels, 0)
    order = [np.arange(0, 60, 2), np.arange(1, 60, 2)]
    epochs = [torch.cat(list(examples.batches(order, epoch))) for epoch in (1, 2, 1)]
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    rows = np.stack([cache.rows(dataset.hashes) for cache in caches])
    drawn = [int(np.flatnonzero((rows[:, 2 * i] == epochs[0][i].numpy()).all((1, 2, 3)))[0]) for i in range(30)]
    assert set(drawn) == {0, 1, 2}


def test_mixed_targets_add_up(dataset: Dataset) -> None:
    inputs, labels = torch.rand(8, 3, 10, 10), torch.arange(8) % 3
    assert mix(inputs, labels, 3, 0, 0, generator_for("mix", 0))[1] is labels
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        for step in range(6):
            mixed, targets = mix(inputs, labels, 3, mixup, cutmix, generator_for("mix", step))
            torch.testing.assert_close(targets.sum(1), torch.ones(8))
            assert mixed.shape == inputs.shape
            assert torch.equal(mixed, mix(inputs, labels, 3, mixup, cutmix, generator_for("mix", step))[0])
    with pytest.raises(UsageError, match="CutMix needs maps"):
        mix(torch.rand(8, 5, 7), labels, 3, 0, 1.0, generator_for("mix", 0))


def test_a_staircase_falls_where_bit_does() -> None:
    rates = [rate_at(step, 500, 0.2, "staircase") for step in range(500)]
    assert rates[0] == 0.01
    assert [step for step in range(1, 500) if rates[step] < rates[step - 1]] == [200, 300, 400]
    assert rates[100:200] == [1.0] * 100


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_in_frozen_epochs_the_head_alone_learns(dataset: Dataset, tmp_path: Path, optimizer: str) -> None:
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, n_epochs=2, frozen_epochs=1, frozen_lr=0.1)
    setting = Setting("test_resnet", dataset, tmp_path)
    before = setting.trainee.state()
    n_steps = math.ceil(len(dataset) / settings.batch_size)
    after: dict[int, dict[str, torch.Tensor]] = {}
    setting.train(setting.cached, settings, share=1.0, after_step=lambda n: after.update({n: setting.trainee.state()}))

    def moved(step: int, start: str) -> bool:
        return any(
            not torch.equal(before[name], value) for name, value in after[step].items() if name.startswith(start)
        )

    assert moved(n_steps, "head.")
    assert not moved(n_steps, "suffix.")
    assert moved(n_steps + 1, "suffix.")


def test_a_training_that_the_clock_cuts_off_in_its_last_epoch_says_so(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting("test_resnet", dataset, tmp_path)
    settings = dataclasses.replace(SETTINGS, n_epochs=1)
    groups = groups_of(setting.trainee, setting.backbone)
    for deadline, is_cut_off in ((0.0, True), (math.inf, False)):
        outcome = train(setting.trainee, groups, setting.cached, None, settings, FLOAT32, deadline=deadline)
        assert ("time was over" in outcome.stopped) == is_cut_off


def test_a_pace_is_remembered_but_not_the_speed_of_a_busy_moment(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting("test_resnet", dataset, tmp_path)
    shape = (3, 64, 64)

    def chosen(seconds: float):
        monkeypatch.setattr(pacing, "_seconds", lambda trainee, shape, pace: seconds * (1 + (not pace.is_folded)))
        pace = choose_pace(setting.trainee, shape, torch.device("cpu"), True, ["it"], tmp_path)
        return pace.is_folded, pace.seconds_per_image * pacing._BATCH

    assert setting.trainee.can_fold
    assert chosen(100.0) == (True, 100.0)  # busy
    assert chosen(1.0) == (True, 1.0)
    assert chosen(50.0) == (True, 1.0)  # busy again
