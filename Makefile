# Two commands: `make demo` runs the story and serves; `make test` runs every check. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= demo-data
GLEWLWYD := .tools/glewlwyd
.PHONY: demo demo-postgres test check browser postgres glewlwyd syslog strace soak mutants lock bench conformance clean

demo: $(READY)
	$(BIN)/onbehalf demo --data $(DATA) $(ARGS)

# The same story with the HR database on a PostgreSQL server that the demo starts, and with its wall.
demo-postgres: $(READY) postgres
	$(BIN)/onbehalf demo --database postgres --data $(DATA) $(ARGS)

test: check browser postgres glewlwyd syslog strace
	$(BIN)/python -m pytest -n 4 --dist loadfile

# The login page is tested in a real browser. Where nothing may be installed, those tests are skipped and say so.
browser:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; } \
	  || echo "chromium is not installed, so its tests will be skipped (apt-get install chromium)"

# PostgreSQL as an upstream is tested on a real server, which the tests start themselves.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql > /dev/null; } \
	  || echo "PostgreSQL is not installed, so what needs it will not run (apt-get install postgresql)"
	@version=$$(ls /usr/lib/postgresql 2> /dev/null | sort -n | tail -1); ls /usr/lib/postgresql/$$version/lib/pgaudit.so > /dev/null 2>&1 \
	  || { [ -n "$$version" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-$$version-pgaudit > /dev/null; } \
	  || echo "pgaudit is not installed, so its test will be skipped (apt-get install postgresql-$$version-pgaudit)"

# The broker is tested with a second OpenID provider. It is unpacked and not installed: Debian's package would start a
# server, with the password that everybody knows, and would bring a database client.
glewlwyd:
	@command -v glewlwyd > /dev/null || [ -x $(GLEWLWYD)/usr/bin/glewlwyd ] || { command -v apt-get > /dev/null \
	  && mkdir -p $(GLEWLWYD)/packages/partial && { [ "$$(id -u)" != 0 ] || apt-get update -qq; } \
	  && apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Dir::Cache::Archives=$(CURDIR)/$(GLEWLWYD)/packages \
	    --no-install-recommends --download-only install glewlwyd > /dev/null \
	  && ls $(GLEWLWYD)/packages/lib*.deb $(GLEWLWYD)/packages/glewlwyd_*.deb $(GLEWLWYD)/packages/glewlwyd-common_*.deb \
	    | xargs -I{} dpkg-deb -x {} $(GLEWLWYD); } \
	  || echo "glewlwyd cannot be had, so its tests will be skipped (apt-get install glewlwyd)"

# Syslog as a sink is tested on a real daemon, which the tests start themselves.
syslog:
	@command -v rsyslogd > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rsyslog > /dev/null; } \
	  || echo "rsyslog is not installed, so its tests will be skipped (apt-get install rsyslog)"

# What a process does to its files is recorded, and its system calls are made to fail.
strace:
	@command -v strace > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends strace > /dev/null; } \
	  || echo "strace is not installed, so its tests will be skipped (apt-get install strace)"

# The faults of docs/faults.md in their long form: all disks that a loss of power can leave, and the gateway killed 1,000 times.
soak: $(READY) strace
	ONBEHALF_SOAK=1 $(BIN)/python -m pytest -n 2 --timeout 7200 tests/faults
	PYTHONPATH=tests $(BIN)/python -m faults.soak $(ARGS)

# Small faults in the source of the verifier and of recovery, each of which a test must see.
mutants: $(READY)
	PYTHONPATH=src:tests $(BIN)/python tests/faults/mutants.py $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check src tests examples bench
	$(BIN)/ruff check src tests examples bench
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/lint-imports

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --disable-pip-version-check
	touch $(READY)

lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --no-emit-find-links --no-emit-index-url --extra gateway --extra audit --extra dev --strip-extras -o requirements.lock pyproject.toml

bench: $(READY) bench/.venv
	$(BIN)/python bench/run.py $(ARGS)

# FastMCP, to compare with, has an environment of its own.
bench/.venv: bench/requirements.lock
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r bench/requirements.lock
	touch bench/.venv

conformance: $(READY)
	$(BIN)/python tests/conformance/run.py

clean:
	rm -rf $(VENV) bench/.venv $(DATA) .tools tests/node/node_modules
