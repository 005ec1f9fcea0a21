"""What release 0.1.0 saved loads today: a checkpoint, a model, a study."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch

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
