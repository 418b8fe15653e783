# What a person does with this repository. Each target installs what it needs and says what it does.

STATE ?= /var/lib/ferrostack
LISTEN ?= 127.0.0.1
SUITE ?= smoke
FERROSTACK := target/release/ferrostack

help: ## Say what there is
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 16

run: build guest ## Build, start the cloud in the background, return when it is ready
	@scripts/install run
	$(FERROSTACK) run --background --state $(STATE) --listen $(LISTEN)

simulate: build guest ## The same on a pretended host: needs no root
	$(FERROSTACK) run --background --simulate --state $(STATE) --listen $(LISTEN)

stop: ## Stop the cloud; its guests go on
	@$(FERROSTACK) stop --state $(STATE)

clean-cloud: stop ## Remove the cloud and every trace of it on this machine
	@$(FERROSTACK) clean --state $(STATE)

build: ## Build the program
	@scripts/install build
	cargo build --release --bin ferrostack

guest: ## Build the guest image
	@scripts/install guest
	guest/build

test: ## Everything that CI runs: format, lints, all tests on both databases and both buses, one real guest end to end
	scripts/test

test-host: ## The tests of real networks, disks and guests, for root; part of test
	scripts/test-host

test-stores: ## Images in an S3 service that the tests start; part of test
	scripts/test-stores

test-ceph: ## Images in a real Ceph cluster, by RBD and by its Swift API; guests from clones of them
	scripts/test-ceph

test-identity: ## Identity beside a real directory server, a real OpenID provider and upstream's own code
	scripts/test-identity

test-client: build ## Every identity command of the official client, as it succeeds and as it fails
	@scripts/install client
	scripts/client-identity

test-reference: ## Tokens that move between a reference keystone and us: needs that keystone's keys
	scripts/test-reference

fuzz: ## Disk images that no program made, against the look at foreign images: FUZZ_SECONDS=3600 make fuzz
	@scripts/install build
	cargo test --release -p image-format fuzz -- --ignored --nocapture

measure: ## How long placement looks for candidates among 10,000 providers, how fast glance takes bytes
	@scripts/install build
	cargo test --release -p placement --test many -- --ignored --nocapture
	cargo test --release -p glance --lib how_fast -- --ignored --nocapture

lint: ## Format and lints alone
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

e2e: build guest ## The whole user's story with real guests and the official client
	@scripts/install run client browser
	scripts/e2e

test-hosts: build guest ## A cloud of several hosts on this machine, its story, its faults
	@scripts/install run client test
	scripts/test-hosts

chaos: build guest ## The cloud killed at random in the middle of creates and deletes
	@scripts/install run client
	scripts/chaos

faults: build guest ## What users feel when parts of a cloud of several hosts fail; needs root
	@scripts/install run client test
	scripts/faults

copied: build ## Whether a cloud answers the same after it moved from SQLite to PostgreSQL
	@scripts/install client test
	scripts/copied

scale: build ## A thousand pretended hosts with ten thousand servers
	@scripts/install client
	scripts/bench --scale

differ: build ## Every scenario against a reference OpenStack and against this cloud, differences side by side
	scripts/differ

commands: build ## Every image, placement and object store command of the official client, with success and with failure
	@scripts/install client
	FERROSTACK=$(FERROSTACK) scripts/commands

conformance: ## An official suite against the running cloud: make conformance SUITE=smoke
	@scripts/conformance $(SUITE)

bench: build ## Speed and size, on a pretended host
	@scripts/install client
	scripts/bench

.PHONY: help run simulate stop clean-cloud build guest test test-host test-stores test-ceph test-identity test-client test-reference fuzz measure lint e2e test-hosts chaos faults copied scale differ commands conformance bench
