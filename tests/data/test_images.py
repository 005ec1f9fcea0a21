"""Pictures as people have them: every mode, depth and breakage that a lesion image or mask comes in."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from isic_smp.data.images import read_image, read_mask
from isic_smp.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def save(tmp_path, picture, name="a.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_plain_colours_come_back_unchanged(tmp_path):
    assert np.array_equal(read_image(save(tmp_path, Image.fromarray(RGB))), RGB)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held turned: show it a quarter turn clockwise
    path = save(tmp_path, Image.fromarray(RGB), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(RGB, -1))


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_bilevel_have_equal_channels_or_their_palette(tmp_path, mode):
    picture = Image.fromarray(GREY).convert(mode)
    assert np.array_equal(read_image(save(tmp_path, picture)), np.array(picture.convert("RGB")))


def test_transparency_is_laid_over_black_and_opaque_alpha_changes_nothing(tmp_path):
    alpha = np.full((6, 9), 255, np.uint8)
    alpha[:, :3] = 0
    pixels = read_image(save(tmp_path, Image.fromarray(np.dstack([RGB, alpha]))))
    assert not pixels[:, :3].any()
    assert np.array_equal(pixels[:, 3:], RGB[:, 3:])


def test_palette_transparency_is_laid_over_black(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([200, 10, 20, 30, 40, 50])
    assert read_image(save(tmp_path, picture, transparency=0)).tolist() == [[[0, 0, 0], [30, 40, 50]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled_by_its_whole_range(tmp_path, name):
    deep = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert read_image(save(tmp_path, Image.fromarray(deep), name))[0, :, 1].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_colour_is_scaled_by_its_whole_range(tmp_path):
    # Pillow writes no 48-bit PNG, so the bytes are put together here.
    rows = b"\0" + struct.pack(">6H", 0, 32896, 65535, 257, 514, 65280)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_image(tmp_path / "deep.png").tolist() == [[[0, 128, 255], [1, 2, 255]]]


def test_cmyk_and_animation(tmp_path):
    red = save(tmp_path, Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK"), "c.jpg", quality=95)
    assert np.abs(read_image(red).astype(int) - [200, 30, 30]).max() < 12
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "f.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "f.gif")[0, 0].tolist() == [255, 0, 0]


def broken_files(tmp_path):
    whole = save(tmp_path, Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "whole.jpg")
    content = whole.read_bytes()
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb += header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
    return {
        "truncated.jpg": content[: len(content) // 2],
        "empty.jpg": b"",
        "text.png": b"this is no picture",
        "bomb.png": bomb,
        "head_only.png": b"\x89PNG\r\n\x1a\n",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_files_are_refused_in_one_line_that_names_them(tmp_path):
    for name, content in broken_files(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        for read in (read_image, read_mask):
            with pytest.raises(UserError) as refusal:
                read(tmp_path / name)
            assert name in str(refusal.value)
            assert "\n" not in str(refusal.value)
    for path in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(UserError, match="cannot read the image"):
            read_image(path)


def test_a_picture_too_large_to_decode_is_refused_by_its_header_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("isic_smp.data.images.MAX_PIXELS", 50)
    path = save(tmp_path, Image.fromarray(RGB))
    path.write_bytes(path.read_bytes()[:60])  # no pixels to be had
    with pytest.raises(UserError, match="9 × 6 pixels are more than"):
        read_image(path)


def test_pillow_s_warning_of_large_pictures_does_not_come_beside_our_own_words(tmp_path):
    header = struct.pack(">IIBBBBB", 9_500, 9_500, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path = tmp_path / "large.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 0) + b"IDAT")
    # A process of its own: pytest has its own filters.
    code = (
        "import sys; from pathlib import Path\n"
        "from isic_smp import cli; cli.quiet_libraries()\n"
        "from isic_smp.data.images import UserError, frame_size, read_image\n"
        "path = Path(sys.argv[1]); print(*frame_size(path))\n"
        "try: read_image(path)\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("9500 9500\n")
    assert "9500 × 9500 pixels are more than the 89 million" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("lesion", [1, 255, 65535])
def test_masks_of_any_lesion_value_become_zero_and_one(tmp_path, lesion):
    truth = RNG.integers(0, 2, (6, 9))
    mask = read_mask(
        save(tmp_path, Image.fromarray((truth * lesion).astype(np.uint16 if lesion > 255 else np.uint8)))
    )
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, truth)


@pytest.mark.parametrize("binarize", [False, True])
def test_an_eight_bit_mask_in_a_deep_file_is_one(tmp_path, binarize):
    path = save(tmp_path, Image.fromarray(np.array([[0, 255], [255, 0]], np.uint16)))
    assert read_mask(path, binarize=binarize).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_masks_of_any_mode_are_read(tmp_path, mode):
    truth = RNG.integers(0, 2, (6, 9)).astype(np.uint8)
    assert np.array_equal(
        read_mask(save(tmp_path, Image.fromarray(truth * np.uint8(255)).convert(mode))), truth
    )


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_masks(tmp_path, value):
    assert (read_mask(save(tmp_path, Image.new("L", (3, 2), value))) == (value > 0)).all()


def test_grey_masks_are_refused_with_their_count_and_the_way_out(tmp_path):
    path = save(tmp_path, Image.fromarray(np.array([[0, 128, 129, 254, 255]], np.uint8)))
    with pytest.raises(UserError, match=r"3 grey pixels of 5.*--binarize-masks"):
        read_mask(path)
    assert read_mask(path, binarize=True).tolist() == [[0, 0, 1, 1, 1]]  # > 128, as the official scorer


@pytest.mark.parametrize(
    ("values", "dtype", "full"),
    [
        ([0, 2], np.uint8, 255),
        ([0, 128], np.uint8, 255),
        ([0, 1, 2], np.uint8, 255),
        ([0, 2], np.uint16, 255),  # what was an 8-bit mask
        ([0, 128 * 257], np.uint16, 65535),
    ],
)
def test_a_mask_that_binarizing_would_leave_without_lesion_is_refused(tmp_path, values, dtype, full):
    path = save(tmp_path, Image.fromarray(np.array([values], dtype)))
    with pytest.raises(
        UserError, match=rf"values up to {max(values)}: expected only 0 and {full}"
    ) as refusal:
        read_mask(path)
    assert "--binarize-masks" not in str(refusal.value)
    assert str(refusal.value).endswith("rewrite it as 0 and 255")
    with pytest.raises(UserError, match=f"values up to {max(values)}: .*would leave no lesion") as refusal:
        read_mask(path, binarize=True)
    assert "--binarize-masks" in str(refusal.value)
    assert str(refusal.value).endswith("rewrite it as 0 and 255")


@pytest.mark.parametrize(("above", "dtype"), [(129, np.uint8), (129, np.uint16), (128 * 257 + 1, np.uint16)])
def test_one_value_above_the_threshold_is_enough_to_binarize(tmp_path, above, dtype):
    path = save(tmp_path, Image.fromarray(np.array([[0, 2, above]], dtype)))
    with pytest.raises(UserError, match="--binarize-masks takes"):
        read_mask(path)
    assert read_mask(path, binarize=True).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_black_mask_is_an_empty_one_binarized_too(tmp_path, dtype):
    path = save(tmp_path, Image.fromarray(np.zeros((2, 3), dtype)))
    assert not read_mask(path, binarize=True).any()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_in_the_transparency_is_refused(tmp_path, mode):
    """It is black to whoever does not look there, and would count as empty."""
    image = Image.new(mode, (3, 2))
    image.putpixel((1, 1), (0,) * (len(mode) - 1) + (255,))
    with pytest.raises(UserError, match="only its transparency differs"):
        read_mask(save(tmp_path, image))
    assert not read_mask(save(tmp_path, Image.new(mode, (3, 2)))).any()


def test_coloured_masks_are_refused(tmp_path):
    with pytest.raises(UserError, match="coloured"):
        read_mask(save(tmp_path, Image.fromarray(RGB)))
