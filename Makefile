# The two commands: `make run` and `make test`. Each installs what it needs first.

PYTHON ?= python3
# What to serve, as in: make run FLAKE=github:owner/repo; the example if empty.
FLAKE ?=
# More arguments, as in: make run ARGS='--port 7000' or make bench ARGS=--quick
ARGS ?=

RUN_PACKAGES = $(VENV_PACKAGE) \
	$(if $(shell command -v bwrap),,bubblewrap) \
	$(if $(shell command -v busybox),,busybox-static) \
	$(if $(shell command -v setpriv),,util-linux)
TEST_PACKAGES = busybox-static caddy chromium containerd curl docker-compose docker.io e2fsprogs fonts-dejavu-core \
	git haproxy libatomic1 mount nginx openssl podman podman-compose procps prometheus runc skopeo \
	systemd tini \
	$(if $(shell command -v kubectl),,kubernetes-client)
BENCH_PACKAGES = busybox-static chromium curl docker-registry fonts-dejavu-core gzip iproute2 isal libatomic1 mount nginx openssl \
	podman procps runc skopeo tini util-linux wrk
# A nix that is there already, from wherever, is good enough.
NIX_PACKAGE = $(if $(shell command -v nix),,nix-bin)

# Traces are sent only where somebody wants them.
TRACES = $(if $(OTEL_EXPORTER_OTLP_ENDPOINT)$(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT),traces)

VENV_PACKAGE = $(if $(shell $(PYTHON) -c 'import ensurepip, venv; print(1)' 2>/dev/null),,python3-venv)

.DEFAULT_GOAL := help
.PHONY: help run test test-memory bench lint clean

help:
	@echo 'make run          install what is missing and start the registry on port 6443'
	@echo 'make test         install what the tests need and run them all'
	@echo '                  (with FORGE_LONG_TESTS=1 also those that take a quarter of an hour)'
	@echo 'make test-memory  run the tests that need neither network nor programs'
	@echo 'make bench        measure against peers, and write docs/benchmarks.md'
	@echo 'make lint         check format, style, types, imports and spelling'
	@echo 'make clean        forget what was installed here'

run: .venv/run $(TRACES:%=.venv/%)
	scripts/run $(if $(FLAKE),--flake '$(FLAKE)') $(ARGS)

test: .venv/dev
	scripts/install-packages $(RUN_PACKAGES) $(NIX_PACKAGE) $(TEST_PACKAGES)
	.venv/bin/pytest

test-memory: .venv/dev
	.venv/bin/pytest --ignore=tests/socket --ignore=tests/live

bench: .venv/dev
	scripts/install-packages $(RUN_PACKAGES) $(NIX_PACKAGE) $(BENCH_PACKAGES)
	.venv/bin/python -m benchmarks --page docs/benchmarks.md $(ARGS)

lint: .venv/dev
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell forgereg tests benchmarks deploy docs scripts examples README.md Makefile

.venv/bin/python:
	scripts/install-packages $(RUN_PACKAGES) $(NIX_PACKAGE)
	$(PYTHON) -m venv .venv

.venv/traces: .venv/run
	.venv/bin/pip install --quiet --editable '.[traces]'
	touch $@

.venv/run: .venv/bin/python pyproject.toml
	scripts/install-packages $(RUN_PACKAGES) $(NIX_PACKAGE)
	.venv/bin/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/bin/python pyproject.toml
	.venv/bin/pip install --quiet --editable '.[dev]'
	touch $@ .venv/run

clean:
	rm -rf .venv examples/forge/busybox
