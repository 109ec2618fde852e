"""The feeds that the configuration names, made ready to be read, and read every so often.

Must not know what a feed's people may do, or who is told of a problem.

Trust: whoever can write the configuration, or set what its references name, chooses whose word is believed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from onbehalf.config import Settings
from onbehalf.config_directory import DirectorySettings, FeedSettings
from onbehalf.doors.directory_load import Feed, Loaded, Progress, load
from onbehalf.doors.directory_query import PostgresFeed, SqliteFeed
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid, DirectoryUnavailable, OnbehalfError
from onbehalf.ports import Clock

__all__ = ["Feeding", "feed_of", "opened"]

_ENDING_SECONDS = 3.0
"""How long a load that is under way may take to end when the gateway does."""


def opened(feed: FeedSettings, *, base: Path) -> Feed:
    """The feed with what it needs to know. Paths and references are relative to `base`. Raises ConfigInvalid."""
    if isinstance(feed.sqlite, str):
        return SqliteFeed(base / feed.sqlite, feed.query, seconds=feed.timeout_seconds)
    assert isinstance(feed.postgres, str)  # config.py has seen that it is one of the two
    from onbehalf.doors.upstream_postgres_dsn import safe_dsn  # a gateway without PostgreSQL does without its library

    what = f"directory feed of {feed.tenant}"
    dsn = safe_dsn(resolved(feed.postgres, base=base, what=what), what=what, insecure_tls=feed.insecure_tls_for_tests)
    return PostgresFeed(dsn, feed.query, seconds=feed.timeout_seconds)


def feed_of(settings: Settings, tenant: str) -> FeedSettings:
    """The feed of this tenant; of the only one for "". Raises ConfigInvalid where there is none, or more than one."""
    feeds = {feed.tenant: feed for feed in settings.directory.feeds}
    if tenant in feeds or (not tenant and len(feeds) == 1):
        return feeds[tenant] if tenant else next(iter(feeds.values()))
    if not feeds:
        raise ConfigInvalid("no feed is configured", hint="docs/directory.md says how to write `directory`")
    listed = ", ".join(f"`{each}`" for each in sorted(feeds))
    raise ConfigInvalid(
        f"tenant `{tenant}` has no feed" if tenant else "there is more than one feed", hint=f"name one of {listed}"
    )


class Feeding:
    """Pulls every feed every so often, each in a thread, and tells what came of it. Made for one event loop."""

    def __init__(
        self, settings: DirectorySettings, *, directory: SqliteDirectory, base: Path, clock: Clock,
        told: Callable[[str, Loaded | OnbehalfError], None],
    ) -> None:  # fmt: skip
        """`told` is given the tenant, on the event loop. References are relative to `base`."""
        self._settings, self._directory, self._base = settings, directory, base
        self._clock, self._told = clock, told
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Until it is cancelled. A load that is under way then ends at its next part, and nothing of it counts."""
        try:
            await asyncio.gather(*(self._keep(feed) for feed in self._settings.feeds))
        finally:
            self._stopped.set()

    async def _keep(self, feed: FeedSettings) -> None:
        while True:
            work = asyncio.ensure_future(asyncio.to_thread(self._pulled, feed))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                self._stopped.set()
                await asyncio.wait({work}, timeout=_ENDING_SECONDS)
                if work.done() and isinstance(work.result(), Loaded):  # it is in force, and so belongs on record
                    self._told(feed.tenant, work.result())
                raise
            self._directory.forget()
            self._told(feed.tenant, work.result())
            await asyncio.sleep(feed.every_seconds)

    def _pulled(self, feed: FeedSettings) -> Loaded | OnbehalfError:
        try:
            return load(
                self._directory.path, feed.tenant, opened(feed, base=self._base), now=self._clock(),
                deactivates_at_most=self._settings.deactivates_at_most, progress=self._part,
            )  # fmt: skip
        except OnbehalfError as error:
            return error
        except Exception as error:  # one bad answer must not end the feed: it is a problem, and asked again
            return DirectoryUnavailable(
                f"the feed of `{feed.tenant}` failed: {type(error).__name__}", hint="the old people stay in force"
            )

    def _part(self, _: Progress) -> None:
        if self._stopped.is_set():
            raise DirectoryUnavailable("the gateway is closing", hint="the feed is read again when it starts")
