"""A small HTTP proxy between MLflow's client and a real server, which spoils answers as it is told."""

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultProxy:
    """Forwards to `port` on this host; `mode` says what goes wrong from now on.

    - "well": nothing
    - "slow": every answer takes `delay` seconds
    - "500": the server is not asked, the answer is 500
    - "500 after": the server does its work, but the answer is 500
    - "cut": the server does its work, but the connection ends before the answer
    - "garbage": the server does its work, but the answer is no HTTP
    - "half": the answer breaks off in the middle
    """

    def __init__(self, port: int, *, delay: float = 5.0) -> None:
        self.mode, self.delay, self.spoiled = "well", delay, 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def forward(self) -> None:
                mode = proxy.mode
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.spoiled += mode != "well"
                if mode == "500":
                    return self.answer(500, b"it hurts")
                if mode == "slow":
                    time.sleep(proxy.delay)
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                server.request(self.command, self.path, body, headers)
                real = server.getresponse()
                content, kind = real.read(), real.getheader("Content-Type", "")
                server.close()
                if mode == "500 after":
                    return self.answer(500, b"done, but it hurts")
                if mode == "garbage":
                    self.wfile.write(b"\x00\x01\x02\r\n\r\n")
                if mode in ("cut", "garbage"):
                    self.close_connection = True
                    return None
                return self.answer(real.status, content, kind, half=mode == "half")

            def answer(
                self, status: int, content: bytes, kind: str = "text/plain", half: bool = False
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if half else content)
                self.close_connection = self.close_connection or half

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
