.PHONY: test slow-tests lint types imports commit-checks

test:
	pytest

slow-tests:
	pytest -m slow

lint:
	ruff check .
	ruff format --check .

types:
	mypy

imports:
	lint-imports

commit-checks: lint types imports test
