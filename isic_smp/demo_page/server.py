"""Serving the page so that nothing leaves the machine, neither from the server nor from the browser."""

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from isic_smp.data.images import MAX_PIXELS
from isic_smp.demo_page.models import Models
from isic_smp.demo_page.page import build_page, style, theme

MAX_UPLOAD_BYTES = 4 * MAX_PIXELS
"""The largest picture that is decoded, uncompressed with transparency, just fits."""

HEADERS = (
    # The browser itself refuses whatever the page, or a library in it, might want from another host.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        b"form-action 'self'; frame-ancestors 'none'; base-uri 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def serve(models: Models, door: socket.socket, *, hosts: Sequence[str], on_ready: Callable[[], None]) -> None:
    """Serve the page until the process is interrupted.

    Args:
        models: to choose from.
        door: a listening socket.
        hosts: names by which the page may be called; others are refused, or a web site whose name is
            made to point at this machine could read the page (DNS rebinding). `*`: any.
        on_ready: called when the page can be opened.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(_AddHeaders)
    gr.mount_gradio_app(
        app,
        build_page(models).queue(api_open=False),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD_BYTES,
        theme=theme(),
        css=style(),
    )
    # An open page holds a connection: without the limit, Ctrl-C would wait for its tab to be closed.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    on_ready()
    uvicorn.Server(config).run(sockets=[door])


class _AddHeaders:
    """ASGI middleware that adds `HEADERS` to every answer, also to one that is streamed."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_headers)
