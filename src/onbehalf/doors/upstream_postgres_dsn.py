"""Where a PostgreSQL server is and how it is spoken to: a DSN, made safe before anything is sent.

Must not connect, nor know where the DSN comes from.

Trust: TLS with the server's name verified says who answers; beyond loopback nothing less is taken.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from onbehalf.errors import ConfigInvalid

__all__ = ["safe_dsn"]

_CONNECT_SECONDS = 5
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def safe_dsn(text: str, *, what: str, insecure_tls: bool) -> str:
    """The DSN with what must not be left to chance. Raises ConfigInvalid, which never holds the DSN.

    Beyond loopback and Unix sockets `sslmode` is `verify-full`, unless `insecure_tls`. A service file is refused,
    and host, user and database must be named: the environment shall not choose where people's data goes.
    """
    try:
        given = conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        raise ConfigInvalid(
            f"`{what}` refers to no DSN",
            hint="such as postgresql://gw_ro:password@db.example.com/hr?sslmode=verify-full",
        ) from error
    lost = [key for key in ("host", "user", "dbname") if not given.get(key)]
    if lost or given.get("service"):
        raise ConfigInvalid(
            f"the DSN of `{what}` names no {lost[0]}" if lost else f"the DSN of `{what}` names a service",
            hint="name host, user and dbname in it, and no service: nothing is taken from elsewhere",
        )
    hosts = str(given["host"]).split(",") + [each for each in str(given.get("hostaddr") or "").split(",") if each]
    if not all(host in _LOOPBACK or host.startswith(("/", "@")) for host in hosts):
        given.setdefault("sslmode", "verify-full")
        if given["sslmode"] != "verify-full" and not insecure_tls:
            raise ConfigInvalid(
                f"the DSN of `{what}` has `sslmode={given['sslmode']}`, expected `verify-full`",
                hint="name the authority in `sslrootcert`, and the host as in the server's certificate",
            )
    given.setdefault("connect_timeout", _CONNECT_SECONDS)
    given.setdefault("application_name", "onbehalf")
    # with GSS encryption `sslmode` would not be looked at
    return make_conninfo("", **{**given, "gssencmode": "disable"})
