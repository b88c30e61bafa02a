"""What stands in for Temporal where a use case only starts the mails of what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from conman.domain.mail import Wave
from conman.workflows.client import Commands


@dataclass
class NoticeBoard:
    """The notices whose workflows were started; any other command of Temporal's is an error."""

    started: list[str] = field(default_factory=list)

    async def start_notice(self, notice_id: str, _wave: Wave | None = None) -> None:
        self.started.append(notice_id)

    @property
    def commands(self) -> Commands:
        return cast("Commands", self)
