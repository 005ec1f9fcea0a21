"""Random numbers that are a pure function of what they are for: (seed, epoch, sample, purpose).

A generator with a state would make a sample's augmentation depend on the batch, process or thread it
happens to be drawn in. Here every number is a hash of its place, for a whole batch at once: SplitMix64
(Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), used as a counter-based
generator.
"""

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, SplitMix64's increment


def uniforms(sample_ids: np.ndarray, count: int, *, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 (B, count), for each of the (B,) whole numbers in `sample_ids`.

    Args:
        sample_ids: what a row is for; a row depends on its own id only.
        count: numbers a sample; the first ones stay the same when more are asked for.
        seed: the run's seed.
        epoch: epoch, or any other count of time.
        purpose: tells apart the uses, so that no two see the same numbers.
    """
    state = np.zeros(1, np.uint64)
    for part in (seed, purpose, epoch):
        state = _mix(state + np.uint64(part % 2**64))
    state = _mix(state + np.asarray(sample_ids).astype(np.uint64))
    bits = _mix(state[:, None] + np.arange(count, dtype=np.uint64) * _STEP)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    """One SplitMix64 output for each state in the array; arithmetic wraps at 2^64 as it should."""
    z = z + _STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
