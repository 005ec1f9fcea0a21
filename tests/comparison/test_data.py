"""The images that runs were scored on, found again."""

import cv2
from scored import some_run
from small_run import draw_pictures

from isic_smp.comparison.data import find_data
from isic_smp.data.held_out import hold_out
from isic_smp.data.source import resolve_data


def test_the_images_of_runs_with_a_group_held_out_are_found(tmp_path):
    draw_pictures(tmp_path / "pictures")
    data, _ = resolve_data("synthetic", tmp_path / "pictures", cache_dir=tmp_path)
    mask = cv2.imread(str(data.val[0].mask), cv2.IMREAD_GRAYSCALE)
    mask[:2] = 77  # a run with --binarize-masks takes it
    cv2.imwrite(str(data.val[0].mask), mask)
    data, _ = resolve_data("synthetic", tmp_path / "pictures", cache_dir=tmp_path)
    held = hold_out(data, "hard", cache_dir=tmp_path, binarize_masks=True)
    run = some_run(data={"name": "synthetic", "fingerprint": held.fingerprint})
    assert find_data(run, data.root, cache_dir=tmp_path) == held
