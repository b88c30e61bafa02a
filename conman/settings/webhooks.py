"""Settings of the webhooks of apps."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from conman.settings.networks import Networks


class WebhookSettings(BaseSettings):
    """How the events of apps leave (`docs/webhooks.md`)."""

    webhook_networks: Networks = Field(
        default=[],
        description="Networks (CIDR) that webhooks may reach although they are not public, also over http://, separated by spaces"
        " or commas; whoever may change an app's settings can have messages sent there. Unset: public addresses by https:// only;"
        " `conman up` on a loopback address lets its own machine be reached.",
    )
    webhook_concurrency: int = Field(
        default=20, ge=1, le=1000, description="Apps for which one worker sends at once; each app has one message under way."
    )
    webhook_timeout_seconds: float = Field(
        default=15.0,
        ge=1,
        le=30,
        description="How long an attempt may take from the look-up of the name to the answer, seconds; then it is made again.",
    )
    webhook_patience_hours: int = Field(
        default=72, ge=1, le=720, description="How long a message that a receiver does not take is tried again, hours."
    )
    webhook_delivery_days: int = Field(
        default=30,
        ge=0,
        le=3650,
        description="How long the record of a delivery is kept after its end, days; 0 keeps it for ever.",
    )
    webhook_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that vouch for receivers of webhooks. Unset: the system's.",
    )
