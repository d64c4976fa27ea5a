.PHONY: test lint types imports commit-checks

test:
	pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy

imports:
	lint-imports

commit-checks: lint types imports test
