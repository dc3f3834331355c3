# Thin: each target calls one command. `make demo` and `make test` do all set-up by themselves.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test test-deploy lint bench bench-sam2 load chaos fuzz soak protos train-demo clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml deploy/local/install.sh
	PYTHON=$(PYTHON) bash deploy/local/install.sh

demo: install
	$(BIN)/touchline recognize tests/data/demo_01.mp4 --output out/demo

test: install
	$(BIN)/pytest

# The images and the cluster's manifests: schemas, scanners, a real Envoy, every slow check.
test-deploy: install
	PYTHON=$(PYTHON) bash deploy/kubernetes/tools.sh
	TOUCHLINE_TEST_DEPLOY=1 $(BIN)/pytest tests/deploy

lint: install
	bash deploy/local/lint.sh

bench: install
	$(BIN)/python -m tests.bench.pipeline --output out/bench/pipeline.json
	PYTHONPATH=deploy/local/sim $(BIN)/python -m tests.bench.frame_cost --output out/bench/frame_cost.json

bench-sam2: install
	TQDM_DISABLE=1 PYTHONPATH=model_repository/sam2_tracker $(BIN)/python -m tests.bench.sam2 --output out/bench/sam2.json

# Stand-ins for GPUs, see deploy/local/sim/; a few minutes each, the soak half an hour.
load: install
	bash tests/load/analyzer.sh || echo "load: without perf_analyzer" >&2
	PYTHONPATH=deploy/local/sim $(BIN)/python -m tests.load --output out/load.json

chaos: install
	PYTHONPATH=deploy/local/sim $(BIN)/python -m tests.chaos --output out/chaos.json

# The API and the decoders under hostile input; some twenty minutes.
fuzz: install
	$(BIN)/python -m tests.fuzz --output out/fuzz.json

soak: install
	PYTHONPATH=deploy/local/sim $(BIN)/python -m tests.load.soak --output out/soak.json

protos: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos \
	  --grpc_python_out=protos --mypy_out=protos --mypy_grpc_out=protos \
	  soccer/v1/player_recognition.proto

# FOOTAGE holds rendered/ and real/, STAND_IN is a YOLOX detector; hours on a CPU, and resumable.
train-demo: install work/stills
	$(BIN)/python -m training.demo --footage $(FOOTAGE)/rendered --work work/demo $(MODELS)

work/stills: | install
	$(BIN)/touchline data label $(FOOTAGE)/real/soccertrack_left.mp4 --stand-in $(STAND_IN) \
	  --every 5 --frames 121 --output $@

clean:
	rm -rf .venv .tools out
