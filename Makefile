# make demo | make test: install what is missing, then do it. A second run installs nothing.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMPS := $(VENV)/.installed
NEED := sh .ci/need
# Tests mostly wait for hosts: two processes take half the time of one.
WORKERS := -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test soak lint benchmark benchmark-peers clean

demo: $(STAMPS)-demo
	@$(VENV)/bin/unifyweaver demo

test: $(STAMPS)-test
	@$(PYTHON) -m pytest -m "not soak" $(WORKERS) $(PYTEST)

soak: $(STAMPS)-test
	@$(PYTHON) -m pytest -m soak $(WORKERS) $(PYTEST)

lint: $(STAMPS)-test
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@swipl --on-error=status --on-warning=status -g list_undefined -t halt prolog/deployment_glue.pl
	@shellcheck prolog/deployment/*.sh prolog/deployment/*.bash tests/sites/systemctl tests/faults/target/sh tests/faults/target/*.sh \
		tests/benchmarks/recipes/*.sh .ci/need .ci/run

benchmark: $(STAMPS)-test
	@$(PYTHON) tests/benchmarks/peers.py --hosts 5 --alone
	@$(PYTHON) tests/benchmarks/shipping.py
	@$(PYTHON) tests/benchmarks/queries.py
	@$(PYTHON) tests/benchmarks/rollout.py

benchmark-peers: $(STAMPS)-test
	@$(PYTHON) tests/benchmarks/peers.py

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(STAMPS)-demo: pyproject.toml
	@$(NEED) swipl=swi-prolog-nox ensurepip=python3-venv
	@[ -x $(PYTHON) ] || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(STAMPS)-test: pyproject.toml
	@$(NEED) swipl=swi-prolog-nox ensurepip=python3-venv sshd=openssh-server ip=iproute2 unshare=util-linux shellcheck=shellcheck \
		rsync=rsync curl=curl systemd-analyze=systemd haproxy=haproxy wrk=wrk
	@[ -x $(PYTHON) ] || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[demo,test]'
	@touch $@ $(STAMPS)-demo
