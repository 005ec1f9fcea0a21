"""What a grid of networks says that accuracy costs."""

import optuna
import torch
from PIL import Image
from simulated_study import Simulation

import isic_smp
from isic_smp.data.isic2016 import LesionData
from isic_smp.inference.load import OUTPUT_FOLDER, save_bundle
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.sweeping import trade_answer
from isic_smp.sweeping.answer import Findings
from isic_smp.sweeping.results import Cell, TrialResult

COSTS = {1: (0.10, 0.80), 2: (0.20, 0.84), 3: (0.30, 0.83), 4: (0.40, 0.85)}
"""Multiply-adds in 10⁹ and validation IoU by the number of decoder steps; three steps are beaten by two."""


def cell(folder, steps):
    gmacs, iou = COSTS[steps]
    trials = tuple(
        TrialResult(
            number=10 * steps + seed,
            params={"decoder_depth": steps},
            seed=seed,
            folder=folder,
            run_id="",
            val_iou=iou + 0.01 * seed,
            val_dice=0.9,
            test_iou=0.7,
            test_dice=0.8,
            parameters=1000 * steps,
            gmacs=gmacs,
            seconds=1.0,
        )
        for seed in (0, 1)
    )
    return Cell({"decoder_depth": steps}, trials)


def test_the_front_is_named_and_drawn_and_each_network_timed(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s1", encoder_weights=None).eval()
    preprocessing = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_bundle(model, preprocessing, {}, tmp_path / "trial" / OUTPUT_FOLDER)
    monkeypatch.setattr(trade_answer, "SECONDS", 0.0)
    cells = [cell(tmp_path / "trial", steps) for steps in (4, 2, 3, 1)]
    findings = Findings(
        study=optuna.create_study(),
        plan=Simulation(url="", folder=tmp_path, trials=1).plan(),
        cells=cells,
        data=LesionData("isic2016", tmp_path, (), (), (), "", {}),
        folder=tmp_path,
        tracking_uri="",
        tested=True,
    )
    found = trade_answer.trade_answer(
        findings, label=lambda params: f"{params['decoder_depth']} steps", group=lambda params: "frozen"
    )
    front = [line for line in found.text.splitlines() if line.startswith("- ")]
    assert front == [
        "- frozen, 1 steps: validation IoU 0.8050 for 0.100 · 10⁹ multiply-adds",
        "- frozen, 2 steps: validation IoU 0.8450 for 0.200 · 10⁹ multiply-adds",
        "- frozen, 4 steps: validation IoU 0.8550 for 0.400 · 10⁹ multiply-adds",
    ]
    rows = [line.split(" | ") for line in found.text.splitlines() if line.startswith("|")]
    assert rows[0][-1] == "images/s |" and all(int(row[-1].split()[0]) > 0 for row in rows[2:])
    assert [path.name for path in found.files] == ["trade_multiply_adds.png", "trade_parameters.png"]
    for path in found.files:
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors(maxcolors=256) or ()) > 10, "something is drawn"
