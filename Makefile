# parley: the commands of every day. `make run` needs Go alone; `make test`
# installs the rest of what it needs and says so.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

GOLANGCI_VERSION := v2.15.0
FUZZTIME         ?= 30s
FUZZPKGS         ?= ./...
# The folders whose decoders read what strangers send.
DECODERS         := ./wire/... ./channel/... ./gateway/... ./star/... ./peer/... ./identity/... ./network/... ./topic/... ./discover/... ./host/...
ARGS             ?=
BIN              := $(CURDIR)/bin
# npm parts are there when the workspace is.
NPM              := $(wildcard package.json)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: run
run: ## serve the demo on a free loopback port and open a browser (ARGS="--no-open …")
	go run ./cmd/parley $(ARGS)

.PHONY: test
test: test-go test-client e2e ## everything CI runs: Go with -race, TypeScript, browser tests, other peers

.PHONY: test-go
test-go: star-originals
	@echo "== Go: build, vet, tests with the race detector"
	@$(need-capnp)
	@$(need-lab)
	go build ./...
	go vet ./...
	cd bench && go vet ./...
	go test -race -timeout 10m ./...

.PHONY: test-client
test-client: node_modules/.installed
ifneq ($(NPM),)
	@echo "== TypeScript: types, tests, and that what is committed is what the sources build"
	npm run check
	npm test
	npm run check:built
endif

.PHONY: e2e
e2e: node_modules/.installed ## browser tests in Chromium, and peers that others wrote
ifneq ($(NPM),)
	@echo "== browser tests"
	@$(need-chromium)
	npm run e2e
endif

.PHONY: long
long: FUZZTIME = 1h
long: node_modules/.installed ## the slow ones too: load, endurance, simulations, a million random messages; then each decoder fuzzed for an hour (FUZZTIME=…)
	@$(need-capnp)
	@$(need-lab)
	PARLEY_LONG=1 go test -tags long -timeout 120m ./...
ifneq ($(NPM),)
	@$(need-chromium)
	@$(need-nginx)
	@$(need-firefox)
	PARLEY_LONG=1 npm run star
	PARLEY_LONG=1 npm run firefox
endif
	@$(MAKE) fuzz FUZZTIME=$(FUZZTIME) FUZZPKGS="$(DECODERS)"

.PHONY: bench
bench: ## measure beside the floor and write docs/benchmarks.md (ARGS="latency rate topic pages start")
	cd bench && go run . $(ARGS)
	@if [ -z "$(ARGS)" ]; then cd bench && go run ./channel && go run ./star; fi

.PHONY: microbench
microbench: ## the benchmarks of single packages
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s); FUZZPKGS=./wire/... for some
	@for pkg in $$(go list $(FUZZPKGS)); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg; \
		done; \
	done

.PHONY: lint
lint: $(BIN)/golangci-lint-$(GOLANGCI_VERSION) ## golangci-lint, and a tidy go.mod
	$(BIN)/golangci-lint-$(GOLANGCI_VERSION) run ./...
	go mod tidy -diff

.PHONY: gen
gen: node_modules/.installed ## make anew what is generated and committed
	go generate ./...
ifneq ($(NPM),)
	npm run build
endif

$(BIN)/golangci-lint-$(GOLANGCI_VERSION):
	@echo "== installing golangci-lint $(GOLANGCI_VERSION) into bin/"
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/golangci-lint $@

# The packages of the lock file, installed again when it changes.
node_modules/.installed: $(wildcard package-lock.json)
ifneq ($(NPM),)
	@$(need-npm)
	@echo "== npm packages"
	npm ci --fetch-retries=5
	@touch $@
endif

# The original star programs, which the star is tested with.
.PHONY: star-originals
star-originals:
ifneq ($(NPM),)
	@$(need-npm)
	@node tests/star/originals/install.mjs
endif

# apt-install NAME…: only as root on Debian and its children.
define apt-install
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "== installing $(1)"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
else \
	echo "$(1) is missing: please install it"; exit 1; \
fi
endef

define need-npm
if ! command -v npm >/dev/null; then $(call apt-install,nodejs npm); fi
endef

define need-capnp
if ! command -v capnp >/dev/null; then $(call apt-install,capnproto); fi
endef

# The network lab of tests/lab.
define need-lab
export PATH="$$PATH:/usr/sbin:/sbin"; \
if ! command -v ip >/dev/null; then $(call apt-install,iproute2); fi; \
if ! command -v nft >/dev/null; then $(call apt-install,nftables); fi; \
if ! command -v miniupnpd >/dev/null; then \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { $(call apt-install,miniupnpd-nftables); }; } || \
		echo "== miniupnpd is missing: the tests with a router that leads ports in are left out"; \
fi
endef

define need-nginx
if ! command -v nginx >/dev/null; then $(call apt-install,nginx-light); fi
endef

define need-firefox
if [ -z "$${FIREFOX:-}" ] && ! command -v firefox-esr firefox >/dev/null; then $(call apt-install,firefox-esr); fi
endef

define need-chromium
if [ -z "$${CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then \
	$(call apt-install,chromium); \
fi
endef
