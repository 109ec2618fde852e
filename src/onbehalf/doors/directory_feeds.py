"""The feeds that the configuration names, made ready to be pulled, and one pull of each.

Must not know when a feed is pulled, or what becomes of a pull that failed.

Trust: whoever can write the configuration, or set what its references name, chooses whose word is believed.
"""

from __future__ import annotations

from pathlib import Path

from onbehalf.config import Settings
from onbehalf.config_directory import DirectorySettings, FeedSettings
from onbehalf.doors.directory_load import Feed, Loaded, load
from onbehalf.doors.directory_query import PostgresFeed, SqliteFeed
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime

__all__ = ["feed_of", "opened", "pull"]


def opened(feed: FeedSettings, *, base: Path) -> Feed:
    """The feed with what it needs to know. Paths and references are relative to `base`. Raises ConfigInvalid."""
    if isinstance(feed.sqlite, str):
        return SqliteFeed(base / feed.sqlite, feed.query, seconds=feed.timeout_seconds)
    assert isinstance(feed.postgres, str)  # config.py has seen that it is one of the two
    from onbehalf.doors.upstream_postgres_dsn import safe_dsn  # a gateway without PostgreSQL does without its library

    what = f"directory feed of {feed.tenant}"
    dsn = safe_dsn(resolved(feed.postgres, base=base, what=what), what=what, insecure_tls=feed.insecure_tls_for_tests)
    return PostgresFeed(dsn, feed.query, seconds=feed.timeout_seconds)


def pull(directory: Path, feed: FeedSettings, settings: DirectorySettings, *, base: Path, now: UnixTime) -> Loaded:
    """Make a tenant's people what its query says. The directory at that path was opened before.

    Raises ConfigInvalid, DirectoryInvalid, DirectoryUnavailable; then the old people stay in force.
    """
    share = settings.deactivates_at_most
    return load(directory, feed.tenant, opened(feed, base=base), now=now, deactivates_at_most=share)


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
