# Everything that a developer or a machine runs here. `make test` and `make demo` need nothing but
# Python >= 3.11 and git: the environment is made in .venv by the first of them.

PY := .venv/bin/python
ARGS ?=
PROGRAMS := nginx curl docker-registry javac mvn $(RUNTIMES)
RUNTIMES := containerd ctr runc podman skopeo

.PHONY: help deps test check demo bench lab

help:
	@echo "make deps    create .venv with everything in the versions of constraints.txt; as root also install"
	@echo "             the programs that tests run against"
	@echo "make test    unit and integration tests (ARGS='-k name' for some of them)"
	@echo "make check   ruff, mypy, import-linter: all that CI looks at"
	@echo "make demo    origin, scheduler, seeder and four peers as processes; 256 MiB to all at once"
	@echo "make bench   measures beside curl, aria2c and nginx; writes docs/benchmarks.md"
	@echo "make lab     tests in network namespaces, with container runtimes (as root)"

deps: .venv/installed
	@.ci/tools --try $(PROGRAMS)
	@.ci/hadoop --try

.venv/installed: pyproject.toml constraints.txt .ci/environment
	@.ci/environment

test: deps
	$(PY) -m pytest -n auto $(ARGS)

check: deps
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

demo: deps
	$(PY) deploy/demo.py $(ARGS)

bench: deps
	@.ci/tools nginx curl aria2c wrk wget
	@[ "$$(id -u)" -ne 0 ] || .ci/tools ip tc docker-registry $(RUNTIMES)
	$(PY) -m tests.bench.run $(or $(ARGS),--write docs/benchmarks.md)

lab: deps
	@.ci/tools ip tc nginx curl docker-registry $(RUNTIMES)
	$(PY) -m pytest tests/lab $(ARGS)
