"""What the fault tests run: the commands on a few drawn pictures, dozens of times."""

import pytest
from small_run import draw_pictures, write_recipe


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with 24 + 6 + 6 drawn pictures, a small recipe, and an empty MLflow store to copy."""
    from isic_smp.store import prepare_store

    folder = tmp_path_factory.mktemp("faults")
    write_recipe(folder / "small.yaml")
    draw_pictures(folder / "pictures")
    prepare_store(f"sqlite:///{folder}/empty.db")
    return folder


@pytest.fixture
def run(place, in_this_process):
    """`isic_smp.run` on the pictures with more words; exit code and what it printed on stderr."""
    from isic_smp import run as command

    def start(*words, module=command, given=True):
        pictures = ["--data", "synthetic", "--data-dir", str(place / "pictures")] if given else []
        recipe = ["--recipe", str(place / "small.yaml")] if given else []
        done = in_this_process(module, *pictures, *recipe, *words)
        return done.returncode, done.stderr

    return start


def last_line(errors: str) -> str:
    """The refusal; fails where there is a traceback, or a second refusal."""
    assert "Traceback" not in errors, errors
    said = [line for line in errors.splitlines() if ": error: " in line]
    assert len(said) == 1, errors
    assert errors.splitlines()[-1] == said[0], errors
    return said[0]
