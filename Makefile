# `make demo` shows the plugin at work; `make test` runs every test. Both install what they need.

export PATH := $(PATH):$(HOME)/.local/share/swiftly/bin:/opt/swift/usr/bin
# Debian's interpreter, which has Debian's boto3 and pytest.
PYTHON := /usr/bin/python3

NAME := polarity-ecs-ebs-plugin
ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
ARCHES := amd64 arm64
VERSION := $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo unknown)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

IMPORTS := --explicit-target-dependency-import-check error
# One set of flags for every release build, because another set would recompile everything. Each
# function has a section of its own, so that lld can omit unused functions and merge identical ones.
# .eh_frame_hdr (0.3 MB) only serves C++ exceptions, which the daemon does not use; debuggers read
# .eh_frame itself.
# The program and its heap have random addresses (static PIE with packed relocations), and
# everything that is not written after the start is read-only.
HARDENED := -Xswiftc -Xclang-linker -Xswiftc -static-pie -Xlinker --pack-dyn-relocs=relr \
    -Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now \
    -Xlinker -T -Xlinker $(CURDIR)/plugin/sections.ld
# The build contains no path of this machine, so that another folder gives the same bytes. This
# includes the build id, which is computed from everything, even the module names in the debug
# information.
ANYWHERE := -Xswiftc -file-prefix-map -Xswiftc $(CURDIR)=. -Xcc -ffile-prefix-map=$(CURDIR)=. \
    -Xswiftc -Xfrontend -Xswiftc -no-clang-module-breadcrumbs
RELEASE := -c release -Xswiftc -static-executable -Xswiftc -Xfrontend -Xswiftc -function-sections \
    -Xswiftc -use-ld=lld -Xlinker --icf=safe -Xlinker --no-eh-frame-hdr \
    --disable-local-rpath $(HARDENED) $(ANYWHERE) $(IMPORTS)
# The compiler stores the expansions of macros under TMPDIR, and the debug information contains
# their paths: a folder in this one has the same path, relative to it, in every build.
TEMPORARY := $(CURDIR)/.build/tmp
BUILD = mkdir -p $(TEMPORARY) && TMPDIR=$(TEMPORARY) swift build $(RELEASE)
BIN = $(shell swift build -c release --show-bin-path)

# The socket of `make dev` and `make health-check`.
SOCK ?= pl-ebs.sock

.PHONY: build daemon
daemon:
	$(BUILD) --product $(NAME)

build: daemon
	$(BUILD) --product ec2-simulator
	$(BUILD) --product life-simulator

# The plugin, as input for `docker plugin create`. `make tar` builds it for this machine, together
# with the programs that its tests run. An amd64 machine can build it for arm64 too, with Debian's
# cross-compiler (.ci/cross).
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
# Swift's packages are fetched outside of .ci/cross run, where git is configured; the compiler finds
# them there. Without --no-warnings, lld would warn about every object in Debian's archives, because
# they have no table for --icf=safe.
daemon-arm64:
	@.ci/cross prepare
	swift package resolve
	swift package --scratch-path $(CROSS)/swift resolve
	@mkdir -p $(TEMPORARY)
	.ci/cross run env TMPDIR=$(TEMPORARY) swift build $(RELEASE) \
	    --scratch-path $(CROSS)/swift --swift-sdks-path $(CURDIR)/$(CROSS)/sdks --swift-sdk arm64 \
	    --disable-automatic-resolution -Xlinker --no-warnings \
	    --product $(NAME)

# Tests the daemon for arm64 against the simulator. It is emulated by QEMU, which does not support
# io_uring, so it uses epoll.
.PHONY: test-arm64
test-arm64: deps build daemon-arm64
	@.ci/cross emulator
	@EBS_PLUGIN=$(CURDIR)/$(DAEMON_arm64) \
	    EBS_PLUGIN_RUNNER=$(CURDIR)/$(CROSS)/emulator/usr/bin/qemu-aarch64 \
	    $(PYTHON) -m pytest -q -p no:cacheprovider Tests/Integration
else
daemon-amd64:
	@echo "make: the amd64 tarball is built on amd64, and this machine is $(ARCH)" >&2; exit 1
endif

# Builds everything for a release from the current commit, in the folder `release`. `make release
# ARCHES=amd64` builds one architecture only.
.PHONY: release publish reproduce
release: deps
	@bash .ci/deps tools
	@bash .ci/release $(ARCHES)

# Publishes the result of `make release` on GitHub, as the release of the tag that is checked out.
publish:
	@bash .ci/publish

# Builds the current commit twice, in two folders, and compares the tarballs bit for bit.
reproduce: deps
	@bash .ci/reproduce

.PHONY: test soak check lint fmt demo bench sim sim-mutants
test: deps tar
	@$(PYTHON) Tests/run

# The long variants of two tests: kills the daemon at every one of its steps, and plays 500 rounds
# with EC2 failures.
soak: deps tar
	@POLARITY_SOAK=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider Tests/Integration/test_crash.py
	@POLARITY_SOAK=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider Tests/EndToEnd/test_soak.py

# Tests the plugin in virtual machines with several kernels and Docker Engines, whose disks are
# plugged and unplugged as EC2 does it. Takes 36 minutes, and longer the first time. `make
# test-hosts HOSTS=6.1` runs one machine; Tests/Hosts/rows.py has the names.
HOSTS ?=
.PHONY: test-hosts
test-hosts: tar $(if $(HOSTS),$(if $(findstring arm64,$(HOSTS)),tar-arm64),tar-arm64)
	@bash .ci/deps hosts
	@$(PYTHON) -B Tests/Hosts/run $(HOSTS)

# The Swift tests with AddressSanitizer, and with ThreadSanitizer those that it says something about
# (HACKING.md). Each target has its own build folder, because other flags recompile everything.
# Swift's own backtrace reads memory that a sanitizer guards, and hangs.
SANITIZED = SWIFT_BACKTRACE=enable=no SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=4 \
    swift test $(IMPORTS) --disable-xctest --scratch-path .build/$@
.PHONY: asan tsan cover fuzz
asan: deps
	ASAN_OPTIONS=detect_leaks=0 $(SANITIZED) --sanitize address

tsan: deps
	$(SANITIZED) --sanitize thread --filter '^(AgentTests|SimulationTests)\.'

# Prints which share of each module the Swift tests run, and the functions that they do not call.
cover: deps
	$(SANITIZED) --enable-code-coverage
	@Tests/cover $$(swift test --scratch-path .build/$@ --show-codecov-path)

# Fuzzes the parsers for SECONDS each. FUZZED='xml json' fuzzes some of them.
SECONDS := 60
FUZZED ?=
FUZZER = --scratch-path .build/fuzz -c release -Xswiftc -enable-testing --product fuzz \
    --sanitize fuzzer --sanitize address
fuzz: deps
	POLARITY_FUZZ=1 swift build $(FUZZER)
	@Tests/Fuzz/run $(SECONDS) $$(POLARITY_FUZZ=1 swift build $(FUZZER) --show-bin-path)/fuzz $(FUZZED)

check:
	swift format lint --strict --recursive Sources Tests Package.swift
	@$(PYTHON) -B -m unittest discover --quiet --start-directory Tests/Boundary

# Lints workflows, scripts and templates; installs its tools into .build/tools.
lint:
	@bash .ci/lint

fmt:
	swift format --in-place --recursive Sources Tests Package.swift

# Randomised scenarios in virtual time, without root. `make sim SEED=n RUNS=1` replays one of them.
SEED ?= 1
RUNS ?= 20000
sim: deps
	@$(BUILD) --product life-simulator
	@$(BIN)/life-simulator --seed $(SEED) --runs $(RUNS)

# Mutates each condition and wait in the manager's source: the simulation or a test must detect
# every mutant. Takes 20 minutes. MUTANTS=Lease tests one file, MUTANTS='--changed main' the
# changed lines.
MUTANTS ?=
sim-mutants: deps
	@$(PYTHON) -B Tests/Lives/mutants.py $(MUTANTS)

demo: deps tar
	@$(PYTHON) demo/demo.py

# Prints each measured figure beside its budget, in about ten minutes. If `go` is installed (apt-get
# install golang-go), also compares the plugin's requests with Go's net/http.
bench: deps tar
	@$(PYTHON) benchmarks/bench.py

# Installs Debian packages, and a Swift toolchain if there is none.
.PHONY: deps
deps:
	@bash .ci/deps

# Runs the daemon on ./pl-ebs.sock, on a machine that is not an EC2 instance.
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
