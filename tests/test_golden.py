"""What release 0.1.0 saved loads today: a checkpoint, a model, a study."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.oldest

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_computes_what_it_did():
    import isic_smp

    model = isic_smp.load(GOLDEN / "model")
    ramp = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        logits = model(ramp)
    assert logits.mean().item() == pytest.approx(-3.0035, abs=1e-3)
    assert logits.std().item() == pytest.approx(1.2615, abs=1e-3)


def test_a_checkpoint_gives_its_weights_and_its_history(tmp_path):
    import isic_smp
    from isic_smp.training.checkpoint import Checkpoints

    shutil.copy(GOLDEN / "last.pt", tmp_path / "last.pt")
    state = Checkpoints(tmp_path).load_last()
    assert [record["epoch"] for record in state["history"]] == [0, 1, 2]
    model = isic_smp.load(GOLDEN / "model")
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state["model"])
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_is_gone_on_from(tmp_path, small_caches):
    """It does not know the settings that came after it, and was interrupted before its last epoch."""
    import isic_smp
    from isic_smp.progress import EpochBars
    from isic_smp.training.batches import Order, PixelBatches
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.fit import fit
    from isic_smp.training.recipe import Recipe
    from isic_smp.training.resume import resumable_state

    shutil.copy(GOLDEN / "last.pt", tmp_path / "last.pt")
    checkpoints = Checkpoints(tmp_path)
    state = checkpoints.load_last()
    checkpoints.save_last(state | {"history": state["history"][:-1]})
    model = isic_smp.load(GOLDEN / "model")
    train, val = (
        PixelBatches(cache, Order(len(cache), 8, shuffle=shuffle), mean=model.mean, std=model.std)
        for cache, shuffle in zip(small_caches, (True, False), strict=True)
    )
    recipe = Recipe.from_dict(state["recipe"], Recipe())
    result = fit(
        model,
        recipe,
        train,
        val,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        fingerprint=state["fingerprint"],
        state=resumable_state(checkpoints, recipe, state["fingerprint"]),
        on_epoch=lambda record, model: None,
        progress=EpochBars(3, shown=False),
    )
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert result.history[-1].train_loss < result.history[0].train_loss


@pytest.mark.filterwarnings("ignore")
def test_a_study_gives_its_trials(tmp_path):
    import optuna

    from isic_smp.sweeping.storage import open_storage

    (tmp_path / "study.db").write_bytes(gzip.decompress((GOLDEN / "study.db.gz").read_bytes()))
    storage = open_storage(f"sqlite:///{tmp_path}/study.db", heartbeat=15)
    study = optuna.load_study(study_name="golden", storage=storage)
    assert len(study.trials) == 3
    assert study.best_value == pytest.approx(0.002459214, rel=1e-6)
    assert study.best_params["k"] == 2
