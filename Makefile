# The targets people type. README.md says how to use Layeryard, CONTRIBUTING.md how to work on it.

PEERS := tests/peers/install.sh
CARGO := cargo

.PHONY: run test lint bench peers

# The server on localhost:5000 with its data in the user's data directory; ARGS="--listen … --data-dir …" changes that.
run:
	$(CARGO) run --release --bin layeryard -- serve $(ARGS)

# Everything real: engines, clients, other registries. TESTS="build:: crash::" picks some of the end-to-end tests.
# What fails is tried once more, alone, and told (tests/run.sh).
test: peers
	$(CARGO) build --workspace --bins --tests
ifdef TESTS
	$(CARGO) test --package layeryard-tests -- $(TESTS)
else
	CARGO=$(CARGO) tests/run.sh
endif

peers:
	$(PEERS) debian rootfs conformance clients distribution engine postgres s3 kubernetes traces

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	bash -n tests/*.sh tests/peers/*.sh bench/*.sh .ci/run

bench:
	bench/run.sh $(ARGS)
