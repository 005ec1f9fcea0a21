"""Which cells a grid's answer compares with which."""

import dataclasses
from pathlib import Path

import optuna

from isic_smp.data.isic2016 import LesionData
from isic_smp.sweeping.answer import Findings
from isic_smp.sweeping.paired_answer import about_reference, questions
from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.results import Cell
from isic_smp.training.recipe import PRESETS


def found(*ways: str) -> Findings:
    """A finished grid of two encoders and three ways, of which these have complete trials, in this order."""
    distributions, cells = grid(seed=(0, 1), encoder=("a", "b"), way=("whole", "without x", "without y"))
    return Findings(
        study=optuna.create_study(),
        plan=Plan(base=PRESETS["default"], distributions=distributions, cells=cells),
        cells=[Cell({"encoder": encoder, "way": way}, ()) for way in ways for encoder in ("b", "a")],
        data=LesionData("isic2016", Path(), (), (), (), "", {}),
        folder=Path(),
        tracking_uri="",
        tested=True,
    )


def test_all_are_compared_with_the_first_value_whichever_was_completed_first():
    findings = found("without y", "whole", "without x")
    asked = questions(findings, "way", ["encoder"])
    assert {key: [cell.params["way"] for cell in cells] for key, cells in asked.items()} == {
        '{"encoder": "b"}': ["whole", "without x", "without y"],
        '{"encoder": "a"}': ["whole", "without x", "without y"],
    }
    assert [about_reference(findings, "way", members) for members in asked.values()] == [[], []]


def test_what_was_tried_when_more_was_planned_is_in_the_answer():
    findings = found("without y", "whole", "without x")
    fewer = dataclasses.replace(findings.plan, cells=findings.plan.cells[:1])
    [members, _] = questions(dataclasses.replace(findings, plan=fewer), "way", ["encoder"]).values()
    assert [cell.params["way"] for cell in members] == ["whole", "without y", "without x"]


def test_another_reference_is_said_where_the_first_value_has_no_complete_trial():
    findings = found("without y", "without x")
    for members in questions(findings, "way", ["encoder"]).values():
        assert about_reference(findings, "way", members) == [
            "No trial of whole was complete, so without x is what the others are compared with."
        ]
