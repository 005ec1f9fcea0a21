import resource
import signal

import pytest

from isic_smp.errors import UserError
from isic_smp.tracking.journal import Journal


def test_entries_come_back_in_order_from_any_offset(tmp_path):
    with Journal(tmp_path) as journal:
        for n in range(3):
            journal.append({"n": n})
        read = list(journal.entries())
        assert [entry["n"] for entry, _ in read] == [0, 1, 2]
        assert [entry["n"] for entry, _ in journal.entries(read[0][1])] == [1, 2]


def test_a_half_written_line_is_dropped_on_reopening(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append({"n": 0})
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"n": 1, "val')
    with Journal(tmp_path) as journal:
        journal.append({"n": 2})
        assert [entry["n"] for entry, _ in journal.entries()] == [0, 2]


@pytest.mark.parametrize("line", ["{}{}", "[1]", '{"n": 1', "\x00\x00"])
def test_a_damaged_line_is_named_and_without_it_the_rest_can_be_read(tmp_path, line):
    with Journal(tmp_path) as journal:
        journal.append({"n": 0}, {"n": 1}, {"n": 2})
        journal.mark_sent(journal.size)
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(lines[0] + line + "\n" + lines[2])
    with (
        Journal(tmp_path) as journal,
        pytest.raises(UserError, match=r"line 2 of .*journal\.jsonl is damaged"),
    ):
        list(journal.entries())
    journal.path.write_text(lines[0] + lines[2])
    (tmp_path / "sent").unlink()
    with Journal(tmp_path) as journal:
        assert [entry["n"] for entry, _ in journal.entries(journal.sent)] == [0, 2]


def test_what_is_logged_after_a_power_cut_is_sent_where_the_cut_took_lines_that_had_arrived(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append({"kind": "tags", "number": 1}, {"kind": "tags", "number": 2})
        kept = journal.size
        journal.append({"kind": "tags", "number": 3})
        journal.mark_sent(journal.size)
    with (tmp_path / "j" / "journal.jsonl").open("rb+") as file:
        file.truncate(kept)
    with Journal(tmp_path / "j") as journal:
        journal.append({"kind": "tags", "number": 4}, {"kind": "tags", "number": 5})
        assert [entry["number"] for entry, _ in journal.entries(journal.sent)] == [4, 5]


def test_what_was_sent_is_remembered(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append({"n": 0})
        journal.mark_sent(journal.size)
    with Journal(tmp_path) as journal:
        assert journal.sent == journal.size > 0
    (tmp_path / "sent").write_text("")  # a power cut
    with Journal(tmp_path) as journal:
        assert journal.sent == 0


def test_a_full_disk_leaves_only_whole_lines(tmp_path):
    """A limit on file size makes the kernel write a part of the line, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Journal(tmp_path) as journal:
            journal.append({"n": 0})
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 10, limits[1]))
            with pytest.raises(OSError):
                journal.append({"text": "x" * 100})
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            journal.append({"n": 1})
            assert [entry["n"] for entry, _ in journal.entries()] == [0, 1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
