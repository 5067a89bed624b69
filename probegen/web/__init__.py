"""A static page around an ONNX artefact: it runs in the browser, and nothing leaves that.

The page knows the manifest of the artefact and nothing of its model. It takes a picture, a
drawing, a text, a row of a table or plain numbers as the manifest says, runs the artefact by
onnxruntime-web, and draws what comes out. Nothing of the page is fetched from anywhere else.
"""

from __future__ import annotations

from probegen.web.onnxruntime_web import Bundle
from probegen.web.site import Options, Written, write

__all__ = ["Bundle", "Options", "Written", "write"]
