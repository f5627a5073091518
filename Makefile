# What people and .ci/run call. Every target needs `pip install -e '.[embedded,dev]'`.

URL ?= http://127.0.0.1:8000

.PHONY: all format lint types layers docs unit test bench

all: lint types layers docs test

format: ## rewrites
	ruff format .
	ruff check --fix .

lint: ## only looks
	ruff format --check .
	ruff check .

types:
	mypy

layers:
	lint-imports

docs: ## writes build/site; a dead link or a dead anchor is an error
	zensical build --clean --strict

unit:
	pytest tests/unit

test:
	pytest

bench: ## by hand: startup, crawl and uploads start what they need, the others measure the one that runs at $(URL)
	python -m tests.benchmarks.startup
	python -m tests.benchmarks.crawl
	python -m tests.benchmarks.uploads
	python -m tests.benchmarks.latency --url $(URL)
	python -m tests.benchmarks.throughput --url $(URL)
	python -m tests.benchmarks.long_file --url $(URL)
	python -m tests.benchmarks.urgent --url $(URL)
	python -m tests.benchmarks.extraction --url $(URL)
	python -m tests.benchmarks.decoding
