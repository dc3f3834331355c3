# Thin: each target calls one command. `make demo` and `make test` do all set-up by themselves.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test lint bench protos clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml deploy/local/install.sh
	PYTHON=$(PYTHON) bash deploy/local/install.sh

demo: install
	$(BIN)/touchline recognize tests/data/demo_01.mp4 --output out/demo

test: install
	$(BIN)/pytest

lint: install
	bash deploy/local/lint.sh

bench: install
	$(BIN)/python -m tests.bench.pipeline --output out/bench/pipeline.json

protos: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos \
	  --grpc_python_out=protos --mypy_out=protos --mypy_grpc_out=protos \
	  soccer/v1/player_recognition.proto

clean:
	rm -rf .venv .tools out
