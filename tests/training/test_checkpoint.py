import os
import pickle
import resource
import signal

import pytest
import torch

from isic_smp.errors import UserError
from isic_smp.files import write_atomically
from isic_smp.training.checkpoint import Checkpoints


def test_last_and_best_come_back_as_they_were(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.load_last() is None
    state = {"model": {"w": torch.randn(3, 2)}, "history": [{"epoch": 0, "val_iou": 0.5}], "average": None}
    checkpoints.save_last(state)
    loaded = checkpoints.load_last()
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert loaded["history"] == state["history"]
    checkpoints.save_best({"w": torch.ones(2, 2).t()}, 3)
    assert torch.equal(checkpoints.load_best()["w"], torch.ones(2, 2))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["best.safetensors", "last.pt"]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    checkpoints = Checkpoints(tmp_path)
    torch.save({"format": 1, "model": Evil()}, checkpoints.last)
    with pytest.raises(UserError, match="cannot resume from"):
        checkpoints.load_last()
    checkpoints.last.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="cannot resume from"):
        checkpoints.load_last()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"half a file", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, content):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.last.write_bytes(content)
    with pytest.raises(UserError) as error:
        checkpoints.load_last()
    assert "\n" not in str(error.value)
    assert "delete the file" in str(error.value)


def test_a_failed_write_leaves_the_former_file(tmp_path):
    target = tmp_path / "last.pt"
    target.write_text("former")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(target, fail)
    assert target.read_text() == "former"
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_mistake_while_writing_is_not_taken_for_the_disk_s(tmp_path):
    def fail(path):
        path.write_text("half")
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        write_atomically(tmp_path / "maps.u8", fail)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_keeps_the_former_checkpoint(tmp_path):
    """A real limit on file size, which the kernel enforces as a full disk would."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({"model": {"w": torch.zeros(10)}})
    large = {"w": torch.zeros(100_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        for save in (
            lambda: checkpoints.save_last({"model": large}),
            lambda: checkpoints.save_best(large, 1),
        ):
            with pytest.raises(UserError, match="cannot write") as error:
                save()
            assert "\n" not in str(error.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(checkpoints.load_last()["model"]["w"]) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
