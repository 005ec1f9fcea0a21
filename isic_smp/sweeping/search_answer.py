"""The answer of a search: the winner, how sure it is, and the command that trains it again."""

import shlex

from isic_smp.sweeping.answer import Answer, Findings
from isic_smp.sweeping.pictures import draw_trade
from isic_smp.sweeping.queue import first_number
from isic_smp.sweeping.results import Cell, table
from isic_smp.sweeping.study_run import winner
from isic_smp.training.recipe import PRESETS


def search_answer(findings: Findings) -> Answer:
    """The winner under each of its seeds, or the front where there are several objectives."""
    best = winner(findings.study, findings.plan)
    assert best is not None  # there is no answer without a complete trial
    recipe = findings.plan.recipe(best.params)
    default = PRESETS["default"].to_dict()
    changed = {name: value for name, value in recipe.to_dict().items() if value != default[name]}
    words = ["python -m isic_smp.run", *(_option(name, value) for name, value in changed.items())]
    if findings.data.name != "isic2016":  # which is what the command takes where it finds it
        words.append(_option("data", findings.data.name))
    words.append(_option("data_dir", findings.data.root))
    words += [_option(name, value) for name, value in findings.dividing.items() if value]
    command = " ".join(words)
    text = [
        table(findings.cells),
        "",
        f"best by validation IoU: trial {first_number(best)}; to train it again:",
    ]
    text += ["", f"    {command}"]
    files = []
    if len(findings.plan.objectives) > 1:
        path = findings.folder / "pictures" / "trade_multiply_adds.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_trade(
            findings.cells,
            path,
            cost=_gmacs,
            cost_name="10⁹ multiply-adds an image",
            label=lambda cell: f"trial {cell.trials[0].number}",
            group=lambda cell: f"cut after stage {cell.params.get('cut')}",
        )
        files.append(path)
    elif len(findings.cells[0].trials) > 1:
        text += [
            "",
            "The score of the trial that was chosen is too good by the luck of being chosen; the mean over the "
            "other seeds is what to expect of it.",
        ]
    return Answer("\n".join(text), files)


def _gmacs(cell: Cell) -> float:
    return cell.trials[0].gmacs


def _option(name: str, value: object) -> str:
    """A setting as the command line takes it."""
    word = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{word}" if value else f"--no-{word}"
    if isinstance(value, list):
        return f"--{word} {shlex.join(map(str, value))}"
    return f"--{word} {shlex.quote(str(value))}"
