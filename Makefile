# One line a target; `make help` lists them. ARGS reaches the command: make demo ARGS=--once, make test ARGS=--all.
SHELL := /bin/bash
PY ?= python3
BIN := .venv/bin
UV := .cache/boot/bin/uv
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint fmt lock docs bench bench-ingest bench-pictures endure fuzz

help: ## this list
	@sed -nE 's|^([a-z-]+):.*## (.*)|  make \1\t\2|p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is needed into .venv (nothing to do: 0.1 s)
	@$(PY) scripts/bootstrap.py

demo: setup ## the whole line with three phantom studies, until Ctrl-C (ARGS=--once: sign one and end)
	@$(BIN)/countersign demo $(ARGS)

up: setup ## every part for good, in the foreground (ARGS="--data-dir D --dicom-port 11112 …")
	@$(BIN)/countersign up $(ARGS)

test: setup ## the short form (ARGS=--all: lint, then every test; else ARGS goes to pytest)
	@scripts/test $(ARGS)

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >.cache/imports.log || { cat .cache/imports.log; exit 1; }

fmt: setup ## let ruff put the code in order
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format --quiet .

lock: setup ## refresh requirements/*.lock from requirements/*.in
	@for name in base dev; do \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    requirements/$$name.in -o requirements/$$name.lock || exit 1; done

docs: setup ## write the tables of docs/ that are made from the code
	@$(BIN)/python scripts/tables.py

endure: setup ## faults for long: 200 kills, 50 power cuts (root), a minute without PostgreSQL and Redis (about 15 minutes)
	@COUNTERSIGN_KILLS=$${COUNTERSIGN_KILLS:-200} COUNTERSIGN_POWER_CUTS=$${COUNTERSIGN_POWER_CUTS:-25} \
	  COUNTERSIGN_OUTAGE_S=$${COUNTERSIGN_OUTAGE_S:-60} \
	  $(BIN)/python -m pytest tests/acceptance/test_kill_intake.py tests/acceptance/test_power_cut.py --timeout 3600 $(ARGS)

fuzz: setup ## hostile bytes for every reader and a listener (10 minutes; COUNTERSIGN_FUZZ_S=3600; ARGS="-k data_sets")
	@COUNTERSIGN_FUZZ_S=$${COUNTERSIGN_FUZZ_S:-600} $(BIN)/python -m pytest -n 2 --dist worksteal tests/fuzz $(ARGS)

bench-ingest: setup ## how fast images are taken, beside other receivers (about 4 minutes; ARGS="--scenarios ct:1,mr:8 --rounds 3")
	@$(BIN)/python benchmarks/ingest.py $(ARGS)

bench-pictures: setup ## how long a picture takes, beside dcmtk and pydicom (2 minutes; ARGS="--rounds 9 --skip studies")
	@$(BIN)/python benchmarks/pictures.py $(ARGS)

bench: setup ## what the line costs, with few and with 100,000 studies on record (about 6 minutes; ARGS="--studies 20 --records 5000")
	@$(BIN)/python benchmarks/line.py $(ARGS)
