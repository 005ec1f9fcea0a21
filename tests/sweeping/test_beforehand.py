"""What is refused before a study is begun."""

import dataclasses

import pytest

from isic_smp.errors import UserError
from isic_smp.sweeping.beforehand import FolderNote, check_starts
from isic_smp.sweeping.plan import Plan, grid
from isic_smp.training.recipe import PRESETS


def test_a_folder_is_of_one_study(tmp_path):
    first = FolderNote(tmp_path)
    first.check_name("a", [])
    first.keep("a", run_id="1", storage="sqlite:///one.db")
    again = FolderNote(tmp_path)
    again.check_name("a", ["a"])
    again.keep("a", run_id="1", storage="the same by another address")
    for name, there in (("b", ["a", "b"]), ("a", [])):
        with pytest.raises(UserError, match=r"holds the trials of the study a in sqlite:///one\.db: choose"):
            FolderNote(tmp_path).check_name(name, there)
    with pytest.raises(UserError, match="holds the trials of the study a"):  # of another storage
        FolderNote(tmp_path).keep("a", run_id="2", storage="sqlite:///two.db")


def planned(**settings) -> Plan:
    distributions, cells = grid(decoder_depth=(4, 2))
    return Plan(
        base=dataclasses.replace(PRESETS["default"], **settings), distributions=distributions, cells=cells
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder_weights": "nothere.safetensors"}, "no encoder weights nothere.safetensors"),
        ({"encoder": "trunc-mobilenetv3_large_100-s3", "encoder_weights": "isic2016"}, "mobilenetv2_100"),
        ({"init_from": "nothere"}, "nothere"),
        # It has four steps, and the plan's second cell two.
        ({"init_from": "isic2016"}, "cannot go on from isic2016, it is another network"),
        ({"encoder_weights": "none", "teachers": ("isic2016", "nothere")}, "nothere"),
        ({"encoder_weights": "none", "pipeline": "nothere.json"}, "nothere.json"),
    ],
)
def test_what_no_trial_could_start_from_is_said_before_the_first(settings, said):
    with pytest.raises(UserError, match=said):
        check_starts(planned(**settings), is_demo=False, tracking_uri=None)


def test_what_is_there_is_passed():
    check_starts(planned(encoder_weights="none"), is_demo=False, tracking_uri=None)
    check_starts(planned(), is_demo=True, tracking_uri=None)
