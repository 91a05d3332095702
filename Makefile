# The commands that the README promises. `make help` lists them.

.PHONY: help demo test bench soak docs test-matrix test-fresh dist test-dist image-digests rules

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

SECONDS ?= 30
ROWS ?= 200000

demo: ## a throwaway PostgreSQL, a Planhat stand-in and the streamer, live; SECONDS=120 ROWS=1000000, or SECONDS= until Ctrl-C
	@cargo run --release --quiet -- demo --rows $(ROWS) $(if $(SECONDS),--seconds $(SECONDS))

test: ## format, lints and every test; the same as in CI
	@sh .ci/test

bench: ## the figures of benches/README.md, on this machine: one table of ratios; ROWS=200000 RUNS=1 ONLY=stream,far-stream for a quick look
	cargo bench --bench core --bench mapping
	cargo bench --bench end_to_end

SEEDS ?= 200
soak: export SEEDS := $(SEEDS)
soak: ## the long tests: SEEDS=500 crashes of the real program, 2,000 simulated schedules for each, memory, leaks
	SIM_SEEDS=$$(($(SEEDS) * 2000)) cargo test --release --test sim -- --nocapture
	cargo test --release --test it -- --ignored --nocapture soak

docs: ## the pages of docs/ as a book, in target/book/html
	@sh .ci/docs

test-fresh: ## `make demo` and `make test` on a bare Debian, in a chroot; needs root
	@sh .ci/test-fresh

test-matrix: ## the integration tests on PostgreSQL 14, 15, 16, 17 and 18
	@sh .ci/test-matrix

RULE := deploy/kubernetes/components/prometheus-operator/prometheusrule.yaml
rules: ## after a change of deploy/prometheus/rules.yaml: the same as a PrometheusRule for kustomize
	@{ printf '%s\n' '# Made from deploy/prometheus/rules.yaml by `make rules`.' 'apiVersion: monitoring.coreos.com/v1' \
	  'kind: PrometheusRule' 'metadata:' '  name: pg2planhat' 'spec:'; sed 's/^./  &/' deploy/prometheus/rules.yaml; } >$(RULE)

dist: ## what is released, in target/dist: tarball, Debian package, image, chart, sums; REPOSITORY=https://… RELEASE=1 for a release
	@bash .ci/dist

test-dist: dist ## the same, then installed and run from each of its parts
	cargo test --test dist

image-digests: ## the base images of deploy/Dockerfile by today's digests, as build arguments; needs skopeo and the network
	@sed -n 's/^ARG \([A-Z]*_IMAGE\)=\(.*\)$$/\1 \2/p' deploy/Dockerfile | while read -r name image; do \
	  digest=$$(skopeo inspect --format '{{.Digest}}' "docker://$$image") || exit 1; \
	  echo "--build-arg $$name=$${image%:*}@$$digest"; done
