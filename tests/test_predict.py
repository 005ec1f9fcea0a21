import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import isic_smp
from isic_smp import predict
from isic_smp.data.images import read_image
from isic_smp.data.isic2016 import FOLDERS, load_isic2016
from isic_smp.data.resize import resize_image
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.scoring import score

CHECKOUT = Path(isic_smp.__file__).parent.parent
SIZE = 32


def save_model(
    folder: Path, *, seed: int = 0, flips: bool = False, expected: ExpectedIoU | None = None
) -> Path:
    torch.manual_seed(seed)
    model = isic_smp.create_model(
        "upconvnet", encoder_name="trunc-mobilenetv3_small_050-s1", encoder_weights=None
    )
    preprocessing = Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3, test_time_flips=flips)
    save_bundle(model, preprocessing, expected.to_facts() if expected else {}, folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


def run(*argv: object) -> int:
    return predict.main([str(word) for word in argv])


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    small = np.random.default_rng(height * width).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(small[..., c]).resize((width, height))) for c in range(channels)], axis=-1
    )


@pytest.fixture
def images(tmp_path) -> Path:
    """All kinds of pictures, in two folders."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.fromarray(noise(40, 70)).save(folder / "ISIC_0000001.jpg", exif=turned)
    Image.fromarray(noise(33, 20, 1)[..., 0]).save(folder / "grey.png")
    Image.fromarray(noise(64, 50, 4)).save(folder / "alpha.png")
    Image.fromarray(noise(90, 31, 1)[..., 0].astype(np.uint16) * 257).save(folder / "deep.tif")
    Image.fromarray(noise(SIZE, SIZE)).save(folder / "more" / "photo of 5.5.2020.webp", lossless=True)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.oldest
def test_masks_of_all_kinds_of_images_are_the_predictors_own_at_their_own_sizes(
    images, model, tmp_path, capsys
):
    out = tmp_path / "out"
    assert (
        run(images, "--model", model, "--out", out, "--probabilities", "--overlays", "--batch-size", 2) == 0
    )
    said = capsys.readouterr().out
    assert said.startswith("5 images in ") and f": {out / 'masks'}, table {out / 'predictions.csv'}\n" in said
    sources = {path.stem: path for path in images.rglob("*.*")}
    assert files(out / "masks") == sorted(f"{stem}_Segmentation.png" for stem in sources)
    bundle = load_bundle(model)
    table = rows(out)
    for stem, path in sources.items():
        [expected] = Predictor(bundle.model, bundle.preprocessing).predict([read_image(path)])
        with Image.open(out / "masks" / f"{stem}_Segmentation.png") as mask:
            assert mask.mode == "L"
            found = np.asarray(mask)
        assert np.array_equal(found, np.where(expected > 0.5, 255, 0))
        probability = np.asarray(Image.open(out / "probabilities" / f"{stem}_probability.png"))
        assert np.abs(probability / 255 - expected).max() < 0.51 / 255
        assert Image.open(out / "overlays" / f"{stem}_overlay.jpg").size == expected.shape[::-1]
        row = table[stem]
        assert row["image"] == str(path)
        assert (int(row["height"]), int(row["width"])) == expected.shape
        assert int(row["lesion_pixels"]) == (found == 255).sum() > 0
        assert float(row["lesion_share"]) == pytest.approx((found == 255).mean())
        assert float(row["confidence"]) == pytest.approx(expected[expected > 0.5].mean(), abs=1e-5)
        left, top, width, height = (int(row[c]) for c in ("left", "top", "box_width", "box_height"))
        assert Image.fromarray(found).getbbox() == (left, top, left + width, top + height)
        assert float(row["seconds"]) > 0
        assert row["expected_iou"] == ""  # a model of an older version


def test_the_expected_iou_is_in_the_table_and_the_masks_that_need_a_look_are_said(images, tmp_path, capsys):
    expected = ExpectedIoU(intercept=-0.2, slope=0.9)
    model = save_model(tmp_path / "fitted", expected=expected)
    out = tmp_path / "out"
    assert run(images, "--model", model, "--out", out) == 0
    printed = capsys.readouterr().out
    bundle, table = load_bundle(model), rows(out)
    predictor = Predictor(bundle.model, bundle.preprocessing)
    wanted = {}
    for path in images.rglob("*.*"):
        [small] = predictor.probabilities(resize_image(read_image(path), SIZE)[None]).numpy()
        wanted[path.stem] = expected.of(small, 0.5)
        assert float(table[path.stem]["expected_iou"]) == pytest.approx(wanted[path.stem], abs=1e-5)
    low = sorted((iou, stem) for stem, iou in wanted.items() if iou < 0.65)
    assert low
    assert (
        f"with an expected IoU under 0.65, worst first: {', '.join(stem for _, stem in low[:5])}" in printed
    )
    with pytest.raises(UserError, match="predictions made otherwise"):  # its column would be another's
        run(images, "--model", save_model(tmp_path / "other", expected=ExpectedIoU(0, 1)), "--out", out)


def test_only_masks_and_table_are_written_unless_asked_and_the_table_not_where_unwanted(
    images, model, tmp_path
):
    run(images, "--model", model, "--out", tmp_path / "out")
    assert files(tmp_path / "out") == [
        ".predictions.lock",
        "masks",
        "predictions.csv",
        "predictions.jsonl",
    ]
    run(images, "--model", model, "--out", tmp_path / "bare", "--no-csv")
    assert files(tmp_path / "bare") == [".predictions.lock", "masks", "predictions.jsonl"]
    before = len(rows(tmp_path / "out"))  # a table that is there already tells of all masks, wanted or not
    Image.fromarray(noise(20, 20)).save(images / "another.png")
    run(images, "--model", model, "--out", tmp_path / "out", "--no-csv")
    assert len(rows(tmp_path / "out")) == before + 1


def test_bad_files_are_said_at_the_end_and_the_rest_goes_on(images, model, tmp_path, capsys):
    out = tmp_path / "out"
    (images / "a bad one.jpg").write_bytes(b"no picture")
    (images / "cut.jpg").write_bytes((images / "ISIC_0000001.jpg").read_bytes()[:600])
    (images / "gone.png").symlink_to("nowhere")
    assert run(images, "--model", model, "--out", out, "--batch-size", 2) == 1
    assert len(files(out / "masks")) == len(rows(out)) == 5
    said = capsys.readouterr().err
    assert said.startswith(f"3 images could not be used, listed in {out / 'failures.csv'}:\n")
    with (out / "failures.csv").open() as file:
        failures = {Path(row["image"]).name: row["reason"] for row in csv.DictReader(file)}
    assert sorted(failures) == ["a bad one.jpg", "cut.jpg", "gone.png"]
    assert all(reason in said for reason in failures.values())
    # people have DICOM, HEIC and JPEG 2000
    assert "empty, or not in a format that is read (BMP, GIF, JPEG, PNG" in failures["a bad one.jpg"]
    # mended, they are all that is left to do
    for name in failures:
        (images / name).unlink()
        Image.fromarray(noise(20, 20)).save(images / name)
    assert run(images, "--model", model, "--out", out) == 0
    assert capsys.readouterr().out.startswith("3 images in ")
    assert not (out / "failures.csv").exists()
    assert len(rows(out)) == 8


def test_what_failed_stays_in_the_one_table_and_out_of_the_other_in_later_calls(images, model, tmp_path):
    out = tmp_path / "out"
    run(images, "--model", model, "--out", out, "--overlays")
    spoilt, bad = images / "grey.png", images / "bad.png"
    for path in (spoilt, bad):
        path.write_bytes(b"no picture")
        os.utime(path, (time.time() + 60,) * 2)
    assert run(images, "--model", model, "--out", out) == 1
    assert run(images / "alpha.png", "--model", model, "--out", out) == 0
    assert f"{spoilt.stem}_overlay.jpg" not in files(out / "overlays")  # of the former picture

    def failed() -> list[str]:
        with (out / "failures.csv").open() as file:
            return [row["image"] for row in csv.DictReader(file)]

    assert failed() == [str(bad), str(spoilt)]
    assert sorted(f"{id}_Segmentation.png" for id in rows(out)) == files(out / "masks")
    bad.unlink()
    Image.fromarray(noise(20, 20)).save(spoilt)
    run(spoilt, "--model", model, "--out", out)
    assert len(rows(out)) == len(files(out / "masks")) == 5
    assert not (out / "failures.csv").exists()


def test_goes_on_where_it_was_left_and_repeats_what_changed_or_went_missing(images, model, tmp_path, capsys):
    out = tmp_path / "out"
    first = sorted(images.glob("*.*"))[:2]
    run(*first, "--model", model, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    run(images, "--model", model, "--out", out)
    assert "; 2 were there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(rows(out)) == 5
    lost = out / "masks" / f"{first[0].stem}_Segmentation.png"
    lost.unlink()
    later = time.time() + 60
    os.utime(first[1], (later, later))
    run(images, "--model", model, "--out", out)
    assert "; 3 were there already" in capsys.readouterr().out
    assert lost.exists()
    # another kind of output is made up for
    run(first[0], "--model", model, "--out", out, "--overlays")
    assert files(out / "overlays") == [f"{first[0].stem}_overlay.jpg"]
    assert len(rows(out)) == 5
    # and goes where the picture changed and is predicted without
    os.utime(first[0], (later, later))
    run(first[0], "--model", model, "--out", out)
    assert files(out / "overlays") == []


def test_an_image_that_another_older_file_took_the_place_of_is_predicted_again(model, tmp_path):
    image, other = tmp_path / "a.png", tmp_path / "other.png"
    Image.fromarray(noise(40, 50)).save(image)
    Image.fromarray(noise(30, 20)).save(other)
    os.utime(other, (10**9, 10**9))
    out = tmp_path / "out"
    run(image, "--model", model, "--out", out)
    time.sleep(0.05)  # coarser than that no file system's clock is here
    other.replace(image)
    run(image, "--model", model, "--out", out)
    assert Image.open(out / "masks" / "a_Segmentation.png").size == (20, 30)


def test_another_image_of_the_same_path_is_predicted_again(model, tmp_path):
    """Two cards of one camera, both made before the first masks: their folders are swapped, a link is turned."""
    cards = {"cardA": (40, 50), "cardB": (30, 20)}
    for card, shape in cards.items():
        (tmp_path / card).mkdir()
        Image.fromarray(noise(*shape)).save(tmp_path / card / "IMG_0001.png")
    photos, link, out = tmp_path / "photos", tmp_path / "current.png", tmp_path / "out"
    for card, shape in cards.items():
        (tmp_path / card).rename(photos)
        run(photos, "--model", model, "--out", out)
        assert Image.open(out / "masks" / "IMG_0001_Segmentation.png").size == shape[::-1]
        photos.rename(tmp_path / card)
    for card, shape in cards.items():
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / card / "IMG_0001.png")
        run(link, "--model", model, "--out", out)
        assert Image.open(out / "masks" / "current_Segmentation.png").size == shape[::-1]


def test_an_image_of_too_long_a_name_is_named(model, tmp_path, capsys):
    image = tmp_path / f"{'x' * 245}.png"
    Image.fromarray(noise(40, 50)).save(image)
    assert run(image, "--model", model, "--out", tmp_path / "out") == 1
    assert f"the name of {image} is too long for a mask's: shorten it" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_written_as_it_is(model, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(40, 50)).save(tmp_path / "in" / os.fsdecode(b"a\xff.png"))
    out = tmp_path / "out"
    assert run(tmp_path / "in", "--model", model, "--out", out) == 0
    assert files(out / "masks") == [os.fsdecode(b"a\xff_Segmentation.png")]
    assert b"\na\xff," in (out / "predictions.csv").read_bytes()


def test_images_of_one_name_get_a_mask_each_also_in_a_second_call(model, tmp_path, capsys):
    for folder in ("left", "right", "third"):
        (tmp_path / folder).mkdir()
        Image.fromarray(noise(30, 20 + len(folder))).save(tmp_path / folder / "1.png")
    out = tmp_path / "out"
    run(tmp_path / "left", tmp_path / "right", "--model", model, "--out", out)
    assert "2 images of a name that another has" in capsys.readouterr().out
    run(tmp_path / "third", "--model", model, "--out", out)
    run(tmp_path / "third", tmp_path / "left", "--model", model, "--out", out)
    assert files(out / "masks") == [f"{n}_Segmentation.png" for n in ("1", "left_1", "right_1")]
    found = {name: Path(row["image"]).parent.name for name, row in rows(out).items()}
    assert found == {"1": "third", "left_1": "left", "right_1": "right"}


def test_what_names_were_lengthened_by_is_said_rightly(model, tmp_path, capsys):
    for name in ("scan.png", "scan.bmp"):
        Image.fromarray(noise(30, 20)).save(tmp_path / name)
    run(*sorted(tmp_path.glob("scan.*")), "--model", model, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "masks are named after their folder, ending or a number too, such as scan_bmp\n" in said


def test_results_of_an_earlier_call_are_not_predicted(model, tmp_path, capsys):
    Image.fromarray(noise(30, 20)).save(tmp_path / "scan.png")
    for out in ("first", "second"):
        assert run(tmp_path, "--model", model, "--out", tmp_path / out, "--overlays", "--probabilities") == 0
        assert capsys.readouterr().out.startswith("1 image in ")


def test_another_model_or_threshold_does_not_mix_with_what_is_there(images, model, tmp_path):
    out = tmp_path / "out"
    run(images / "grey.png", "--model", model, "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with pytest.raises(UserError, match=r"made otherwise \(threshold 0.5, now 0.4\)"):
        run(images, "--model", model, "--out", out, "--threshold", 0.4)
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"made otherwise \(model \w{12}…, now \w{12}…\)"):
        run(images, "--model", other, "--out", out)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    # as do masks that are not from here
    (tmp_path / "truth" / "masks").mkdir(parents=True)
    (tmp_path / "truth" / "masks" / "grey_Segmentation.png").touch()
    with pytest.raises(UserError, match="not from here"):
        run(images, "--model", model, "--out", tmp_path / "truth")


@pytest.mark.parametrize(
    "content",
    [
        b"a note\n",
        b"[]\n",
        b"3\n",
        b"\xff\n",
        b"{}\n{}\n",
        b"{}\n3\n",
        b'{}\n{"id": 1\n{}\n',
        b"[" * 10**5 + b"\n",
    ],
)
def test_a_foreign_or_damaged_record_is_refused_and_left_as_it_is(content, images, model, tmp_path):
    record = tmp_path / "out" / "predictions.jsonl"
    record.parent.mkdir()
    record.write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.jsonl is no record of isic_smp, or damaged: choose"):
        run(images, "--model", model, "--out", record.parent)
    assert record.read_bytes() == content


def test_a_record_of_numbers_for_names_is_refused(images, model, tmp_path):
    out = tmp_path / "out"
    run(images / "grey.png", "--model", model, "--out", out)
    record = out / "predictions.jsonl"
    record.write_text(record.read_text().replace('"id": "grey"', '"id": 7'))
    with pytest.raises(UserError, match="is no record of isic_smp"):
        run(images, "--model", model, "--out", out)


def test_a_folder_of_before_a_setting_is_gone_on_with_where_that_is_off(images, model, tmp_path):
    out = tmp_path / "out"
    run(images / "grey.png", "--model", model, "--out", out)
    record = out / "predictions.jsonl"
    identity, *lines = record.read_text().splitlines(keepends=True)
    known = json.loads(identity)
    assert known.pop("second_look") is False
    record.write_text(json.dumps(known) + "\n" + "".join(lines))
    assert run(images, "--model", model, "--out", out) == 0
    assert len(files(out / "masks")) == 5
    twice = shutil.copytree(model, tmp_path / "twice")
    saved = json.loads((twice / "isic_smp.json").read_text())
    saved["preprocessing"]["second_look"] = True
    (twice / "isic_smp.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"made otherwise \(second_look None, now True\)"):
        run(images, "--model", twice, "--out", out)


def test_threshold_and_the_models_flips_are_respected(images, tmp_path):
    flipping = save_model(tmp_path / "flipping", flips=True)
    bundle = load_bundle(flipping)
    [expected] = Predictor(bundle.model, bundle.preprocessing).predict([read_image(images / "alpha.png")])
    level = round(float(np.quantile(expected, 0.8)), 4)
    run(images / "alpha.png", "--model", flipping, "--out", tmp_path / "out", "--threshold", level)
    found = np.asarray(Image.open(tmp_path / "out" / "masks" / "alpha_Segmentation.png")) == 255
    assert np.mean(found != (expected > level)) < 0.002
    plain = dataclasses.replace(bundle.preprocessing, test_time_flips=False)
    [unflipped] = Predictor(bundle.model, plain).predict([read_image(images / "alpha.png")])
    assert np.mean(found != (unflipped > level)) > 0.01


def test_fast_stays_close_and_is_kept_apart(model, tmp_path):
    image = tmp_path / "large.jpg"
    Image.fromarray(noise(800, 1200)).save(image, quality=95)
    for name, options in (("exact", ()), ("fast", ("--fast",))):
        run(image, "--model", model, "--out", tmp_path / name, "--probabilities", *options)
    exact, fast = (
        np.asarray(Image.open(tmp_path / name / "probabilities" / "large_probability.png")).astype(int)
        for name in ("exact", "fast")
    )
    assert exact.shape == fast.shape == (800, 1200)
    assert 0 < np.abs(exact - fast).max() < 13
    with pytest.raises(UserError, match="bf16 True, now False"):
        run(image, "--model", model, "--out", tmp_path / "fast")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere.jpg"], "no such image or folder: nowhere.jpg"),
        ([], "no images: name image files"),
        (["--batch-size", "0", "."], "--batch-size must be at least 1, got 0"),
    ],
)
def test_bad_input_is_said_before_any_work(argv, message, model, tmp_path):
    with pytest.raises(UserError, match=message):
        run(*argv, "--model", model, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_or_is_in_use_is_refused(images, model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        run(images, "--model", model, "--out", tmp_path / "file" / "out")
    hold = (
        "import sys; from pathlib import Path\n"
        "from isic_smp.inference.prediction_folder import PredictionFolder as F\n"
        f"with F(Path({str(tmp_path / 'out')!r}), {{}}, probabilities=False, overlays=False, table=False):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process writes to"):
            run(images, "--model", model, "--out", tmp_path / "out")
    finally:
        other.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle_it_goes_on_and_ends_as_if_never_stopped(how, model, tmp_path):
    (tmp_path / "images").mkdir()
    ids = [f"IMG_{i:02}" for i in range(60)]
    for i, id in enumerate(ids):
        Image.fromarray(noise(300 + i, 400)).save(tmp_path / "images" / f"{id}.png")
    out = tmp_path / "out"
    argv = [str(tmp_path / "images"), "--model", str(model), "--out", str(out), "--batch-size", "1"]
    command = [sys.executable, "-m", "isic_smp.predict", *argv]
    # A background job's children ignore SIGINT, and a test may run in one.
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, preexec_fn=heed)
    while not (out / "masks").exists() or len(files(out / "masks")) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    done = len((out / "predictions.jsonl").read_text().splitlines()) - 1
    assert 0 < done < len(ids)
    if how == signal.SIGINT:
        assert len(rows(out)) == done
    for path in (out / "masks").iterdir():
        Image.open(path).load()  # whole, every one
    with (out / "predictions.jsonl").open("a") as record:
        record.write('{"id": "IMG_00')  # a line cut short
    assert run(*argv) == 0
    assert sorted(rows(out)) == ids
    assert len(files(out / "masks")) == len(ids)
    assert not list(out.glob(".*.part"))
    again = tmp_path / "again"
    run(*argv[:3], "--out", again, "--batch-size", 1)  # or the last bits would differ
    for name in files(again / "masks"):
        assert (again / "masks" / name).read_bytes() == (out / "masks" / name).read_bytes()


def test_the_official_scorers_figures_on_the_masks_are_ours(isic_dir, model, tmp_path):
    pairs = load_isic2016(isic_dir).test[:12]
    truth = tmp_path / FOLDERS[3]
    truth.mkdir()
    for pair in pairs:
        (truth / pair.mask.name).symlink_to(pair.mask)
    out = tmp_path / "out"
    assert run(*(pair.image for pair in pairs), "--model", model, "--out", out) == 0
    from isic_challenge_scoring.segmentation import SegmentationScore

    official = SegmentationScore.from_dir(truth, out / "masks").macro_average
    bundle = load_bundle(model)
    ours = score(Predictor(bundle.model, bundle.preprocessing), pairs).summary()
    for theirs, name in (("dice", "dice"), ("jaccard", "iou"), ("sensitivity", "sensitivity")):
        assert official[theirs] == pytest.approx(ours[f"{name}_per_image_own"], abs=1e-5)


def test_help_comes_without_heavy_imports():
    code = "import sys, isic_smp.predict; assert not {'torch', 'numpy', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
    shown = subprocess.run(
        [sys.executable, "-m", "isic_smp.predict", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert "--overlays" in shown.stdout
