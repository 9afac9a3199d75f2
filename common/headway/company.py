"""A caller's company: the clients that ask through it, a gateway's connections for one.

Knows: how a request says that nobody of them is left who could ask. Must not know: who they are, batches.

A request with the option COMPANY completes its caller's company: all who ask through the caller wait for an
answer now, and nobody has joined them for so many milliseconds. A batch with a delay waits for company, and
here nobody is left to come. It is over with the next answer to any of them.
"""

from __future__ import annotations

COMPANY = "company_ms"
