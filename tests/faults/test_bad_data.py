"""Every kind of bad data gives its result or one clear line: no traceback, no hang, no wrong pixels."""

import signal
from collections import Counter

import pytest

from isic_smp.errors import UserError

from .kinds import EITHER, REFUSED, all_kinds

KINDS = all_kinds()
SECONDS = 30


class Hung(BaseException):
    """Beyond what a reader catches."""


def hung(*_):
    raise Hung


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [maker for _, maker in KINDS], ids=[repr(name) for name, _ in KINDS])
def test_bad_data_gives_its_result_or_one_clear_line(make, tmp_path):
    call, expected = make(tmp_path)
    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        result = call()
    except UserError as error:
        line = str(error)
        assert expected in (REFUSED, EITHER), f"refused: {line}"
        assert line.isprintable(), f"not on one line, or with control characters: {line!r}"
        assert 10 < len(line) < 2000, line
    else:
        assert expected != REFUSED, f"accepted: {result!r}"
        assert expected == EITHER or expected(result), f"a wrong result: {result!r}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_there_are_hundreds_of_kinds_and_no_two_are_one():
    names = [name for name, _ in KINDS]
    assert len(set(names)) == len(names)
    counts = Counter(name.partition(":")[0] for name in names)
    print(
        f"\n{len(names)} kinds of bad data: " + ", ".join(f"{count} {part}" for part, count in counts.items())
    )
    assert len(names) >= 200
