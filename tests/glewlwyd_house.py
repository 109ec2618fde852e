"""A company whose OpenID provider is Debian's glewlwyd: a real one that is not of JavaScript, and has ways of its own.

It runs on loopback with a database of its own, set up over its administration API. It is used as it is installed, or as
`make glewlwyd` unpacked it. Nothing here knows the gateway, but for its redirect addresses.
"""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from joserfc.jwk import ECKey, RSAKey

from broker_house import CLIENT, Browser, Visit
from company import wait_for
from ports import free_port

__all__ = ["PEOPLE", "PROGRAM", "PROVIDER", "SECRET", "at_glewlwyd", "changed_key", "glewlwyd"]

_UNPACKED = Path(__file__).resolve().parent.parent / ".tools" / "glewlwyd"
_ROOT = _UNPACKED if (_UNPACKED / "usr/bin/glewlwyd").exists() else Path("/")
PROGRAM = _ROOT / "usr/bin/glewlwyd"
"""The server; there is none where this does not exist."""
PROVIDER = "oidc"
SECRET = "letters-and-digits-0123456789"
"""Nothing that HTTP basic authentication would have to encode: glewlwyd does not decode it (RFC 6749 section 2.3.1)."""
_PASSWORD = "a long password, for tests"
PEOPLE = {"alice-at-login": ("Alice Example", ["staff"]), "bob-at-login": ("Bob Example", ["guests"]),
          "mallory": ("Mallory", ["staff"])}  # fmt: skip
"""Who can log in, by the name they log in with."""
_MODULES = ("user", "user_middleware", "client", "plugin")


@contextmanager
def glewlwyd(gateway: str, *, algorithm: str = "RS256", **plugin: Any) -> Iterator[str]:
    """The provider with its people and one client, for a gateway at that origin; its issuer.

    `plugin` changes what its OpenID plugin is set to.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="glewlwyd-") as name:
        directory = Path(name)
        log = directory / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(PROGRAM), f"--config-file={_written(directory, url, port)}"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=_environment(),
            )  # fmt: skip
        try:
            with httpx2.Client(base_url=url, timeout=20, trust_env=False) as http:
                wait_for(lambda: _answers(http), what="glewlwyd", said=lambda: log.read_text(errors="replace"))
                _set_up(http, f"{url}/api/{PROVIDER}", gateway, algorithm, plugin)
            yield f"{url}/api/{PROVIDER}"
        finally:
            process.terminate()
            process.wait(20)


def changed_key(issuer: str, kid: str) -> None:
    """Have the provider sign with a new key from now on, and publish that alone."""
    with httpx2.Client(base_url=issuer.removesuffix(f"/api/{PROVIDER}"), timeout=20, trust_env=False) as http:
        _ok(http.post("/api/auth/", json={"username": "admin", "password": "password"}))
        plugin = http.get(f"/api/mod/plugin/{PROVIDER}").json()
        plugin["parameters"]["jwks-private"] = _key("RS256", kid)
        _ok(http.put(f"/api/mod/plugin/{PROVIDER}", json=plugin))
        _ok(http.put(f"/api/mod/plugin/{PROVIDER}/reset"))


def at_glewlwyd(browser: Browser, page: Visit, account: str) -> Visit:
    """What its login page does, which is a script: password, then what the client is granted, then on its way."""
    if "/login.html?" not in page.url:
        return page
    told = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
    said = browser.json("POST", f"{origin}/api/auth/", {"username": account, "password": _PASSWORD})
    assert said.status_code == 200, said.status_code
    granted = browser.json("PUT", f"{origin}/api/auth/grant/{told['client_id']}", {"scope": "openid"})
    assert granted.status_code == 200, granted.text
    return browser.get(f"{told['callback_url']}&g_continue")


def _written(directory: Path, url: str, port: int) -> Path:
    """Its settings and its database, from the script that comes with it."""
    script = gzip.decompress((_ROOT / "usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz").read_bytes()).decode()
    with closing(sqlite3.connect(directory / "database")) as base:
        base.executescript(script)
    modules = {f"{name}_module_path": name for name in _MODULES} | {"user_auth_scheme_module_path": "scheme"}
    settings = {
        "bind_address": "127.0.0.1", "external_url": url, "login_url": "login.html", "api_prefix": "api",
        "static_files_path": str(_ROOT / "usr/share/glewlwyd/webapp"), "log_mode": "console", "log_level": "INFO",
        "session_key": "GLEWLWYD2_SESSION_ID", "admin_scope": "g_admin", "profile_scope": "g_profile",
        "hash_algorithm": "SHA512",
        **{name: str(_ROOT / "usr/lib/glewlwyd" / place) for name, place in modules.items()},
    }  # fmt: skip
    lines = [f'{name}="{value}"' for name, value in settings.items()]
    lines += [f"port={port}", "cookie_secure=0"]
    lines += [f'database = {{ type = "sqlite3"; path = "{directory / "database"}"; }};']
    path = directory / "glewlwyd.conf"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _environment() -> dict[str, str]:
    libraries = (
        sorted({str(path.parent) for path in _UNPACKED.glob("usr/lib/*/lib*.so.*")}) if _ROOT == _UNPACKED else []
    )
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else dict(os.environ)


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/config").status_code == 200
    except httpx2.TransportError:
        return False


def _set_up(http: httpx2.Client, issuer: str, gateway: str, algorithm: str, plugin: Mapping[str, Any]) -> None:
    """As an administrator would: groups as a property of people, the OpenID plugin, our client, and people."""
    _ok(http.post("/api/auth/", json={"username": "admin", "password": "password"}))
    people = http.get("/api/mod/user/database").json()
    people["parameters"]["data-format"]["groups"] = {"multiple": True, "read": True, "write": True}
    _ok(http.put("/api/mod/user/database", json=people))
    _ok(http.put("/api/mod/user/database/reset"))
    parameters = {**_plugin(issuer, algorithm), **plugin}
    instance = {"module": "oidc", "name": PROVIDER, "display_name": "OpenID", "parameters": parameters}
    _ok(http.post("/api/mod/plugin/", json=instance))
    client = {
        "client_id": CLIENT, "name": "onbehalf", "enabled": True, "confidential": True, "client_secret": SECRET,
        "redirect_uri": [f"{gateway}/oauth/callback", f"{gateway}/approvals/back"], "authorization_type": ["code"],
        "token_endpoint_auth_method": ["client_secret_basic"], "scope": [],
    }  # fmt: skip
    _ok(http.post("/api/client/", json=client))
    for name, (shown, groups) in PEOPLE.items():
        person = {"username": name, "name": shown, "email": f"{name}@acme.example", "groups": groups}
        _ok(http.post("/api/user/", json={**person, "password": _PASSWORD, "scope": ["openid"], "enabled": True}))


def _plugin(issuer: str, algorithm: str) -> dict[str, Any]:
    said = {"type": "string", "mandatory": True, "on-demand": False}
    return {
        "iss": issuer, "jwt-type": "ecdsa" if algorithm == "ES256" else "rsa", "jwt-key-size": "256",
        "jwks-private": _key(algorithm, "glewlwyd-1"), "jwks-show": True,
        "access-token-duration": 3600, "refresh-token-duration": 86_400, "code-duration": 60,
        "refresh-token-rolling": True, "allow-non-oidc": False, "auth-type-code-enabled": True,
        "auth-type-code-revoke-replayed": True, "auth-type-id-token-enabled": True, "auth-type-refresh-enabled": True,
        "subject-type": "public", "pkce-allowed": True, "pkce-method-plain-allowed": False, "pkce-required": True,
        "oauth-as-iss-id": True, "name-claim": "mandatory", "email-claim": "mandatory",
        "claims": [
            {"name": "preferred_username", "user-property": "username", **said},
            {"name": "groups", "user-property": "groups", **said},
        ],
    }  # fmt: skip


def _key(algorithm: str, kid: str) -> str:
    named = {"kid": kid, "alg": algorithm, "use": "sig"}
    key = ECKey.generate_key("P-256", named) if algorithm == "ES256" else RSAKey.generate_key(2048, named)
    return json.dumps({"keys": [key.as_dict(private=True)]})


def _ok(answer: httpx2.Response) -> None:
    assert answer.status_code == 200, (answer.request.url, answer.status_code, answer.text)
