# Goals for people; every goal is described by `make help`.
#
# The virtual environment is made once and remade when pyproject.toml or constraints.txt change.
# torch is installed first, by its pin, so that nothing else pulls another build of it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
MODEL   ?= models/shapes-ldm
NAME    ?= $(notdir $(patsubst %/,%,$(MODEL)))
BUILD   ?= build/$(NAME)
OUT     ?= out
SEED    ?= 1
STEPS   ?= 25
GUIDANCE ?= 2.5
# steps per start of an engine that has the sampler (empty: the scheduler runs on the host)
SAMPLER ?=
PROMPTS ?= 32
CARDS   ?= 1
MODELS  ?= models/shapes-ldm,ldm-celebahq-256,sd15
PYTEST_ARGS ?= -m "not slow"

export HF_HUB_DISABLE_TELEMETRY := 1
# handed over by the environment, so that quotes in a prompt stay what they are
export PROMPT

include vitis/vitis.mk

.PHONY: help venv build plan image quality bench bench-models verify test lint format train clean

help: ## list every goal
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: MODEL=$(MODEL) PROMPT=\"...\" SEED=$(SEED) STEPS=$(STEPS) GUIDANCE=$(GUIDANCE) SAMPLER=$(SAMPLER) PROMPTS=$(PROMPTS) CARDS=$(CARDS) OUT=$(OUT)"

$(VENV)/ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; install Python 3.10 or newer, or name one by PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

venv: $(VENV)/ready ## set up the virtual environment (.venv)

build: $(VENV)/ready ## generate the accelerator from MODEL and build its software card
	$(BIN)/python -m gen build $(MODEL) $(foreach lora,$(LORA),--lora $(lora)) --board $(or $(ENGINE),$(BOARD)) --out $(BUILD) $(if $(SAMPLER),--sampler)

plan: $(VENV)/ready ## choose the engine for MODEL under the board's limits (out/plan.json, out/engine.toml)
	$(BIN)/python -m gen plan $(MODEL) --board $(BOARD) --out $(OUT)/plan.json --engine $(OUT)/engine.toml

image: build ## draw images: every denoising step on the software card
	$(BIN)/python -m host.image --build $(BUILD) --out $(OUT) $(if $(value PROMPT),--prompt "$$PROMPT") --seed $(SEED) --steps $(STEPS) --guidance $(GUIDANCE) --cards $(CARDS) $(if $(SAMPLER),--on-card-sampler $(SAMPLER))

quality: build ## PSNR, SSIM and attribute accuracy against the float U-Net (out/quality.json)
	$(BIN)/python -m host.quality --build $(BUILD) --out $(OUT) --prompts $(PROMPTS) --steps $(STEPS) --guidance $(GUIDANCE) --cards $(CARDS) $(if $(SAMPLER),--on-card-sampler $(SAMPLER))

bench: build ## software card against torch fp32 (out/bench.json)
	$(BIN)/python -m host.bench --build $(BUILD) --out $(OUT)

bench-models: $(VENV)/ready ## time and memory of building models of all sizes, MODELS=a,b,c (out/bench-models.json)
	$(BIN)/python -m gen.bench_models --models $(MODELS) --out $(OUT)/bench-models.json

verify: build ## compare float, integer reference and csim layer by layer; names the first that diverges
	$(BIN)/python -m gen verify $(BUILD)

test: $(VENV)/ready ## run the tests (PYTEST_ARGS=... for others, e.g. PYTEST_ARGS="-m slow")
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/ready ## ruff, mypy (strict on gen/ and host/), clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check bench gen host models tests
	$(BIN)/mypy
	git ls-files -z 'hls/*.hpp' 'hls/*.h' 'hls/*.cpp' 'tests/*.hpp' 'tests/*.cpp' | xargs -0 -r $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/ready ## rewrite sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format bench gen host models tests
	git ls-files -z 'hls/*.hpp' 'hls/*.h' 'hls/*.cpp' 'tests/*.hpp' 'tests/*.cpp' | xargs -0 -r $(BIN)/clang-format -i

train: $(VENV)/ready ## train the bundled model again (hours)
	$(BIN)/python -m models.recipe --out build/trained-shapes-ldm

clean: ## remove build/ and out/ (keeps .venv)
	rm -rf build out
