"""The door for `gunicorn -k uvicorn_worker.UvicornWorker headway_gateway.asgi:app`, or any ASGI server.

Settings come from the environment and `headway.toml`. Bind the server to the addresses that they name: what
comes to `management` and `metrics` is answered as there, what comes to any other address as inference.
`headway-gateway` does not come through here.
"""

from headway import logs
from headway.settings import GatewaySettings, read
from headway_gateway.app import doors_of

settings = read(GatewaySettings)
logs.setup(settings.log_level, settings.log_format)
app = doors_of(settings)
