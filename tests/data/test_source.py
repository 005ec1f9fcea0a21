"""Which data a run works on, above all: that a demonstration is never mistaken for a result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isic_smp import __version__
from isic_smp.data.isic2016 import load_isic2016
from isic_smp.data.source import DEFAULT_DIR, VARIABLE, default_cache_dir, resolve_data
from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A working folder without data, and no variable that names any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A cache whose synthetic pictures are drawn already."""
    cache = tmp_path_factory.mktemp("cache")
    make_synthetic(cache / f"synthetic-{__version__}", train=2, val=1, test=1, size=32)
    return cache


def test_nothing_found_falls_back_with_one_loud_line(nowhere, drawn, capsys):
    data, is_fallback = resolve_data("auto", None, cache_dir=drawn)
    assert (data.name, is_fallback) == ("synthetic", True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "SYNTHETIC" in said.err
    assert "isic_smp.data download" in said.err


@pytest.mark.parametrize(
    ("rank", "world", "lines"),
    [("3", None, 1), ("", "", 1), ("3", "1", 1), ("0", "4", 1), ("3", "4", 0)],
    ids=["left over", "empty", "of a scheduler", "first of four", "last of four"],
)
def test_the_loud_line_is_said_once_by_processes_that_belong_together(
    nowhere, drawn, capsys, monkeypatch, rank, world, lines
):
    monkeypatch.setenv("RANK", rank)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    resolve_data("auto", None, cache_dir=drawn)
    assert capsys.readouterr().err.count("SYNTHETIC") == lines


def test_synthetic_asked_for_is_no_fallback_and_says_nothing(nowhere, drawn, capsys):
    data, is_fallback = resolve_data("synthetic", None, cache_dir=drawn)
    assert (data.name, is_fallback) == ("synthetic", False)
    assert "SYNTHETIC" not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["argument", "variable", "default"])
def test_real_data_are_found_where_they_are_named_or_expected(how, nowhere, isic_dir, monkeypatch, capsys):
    if how == "variable":
        monkeypatch.setenv(VARIABLE, str(isic_dir))
    if how == "default":
        DEFAULT_DIR.parent.mkdir()
        DEFAULT_DIR.symlink_to(isic_dir)
    named = isic_dir if how == "argument" else None
    data, is_fallback = resolve_data("auto", named, cache_dir=nowhere / "cache")
    assert (data.name, is_fallback) == ("isic2016", False)
    assert data.fingerprint == load_isic2016(isic_dir).fingerprint
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["argument", "variable"])
@pytest.mark.parametrize("there", [True, False])
def test_a_named_folder_without_data_is_an_error_never_a_fallback(how, there, nowhere, monkeypatch):
    folder = nowhere / "mistyped"
    if there:
        folder.mkdir()
    if how == "variable":
        monkeypatch.setenv(VARIABLE, str(folder))
    with pytest.raises(
        UserError, match="mistyped.* lacks the folder" if there else "mistyped .* does not exist"
    ):
        resolve_data("auto", folder if how == "argument" else None, cache_dir=nowhere)


def test_half_a_download_is_an_error_not_a_fallback(nowhere):
    (DEFAULT_DIR / "ISBI2016_ISIC_Part1_Training_Data").mkdir(parents=True)
    with pytest.raises(UserError, match="lacks the folder"):
        resolve_data("auto", None, cache_dir=nowhere)


def test_isic2016_asked_for_and_not_found_is_an_error_that_says_where_it_looked(nowhere):
    with pytest.raises(UserError, match=f"{VARIABLE}.*{DEFAULT_DIR}.*download"):
        resolve_data("isic2016", None, cache_dir=nowhere)


def test_a_folder_of_drawn_pictures_can_be_named(nowhere):
    make_synthetic(nowhere / "drawn", train=2, val=1, test=1, size=32)
    for data in ("auto", "synthetic"):
        found, is_fallback = resolve_data(data, nowhere / "drawn", cache_dir=nowhere)
        assert (len(found.train), is_fallback) == (2, False)


def test_processes_that_start_together_share_one_set_of_drawn_pictures(nowhere):
    code = (
        "import functools, pathlib, sys; from isic_smp.data import source;"
        "source.make_synthetic = functools.partial(source.make_synthetic, train=4, val=1, test=1, size=64);"
        "print(source.resolve_data('synthetic', None, cache_dir=pathlib.Path(sys.argv[1]))[0].fingerprint)"
    )
    command = [sys.executable, "-c", code, str(nowhere / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)
    ]
    prints = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(prints) == 1
    assert [it.name for it in (nowhere / "cache").iterdir() if it.is_dir()] == [f"synthetic-{__version__}"]


def test_a_cache_folder_that_is_a_file_is_said(nowhere):
    (nowhere / "cache").touch()
    with pytest.raises(UserError, match=r"cannot write to .*cache.*choose another --cache-dir"):
        resolve_data("synthetic", None, cache_dir=nowhere / "cache")


def test_the_cache_lies_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("ISIC_SMP_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / "user" / "isic_smp"
    monkeypatch.setenv("ISIC_SMP_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
