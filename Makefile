# pgtandem: two PostgreSQL servers in tandem. "make help" lists the targets.

SHELL       := /bin/bash
PREFIX      ?= /usr/local
SYSCONFDIR  ?= /etc
DESTDIR     ?=
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

GOLANGCI_LINT = v2.15.0
STATICCHECK   = v0.8.2

# The version is stamped by the linker and not by go's own look at the
# repository, which fails where another user owns the checkout, as in CI.
BUILD = go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)'

bindir  = $(DESTDIR)$(PREFIX)/bin
libdir  = $(DESTDIR)$(PREFIX)/lib
docdir  = $(DESTDIR)$(PREFIX)/share/doc/pgtandem
confdir = $(DESTDIR)$(SYSCONFDIR)/pgtandem

.DEFAULT_GOAL := help
.PHONY: help build demo test lint screenshots bench compat pauses chaos sim planted fuzz install clean deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile bin/proxyd (the daemon) and bin/pgtandem (the console)
	@mkdir -p bin
	@echo "building version $(VERSION)"
	@$(BUILD) -o bin/proxyd ./proxyd
	@$(BUILD) -o bin/pgtandem ./tui

demo: deps build ## start a real pair on this machine and open the console on it
	@bin/pgtandem lab up >/dev/null
	@if [ -t 0 ] && [ -t 1 ]; then \
	  exec bin/pgtandem --socket "$$(bin/pgtandem lab status --json | sed -n 's/.*"socket": *"\([^"]*\)".*/\1/p')"; \
	fi; \
	bin/pgtandem lab status && \
	printf '\n%s\n' "The lab is running. In a terminal, bin/pgtandem opens its console; bin/pgtandem lab down stops it."

# A test may not skip: engine/architecture_test.go fails on the call itself, so
# what cannot run is a failure. Two packages at a time, since many of them run
# servers of their own.
test: deps ## run every test, those against real PostgreSQL included
	@CGO_ENABLED=1 go test -buildvcs=false -race -timeout 15m -p 2 ./...

lint: ## gofmt and golangci-lint
	@.ci/lint $(GOLANGCI_LINT) $(STATICCHECK)

screenshots: deps build ## draw the real console on a real lab into screenshots/
	@go run -buildvcs=false ./tui/shots

WHAT ?= select
ARGS ?=

bench: deps build ## proxyd measured beside PgBouncer, pgpool-II, HAProxy: WHAT=select|reads|latency|login|idle|copy|tls|loops
	@go run -buildvcs=false ./proxyd/bench -what '$(WHAT)' $(ARGS)

SUITES ?= regress,isolation,pgx,pq,pgx-pool

compat: deps build ## PostgreSQL's, pgx's and lib/pq's own tests, direct and through proxyd: SUITES=pgx,... ARGS=-server-tls
	@go run -buildvcs=false ./proxyd/compat -suites '$(SUITES)' $(ARGS)

RUNS  ?= 10
NODES ?= 2
SEED  ?= 0

chaos: deps build ## random faults on a real cluster under load: RUNS=10 NODES=2 SEED=n
	@go build -trimpath -buildvcs=false -o bin/chaos ./engine/chaos/run
	@bin/chaos -runs $(RUNS) -nodes $(NODES) -seed $(SEED)

SEEDS ?= 2000

sim: deps ## the engine against a model with every fault, from fresh seeds: SEEDS=2000
	@go run -buildvcs=false ./engine/sim/run -seeds $(SEEDS)

planted: deps ## break the engine in one place at a time; the simulator must notice each
	@go run -buildvcs=false ./engine/sim/planted

FAULT   ?=
MINUTES ?= 30
MODE ?= transaction

pauses: deps build ## longest pause of clients for each fault: RUNS=10 FAULT=frozen,... or wakings, jitter MINUTES=30, commits MODE=session
	@go build -trimpath -buildvcs=false -o bin/pauses ./engine/lab/pauses
	@bin/pauses -proxyd bin/proxyd -runs $(RUNS) -fault '$(FAULT)' -minutes $(MINUTES) -mode $(MODE)

fuzz: MINUTES = 10

fuzz: deps ## run every fuzz target, one after the other: MINUTES=10 TARGETS='FuzzStartup|...'
	@.ci/fuzz $(MINUTES) '$(TARGETS)'

install: build ## install under DESTDIR and PREFIX; keeps a configuration that is there
	install -d $(bindir) $(libdir)/systemd/system $(libdir)/sysusers.d $(libdir)/tmpfiles.d $(docdir) $(confdir)
	install -m 0755 bin/proxyd bin/pgtandem $(bindir)
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' proxyd/dist/proxyd.service > $(libdir)/systemd/system/proxyd.service
	chmod 0644 $(libdir)/systemd/system/proxyd.service
	install -m 0644 proxyd/dist/proxyd.socket $(libdir)/systemd/system/proxyd.socket
	install -m 0644 proxyd/dist/sysusers.conf $(libdir)/sysusers.d/pgtandem.conf
	install -m 0644 proxyd/dist/tmpfiles.conf $(libdir)/tmpfiles.d/pgtandem.conf
	install -m 0644 LICENSE $(wildcard README*.md) $(docdir)
	install -m 0644 config/example.toml $(docdir)/pgtandem.example.toml
	@if [ -e $(confdir)/pgtandem.toml ]; then \
	  echo "$(confdir)/pgtandem.toml is there and is kept; the new example is in $(docdir)"; \
	else \
	  echo install -m 0644 config/example.toml $(confdir)/pgtandem.toml; \
	  install -m 0644 config/example.toml $(confdir)/pgtandem.toml; \
	fi
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
	  set -x; systemd-sysusers pgtandem.conf && systemd-tmpfiles --create pgtandem.conf && systemctl daemon-reload; \
	fi

clean: ## remove what was built, the linter included; a lab stays (bin/pgtandem lab destroy)
	rm -rf bin

deps:
	@.ci/deps
