import dataclasses
import math

import pytest
import yaml

from isic_smp.errors import UserError
from isic_smp.training.recipe import PRESETS, Recipe, load_recipe


def test_report_preset_is_what_the_report_describes():
    report = PRESETS["report"]
    described = {
        "encoder": "trunc-mobilenetv2_100-s4",
        "size": 128,
        "batch_size": 32,
        "loss": "bce",
        "optimizer": "adam",
        "lr": 1e-3,
        "encoder_lr": None,
        "weight_decay": 0.0,
        "epochs": 25,
        "schedule": "constant",
        "skip_connections": False,
        "flips": False,
        "affine": 0.0,
        "colour": 0.0,
        "keep": "last",
    }
    assert {name: getattr(report, name) for name in described} == described


def test_every_problem_is_said_at_once():
    with pytest.raises(UserError) as error:
        Recipe(epochs=0, lr=-1.0, size=100, affine=2.0)
    message = str(error.value)
    for phrase in (
        "epochs must be at least 1, got 0",
        "lr must be above 0",
        "multiple of",
        "affine must be from 0 to 1",
    ):
        assert phrase in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "trunc-mobilenetv9-s4"},
        {"encoder": "trunc-mobilenetv2_100-s9"},
        {"decoder_depth": 5},
        {"decoder_depth": 0},
        {"encoder_depth": 5},
        {"size": 16, "batch_size": 1},
        {"decoder_depth": 2, "decoder_channels": (8, 8, 8)},
        {"freeze": True, "freeze_epochs": 3},
        {"freeze_epochs": 25},
        {"feature_bank": "on"},
        {"feature_bank": "on", "freeze": True, "colour": 0.5, "affine": 0.0},
        {"threshold": 1.0},
        {"lr": math.nan},
        {"weight_decay": math.inf},
    ],
)
def test_impossible_settings_fail_before_any_work(settings):
    with pytest.raises(UserError):
        Recipe(**settings)


def test_the_decoder_follows_a_smaller_encoder_depth():
    assert Recipe(encoder_depth=3, decoder_depth=3, size=120).size == 120
    with pytest.raises(UserError, match="decoder_depth must be from 1 to 3"):
        Recipe(encoder_depth=3, decoder_depth=4)


def test_unknown_names_and_wrong_types_are_all_named():
    with pytest.raises(UserError) as error:
        Recipe.from_dict(
            {"epohs": 3, "freeze": 1, "loss": "hinge", "epochs": 2.5, "lr": True, "decoder_channels": ["a"]}
        )
    for name in ("'epohs'", "freeze", "loss", "epochs", "lr", "decoder_channels"):
        assert name in str(error.value)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_yaml_round_trip(tmp_path, preset):
    recipe = dataclasses.replace(
        PRESETS[preset], decoder_depth=3, decoder_channels=(64, 32, 16), encoder_lr=1e-4, seed=7
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.to_dict()))
    assert load_recipe(str(file)) == recipe


def test_a_yaml_file_builds_on_the_preset_it_names(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: report\nepochs: 3\nlr: 1\n")
    assert load_recipe(str(file)) == dataclasses.replace(PRESETS["report"], epochs=3, lr=1.0)


def test_a_yaml_file_may_name_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "encoder_weights: ~/mobilenet.safetensors\nteachers: [~/runs/one, models:/two@champion]\n"
    )
    recipe = load_recipe(str(file))
    assert recipe.encoder_weights == "/home/someone/mobilenet.safetensors"
    assert recipe.teachers == ("/home/someone/runs/one", "models:/two@champion")


@pytest.mark.parametrize(
    ("written", "meant"), [("off", "off"), ("on", "on"), ('"off"', "off"), ("auto", "auto")]
)
def test_a_yaml_file_may_say_on_and_off_without_quotes(tmp_path, written, meant):
    file = tmp_path / "mine.yaml"
    file.write_text(f"recipe: report\nfreeze: true\nfeature_bank: {written}\nflips: on\n")
    recipe = load_recipe(str(file))
    assert (recipe.feature_bank, recipe.flips) == (meant, True)
    file.write_text(f"schedule: {written}\n")
    with pytest.raises(UserError, match="schedule must be one of"):
        load_recipe(str(file))


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+10e-4", "1.0e-3", "0.001"])
def test_a_yaml_file_writes_numbers_as_people_do(tmp_path, written):
    file = tmp_path / "mine.yaml"
    file.write_text(f"lr: {written}\nencoder_lr: {written}\n")
    assert (load_recipe(str(file)).lr, load_recipe(str(file)).encoder_lr) == (1e-3, 1e-3)


@pytest.mark.parametrize("written", ["010", "0x10", "1:30", "0b11"])
def test_a_whole_number_of_another_base_than_ten_is_refused(tmp_path, written):
    """In YAML 1.1 they are 8, 16, 90 and 3, which nobody would mean."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"epochs: {written}\n")
    with pytest.raises(UserError, match=f"{written} is not a number in decimal digits"):
        load_recipe(str(file))
    file.write_text("epochs: 1_0\nseed: 0\n")
    assert (load_recipe(str(file)).epochs, load_recipe(str(file)).seed) == (10, 0)


@pytest.mark.parametrize(
    "text",
    ["- a list", "epochs: [", "recipe: nobody", "epochs: three", "\x00", "lr: .nan", "lr: .inf", "1: 2"],
)
def test_a_bad_yaml_file_is_one_line(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(str(file))
    assert "\n" not in str(error.value)


def test_the_channels_of_a_file_say_how_deep_its_decoder_is(tmp_path):
    """Without that, a file made for another default would be refused."""
    (tmp_path / "mine.yaml").write_text("decoder_channels: [64, 32, 16, 8]\n")
    assert load_recipe(str(tmp_path / "mine.yaml")).decoder_depth == 4
    (tmp_path / "mine.yaml").write_text("decoder_channels: [64, 32, 16, 8]\ndecoder_depth: 3\n")
    with pytest.raises(UserError, match="decoder_channels must be 3"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("words", "depth"),
    [
        ("--decoder-channels 64 32 16 8", 4),
        ("--freeze --decoder-channels 64 32 --seed 1", 2),
        ("--encoder trunc-mobilenetv2_035-s2 --decoder-channels 8 8 8", 3),
        ("--encoder trunc-mobilenetv2_100-s6 --decoder-channels 8 8 8 8 8", None),
        ("--decoder-depth 3 --decoder-channels 64 32 16", 3),
        ("--recipe small --decoder-channels 8 8", 2),
        ("", 2),
    ],
)
def test_the_channels_of_a_command_say_how_deep_its_decoder_is(words, depth):
    from isic_smp.run import parse

    assert parse(words.split()).settings.decoder_depth == depth


def test_a_commands_depth_that_its_channels_contradict_is_refused():
    from isic_smp.run import parse

    with pytest.raises(UserError, match="decoder_channels must be 3"):
        parse(["--decoder-depth", "3", "--decoder-channels", "64", "32"])


@pytest.mark.parametrize("option", ["--recipe", "--decoder-depth"])
def test_an_option_without_its_value_is_said_in_one_line(option):
    from isic_smp.run import parse

    with pytest.raises(UserError, match=rf"^argument {option}.*: expected one argument; --help"):
        parse([option])
