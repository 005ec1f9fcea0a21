"""The loop, on a small real network and real cached pictures."""

import dataclasses

import pytest
import torch

from isic_smp.data.augment import Augmenter
from isic_smp.errors import UserError
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.batches import Order, PixelBatches
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.fit import fit
from isic_smp.training.optimisation import make_optimizer
from isic_smp.training.recipe import Recipe
from isic_smp.training.resume import resumable_state
from isic_smp.training.trainer import TrainingDiverged

CPU = torch.device("cpu")
SMALL = Recipe(
    encoder="trunc-mobilenetv2_035-s2",
    encoder_weights="none",
    decoder_channels=(16, 8, 8),
    size=32,
    batch_size=8,
    epochs=4,
    precision="float32",
)


class Silent:
    def start(self, epoch, steps): ...
    def step(self, images, figures): ...
    def end(self, record): ...


def build(recipe):
    torch.manual_seed(recipe.seed)
    return UpConvNet(
        recipe.encoder,
        encoder_weights=None,
        decoder_channels=recipe.decoder_channels,
        skip_connections=recipe.skip_connections,
    )


def pixel_batches(recipe, model, caches):
    train, val = caches
    norm = {"mean": model.mean, "std": model.std}
    order = Order(len(train), recipe.batch_size, shuffle=True, seed=recipe.seed)
    augmenter = Augmenter(flips=recipe.flips, affine=recipe.affine, colour=recipe.colour)
    return (
        PixelBatches(train, order, augmenter=augmenter, **norm),
        PixelBatches(val, Order(len(val), recipe.batch_size, shuffle=False), **norm),
    )


def train(
    recipe,
    caches,
    folder,
    *,
    model=None,
    on_epoch=lambda record, model: None,
    fingerprint="data",
    resume=False,
):
    model = model or build(recipe)
    checkpoints = Checkpoints(folder)
    result = fit(
        model,
        recipe,
        *pixel_batches(recipe, model, caches),
        device=CPU,
        checkpoints=checkpoints,
        fingerprint=fingerprint,
        state=resumable_state(checkpoints, recipe, fingerprint) if resume else None,
        on_epoch=on_epoch,
        progress=Silent(),
    )
    return model, result


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def figures(result):
    return [dataclasses.replace(r, seconds=0, images_per_second=0) for r in result.history]


def test_training_learns(small_caches, tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=12, lr=1e-2, encoder_lr=1e-2)
    _, result = train(recipe, small_caches, tmp_path)
    assert result.history[-1].train_loss < 0.7 * result.history[0].train_loss
    assert max(r.val_dice for r in result.history) > 0.8


def test_a_frozen_encoder_stays_bit_equal_and_a_trained_one_does_not(small_caches, tmp_path):
    for freeze in (True, False):
        model = build(SMALL)
        before = state_of(model.encoder), state_of(model.decoder)
        train(
            dataclasses.replace(SMALL, freeze=freeze, epochs=1),
            small_caches,
            tmp_path / str(freeze),
            model=model,
        )
        assert same(before[0], state_of(model.encoder)) is freeze
        assert not same(before[1], state_of(model.decoder))


def test_gradual_unfreezing_starts_at_its_epoch(small_caches, tmp_path):
    model = build(SMALL)
    start = state_of(model.encoder)
    moved = []
    recipe = dataclasses.replace(SMALL, freeze_epochs=2)
    train(
        recipe,
        small_caches,
        tmp_path,
        model=model,
        on_epoch=lambda r, m: moved.append(not same(start, state_of(m.encoder))),
    )
    assert moved == [False, False, True, True]


def test_same_seed_same_bits_and_another_seed_others(small_caches, tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=2)
    models = [train(recipe, small_caches, tmp_path / str(n)) for n in range(2)]
    other = train(dataclasses.replace(recipe, seed=1), small_caches, tmp_path / "other")
    assert same(state_of(models[0][0]), state_of(models[1][0]))
    assert figures(models[0][1]) == figures(models[1][1])
    assert figures(models[0][1]) != figures(other[1])


@pytest.mark.slow
def test_another_number_of_threads_differs_by_rounding_alone(small_caches, tmp_path):
    recipe, own, results = dataclasses.replace(SMALL, epochs=2), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(train(recipe, small_caches, tmp_path / str(threads))[1].history)
    finally:
        torch.set_num_threads(own)
    assert results[1][0].train_loss == pytest.approx(results[0][0].train_loss, rel=1e-3)
    for one, two in zip(*results, strict=True):
        assert two.val_dice == pytest.approx(one.val_dice, abs=0.01)


@pytest.mark.parametrize("channels_last", [True, False])
def test_activations_lie_in_memory_as_the_recipe_says(small_caches, tmp_path, channels_last):
    recipe = dataclasses.replace(SMALL, epochs=2, channels_last=channels_last)
    model = build(recipe)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    seen = []

    def look(_module, _inputs, output):
        if model.training:
            seen.append((output.is_contiguous(memory_format=torch.channels_last), output.is_contiguous()))

    model.encoder.blocks[1][0].bn1.register_forward_hook(look)
    # As drawing does, for which a predictor takes the model.
    train(
        recipe,
        small_caches,
        tmp_path,
        model=model,
        on_epoch=lambda *_: model.to(memory_format=torch.channels_last),
    )
    assert set(seen) == {(channels_last, not channels_last)}


@pytest.mark.parametrize("keep", [pytest.param("best", marks=pytest.mark.slow), "last"])
def test_interrupted_and_resumed_equals_uninterrupted(small_caches, tmp_path, keep):
    recipe = dataclasses.replace(SMALL, ema=0.9, freeze_epochs=1, keep=keep)
    whole, expected = train(recipe, small_caches, tmp_path / "whole")

    def interrupt(record, model):
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, small_caches, tmp_path / "cut", on_epoch=interrupt)
    resumed, result = train(recipe, small_caches, tmp_path / "cut", resume=True)
    assert figures(result) == figures(expected)
    assert same(state_of(whole), state_of(resumed))
    again, result = train(recipe, small_caches, tmp_path / "cut", resume=True)
    assert figures(result) == figures(expected), "resuming a finished run trains no further"
    assert same(state_of(whole), state_of(again))


def test_other_data_or_another_recipe_is_not_resumed(small_caches, tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=1)
    train(recipe, small_caches, tmp_path)
    with pytest.raises(UserError, match="made on other data"):
        train(recipe, small_caches, tmp_path, fingerprint="other", resume=True)
    with pytest.raises(UserError, match=r"lr 0\.003 then, 0\.1 now"):
        train(dataclasses.replace(recipe, lr=0.1), small_caches, tmp_path, resume=True)


def test_a_setting_that_a_checkpoint_does_not_know_is_what_was_done_then(small_caches, tmp_path):
    """A checkpoint of a release before `artefacts`, and one of a release after this."""
    recipe = dataclasses.replace(SMALL, epochs=1)
    train(recipe, small_caches, tmp_path)
    kept = Checkpoints(tmp_path)
    state = kept.load_last()
    older = {name: value for name, value in state["recipe"].items() if name != "artefacts"}
    kept.save_last(state | {"recipe": older})
    train(recipe, small_caches, tmp_path, resume=True)
    with pytest.raises(UserError, match=r"\(artefacts 0\.0 then, 1\.0 now\)"):
        train(dataclasses.replace(recipe, artefacts=1.0), small_caches, tmp_path, resume=True)
    kept.save_last(state | {"recipe": older | {"shear": 3}})
    with pytest.raises(UserError, match=r"\(shear 3 then, no such setting now\)"):
        train(recipe, small_caches, tmp_path, resume=True)


def test_the_kept_weights_are_those_of_the_best_or_the_last_epoch(small_caches, tmp_path):
    seen = {}
    for keep in ("best", "last"):
        recipe = dataclasses.replace(SMALL, keep=keep, lr=0.05, schedule="constant", ema=0.5)
        seen.clear()
        model, result = train(
            recipe, small_caches, tmp_path / keep, on_epoch=lambda r, m: seen.update({r.epoch: state_of(m)})
        )
        best = max(result.history, key=lambda r: r.val_iou).epoch
        assert result.best_epoch == best
        assert result.kept_epoch == (best if keep == "best" else recipe.epochs - 1)
        assert same(seen[result.kept_epoch], state_of(model))


def test_early_stopping_waits_for_its_patience(small_caches, tmp_path):
    recipe = dataclasses.replace(
        SMALL, epochs=30, early_stopping=2, lr=1e-9, encoder_lr=1e-9, schedule="constant"
    )
    _, result = train(recipe, small_caches, tmp_path)
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 3


def test_a_loss_that_diverges_stops_the_run_with_the_images(small_caches, tmp_path):
    recipe = dataclasses.replace(
        SMALL, optimizer="sgd", lr=1e25, encoder_lr=1e25, schedule="constant", grad_clip=0, loss="bce"
    )
    with pytest.raises(TrainingDiverged, match=r"lower lr; it was on the images IMG_\d{4}, IMG_\d{4}"):
        train(recipe, small_caches, tmp_path)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 3])
def test_a_gradient_that_is_not_finite_stops_at_its_step_and_keeps_the_last_epoch(
    small_caches, tmp_path, clip, value, step
):
    """In the second epoch, at its first and at its last step: the loss of that step is finite still."""
    recipe = dataclasses.replace(SMALL, grad_clip=clip)
    model, seen = build(recipe), []

    def spoil(gradient):
        seen.append(len(seen))
        return gradient * value if len(seen) == 3 + step else gradient

    model.segmentation_head[0].weight.register_hook(spoil)
    with pytest.raises(TrainingDiverged, match=r"a gradient is not finite, .*on the images IMG_\d{4}"):
        train(recipe, small_caches, tmp_path, model=model)
    assert len(seen) == 3 + step
    assert all(torch.isfinite(p).all() for p in model.parameters()), "the bad step was not taken"
    kept = Checkpoints(tmp_path)
    assert len(kept.load_last()["history"]) == 1
    whole = [*kept.load_last()["model"].values(), *kept.load_best().values()]
    assert all(torch.isfinite(value).all() for value in whole)


def test_statistics_that_are_not_finite_are_not_kept(small_caches, tmp_path):
    """In training mode a network does not use its running statistics: only its evaluation would show them."""
    model, seen = build(SMALL), []
    name, norm = next((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d))

    def spoil(gradient):
        seen.append(None)
        if len(seen) == 5:
            norm.running_var.data.fill_(float("nan"))

    model.segmentation_head[0].weight.register_hook(spoil)
    with pytest.raises(TrainingDiverged, match=f"{name}.running_var holds numbers that are not finite"):
        train(SMALL, small_caches, tmp_path, model=model)
    kept = Checkpoints(tmp_path)
    assert len(kept.load_last()["history"]) == 1
    whole = [*kept.load_last()["model"].values(), *kept.load_best().values()]
    assert all(torch.isfinite(value).all() for value in whole)


def test_a_new_training_does_not_go_on_from_an_older_one_s_checkpoint(small_caches, tmp_path):
    """Killed in its first epoch, it leaves no checkpoint, and not that of the training before it."""
    recipe = dataclasses.replace(SMALL, epochs=2)
    whole, expected = train(recipe, small_caches, tmp_path)

    def interrupt(record, model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, small_caches, tmp_path, on_epoch=interrupt)
    seen = []
    again, result = train(
        recipe, small_caches, tmp_path, resume=True, on_epoch=lambda record, model: seen.append(record.epoch)
    )
    assert seen == [0, 1]
    assert figures(result) == figures(expected)
    assert same(state_of(whole), state_of(again))


def test_learning_rates_and_decay_go_where_they_belong():
    recipe = dataclasses.replace(SMALL, lr=1e-2, encoder_lr=1e-4, weight_decay=0.1)
    model = build(recipe)
    rates = {
        id(p): (group["lr"], group["weight_decay"])
        for group in make_optimizer(model, recipe).param_groups
        for p in group["params"]
    }
    for name, p in model.named_parameters():
        lr = 1e-4 if name.startswith("encoder.") else 1e-2
        assert rates[id(p)] == (lr, 0.1 if p.ndim > 1 else 0.0), name
    frozen = make_optimizer(model, dataclasses.replace(recipe, freeze=True))
    trained = {id(p) for group in frozen.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in model.encoder.parameters()}
