# egate. `make help` lists what there is. Go alone builds it; the targets that
# need more say so.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
GO      ?= go
RUNNER   = .cache/vm

# Packages with root tests: those whose tests use internal/testutil. The
# benchmarks are for the kernel that runs.
ROOT_PACKAGES = egate/internal/testutil $(shell $(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | \
	awk '!/^egate\/bench/ && /egate\/internal\/testutil/ {print $$1}')

.DEFAULT_GOAL := build

.PHONY: all
all: generate build lint test ## regenerate, build, lint and test

.PHONY: build
build: ## build the static binary ./egate (default)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o egate ./cmd/egate

.PHONY: generate
generate: ## make BPF objects and generated documents anew (clang-19, llvm-19, libbpf-dev)
	$(GO) generate ./...

.PHONY: fmt
fmt: ## format Go and C (clang-format-19)
	gofmt -w bench cmd internal tests
	clang-format-19 -i bpf/*.c bpf/include/*.h bench/programs/bpf/*.c

.PHONY: test
test: ## run the tests; those that need root skip without it
	$(GO) test ./...

.PHONY: test-root
test-root: ## run the tests as root; a skip that tests/skips.txt does not list fails
	CI=true $(GO) test -count=1 -json ./... | $(GO) run ./tests/report -where host

.PHONY: fuzz
fuzz: ## fuzz each target for some seconds (FUZZTIME=1m for longer)
	EGATE_FUZZ_TIME=$(FUZZTIME) .ci/run fuzz

.PHONY: vm-6.1 vm-6.12
vm-6.1: ## run the root tests on Debian's Linux 6.1 in qemu (see CONTRIBUTING.md)
vm-6.12: ## run the root tests on Debian's Linux 6.12 in qemu
vm-6.1 vm-6.12: vm-%:
	$(GO) build -o $(RUNNER) ./tests/vm
	$(RUNNER) fetch $*
	CGO_ENABLED=0 $(GO) test -count=1 -p 2 -timeout 20m -exec '$(CURDIR)/$(RUNNER) exec --kernel $*' $(ROOT_PACKAGES)

.PHONY: bench bench-quick
bench: ## measure egate beside nftables, iptables, ipset and BPF programs (root; 20 minutes)
	$(GO) run ./bench
bench-quick: ## the same with fewer sizes and rounds (root; at most 3 minutes)
	$(GO) run ./bench -quick

.PHONY: lint
lint: ## check format, vet, staticcheck, shell scripts and modules
	.ci/run lint

.PHONY: ci
ci: ## run all of CI (root; installs Debian packages)
	.ci/run

.PHONY: install
install: build ## install to $(DESTDIR)$(PREFIX)/bin, and the unit of the daemon to $(DESTDIR)/etc/systemd/system
	install -D -m 755 egate $(DESTDIR)$(PREFIX)/bin/egate
	install -d $(DESTDIR)/etc/systemd/system
	sed 's#/usr/local/bin/#$(PREFIX)/bin/#' systemd/egate-daemon.service >$(DESTDIR)/etc/systemd/system/egate-daemon.service

.PHONY: clean
clean: ## remove what was built here
	rm -rf egate dist .cache

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
