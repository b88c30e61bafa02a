"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from conman import __version__
from conman.api import access, errors, openapi
from conman.api.middleware import RequestMiddleware
from conman.api.outcomes import OutcomeMiddleware
from conman.api.rate_limits import RateLimiter
from conman.api.routes import (
    app_settings,
    apps,
    assistant,
    audit,
    audit_verify,
    auth,
    changesets,
    comments,
    deployments,
    diffs,
    drift,
    events,
    files,
    health,
    holds,
    invites,
    jobs,
    me,
    members,
    migrations,
    overrides,
    plans,
    profiles,
    release_contents,
    releases,
    rollbacks,
    temp_envs,
    users,
    workspaces,
)
from conman.api.streams import Streams
from conman.api.temp_hosts import TempHostMiddleware
from conman.services.events import FeedTails
from conman.services.job_logs import LogFeeds
from conman.services.master_keys import check_master_keys
from conman.services.platform import Platform
from conman.services.platform_admins import ensure_platform_admin
from conman.store.database import ensure_indexes

ROUTERS = (
    health.router,
    auth.router,
    me.router,
    users.router,
    apps.router,
    app_settings.router,
    members.router,
    invites.router,
    profiles.router,
    workspaces.router,
    files.router,
    changesets.router,
    diffs.router,
    comments.router,
    overrides.router,
    assistant.router,
    releases.router,
    release_contents.router,
    plans.router,
    deployments.router,
    rollbacks.router,
    holds.router,
    drift.router,
    migrations.router,
    jobs.router,
    events.router,
    temp_envs.router,
    audit.router,
    audit_verify.router,
)


async def prepare(platform: Platform) -> None:
    """What must hold before the first request. Raises `SettingsError` or `StoreError`."""
    _ = platform.secret
    await check_master_keys(platform)
    await ensure_indexes(platform.db)
    await ensure_platform_admin(platform)


def create_api(platform: Platform) -> FastAPI:
    """The application on a platform that was prepared. Raises `AccessError` for a route that declares no access."""
    app = FastAPIOffline(  # its pages bring their scripts along, so that they work without the internet
        title="Conman",
        version=__version__,
        description="Change the configuration kept in Git repositories safely.",
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        static_url="/api/docs-assets",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
    )
    app.state.platform = platform
    app.state.rate_limiter = RateLimiter(platform.db, platform.settings)
    app.state.log_feeds = LogFeeds(platform.db)
    app.state.feed_tails = FeedTails(platform.db)
    app.state.streams = Streams(
        app.state.log_feeds,
        app.state.feed_tails,
        most=platform.settings.streams,
        most_of_user=platform.settings.streams_of_user,
    )
    errors.install(app)
    access.check_every_route(ROUTERS)
    for router in ROUTERS:
        app.include_router(router, prefix="/api")
    openapi.install(app, access.takes_key)
    app.add_middleware(OutcomeMiddleware)
    app.add_middleware(TempHostMiddleware, platform=platform)
    app.add_middleware(RequestMiddleware)
    return app
