# Everything a newcomer needs. Tools come into a cache outside the checkout: $BYOS_DEV_CACHE, else $XDG_CACHE_HOME/byos-run-dev,
# else ~/.cache/byos-run-dev. Needs beforehand: python3 >= 3.9, make, and the package registries.
PYTHON ?= python3
JOBS ?= 2

dev = $(shell $(PYTHON) tests/kit/cache.py dev)

.PHONY: help build smoke test test-pages pictures transcript test-stores test-mpi test-nodes test-slurm bench timeline lint sizes lock clean

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

build:  ## dist/byos-run, the one file
	@$(PYTHON) packaging/build.py

smoke:  ## the main job on real parts: MinIO, an 8-rank MPI solver, two runs of a DOE
	@$(PYTHON) tests/smoke.py

test:  ## the whole suite
	@$(dev)/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-stores:  ## the contract of a store and the whole job on MinIO, SeaweedFS and Versity Gateway
	@$(PYTHON) tests/kit/cache.py minio seaweedfs versitygw > /dev/null
	@$(dev)/bin/python -m pytest -n $(JOBS) --every-store tests/contract tests/scenarios/test_stores.py $(ARGS)

test-mpi:  ## Open MPI 4 and 5, MPICH 4 and 5, Intel: end, stop and kill (Debian's two need apt)
	@PYTHONPATH=agent:. $(dev)/bin/python -m tests.flavours

test-nodes:  ## the file on every Python and in every broken surrounding; writes packaging/NODES.md
	@$(dev)/bin/python -m tests.nodes

test-slurm:  ## arrays, scancel, time limits, requeue, srun on a real Slurm of one node; needs root and apt-get; 6 minutes
	@$(dev)/bin/python -m pytest -v tests/slurm/jobs.py $(ARGS)

test-pages:  ## the pages in a real browser (needs Chromium: apt install chromium)
	@$(dev)/bin/python -m pytest -q tests/pages/in_browser.py $(ARGS)

pictures:  ## README's pictures of the pages (needs Chromium)
	@$(dev)/bin/python -m tests.pages

transcript:  ## README's session of a newcomer, typed anew: init, check, rehearse, verify, status, report
	@$(PYTHON) tests/kit/cache.py minio mpich > /dev/null
	@$(dev)/bin/python tests/newcomer.py

bench:  ## the race against the shell script, s5cmd and rclone; writes tests/bench/RESULTS.md (ARGS="small --rounds 3")
	@$(PYTHON) tests/bench/bench.py $(ARGS)

timeline:  ## a picture of one run beside MinIO: bytes written, bytes acknowledged, tail; writes tests/bench/timeline.svg
	@$(PYTHON) tests/bench/bench.py tail --rounds 1 --picture

lint:  ## ruff, mypy --strict, the import law
	@d=$(dev) && $$d/bin/ruff check . && $$d/bin/ruff format --check . && $$d/bin/mypy && $$d/bin/python -m pytest -q tests/test_house.py

sizes: build  ## what is in the file, by size; writes the table in packaging/README.md
	@$(PYTHON) packaging/sizes.py

lock:  ## refresh packaging/lock to the newest versions
	@$(PYTHON) packaging/build.py --lock

clean:  ## what was built here
	@$(PYTHON) -c "import shutil; shutil.rmtree('dist', ignore_errors=True)"
