# `make demo` shows the plugin at work and `make test` runs every test; both install what they need.

export PATH := $(PATH):$(HOME)/.local/share/swiftly/bin:/opt/swift/usr/bin
# Debian's interpreter, which has Debian's boto3 and pytest.
PYTHON := /usr/bin/python3

NAME := polarity-ecs-ebs-plugin
ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
ARCHES := amd64 arm64
VERSION := $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo unknown)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

IMPORTS := --explicit-target-dependency-import-check error
# One set of flags for every release build: another set would compile all of it again. A function a
# section, so that lld leaves out what nobody calls, and puts what the daemon uses of the libraries
# side by side, as LAYOUT has it. Nothing unwinds by .eh_frame_hdr: it would be 0.3 MB for C++
# exceptions; debuggers read .eh_frame itself.
LAYOUT := plugin/layout.txt
# The program and its heap lie at another address at each start (static PIE, whose relocations are
# packed), and what needs no writing after the start is read-only.
HARDENED := -Xswiftc -Xclang-linker -Xswiftc -static-pie -Xlinker --pack-dyn-relocs=relr \
    -Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now -Xlinker -T -Xlinker $(CURDIR)/plugin/sections.ld
# No path of this machine gets into what is built, so that another folder gives the same bytes, the
# build id too: it is made of all, the names of modules in the debug information among it.
ANYWHERE := -Xswiftc -file-prefix-map -Xswiftc $(CURDIR)=. -Xcc -ffile-prefix-map=$(CURDIR)=. \
    -Xswiftc -Xfrontend -Xswiftc -no-clang-module-breadcrumbs
RELEASE := -c release -Xswiftc -static-executable -Xswiftc -Xfrontend -Xswiftc -function-sections \
    -Xswiftc -use-ld=lld -Xlinker --icf=safe -Xlinker --no-eh-frame-hdr \
    -Xlinker --symbol-ordering-file=$(CURDIR)/$(LAYOUT) -Xlinker --no-warn-symbol-ordering \
    --disable-local-rpath $(HARDENED) $(ANYWHERE) $(IMPORTS)
# What the compiler makes of a macro gets a path in TMPDIR, which the debug information holds: in this
# folder it is the same path for all.
TEMPORARY := $(CURDIR)/.build/tmp
BUILD = mkdir -p $(TEMPORARY) && TMPDIR=$(TEMPORARY) swift build $(RELEASE)
BIN = $(shell swift build -c release --show-bin-path)

# Where `make dev` listens and `make health-check` asks.
SOCK ?= pl-ebs.sock

.PHONY: build daemon
daemon:
	$(BUILD) --product $(NAME)

build: daemon
	$(BUILD) --product ec2-simulator
	$(BUILD) --product life-simulator

# The plugin as `docker plugin create` takes it. `make tar` makes this machine's, and what the tests of
# it run. An amd64 machine makes arm64's too, with Debian's compiler for it (.ci/cross).
.PHONY: tar $(ARCHES:%=tar-%) $(ARCHES:%=debug-tar-%) $(ARCHES:%=daemon-%)
tar: tar-$(ARCH) build

PACKAGE = $(PYTHON) plugin/package.py --version $(VERSION) --commit $(COMMIT) $(PACKAGE_$*)
PACKAGE_$(ARCH) = --daemon $(BIN)/$(NAME)

$(ARCHES:%=tar-%): tar-%: daemon-%
	@$(PACKAGE) --output $(NAME).$*.tar.gz

# Also logs to /var/log/polarity-ecs-ebs.log on the host, at level debug.
$(ARCHES:%=debug-tar-%): debug-tar-%: daemon-%
	@$(PACKAGE) --debug --output $(NAME)-debug.$*.tar.gz

daemon-$(ARCH): daemon

ifeq ($(ARCH),amd64)
CROSS := .build/cross
DAEMON_arm64 := $(CROSS)/swift/aarch64-unknown-linux-gnu/release/$(NAME)
PACKAGE_arm64 = --daemon $(DAEMON_arm64) --cross $(CROSS)
# Swift's packages are fetched here, where git is set up for that; the compiler finds them there. Of each
# object in Debian's archives lld would warn that it has no table for --icf=safe.
daemon-arm64:
	@.ci/cross prepare
	swift package resolve
	swift package --scratch-path $(CROSS)/swift resolve
	@mkdir -p $(TEMPORARY)
	.ci/cross run env TMPDIR=$(TEMPORARY) swift build $(RELEASE) --scratch-path $(CROSS)/swift --swift-sdks-path \
	    $(CURDIR)/$(CROSS)/sdks --swift-sdk arm64 --disable-automatic-resolution -Xlinker --no-warnings \
	    --product $(NAME)

# The daemon for arm64 beside the simulator, emulated by QEMU, which has no io_uring: so it runs on epoll.
.PHONY: test-arm64
test-arm64: deps build daemon-arm64
	@.ci/cross emulator
	@EBS_PLUGIN=$(CURDIR)/$(DAEMON_arm64) \
	    EBS_PLUGIN_RUNNER=$(CURDIR)/$(CROSS)/emulator/usr/bin/qemu-aarch64 $(PYTHON) -m pytest -q -p no:cacheprovider Tests/Integration
else
daemon-amd64:
	@echo "make: the amd64 tarball is built on amd64, and this machine is $(ARCH)" >&2; exit 1
endif

# All that a release has, of what is committed, in the folder `release`. `make release ARCHES=amd64`
# makes one architecture's.
.PHONY: release publish reproduce
release: deps
	@bash .ci/deps tools
	@bash .ci/release $(ARCHES)

# Makes the release of the tag that is checked out on GitHub, of what `make release` has left.
publish:
	@bash .ci/publish

# Builds what is committed twice, in two folders, and compares the tarballs bit for bit.
reproduce: deps
	@bash .ci/reproduce

.PHONY: test soak check lint fmt demo bench sim sim-mutants
test: deps tar
	@$(PYTHON) Tests/run

# The long forms: the daemon killed at every one of its steps, and 500 rounds while EC2 fails.
soak: deps tar
	@POLARITY_SOAK=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider Tests/Integration/test_crash.py
	@POLARITY_SOAK=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider Tests/EndToEnd/test_soak.py

# The plugin in virtual machines: several kernels and Docker Engines, with disks that are plugged and
# pulled as EC2 does. Half an hour, and more the first time. `make test-hosts HOSTS=6.1` runs one;
# Tests/Hosts/rows.py has the names.
HOSTS ?=
.PHONY: test-hosts
test-hosts: tar $(if $(HOSTS),$(if $(findstring arm64,$(HOSTS)),tar-arm64),tar-arm64)
	@bash .ci/deps hosts
	@$(PYTHON) -B Tests/Hosts/run $(HOSTS)

check:
	swift format lint --strict --recursive Sources Tests Package.swift
	@$(PYTHON) -B Tests/Boundary/test_boundary.py

# Workflows, scripts and templates; its tools go into .build/tools.
lint:
	@bash .ci/lint

fmt:
	swift format --in-place --recursive Sources Tests Package.swift

# Seeded lives of volumes in virtual time, without root. `make sim SEED=n RUNS=1` tells one again.
SEED ?= 1
RUNS ?= 20000
sim: deps
	@$(BUILD) --product life-simulator
	@$(BIN)/life-simulator --seed $(SEED) --runs $(RUNS)

# Mutates the manager's source at each condition and wait: lives or tests have to notice. Takes up to
# an hour. `make sim-mutants MUTANTS=Lease` takes one file's, MUTANTS='--changed main' what is new.
MUTANTS ?=
sim-mutants: deps
	@$(PYTHON) -B Tests/Lives/mutants.py $(MUTANTS)

demo: deps tar
	@$(PYTHON) demo/demo.py

# Every budget beside what was measured, in ten minutes or so. Where `go` is (apt-get install golang-go),
# the plugin's requests are compared with Go's net/http.
bench: deps tar
	@$(PYTHON) benchmarks/bench.py

# Learns LAYOUT anew from a daemon at work, after a change of Swift's version or Debian's libraries.
# An old one only costs memory.
.PHONY: layout
layout: deps build
	$(BUILD) -Xlinker -Map=$(BIN)/$(NAME).map --product $(NAME)
	@$(PYTHON) benchmarks/layout.py --map $(BIN)/$(NAME).map --output $(LAYOUT)

# Debian's packages by name, and a Swift toolchain where there is none.
.PHONY: deps
deps:
	@bash .ci/deps

# The daemon on ./pl-ebs.sock, on a machine that is no EC2 instance.
.PHONY: dev health-check clean
dev:
	swift build $(IMPORTS) --product $(NAME)
	AWS_EC2_METADATA_DISABLED=true REGION=us-east-1 AVAILABILITY_ZONE=us-east-1a \
	    INSTANCE_ID=i-0123456789abcdef0 \
	    BUILD_VERSION=$(VERSION) BUILD_COMMIT=$(COMMIT) SOCK_PATH=$(SOCK) \
	    STATE_PATH=$(CURDIR)/.build/dev-state \
	    $$(swift build --show-bin-path)/$(NAME)

health-check:
	@curl --fail-with-body --silent --show-error --max-time 5 --unix-socket $(SOCK) \
	    http://localhost/health && echo

clean:
	rm -rf .build release $(NAME)*.tar.gz $(SOCK) $(SOCK).lock
	find . -name __pycache__ -o -name .pytest_cache | xargs rm -rf
