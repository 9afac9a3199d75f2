"""The door for `gunicorn -k uvicorn_worker.UvicornWorker headway_gateway.asgi:app`, or any ASGI server.

Settings come from the environment and `headway.toml`. `headway-gateway` does not come through here.
"""

from headway import logs
from headway.aio import AsyncClient
from headway.settings import GatewaySettings, read
from headway_gateway.app import create_app

settings = read(GatewaySettings)
logs.setup(settings.log_level, settings.log_format)
client = AsyncClient(settings.callers_address, shm_bytes=settings.shm_bytes, shm_full=settings.shm_full)
app = create_app(client, settings)
