# The two commands: `make demo` and `make test`. `make help` lists the others.

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
LAB := $(TARGET)/lab
TOOLS := $(TARGET)/tools
PROFILE ?= dev
PROGRAMS := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
TRIALS ?= 20
FAULT ?= link-down
SEEDS ?= 2000
FUZZ_SECONDS ?= 60
MODE ?= nftables
ARCHITECTURES ?= x86_64
# Few kernels of build machines have IPVS: the nodes are in one of Debian's, under qemu, and the control plane is here.
IPVS_KERNEL ?= 6.12
# What has to be there before an emulated machine is started where there is no network.
EMULATED := $(TARGET)/kernels/$(IPVS_KERNEL)/initramfs.gz emulation

export PATH := $(PATH):/usr/sbin:/sbin
# The error says what happened; where in the test it was made is noise.
export RUST_LIB_BACKTRACE := 0
CARGO := cargo
# Builds outside, with the network; runs each test program in namespaces of its own.
CARGO_IN_NAMESPACES := $(CARGO) --config 'target."cfg(all())".runner = ["$(CURDIR)/tools/in-namespaces"]'
IN_LAB := $(CARGO_IN_NAMESPACES) test --profile $(PROFILE) -p e2e
GO_FILES := $(shell find e2e/kubernetes -type f -not -name '*_test.go' -not -name '*.md')
TIMED := @tools/timed

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@echo 'make demo              the whole product in a lab of network namespaces (KEEP=1 leaves it running)'
	@echo 'make test              everything that a change must pass'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1|\2/p' Makefile | grep -v -e '^make demo|' -e '^make test|' -e '^make help|' \
		| awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

.PHONY: demo
demo: build lab ## The whole product in a lab of network namespaces
	@tools/in-namespaces $(PROGRAMS)/lab demo $(if $(KEEP),--keep)

.PHONY: up
up: build lab ## A lab with Foghorn in it, to look around
	@tools/in-namespaces $(PROGRAMS)/lab up

.PHONY: test
test: check-format lint check-chart check-handbook test-unit test-kernel test-main ## Everything that a change must pass

.PHONY: check-format
check-format: prerequisites
	$(TIMED) 'Format' $(CARGO) fmt --all --check
	@unformatted=$$(gofmt -l e2e/kubernetes) || exit 1; [ -z "$$unformatted" ] || { echo "gofmt wants changes in: $$unformatted"; exit 1; }

.PHONY: lint
lint: prerequisites
	$(TIMED) 'Lints' $(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: check-chart
check-chart: $(LAB)/helm ## The chart is sound, and deploy/ is what it says
	$(TIMED) 'The chart' env HELM=$(LAB)/helm tools/manifests --check

.PHONY: check-handbook
check-handbook: lab $(LAB)/helm $(LAB)/promtool ## What the pages say to kubectl, Helm and Prometheus is understood by the real ones
	$(TIMED) 'The handbook' env FOGHORN_LAB=$(LAB) $(CARGO) test --profile $(PROFILE) -p handbook -- --include-ignored

# Debian's is built without the discovery of Pods.
$(LAB)/promtool: tools/promtool/go.mod | prerequisites
	$(TIMED) 'Build of promtool: some minutes the first time' env CGO_ENABLED=0 go -C tools/promtool build -trimpath -buildvcs=false \
		-tags remove_all_sd,enable_kubernetes_sd -ldflags '-s -w' -o $@ github.com/prometheus/prometheus/cmd/promtool
	@touch $@

.PHONY: handbook
handbook: $(TOOLS)/bin/mdbook ## The handbook as a website, into target/handbook
	$(TIMED) 'Pages' tools/handbook $(TOOLS)/bin/mdbook $(TARGET)/handbook

.PHONY: reference
reference: prerequisites ## Writes the tables of docs/ that come from the code: arguments, fields, metrics, values of the chart
	$(TIMED) 'Definitions' env UPDATE=1 $(CARGO) test --quiet --profile $(PROFILE) -p config --test custom_resources
	$(TIMED) 'Tables' env UPDATE=1 $(CARGO) test --quiet --profile $(PROFILE) -p handbook --test reference

.PHONY: audit
audit: $(TOOLS)/bin/cargo-deny ## Licences, bans and sources of what we depend on; advisories where their database can be had
	$(TIMED) 'Dependencies' tools/audit $(TOOLS)/bin/cargo-deny

# Built apart: nothing of them is linked.
$(TOOLS)/bin/%: | prerequisites
	$(TIMED) 'Build of $*: some minutes the first time' $(CARGO) install --quiet --locked --root $(TOOLS) --target-dir $(TOOLS)/build $*

.PHONY: check-alerts
check-alerts: prerequisites ## Each alert fires on what it is about, and on nothing else
	@tools/prerequisites promtool=prometheus
	$(TIMED) 'Alerts' sh -c 'promtool check rules charts/foghorn/files/alerts.yaml && promtool test rules e2e/tests/observability/alerts.yaml'

.PHONY: manifests
manifests: $(LAB)/helm ## Writes deploy/ from the chart
	env HELM=$(LAB)/helm tools/manifests

.PHONY: helm
helm: $(LAB)/helm ## Helm, into target/lab

$(LAB)/helm: tools/helm/go.mod | prerequisites
	$(TIMED) 'Build of Helm: some minutes the first time' env CGO_ENABLED=0 go -C tools/helm build -trimpath -buildvcs=false \
		-ldflags '-s -w' -o $@ helm.sh/helm/v4/cmd/helm
	@touch $@

.PHONY: test-unit
test-unit: prerequisites ## Unit tests and laws: no special rights
	$(TIMED) 'Unit tests and laws' $(CARGO) test --profile $(PROFILE) --workspace
# With the flags of the build: what is compiled already serves here too.
	$(TIMED) "Unit tests of the lab's Kubernetes" env CGO_ENABLED=0 go -C e2e/kubernetes test -trimpath ./internal/...

.PHONY: test-laws
test-laws: prerequisites ## Each law fails on the faults that are planted for it
	$(TIMED) 'Planted faults' tools/planted-faults

.PHONY: fuzz
fuzz: prerequisites ## Every parser of outside bytes and the speaker's machine, fed by libFuzzer (FUZZ_SECONDS=60 each)
	$(TIMED) 'Fuzzing' tools/fuzz $(FUZZ_SECONDS)

.PHONY: simulate
simulate: prerequisites ## Many stories of speakers on a simulated LAN, with every law at every step (SEEDS=2000)
	$(TIMED) 'Simulated speakers' env FOGHORN_SIMULATION_SEEDS=$(SEEDS) $(CARGO) test --profile $(PROFILE) -p speaker-announcer --test simulation \
		the_laws_hold -- --nocapture

.PHONY: test-kernel
test-kernel: prerequisites ## What our programs ask of the kernel, in network namespaces
	@tools/legacy-iptables
	$(TIMED) 'Kernel suites' $(CARGO_IN_NAMESPACES) test --profile $(PROFILE) --workspace --exclude e2e --exclude handbook --exclude proxy-ipvs --lib --bins --tests -- --ignored --test-threads 1 --skip in_a_debian_kernel

# Builds outside; runs each test program in one of Debian's kernels.
cargo_in_kernel = $(CARGO) --config 'target."cfg(all())".runner = ["$(CURDIR)/tools/in-kernel", "$(1)"]'
KERNELS ?= 6.1 6.12

.PHONY: test-kernels
test-kernels: $(KERNELS:%=test-kernel-%) ## Every data plane in Debian's kernels, under qemu (KERNELS='6.1 6.12')

.PHONY: test-kernel-%
test-kernel-%: prerequisites
	@tools/prerequisites ipvsadm=ipvsadm ipset=ipset
	$(TIMED) 'Data planes in Linux $*' $(call cargo_in_kernel,$*) test --profile $(PROFILE) -p proxy -p proxy-nftables -p proxy-ipvs -p proxy-iptables --test kernel -- --ignored --test-threads 1
	$(TIMED) 'VLANs and bonds in Linux $*' $(call cargo_in_kernel,$*) test --profile $(PROFILE) -p speaker --test lan -- --ignored --test-threads 1 in_a_debian_kernel

.PHONY: test-main
test-main: build lab ## The main job, end to end: every frontend of 20 Services answers
	$(TIMED) "The lab's instruments" $(IN_LAB) --test lan --test kubernetes -- --ignored --nocapture
	$(TIMED) 'The main job, end to end' $(IN_LAB) --test main_job -- --ignored --nocapture

.PHONY: test-e2e
test-e2e: build lab ## The other end-to-end suites
	$(TIMED) 'End to end' $(IN_LAB) --test announcements --test configuration --test service_types --test debug --test failover --test planned --test forwarding -- --ignored --nocapture

.PHONY: test-neighbours
test-neighbours: build lab ## Other machines on the LAN: address conflicts, keepalived, arpwatch, tshark
	@tools/prerequisites keepalived=keepalived arpwatch=arpwatch tshark=tshark
	$(TIMED) 'Other machines on the LAN' $(IN_LAB) --test conflict --test neighbours -- --ignored --nocapture

.PHONY: test-addresses
test-addresses: build lab ## Pools, claims and stability of addresses, through the real API server
	$(TIMED) 'Addresses' $(IN_LAB) --test addresses -- --ignored --nocapture

.PHONY: test-hostile
test-hostile: build lab ## A hostile machine on the LAN, a hostile Pod, a hostile author of Services; the heartbeat key is changed under load
	$(TIMED) 'Who is not trusted' $(IN_LAB) --test hostile_machine --test hostile_pod --test hostile_author --test key_rotation -- --ignored --nocapture

.PHONY: test-migration
test-migration: build lab $(LAB)/metallb/speaker ## From the real MetalLB to Foghorn and back; every layer 2 example of its documentation
	$(TIMED) 'Migration from MetalLB and back' $(IN_LAB) --test migration -- --ignored --nocapture
	$(TIMED) "MetalLB's examples" $(IN_LAB) --test examples -- --ignored --nocapture

$(LAB)/metallb/speaker: $(wildcard e2e/workloads/metallb/*)
	$(TIMED) 'Build of MetalLB: some minutes the first time' env LAB_DIRECTORY=$(LAB) e2e/workloads/metallb/build.sh
	@touch $@

.PHONY: test-chart
test-chart: build lab $(LAB)/helm $(LAB)/monitoring-definitions ## The chart, installed by Helm and run with the rights it gives
	$(TIMED) 'The chart, installed' $(IN_LAB) --test chart --test manifest --test first_steps --test readme --test tls -- --ignored --nocapture

.PHONY: first-steps
first-steps: build lab $(LAB)/helm ## From the first command to an address that answers, timed and written into docs/install.md and README.md
	$(TIMED) 'First steps' env FOGHORN_DOCUMENT=$(CURDIR)/docs/install.md $(IN_LAB) --test manifest --test first_steps -- --ignored --nocapture
	$(TIMED) 'The README, typed' env FOGHORN_DOCUMENT=$(CURDIR)/README.md $(IN_LAB) --test readme -- --ignored --nocapture

# The versions that `make test-upgrade` upgrades from: the first with a chart, the last without records of who announces, and
# the first with TLS for metrics.
OLDER ?= 6d18c6f e451ad7 31ce993

.PHONY: test-upgrade
test-upgrade: $(OLDER:%=test-upgrade-%) ## Older versions are upgraded to this one and put back, under load (OLDER='COMMIT COMMIT')

.PHONY: test-upgrade-%
test-upgrade-%: $(LAB)/older-%/built build lab $(LAB)/helm
	$(TIMED) 'Upgrade from $* and the way back' env FOGHORN_OLDER=$(LAB)/older-$* $(IN_LAB) --test upgrade -- --ignored --nocapture

.PRECIOUS: $(LAB)/older-%/built
$(LAB)/older-%/built: | prerequisites
	$(TIMED) 'Build of the older version $*' tools/older $* $(@D)
	@touch $@

.PHONY: test-observability
test-observability: check-alerts build lab $(LAB)/helm ## A real Prometheus scrapes the real programs: reference, alerts, dashboard
	$(TIMED) 'Observability' $(IN_LAB) --test observability -- --ignored --nocapture

.PHONY: dashboard-picture
dashboard-picture: build lab $(LAB)/helm ## The dashboard, drawn from what a real Prometheus in the lab has, into docs/dashboard.png
	@tools/prerequisites promtool=prometheus chromium=chromium pngquant=pngquant
	$(TIMED) 'Two minutes of a lab that Prometheus scrapes' env FOGHORN_DASHBOARD_DATA=$(LAB)/dashboard.json \
		$(IN_LAB) --test observability -- --ignored --nocapture
	$(TIMED) 'Picture' tools/dashboard-picture $(LAB)/dashboard.json docs/dashboard.png

$(LAB)/monitoring-definitions: tools/monitoring-definitions | prerequisites
	tools/monitoring-definitions $@

.PHONY: test-tour
test-tour: build lab $(LAB)/coredns $(LAB)/traefik ## A tour of every type of Service and of Ingress, with real DNS
	$(TIMED) 'A tour of Services' $(IN_LAB) --test tour -- --ignored --nocapture

$(LAB)/coredns $(LAB)/traefik &: $(shell find e2e/workloads -type f -not -path '*/lego/*' -not -name '*.yaml' -not -name '*.md')
	$(TIMED) 'Build of CoreDNS and Traefik: about ten minutes the first time' env LAB_DIRECTORY=$(LAB) e2e/workloads/build.sh
	@touch $(LAB)/coredns $(LAB)/traefik

CONFORMANCE := $(TARGET)/conformance
IN_CONFORMANCE := tools/in-namespaces $(PROGRAMS)/lab conformance $(if $(FOCUS),--focus '$(FOCUS)')
CONFORMANCE_TABLE := $(PROGRAMS)/lab conformance-table --results $(CONFORMANCE) $(if $(FOCUS),,--document docs/conformance.md)

.PHONY: test-conformance
test-conformance: build lab $(LAB)/e2e.test ## Kubernetes' own conformance specs of the network, with Foghorn
	@tools/conformance-prerequisites
	$(TIMED) 'Conformance of the network' $(IN_CONFORMANCE) --results $(CONFORMANCE)-short --only-conformance --strict

.PHONY: conformance
conformance: build lab $(LAB)/e2e.test ## All specs of the network, with Foghorn and with kube-proxy, written into docs/conformance.md (MODE=iptables FOCUS=…)
	@tools/conformance-prerequisites
	$(TIMED) "Kubernetes' specs of the network, with Foghorn" $(IN_CONFORMANCE) --results $(CONFORMANCE) --mode $(MODE)
	$(TIMED) "Kubernetes' specs of the network, with kube-proxy" $(IN_CONFORMANCE) --results $(CONFORMANCE) --mode $(MODE) --kube-proxy
	$(CONFORMANCE_TABLE)

# A spec takes longer there, and what it waits for does not come sooner.
.PHONY: conformance-ipvs
conformance-ipvs: build lab $(LAB)/e2e.test $(EMULATED) ## The specs of conformance in IPVS modes, with the nodes under qemu (FOCUS=…)
	@tools/conformance-prerequisites
	$(TIMED) "Kubernetes' specs of the network, with Foghorn's IPVS" env FOGHORN_SLOWNESS=10 $(IN_CONFORMANCE) --results $(CONFORMANCE) --mode ipvs --kernel $(IPVS_KERNEL) --only-conformance
	$(TIMED) "Kubernetes' specs of the network, with kube-proxy's IPVS" env FOGHORN_SLOWNESS=10 $(IN_CONFORMANCE) --results $(CONFORMANCE) --mode ipvs --kernel $(IPVS_KERNEL) --only-conformance --kube-proxy
	$(CONFORMANCE_TABLE)

$(LAB)/e2e.test: e2e/kubernetes/go.mod e2e/kubernetes/build-tests.sh
	$(TIMED) "Build of Kubernetes' own tests: four minutes the first time" env LAB_DIRECTORY=$(LAB) e2e/kubernetes/build-tests.sh
	@touch $@

.PHONY: test-rules
test-rules: build lab ## The rules after 1000 random changes are those of a fresh proxy
	$(TIMED) 'Rules after random changes' $(IN_LAB) --test rules -- --ignored --nocapture

# The short one asks the same each time, so that its failure is the change's; chance is for the long one.
.PHONY: test-differential
test-differential: build lab ## The proxy beside the real kube-proxy: random Services, each flow through both (MODE=iptables)
	$(TIMED) 'Beside kube-proxy, in short' env FOGHORN_MODE=$(MODE) FOGHORN_SEED=$(or $(FOGHORN_SEED),3) FOGHORN_TABLES=160 FOGHORN_FLOWS=60 $(IN_LAB) --test differential -- --ignored --nocapture

.PHONY: test-differential-iptables
test-differential-iptables: build lab ## The same with both in their iptables modes, ours in either back end
	@tools/legacy-iptables
	$(TIMED) 'Beside kube-proxy, both with iptables' env FOGHORN_MODE=iptables FOGHORN_SEED=$(or $(FOGHORN_SEED),3) FOGHORN_TABLES=48 FOGHORN_FLOWS=60 \
		FOGHORN_PROXY_ARGUMENTS='--iptables-backend nft' $(IN_LAB) --test differential -- --ignored --nocapture
	$(TIMED) 'Beside kube-proxy, ours with legacy iptables' env FOGHORN_MODE=iptables FOGHORN_SEED=$(or $(FOGHORN_SEED),3) FOGHORN_TABLES=48 FOGHORN_FLOWS=60 \
		FOGHORN_PROXY_ARGUMENTS='--iptables-backend legacy' $(IN_LAB) --test differential -- --ignored --nocapture

.PHONY: test-differential-ipvs
test-differential-ipvs: build lab $(EMULATED) ## The same with both in their IPVS modes, under qemu (TABLES=32 FLOWS=40 SCENES=2)
	$(TIMED) 'Beside kube-proxy, both with IPVS' env FOGHORN_SEED=$(or $(FOGHORN_SEED),3) FOGHORN_TABLES=$(or $(TABLES),32) FOGHORN_FLOWS=$(or $(FLOWS),40) FOGHORN_SCENES=$(or $(SCENES),2) \
		$(call in_kernel_lab,"--without-controllers"$(comma)) --test differential -- --ignored --nocapture

.PHONY: test-replacement
test-replacement: build lab ## kube-proxy replaced by ours under load, and put back
	@tools/legacy-iptables
	$(TIMED) 'kube-proxy replaced, and back' $(IN_LAB) --test replacement -- --ignored --nocapture

.PHONY: differential
differential: build lab ## The same with 100 000 flows over 1000 tables (TABLES=1000 FLOWS=100, FOGHORN_SEED=.. repeats a run)
	$(TIMED) 'Beside kube-proxy' env FOGHORN_MODE=$(MODE) FOGHORN_TABLES=$(or $(TABLES),1000) FOGHORN_FLOWS=$(or $(FLOWS),100) FOGHORN_SCENES=8 \
		$(IN_LAB) --test differential -- --ignored --nocapture

.PHONY: test-iptables
test-iptables: build lab ## The main job and the rules after random changes with --dataplane iptables, in both back ends
	@tools/legacy-iptables
	$(TIMED) 'The main job with iptables, nf_tables' env FOGHORN_PROXY_ARGUMENTS='--dataplane iptables --iptables-backend nft' \
		$(IN_LAB) --test main_job -- --ignored --nocapture
	$(TIMED) 'The main job with iptables, legacy' env FOGHORN_PROXY_ARGUMENTS='--dataplane iptables --iptables-backend legacy' \
		$(IN_LAB) --test main_job -- --ignored --nocapture
	$(TIMED) 'Rules of iptables after random changes' env FOGHORN_PROXY_ARGUMENTS='--dataplane iptables' \
		$(IN_LAB) --test rules -- --ignored --nocapture
	$(TIMED) 'From one data plane to another, in all directions' $(IN_LAB) --test modes -- --ignored --nocapture

# Runs test programs of the lab in an emulated machine; $(1) is for its control plane, which is here.
in_kernel_lab = FOGHORN_MODE=ipvs FOGHORN_PROXY_ARGUMENTS='--dataplane ipvs' FOGHORN_SLOWNESS=10 IN_KERNEL_UPLINK=1 IN_KERNEL_MEMORY=4G \
	$(CARGO) --config 'target."cfg(all())".runner = ["$(CURDIR)/tools/in-namespaces", "$(PROGRAMS)/lab", "control-plane", \
	$(1) "$(CURDIR)/tools/in-kernel", "$(IPVS_KERNEL)"]' test --profile $(PROFILE) -p e2e
comma := ,

.PHONY: emulation
emulation:
	@tools/prerequisites socat=socat ipset=ipset

.PHONY: test-ipvs-core
test-ipvs-core: build lab $(EMULATED) ## IPVS: its kernel suite and the main job, under qemu (IPVS_KERNEL=6.12)
	@tools/prerequisites ipvsadm=ipvsadm
	$(TIMED) 'IPVS in Linux $(IPVS_KERNEL)' $(call cargo_in_kernel,$(IPVS_KERNEL)) test --profile $(PROFILE) -p proxy-ipvs --test kernel -- --ignored --test-threads 1
	$(TIMED) 'The main job with IPVS' env FOGHORN_SERVICES=3 $(call in_kernel_lab) --test main_job -- --ignored --nocapture

.PHONY: test-ipvs
test-ipvs: test-ipvs-core ## The same, and the rules of IPVS after random changes
	$(TIMED) 'Rules of IPVS after random changes' env FOGHORN_CHANGES=40 $(call in_kernel_lab) --test rules -- --ignored --nocapture

.PHONY: test-ipvs-moves
test-ipvs-moves: build lab $(EMULATED) ## From IPVS to the other data planes and back, and from kube-proxy's IPVS, under load and under qemu
	$(TIMED) 'From one data plane to another, in all directions' env $(call in_kernel_lab) --test modes -- --ignored --nocapture
	$(TIMED) "kube-proxy's IPVS replaced, and back" env $(call in_kernel_lab) --test replacement -- --ignored --nocapture

# With the network, which the namespaces of the lab do not have.
$(TARGET)/kernels/%/initramfs.gz:
	tools/in-kernel $* true

.PHONY: test-crash
test-crash: build lab ## The controller is killed 50 times while 100 Services come and go
	$(TIMED) 'Crashes of the controller' $(IN_LAB) --test crash -- --ignored --nocapture

.PHONY: failover
failover: build lab ## How long clients wait when a node dies (TRIALS=20 FAULT=link-down, silence…)
	$(TIMED) 'Failover' tools/in-namespaces $(PROGRAMS)/lab failover --trials $(TRIALS) --fault $(FAULT)

.PHONY: failover-table
failover-table: build lab ## The same for every fault, written into docs/failover.md
	$(TIMED) 'Failover, fault by fault' tools/in-namespaces $(PROGRAMS)/lab failover --trials $(TRIALS) --every-fault --document docs/failover.md

.PHONY: failover-many
failover-many: build lab ## Five nodes and 500 addresses: when the last of them is announced again, written into docs/failover.md
	$(TIMED) 'Failover of many addresses' tools/in-namespaces $(PROGRAMS)/lab many --trials $(or $(MANY_TRIALS),10) --document docs/failover.md

.PHONY: bench-speaker
bench-speaker: prerequisites ## What 3, 30 and 100 speakers with 1000 addresses cost at rest, written into docs/failover.md
	$(TIMED) 'Cost of speakers' env DOCUMENT=$(CURDIR)/docs/failover.md $(CARGO_IN_NAMESPACES) bench -p speaker --bench cost

.PHONY: calm
calm: build lab ## Ten minutes of busy loops without a fault, and no address may move, written into docs/failover.md (SECONDS=600)
	$(TIMED) 'Busy processors' tools/in-namespaces $(PROGRAMS)/lab calm --seconds $(or $(SECONDS),600) --document docs/failover.md

.PHONY: bench
bench: prerequisites lab $(if $(filter ipvs,$(MODE)),$(EMULATED)) ## Our proxy beside the real kube-proxy, written into docs/performance.md (MODE=iptables BENCH='--sizes 1000')
	$(TIMED) 'Release build of the proxy' $(CARGO) build --release -p proxy
	$(TIMED) 'Build of the bench' $(CARGO) build --profile $(PROFILE) -p e2e --bin bench --bin lab
# Root needs no user namespace, and without one the kernel's limits for others do not count.
	$(TIMED) 'Bench' env FOGHORN_PROGRAMS=$(TARGET)/release $(if $(filter ipvs,$(MODE)),FOGHORN_SLOWNESS=10) \
		$(if $(filter-out 0,$(shell id -u)),tools/in-namespaces) $(PROGRAMS)/bench --mode $(MODE) --results $(TARGET)/bench --document docs/performance.md \
		--command "make bench$(if $(filter-out nftables,$(MODE)), MODE=$(MODE))$(if $(BENCH), BENCH='$(BENCH)')" $(BENCH)

.PHONY: bench-controller
bench-controller: prerequisites lab $(LAB)/metallb/speaker ## Our controller beside that of MetalLB, with 10 000 Services
	$(TIMED) 'Release build of the controller' $(CARGO) build --release -p controller -p proxy
	$(TIMED) 'Build of the bench' $(CARGO) build --profile $(PROFILE) -p e2e --bin bench
	$(TIMED) 'Bench of controllers' env FOGHORN_PROGRAMS=$(TARGET)/release tools/in-namespaces $(PROGRAMS)/bench \
		--givers foghorn,metallb --results $(TARGET)/bench --document docs/performance.md --command "make bench-controller"

.PHONY: bench-micro
bench-micro: prerequisites ## What a change costs, step by step, and in the kernel
	$(TIMED) 'Steps of a change' $(CARGO_IN_NAMESPACES) bench -p proxy-nftables -p proxy-iptables --bench change

# Where images and plugin are compiled for another machine, and what runs them here.
FOREIGN = $(if $(filter aarch64,$(ARCHITECTURES)),'aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu libc6-dev-arm64-cross' qemu-aarch64-static=qemu-user-static)
OCI := $(TARGET)/oci$(if $(IPTABLES),-iptables)

.PHONY: image
image: prerequisites ## The image as an OCI layout, static and reproducible, without a container daemon (ARCHITECTURES='x86_64 aarch64'; IPTABLES=1 with iptables in it)
	@tools/prerequisites musl-gcc=musl-tools $(FOREIGN)
	$(if $(IPTABLES),@tools/legacy-iptables)
	$(TIMED) 'Image' env IPTABLES=$(IPTABLES) tools/image $(OCI) $(ARCHITECTURES)
	$(TIMED) 'Check of the image' env IPTABLES=$(IPTABLES) tools/check-image $(OCI) $(ARCHITECTURES)

.PHONY: plugin
plugin: prerequisites ## Archives of the kubectl plugin, and the manifest by which krew installs it
	@tools/prerequisites musl-gcc=musl-tools $(FOREIGN)
	$(TIMED) 'Plugin' tools/plugin $(TARGET)/plugin $(ARCHITECTURES)

.PHONY: test-image
test-image: image plugin ## Image and plugin compiled a second time, as somebody else would, come out the same
	$(TIMED) 'Second compilation' env IPTABLES=$(IPTABLES) tools/compiled-twice $(OCI) $(TARGET)/plugin $(ARCHITECTURES)

.PHONY: test-plugin
test-plugin: plugin lab $(TOOLS)/krew/krew ## krew installs the plugin, and kubectl finds it
	$(TIMED) 'Check of the plugin' tools/check-plugin $(TARGET)/plugin $(TOOLS)/krew $(LAB)/kubernetes $(ARCHITECTURES)

$(TOOLS)/krew/krew: tools/krew/go.mod | prerequisites
	@mkdir -p $(@D)
	$(TIMED) 'Build of krew' env CGO_ENABLED=0 go -C tools/krew build -trimpath -buildvcs=false -o $(@D)/ \
		sigs.k8s.io/krew/cmd/krew sigs.k8s.io/krew/cmd/validate-krew-manifest
	@touch $@

.PHONY: check-image
check-image: prerequisites ## How images are made and checked, in seconds: small programs stand for ours, and what is wrong is seen (IPTABLES=1)
	$(if $(IPTABLES),@tools/legacy-iptables)
	$(TIMED) 'Faults of images' env IPTABLES= tools/image-faults $(if $(IPTABLES),--iptables)

.PHONY: build
build: prerequisites ## Our programs, into target/debug (PROFILE=release: target/release)
	$(TIMED) 'Build of Foghorn' $(CARGO) build --profile $(PROFILE) --workspace --bins

.PHONY: lab
lab: prerequisites $(LAB)/kubernetes $(LAB)/agnhost ## The Kubernetes of the lab, into target/lab

$(LAB)/kubernetes $(LAB)/agnhost &: $(GO_FILES)
	$(TIMED) "Build of the lab's Kubernetes: about ten minutes the first time" env LAB_DIRECTORY=$(LAB) e2e/kubernetes/build.sh
	@touch $(LAB)/kubernetes $(LAB)/agnhost

.PHONY: prerequisites
prerequisites: ## What building and testing need, installed by apt if it is missing
	@tools/prerequisites

.PHONY: clean
clean: ## Removes everything that was built
	$(CARGO) clean
