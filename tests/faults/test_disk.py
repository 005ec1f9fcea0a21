"""Full and read-only disks: one line, whatever was there stays, nothing half-written under its final name."""

import shutil
import subprocess

import pytest

from .conftest import last_line

pytestmark = pytest.mark.slow


@pytest.fixture
def words(place, tmp_path):
    """All places of a run but the one under test."""
    shutil.copy(place / "empty.db", tmp_path / "mlflow.db")

    def words(**places):
        chosen = {
            "tracking-uri": f"sqlite:///{tmp_path}/mlflow.db",
            "cache-dir": tmp_path / "cache",
            "output-dir": tmp_path / "out",
            **{name.replace("_", "-"): value for name, value in places.items()},
        }
        return [word for name, value in chosen.items() for word in (f"--{name}", value)]

    return words


def check_whole(out):
    """Every file that a run left under its final name can be read."""
    import isic_smp
    from isic_smp.training.checkpoint import Checkpoints

    kept = Checkpoints(out)
    assert kept.load_last() is None or kept.load_last()["history"]
    assert not kept.best.exists() or kept.load_best()
    if (out / "model").exists():
        isic_smp.load(out / "model")
    assert [p for p in out.rglob("*") if p.name.endswith(".part")] == []


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("room", [8, 60, 150, 250, 400, 700])
def test_a_full_disk_under_the_output_is_one_line_and_resume_ends_it(run, words, small_disk, tmp_path, room):
    """The disk holds `room` kB: so much that the journal, a checkpoint, the model, its export … does not fit any more."""
    disk = small_disk(1)
    remount(disk, f"size={room}k")
    given = [*words(output_dir=disk / "out"), "--resume"]
    code, errors = run(*given)
    line = last_line(errors)
    assert code == 2
    assert "No space left on device" in line or "free some space" in line, line
    check_whole(disk / "out")
    remount(disk, "size=16m")
    code, errors = run(*given)
    assert code == 0, errors
    check_whole(disk / "out")
    undisturbed = tmp_path / "undisturbed"
    assert run(*words(output_dir=undisturbed))[0] == 0
    one, other = (f / "model" / "model.safetensors" for f in (disk / "out", undisturbed))
    assert one.read_bytes() == other.read_bytes()


def test_a_full_disk_under_the_cache(run, words, small_disk):
    disk = small_disk(1)
    remount(disk, "size=64k")
    for freeze in ([], ["--freeze", "--feature-bank", "on"]):
        code, errors = run(*words(cache_dir=disk / "cache"), *freeze)
        assert code == 2
        assert "cannot write the pixel cache" in last_line(errors)
    assert [p for p in disk.rglob("*") if p.name.startswith("pixels-")] == []
    # Room for the pixels, not for the features.
    remount(disk, "size=400k")
    code, errors = run(*words(cache_dir=disk / "cache"), "--freeze", "--feature-bank", "on")
    assert code in (0, 2), errors  # a bank that takes more than half of the room is done without
    assert "feature bank" in errors
    assert [p for p in disk.rglob("*") if p.name.endswith(".part")] == []


@pytest.mark.parametrize("what", ["output_dir", "cache_dir", "tracking_uri"])
def test_a_read_only_folder(run, words, small_disk, what):
    disk = small_disk(1)
    remount(disk, "ro")
    place = f"sqlite:///{disk}/mlflow.db" if what == "tracking_uri" else disk / "here"
    code, errors = run(*words(**{what: place}))
    assert code == 2
    assert str(disk) in last_line(errors)


def test_an_output_folder_that_becomes_read_only_keeps_its_run(run, words, small_disk):
    disk = small_disk(8)
    given = [*words(output_dir=disk / "out"), "--resume"]
    assert run(*given)[0] == 0
    before = {p: p.read_bytes() for p in (disk / "out").rglob("*") if p.is_file()}
    remount(disk, "ro")
    code, errors = run(*given)
    assert code == 2
    last_line(errors)
    remount(disk, "rw")
    assert {p: p.read_bytes() for p in (disk / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("room", [4, 40, 120])
def test_a_full_disk_under_the_masks(run, words, place, small_disk, tmp_path, room):
    from PIL import Image

    from isic_smp import predict

    assert run(*words())[0] == 0
    disk = small_disk(1)
    remount(disk, f"size={room}k")
    images = place / "pictures" / "ISBI2016_ISIC_Part1_Training_Data"
    given = [
        images,
        "--model",
        tmp_path / "out",
        "--out",
        disk / "predicted",
        "--probabilities",
        "--overlays",
    ]
    code, errors = run(*given, module=predict, given=False)
    assert code == 2
    last_line(errors)
    for picture in disk.rglob("*.[pj][np]g"):
        Image.open(picture).load()
    remount(disk, "size=16m")
    code, errors = run(*given, module=predict, given=False)
    assert code == 0, errors
    masks = list((disk / "predicted" / "masks").iterdir())
    assert len(masks) == 30
    for mask in masks:
        Image.open(mask).load()
    assert [p for p in disk.rglob("*") if p.name.endswith(".part")] == []
