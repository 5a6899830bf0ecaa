"""A bare page with one widget's JavaScript, as it was built, and a model that Python feeds: no Jupyter, no kernel."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from labhub.notebook.bundle import STATIC

PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/{name}.css">
<body style="margin: 8px; background: #fff"><div id="root" style="width: 900px"></div>
<script type="module">
import make from "/{name}.js";
class Model {
  constructor(state) { this.state = state; this.heard = {}; this.sent = []; }
  get(name) { return this.state[name] ?? null; }
  set(name, value) { this.state[name] = value; this.tell(`change:${name}`); }
  save_changes() {}
  send(message) { this.sent.push(message); }
  on(name, call) { (this.heard[name] ??= []).push(call); }
  off(name, call) { this.heard[name] = (this.heard[name] ?? []).filter((c) => c !== call); }
  tell(name, ...what) { for (const call of this.heard[name] ?? []) call(...what); }
}
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.show = (state) => {
  window.model = new Model(state);
  const widget = make();
  widget.initialize({ model: window.model });
  widget.render({ model: window.model, el: document.getElementById("root") });
};
window.receive = (meta, buffers) => window.model.tell("msg:custom", meta, buffers.map(bytes));
// What is written on canvases: text, place, and whether it ends there, as the labels of a left axis do.
window.texts = [];
const clearRect = CanvasRenderingContext2D.prototype.clearRect;
CanvasRenderingContext2D.prototype.clearRect = function (...box) {
  window.texts.length = 0;
  return clearRect.apply(this, box);
};
const fillText = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const at = this.getTransform();
  window.texts.push([text, at.a * x + at.c * y + at.e, at.b * x + at.d * y + at.f, this.textAlign === "right"]);
  return fillText.call(this, text, x, y);
};
window.ready = true;
</script>"""

KINDS = {"css": "text/css", "js": "text/javascript", "html": "text/html"}


class Handler(BaseHTTPRequestHandler):
    """Answers with the page of a widget, and with what was bundled for it."""

    def do_GET(self) -> None:
        name, _, kind = self.path.strip("/").partition(".")
        known = name in ("live_plot", "live_image", "browser") and kind in KINDS
        self.send_response(200 if known else 204)
        self.send_header("Content-Type", f"{KINDS.get(kind, 'text/plain')}; charset=utf-8")
        self.end_headers()
        if known:
            page = PAGE.replace("{name}", name)
            self.wfile.write(page.encode() if kind == "html" else (STATIC / f"{name}.{kind}").read_bytes())

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""


@contextlib.contextmanager
def bare_server() -> Iterator[str]:
    """Serve the pages on loopback; yields their address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


class Bare:
    """A page that shows one widget, fed with the messages of a real one."""

    def __init__(self, page: Any, name: str, state: dict[str, Any]) -> None:
        self.page = page
        self.root = {"live_plot": ".labhub-plot", "live_image": ".labhub-image"}[name]
        page.wait_for_function("() => window.ready")
        page.evaluate("(state) => window.show(state)", {"title": "", "note": "", **state})

    def receive(self, meta: dict[str, Any], buffers: list[bytes]) -> None:
        """Give the page one message, and wait until it was drawn."""
        before = int(self.page.get_attribute(self.root, "data-frames") or 0)
        texts = [base64.b64encode(buffer).decode() for buffer in buffers]
        message = {"frame": before + 1, "state": "live", "status": "", "note": "", **meta}
        self.page.evaluate("([meta, buffers]) => window.receive(meta, buffers)", [message, texts])
        if buffers:
            self.page.wait_for_function(
                "([root, n]) => Number(document.querySelector(root).dataset.frames) > n", arg=[self.root, before]
            )

    def drawn(self) -> list[tuple[str, float, float, bool]]:
        """What the last drawing wrote on canvases: text, x and y (in pixels of the canvas), whether it ends there."""
        found: list[tuple[str, float, float, bool]] = self.page.evaluate("window.texts")
        return found
