"""The bounded HTTP protocol on a connection whose TLS ends here: it tells the app which certificate the client has.

The transport alone is asked, once a connection. Must not judge a certificate, nor look at a request.

Trust: that the client holds the certificate's key was seen in the handshake, or in that of the session it resumes.
"""

from __future__ import annotations

import asyncio
import base64

from onbehalf.doors.inbound_head import BoundedHttp
from onbehalf.doors.inbound_proof import CONNECTION_CERTIFICATE

__all__ = ["BoundedTls"]


class BoundedTls(BoundedHttp):
    """Puts the client's certificate into each request's extensions, spelled as in RFC 9440, and nothing for none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self._certificate = f":{base64.b64encode(shown).decode()}:" if shown else ""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate:
            self.scope["extensions"] = {CONNECTION_CERTIFICATE: {"certificate": self._certificate}}
