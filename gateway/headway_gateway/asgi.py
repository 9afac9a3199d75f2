"""The door for `gunicorn -k uvicorn_worker.UvicornWorker headway_gateway.asgi:app`, or any ASGI server.

Settings come from the environment and `headway.toml`. `headway-gateway` does not come through here.
"""

from headway import logs
from headway.settings import GatewaySettings, read
from headway_gateway.app import app_of

settings = read(GatewaySettings)
logs.setup(settings.log_level, settings.log_format)
app = app_of(settings)
