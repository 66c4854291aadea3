# Everything starts here; each target prepares what it needs by itself (scripts/setup.py).
PYTHON ?= python3
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest-torch bench gallery check gpu-bundle clean

help: ## show this list
	@echo "medcam: attention maps for 2D and 3D medical CNNs"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## set up, build, then explain a brain-extraction network on a real MRI, into demo/
	$(PYTHON) scripts/setup.py demo
	$(CARGO) build --release --locked
	$(PYTHON) scripts/demo.py

# The tests that need libtorch; the others run in the first, smaller build.
TORCH_TESTS = $(patsubst tests/%.rs,--test %,$(shell grep -lE '^\#!\[cfg\((all\(feature = "torch", feature = "files"\)|feature = "cli")\)\]' tests/*.rs))

test: ## set up, then all tests
	$(PYTHON) scripts/setup.py test
	$(CARGO) test --locked --no-default-features --features files,dlpack --lib --tests
	$(CARGO) test --locked -p medcam-capi
	$(CARGO) test --locked --all-features --lib $(TORCH_TESTS)
	$(CARGO) test --locked --all-features --doc

test-newest-torch: ## the Python package with the newest torch on PyPI (some GB, in target/newest-torch)
	$(PYTHON) -m venv --clear target/newest-torch
	target/newest-torch/bin/python -m pip install --quiet ./python pytest torch torchvision monai==1.6.1 nibabel pillow
	target/newest-torch/bin/python -m pytest -q -rs -p no:cacheprovider python/tests

bench: ## set up, then the benchmarks
	$(PYTHON) scripts/setup.py bench
	$(CARGO) bench --locked --all-features

gallery: ## set up, train a network, then the pictures of docs/gallery.md
	$(PYTHON) scripts/setup.py gallery
	CARGO=$(CARGO) $(PYTHON) examples/gallery/make_gallery.py

gpu-bundle: ## set up, then the folder that checks and times the kernels on a machine with a GPU
	$(PYTHON) scripts/setup.py test
	$(PYTHON) scripts/gpu_bundle.py

# The cheapest first, so that a slip shows within seconds.
check: ## set up, then formatting, lints and documentation, for each set of features
	$(PYTHON) scripts/setup.py check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features files -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features files,dlpack -- -D warnings
	$(CARGO) clippy --locked -p medcam-capi -p medcam-python --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features torch -- -D warnings
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --no-default-features
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

clean: ## remove what was built here (the cache of other checkouts stays)
	$(CARGO) clean
	rm -rf demo
