"""What stands behind a score: outlines, calibration, groups of images, and which masks need a look."""
