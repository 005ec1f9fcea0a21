"""Which mask belongs to which image, and what is said when that is not clear."""

import numpy as np
import pytest
from PIL import Image

from isic_smp.data.pairs import Pair, find_pairs, read_pair, scan_pairs
from isic_smp.errors import UserError


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()

    def fill(images, masks):
        for folder, names in (("images", images), ("masks", masks)):
            for name in names:
                (tmp_path / folder / name).touch()
        return tmp_path / "images", tmp_path / "masks"

    return fill


def test_official_names_any_ending_and_plain_names_pair_up_sorted(folders):
    images, masks = folders(
        [
            "ISIC_0000002.JPG",
            "ISIC_0000001.jpg",
            "own.tiff",
            "Thumbs.db",
            ".hidden.jpg",
            "ISIC_0000001_superpixels.png",
        ],
        ["ISIC_0000001_Segmentation.png", "ISIC_0000002_segmentation.PNG", "own.bmp", "ATTRIBUTION.txt"],
    )
    assert find_pairs(images, masks) == [
        Pair("ISIC_0000001", images / "ISIC_0000001.jpg", masks / "ISIC_0000001_Segmentation.png"),
        Pair("ISIC_0000002", images / "ISIC_0000002.JPG", masks / "ISIC_0000002_segmentation.PNG"),
        Pair("own", images / "own.tiff", masks / "own.bmp"),
    ]


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".mpo", ".pgm", ".pnm", ".JPE"])
def test_rarer_endings_of_formats_that_are_read_pair_up_too(folders, ending):
    images, masks = folders([], [])
    picture = images / f"a{ending}"
    grey = Image.new("L", (16, 8), 90)
    if ending == ".mpo":
        grey.save(picture, "MPO", save_all=True, append_images=[grey])
    else:
        grey.save(picture, "PPM" if ending in (".pgm", ".pnm") else "JPEG")
    Image.new("L", (16, 8)).save(masks / "a.png")
    [pair] = find_pairs(images, masks)
    assert pair.image == picture
    assert read_pair(pair)[0].shape == (8, 16, 3)


def test_everything_that_does_not_pair_up_is_said_at_once(folders):
    images, masks = folders(
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "twice.jpg", "twice.png", "fine.jpg"],
        ["z_Segmentation.png", "twice_Segmentation.png", "fine_Segmentation.png"],
    )
    with pytest.raises(UserError) as refusal:
        find_pairs(images, masks)
    message = str(refusal.value)
    assert "4 ids without a mask (a, b, c, …)" in message
    assert "1 id with a mask but no image (z)" in message
    assert "several files of the same name" in message
    assert "(twice)" in message


def test_all_ids_can_be_had(folders):
    found = scan_pairs(*folders([f"{n}.jpg" for n in range(6)], ["0.png"]))
    assert found.problems(limit=None) == ["5 ids without a mask (1, 2, 3, 4, 5)"]


def test_two_masks_for_one_image_are_ambiguous(folders):
    with pytest.raises(UserError, match=r"several files.*\(a\)"):
        find_pairs(*folders(["a.jpg"], ["a.png", "a_Segmentation.png"]))


@pytest.mark.parametrize(
    ("images", "masks", "words"), [([], ["a.png"], "no images in"), (["a.jpg"], [], "no masks in")]
)
def test_an_empty_folder_is_named(folders, images, masks, words):
    with pytest.raises(UserError, match=words):
        find_pairs(*folders(images, masks))


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot list the folder .*nowhere"):
        find_pairs(tmp_path / "nowhere", tmp_path)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    Image.new("L", (6, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is 6 × 8 pixels, its image a\.jpg 8 × 6"):
        read_pair(Pair("a", tmp_path / "a.jpg", tmp_path / "a.png"))


def test_a_pair_is_read(tmp_path):
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "a.png")
    Image.new("L", (8, 6), 200).save(tmp_path / "m.png")
    pair = Pair("a", tmp_path / "a.png", tmp_path / "m.png")
    with pytest.raises(UserError, match="48 grey pixels"):
        read_pair(pair)
    image, mask = read_pair(pair, binarize_masks=True)
    assert image.shape == (6, 8, 3)
    assert np.array_equal(mask, np.ones((6, 8), np.uint8))
