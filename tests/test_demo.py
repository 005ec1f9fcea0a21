"""Where the page is served."""

import pytest

from isic_smp import demo
from isic_smp.errors import UserError


def test_addresses():
    with demo.listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot serve at 127.0.0.1:{port}: .*another --port"):
            demo.listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--port must lie between"):
        demo.listen("127.0.0.1", 70_000)
    assert [demo.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [demo.is_loopback(host) for host in ("0.0.0.0", "192.168.1.4", "example.org")] == [False] * 3
