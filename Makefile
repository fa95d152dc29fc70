# AI Storage Orchestrator: `make help` lists what there is.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# An interrupted build must not leave a half-written binary that looks new.
.DELETE_ON_ERROR:

KUBERNETES_VERSION := v1.35.4
BIN := bin

GO ?= go
GO_STATIC := CGO_ENABLED=0 $(GO) build -trimpath
# How tests are run; .ci/run records them. -trimpath lets clones share the build cache.
GO_TEST ?= $(GO) test
# A long proof leaves its line in docs/proofs.md.
PROOF := test/tools/record-proof.sh
SMALL := -ldflags '-s -w'
# component-base's version is Kubernetes': the scheduler takes it for the
# version of its API, so ours must never be written there.
KUBE_VERSION_PKG := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(KUBE_VERSION_PKG).gitVersion=$(KUBERNETES_VERSION) \
	-X $(KUBE_VERSION_PKG).gitMajor=1 -X $(KUBE_VERSION_PKG).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION)))

PRODUCT := scheduler rebalancer node-agent oci-runtime kubectl-migrate
NODES ?= simulated:20
# Of a release: v, and a semantic version.
VERSION ?= v0.0.0
RUNS ?= 10
POSTS ?= 1000
CLIENTS ?= 50
IMAGE_ARCHS ?= amd64 arm64
SKEW_VERSIONS ?= 1.33.13 $(KUBERNETES_VERSION:v%=%) 1.37.2
# Benchmarks read what lies in BENCH_DATA, generate what is not there, and write to OUT.
BENCH_DATA ?= ../shared/data
OUT ?= dist/bench
SEED ?= 1
TIME_LIMIT ?= 5s
SEEDS ?= 1,2,3
DURATION ?= 10m
# Pure packages whose tests stand beside them.
MUTATED ?= pkg/pods/containers pkg/pods/owners pkg/scheduling/budget pkg/scheduling/cluster pkg/controllers/reclaim/decide
# Packages of the test bed that read files, or simulate, in one goroutine.
ONE_ACTOR := /(architecture|chart|documents|events|metricsdoc|mutants|rights|simulate|testsummary|words)(/|$$)
# 0 lets the demo choose: 10 for a simulated node, 3 for a real one.
PODS ?= 0
KUBE_PROGRAMS := kube-apiserver kube-controller-manager kubelet kubectl
CSI_SIDECARS := csi-attacher csi-provisioner csi-resizer
CODE_GENERATORS := deepcopy-gen defaulter-gen conversion-gen
NODE_PROGRAMS := containerd containerd-shim-runc-v2 ctr

CLUSTER_BINS := $(addprefix $(BIN)/,kube-apiserver kube-controller-manager kubectl etcd kwok metrics-server)
# Only real nodes need these, and only runc a C compiler and libseccomp.
NODE_BINS := $(addprefix $(BIN)/,kubelet $(NODE_PROGRAMS) runc)
# Volumes that are really attached and detached, for tests.
CSI_BINS := $(addprefix $(BIN)/,csidriver $(CSI_SIDECARS))
GENERATOR_BINS := $(addprefix $(BIN)/,$(CODE_GENERATORS) controller-gen crd-ref-docs)
# Embedded files count too.
SOURCES = $(shell find cmd pkg -type f ! -name '*_test.go')
# The module of the test bed: it has the product as a dependency, never the reverse.
TEST_SOURCES = test/go.mod test/go.sum $(SOURCES) $(shell find test/devcluster test/images test/workload test/csidriver -name '*.go' ! -name '*_test.go')

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z0-9-]*:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build $(CLUSTER_BINS) $(if $(filter real:%,$(NODES)),$(NODE_BINS)) ## Rebalance a skewed local cluster (NODES=simulated:20 or real:2, PODS=N)
	$(BIN)/devcluster demo --nodes=$(NODES) --pods=$(PODS)

.PHONY: build
build: $(addprefix $(BIN)/,$(PRODUCT) devcluster workload kubectl_complete-migrate) ## Build our programs into bin/

$(addprefix $(BIN)/,$(PRODUCT)): $(BIN)/%: go.mod go.sum $(SOURCES)
	$(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./cmd/$*

$(BIN)/devcluster: $(TEST_SOURCES)
	cd test && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./devcluster/cmd

$(BIN)/images: $(TEST_SOURCES)
	cd test && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./images

# kubectl looks for it on the PATH when it completes the arguments of the plugin.
$(BIN)/kubectl_complete-migrate: cmd/kubectl-migrate/kubectl_complete-migrate
	install -m 755 $< $@

# The rebalancer that lets a test stop it at every step. It is never shipped.
$(BIN)/rebalancer-breakpoints: go.mod go.sum $(SOURCES)
	$(GO_STATIC) $(SMALL) -tags breakpoints -o $(CURDIR)/$@ ./cmd/rebalancer

$(BIN)/workload: test/go.mod test/go.sum $(wildcard test/workload/*.go)
	cd test && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./workload

.PHONY: tools
tools: $(CLUSTER_BINS) $(NODE_BINS) ## Build Kubernetes, etcd, containerd and the rest of the local cluster

$(addprefix $(BIN)/,$(KUBE_PROGRAMS)): $(BIN)/%: test/tools/kubernetes/go.mod test/tools/kubernetes/go.sum
	cd test/tools/kubernetes && $(GO_STATIC) -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/$*

$(addprefix $(BIN)/,$(CODE_GENERATORS)): $(BIN)/%: test/tools/kubernetes/go.mod
	cd test/tools/kubernetes && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ k8s.io/code-generator/cmd/$*

$(BIN)/controller-gen: test/tools/kubernetes/go.mod
	cd test/tools/kubernetes && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(BIN)/crd-ref-docs: test/tools/refdocs/go.mod test/tools/refdocs/go.sum
	cd test/tools/refdocs && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/elastic/crd-ref-docs

TOOLS_MODULE := test/tools/go.mod test/tools/go.sum

$(BIN)/etcd: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ go.etcd.io/etcd/server/v3

$(BIN)/kwok: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/kwok/cmd/kwok

$(BIN)/metrics-server: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/metrics-server/cmd/metrics-server

$(addprefix $(BIN)/,$(NODE_PROGRAMS)): $(BIN)/%: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/containerd/containerd/v2/cmd/$*

# runc joins namespaces in C and filters system calls through libseccomp.
$(BIN)/runc: $(TOOLS_MODULE)
	@{ command -v gcc && pkg-config --exists libseccomp; } >/dev/null || \
		{ echo "runc needs a C compiler and libseccomp: apt-get install build-essential pkg-config libseccomp-dev" >&2; exit 1; }
	cd test/tools && CGO_ENABLED=1 $(GO) build -trimpath -tags seccomp $(SMALL) -o $(CURDIR)/$@ github.com/opencontainers/runc

# What dumps and restores processes. Debian's own is too old for new kernels.
$(BIN)/criu: test/tools/criu.sh test/tools/debian.sh
	test/tools/criu.sh $(BIN)

# Images of programs that we did not write; the last one of three.
$(BIN)/programs/postgres.tar: test/tools/programs.sh test/tools/debian.sh test/tools/notroot.c $(wildcard test/rootimage/*.go)
	test/tools/programs.sh $(BIN)/programs

$(BIN)/csidriver: test/go.mod test/go.sum $(wildcard test/csidriver/*.go)
	cd test && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./csidriver

$(BIN)/csi-attacher: SIDECAR := external-attacher/v4
$(BIN)/csi-provisioner: SIDECAR := external-provisioner/v6
$(BIN)/csi-resizer: SIDECAR := external-resizer/v2
$(addprefix $(BIN)/,$(CSI_SIDECARS)): $(BIN)/%: test/tools/csi/go.mod test/tools/csi/go.sum
	cd test/tools/csi && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/kubernetes-csi/$(SIDECAR)/cmd/$*

$(BIN)/helm: test/tools/helm/go.mod test/tools/helm/go.sum
	cd test/tools/helm && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm

# With the dependencies of Kubernetes' own go.mod: the module of the others lacks some.
$(BIN)/kube-proxy: test/tools/build-kubernetes.sh
	test/tools/build-kubernetes.sh $(KUBERNETES_VERSION) $(BIN) kube-proxy

$(BIN)/descheduler: test/tools/descheduler/go.mod test/tools/descheduler/go.sum
	cd test/tools/descheduler && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/descheduler/cmd/descheduler

LINT_MODULE := test/tools/lint/go.mod test/tools/lint/go.sum

$(BIN)/golangci-lint: $(LINT_MODULE)
	cd test/tools/lint && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/gremlins: $(LINT_MODULE)
	cd test/tools/lint && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/go-gremlins/gremlins/cmd/gremlins

$(BIN)/govulncheck: $(LINT_MODULE)
	cd test/tools/lint && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ golang.org/x/vuln/cmd/govulncheck

##@ Develop

.PHONY: test
test: $(BIN)/etcd $(BIN)/kube-apiserver $(BIN)/kube-controller-manager $(BIN)/kubectl $(BIN)/helm ## Unit and integration tests with the race detector
	@command -v gcc >/dev/null || { echo "the race detector needs a C compiler: apt-get install build-essential" >&2; exit 1; }
	CGO_ENABLED=1 $(GO_TEST) -trimpath -race -timeout 20m ./...
	@# Properties with all their examples, which the race detector would make ten times slower.
	$(GO_TEST) -trimpath -timeout 20m $$(grep -rl --include='*_test.go' internal/race pkg | xargs dirname | sort -u | sed 's|^|./|')
	@# Not from the cache: it does not see that a file outside of the module has changed.
	cd test && KUBEBUILDER_ASSETS=$(CURDIR)/$(BIN) CGO_ENABLED=1 $(GO_TEST) -trimpath -race -count=1 -parallel 4 -timeout 20m $$($(GO) list ./... | grep -Ev '$(ONE_ACTOR)')
	@# One actor at a time: the race detector would see nothing, and take ten times as long.
	cd test && $(GO_TEST) -trimpath -count=1 -timeout 20m $$($(GO) list ./... | grep -E '$(ONE_ACTOR)')

# Runs go test for .ci/run, and names what was slow or skipped.
$(BIN)/testsummary: $(wildcard test/testsummary/*.go)
	cd test && $(GO_STATIC) -o $(CURDIR)/$@ ./testsummary

.PHONY: test-alerts
test-alerts: ## Alerts, dashboard and runbook, with Prometheus' own rule engine
	cd test/alerts && $(GO) vet . && $(GO_TEST) -trimpath .

.PHONY: test-page
test-page: ## The page in headless Chromium (needs Node.js, npm and Debian's chromium)
	@command -v npm >/dev/null || { echo "the page is tested with Node.js: apt-get install nodejs npm" >&2; exit 1; }
	cd test && $(GO) build -o $(CURDIR)/$(BIN)/page-server ./page/server
	cd test/page && npm ci --no-audit --no-fund --silent && npm run --silent check && npm run --silent vendored && npm run --silent unit && npm run --silent browser

.PHONY: vendor-page
vendor-page: ## Take the page's libraries again, at the versions of test/page/package.json
	cd test/page && npm ci --no-audit --no-fund --silent && npm run --silent vendor

.PHONY: screenshots
screenshots: build $(CLUSTER_BINS) ## The page of the real rebalancer during a demo: checks it, and writes docs/images (three minutes)
	cd test/page && npm ci --no-audit --no-fund --silent && node screenshots.mjs

.PHONY: e2e
e2e: build tools $(CSI_BINS) $(BIN)/criu $(BIN)/rebalancer-breakpoints ## End-to-end tests on real nodes (root, Linux)
	cd test && REAL_NODES=1 $(GO_TEST) -trimpath -tags e2e -count=1 -p 2 -timeout 10m -run 'TestRealNodes|TestBridge|TestSimulatedCluster' ./devcluster/realnode ./devcluster
	cd test && $(GO_TEST) -trimpath -tags e2e -count=1 -parallel 4 -timeout 40m -v ./e2e

.PHONY: e2e-full
e2e-full: build tools $(CSI_BINS) $(BIN)/criu $(BIN)/programs/postgres.tar $(BIN)/rebalancer-breakpoints ## The long proofs: ten moves each way, the whole crash matrix, dying nodes (two hours)
	@$(PROOF) e2e-full bash -c 'cd test && E2E_FULL=1 $(GO_TEST) -trimpath -tags e2e -count=1 -parallel 4 -timeout 5h -v ./e2e'

.PHONY: bench-api
bench-api: build $(CLUSTER_BINS) ## POSTS=1000 by CLIENTS=50 to the HTTP API, whose process is killed in the middle: nothing may be lost or doubled
	cd test && $(GO) build -o $(CURDIR)/$(BIN)/bench-api ./bench/api
	@WITH='POSTS=$(POSTS) CLIENTS=$(CLIENTS)' $(PROOF) bench-api $(BIN)/bench-api -posts $(POSTS) -clients $(CLIENTS)

.PHONY: test-install
test-install: build tools $(CSI_BINS) $(BIN)/criu $(BIN)/kube-proxy $(BIN)/helm ## Install as users do, by kustomize and by Helm, into real nodes; the runtime handler comes and goes (root, Linux; 15 minutes)
	@$(PROOF) test-install bash -c 'cd test && $(GO_TEST) -trimpath -tags e2e -count=1 -timeout 35m -v ./install'

.PHONY: test-skew
test-skew: build $(CLUSTER_BINS) $(foreach version,$(SKEW_VERSIONS),$(BIN)/skew/v$(version)/kube-controller-manager) ## Against API servers of other versions (SKEW_VERSIONS; the first run builds them)
	@SKEW_VERSIONS='$(SKEW_VERSIONS)' WITH='$(SKEW_VERSIONS)' $(PROOF) test-skew bash -c 'cd test && $(GO_TEST) -trimpath -tags skew -count=1 -timeout 30m -v ./skew'

# Explicit rules come first: the version of all else is built already.
$(BIN)/skew/$(KUBERNETES_VERSION)/kube-controller-manager: $(BIN)/kube-apiserver $(BIN)/kube-controller-manager
	mkdir -p $(@D)
	ln -sf ../../kube-apiserver ../../kube-controller-manager $(@D)

$(BIN)/skew/%/kube-controller-manager: test/tools/build-kubernetes.sh
	test/tools/build-kubernetes.sh $* $(@D) kube-apiserver kube-controller-manager

.PHONY: bench-checkpoint
bench-checkpoint: ## Transfer and restore of volumes against cp on the same disk, and the frozen window (ROUNDS=10, DIR=directory of the disk with 16 GiB free, SIZE=4294967296; root; 25 minutes)
	cd test && $(GO) build -trimpath -o $(CURDIR)/$(BIN)/bench-checkpoint ./bench/checkpoint
	@WITH='ROUNDS=$(or $(ROUNDS),10) SIZE=$(or $(SIZE),4294967296)' $(PROOF) bench-checkpoint $(BIN)/bench-checkpoint -rounds $(or $(ROUNDS),10) -size $(or $(SIZE),4294967296) -directory '$(or $(DIR),/tmp)' -out '$(OUT)'

.PHONY: bench-migration
bench-migration: build tools $(CSI_BINS) ## Compare a migration with delete-and-recreate, RUNS times each in turn (about an hour)
	@WITH='RUNS=$(RUNS)' $(PROOF) bench-migration $(GO) -C test test -trimpath -tags e2e -count=1 -timeout 3h -run '^$$' -bench 'Migration|ColdStart' -benchtime $(RUNS)x ./e2e

.PHONY: bench-process
bench-process: build tools $(CSI_BINS) $(BIN)/criu ## Stop time of a move with 64 MiB, 256 MiB and 1 GiB of memory, RUNS times each (about half an hour)
	@WITH='RUNS=$(RUNS)' $(PROOF) bench-process $(GO) -C test test -trimpath -tags e2e -count=1 -timeout 3h -run '^$$' -bench 'Process' -benchtime $(RUNS)x ./e2e

.PHONY: bench-planner
bench-planner: ## Search quality on the instances in BENCH_DATA (TIME_LIMIT=5s, SEED=1), then bench-scale; results in OUT
	cd test && $(GO) build -trimpath -o $(CURDIR)/$(BIN)/bench-planner ./bench/planner
	@WITH='TIME_LIMIT=$(TIME_LIMIT)' $(PROOF) bench-planner $(BIN)/bench-planner -data '$(BENCH_DATA)' -time-limit $(TIME_LIMIT) -seed $(SEED) -out '$(OUT)'
	$(MAKE) bench-scale

.PHONY: bench-reclaim
bench-reclaim: ## Requests reclaimed from finished steps against the exact ceiling (BENCH_DATA=directory, OUT=directory, SEED=n)
	cd test && $(GO) build -trimpath -o $(CURDIR)/$(BIN)/bench-reclaim ./bench/reclaim
	@$(PROOF) bench-reclaim $(BIN)/bench-reclaim -data $(BENCH_DATA) -out $(OUT) -seed $(SEED) -version "$$(git describe --always --dirty)"

.PHONY: bench-rebalance
bench-rebalance: ARMS ?= ours,descheduler,descheduler-deviation
bench-rebalance: PARALLEL ?= 3
bench-rebalance: BENCH_NODES ?= 80
bench-rebalance: build $(CLUSTER_BINS) $(BIN)/descheduler ## Against the real descheduler on the same skewed cluster (BENCH_DATA, SEEDS, DURATION, BENCH_NODES, ARMS, PARALLEL, OUT; 45 minutes)
	cd test && $(GO) build -trimpath -o $(CURDIR)/$(BIN)/bench-rebalance ./bench/rebalance
	@WITH='SEEDS=$(SEEDS) DURATION=$(DURATION)' $(PROOF) bench-rebalance $(BIN)/bench-rebalance --data=$(BENCH_DATA) --seeds=$(SEEDS) --duration=$(DURATION) --nodes=$(BENCH_NODES) \
		--arms=$(ARMS) --parallel=$(PARALLEL) --out=$(OUT)/rebalance --version=$$(git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: bench-scale
bench-scale: ## Time and memory of plans for 1k, 2k and 5k nodes; writes OUT/scale.json
	@mkdir -p $(BIN)
	cd test && $(GO) build -o $(CURDIR)/$(BIN)/bench-scale ./bench/scale
	@$(PROOF) bench-scale $(BIN)/bench-scale -seed $(SEED) -out '$(OUT)'

.PHONY: lint
lint: $(BIN)/golangci-lint ## gofmt, go vet, staticcheck and the other linters of .golangci.yml
	$(BIN)/golangci-lint run ./...
	cd test && $(CURDIR)/$(BIN)/golangci-lint run --config ../.golangci.yml ./...

.PHONY: vulncheck
vulncheck: $(BIN)/govulncheck ## Known vulnerabilities in what the product calls (needs https://vuln.go.dev)
	$(BIN)/govulncheck ./cmd/...

# A target's own value gives way to one on the command line.
.PHONY: simulate
simulate: SEEDS = 10000
simulate: SEED =
simulate: SEED_START = 1
simulate: MINUTES = 0
simulate: ## Migrations in simulation: crashes, stalls, users, dying nodes (SEEDS=10000 SEED_START=1, or MINUTES=60; SEED=n repeats one with its trace)
	cd test && $(GO) build -trimpath -o $(CURDIR)/$(BIN)/simulate ./simulate/cmd
	$(BIN)/simulate -seeds $(SEEDS) -start $(SEED_START) -minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

.PHONY: mutants
mutants: ## Hand-made mutants: broken promises that the tests must notice (ONLY=part of a name)
	cd test && $(GO) run ./mutants -root .. -only '$(ONLY)'

.PHONY: mutants-pure
mutants-pure: $(BIN)/gremlins ## Mutate the pure packages with gremlins (MUTATED=..., about a second a mutant and core)
	@for package in $(MUTATED); do echo "== $$package"; $(BIN)/gremlins unleash --timeout-coefficient 10 ./$$package | grep -v '^ *KILLED'; done

.PHONY: presubmit
presubmit: ## What a change must pass: the same as in CI
	.ci/run

.PHONY: generate
generate: $(GENERATOR_BINS) $(BIN)/helm ## Write generated code, the CRD, the rendered manifests, the API reference and docs/metrics.md
	$(BIN)/deepcopy-gen --output-file zz_generated.deepcopy.go ./pkg/apis/config ./pkg/apis/config/v1
	$(BIN)/defaulter-gen --output-file zz_generated.defaults.go ./pkg/apis/config/v1
	$(BIN)/conversion-gen --output-file zz_generated.conversion.go ./pkg/apis/config/v1
	$(BIN)/controller-gen object paths=./pkg/apis/migration/...
	$(BIN)/controller-gen crd paths=./pkg/apis/migration/... output:crd:dir=manifests/crd
	$(BIN)/crd-ref-docs --source-path=pkg/apis --config=test/tools/refdocs/config.yaml --templates-dir=test/tools/refdocs/templates \
		--renderer=markdown --output-path=docs/api-reference.md --log-level=ERROR
	manifests/render.sh $(BIN)/helm
	(cd test && $(GO) run ./metricsdoc) >docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md

.PHONY: verify-generated
verify-generated: generate ## Fail when what is generated is not up to date
	git diff --exit-code -- 'pkg/**/zz_generated*' manifests docs/api-reference.md docs/metrics.md
	@new=$$(git ls-files --others --exclude-standard manifests); [ -z "$$new" ] || { echo "not committed: $$new" >&2; exit 1; }

.PHONY: images
images: $(BIN)/images $(addprefix image-programs-,$(IMAGE_ARCHS)) ## Build the container images into dist/, without Docker (IMAGE_ARCHS="amd64 arm64")
	$(BIN)/images $(foreach arch,$(IMAGE_ARCHS),--bin-dir=dist/bin/$(arch)) --output=dist

IMAGE_PROGRAMS := $(addprefix image-programs-,$(IMAGE_ARCHS))
.PHONY: $(IMAGE_PROGRAMS)
$(IMAGE_PROGRAMS): image-programs-%:
	for program in scheduler rebalancer node-agent oci-runtime; do \
		GOOS=linux GOARCH=$* $(GO_STATIC) $(SMALL) -o dist/bin/$*/$$program ./cmd/$$program; done

.PHONY: krew
krew: ## Archives of kubectl migrate for six platforms and their krew manifest, in dist/krew (VERSION=v1.2.3)
	GO='$(GO)' cmd/kubectl-migrate/krew.sh '$(VERSION)' dist/krew

.PHONY: clean
clean: ## Stop a local cluster and remove what was built
	@if [ -x $(BIN)/devcluster ]; then $(BIN)/devcluster down; fi
	rm -rf $(BIN) dist .devcluster
