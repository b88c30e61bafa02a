"""The FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from conman import __version__
from conman.api import access, errors
from conman.api.middleware import RequestMiddleware
from conman.api.routes import apps, auth, changesets, deployments, health, jobs, releases, workspaces
from conman.config import Settings
from conman.services.accounts import ensure_platform_admin
from conman.services.platform import Platform, make_platform
from conman.store.database import ensure_indexes

ROUTERS = (
    health.router,
    auth.router,
    apps.router,
    workspaces.router,
    changesets.router,
    releases.router,
    deployments.router,
    jobs.router,
)


def create_api(settings: Settings, platform: Platform | None = None) -> FastAPI:
    """The application; it connects as it starts, unless a `platform` is given. Raises `AccessError` for an undeclared route."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        made = platform or await make_platform(settings)
        app.state.platform = made
        _ = made.secret
        await ensure_indexes(made.db)
        await ensure_platform_admin(made)
        yield
        if platform is None:
            await made.close()

    app = FastAPIOffline(  # its pages bring their scripts along, so that they work without the internet
        title="Conman",
        version=__version__,
        description="Change the configuration kept in Git repositories safely.",
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        static_url="/api/docs-assets",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
        lifespan=lifespan,
    )
    errors.install(app)
    access.check_every_route(ROUTERS)
    for router in ROUTERS:
        app.include_router(router, prefix="/api")
    app.add_middleware(RequestMiddleware)
    return app
