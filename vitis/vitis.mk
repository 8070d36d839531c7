# Goals for a machine with Vitis. Each brings the build and the tools' input files up to date and
# then goes on in flow.mk, whose rules know every file, so that an interrupted run is resumed.
#
#   TARGET=hw|hw_emu   PLATFORM=name or .xpfm   CLOCK=MHz of the link   FALLBACK=1 slower clocks in turn
#   BOARD=u250|u55c    HLS_CLOCK=MHz kernels are compiled for
#   STRATEGIES=a,b     CLOCK_KEY=kernel_frequency|freqHz|defaultFreqHz   JOBS=Vivado runs   PACKAGE=1
#   KERNEL=one kernel  COSIM_OPTIONS="-random_stall"
#   ENGINE=engine file of `gen plan --engine` that is built instead of the board's engine
#   ENGINE_FILE=board or engine file that `make reports` writes measured timing into
#   LAYER=name         of vectors, bench, csim, csynth, cosim: only the layers up to that one

BOARD      ?= u250
TARGET     ?= hw
JOBS       ?= 8

VITIS_PYTHON ?= $(BIN)/python
VITIS_BUILD = $(BUILD)$(if $(LAYER),/layers/$(LAYER))
VITIS_FLOW = $(MAKE) --no-print-directory -f vitis/flow.mk BUILD=$(VITIS_BUILD) VITIS_PYTHON=$(VITIS_PYTHON) TARGET=$(TARGET)

.PHONY: need-hls need-card vitis-files vectors kernel-bench csynth csim cosim xo xclbin check-vitis check-platform check-xrt doctor reports lint-hls

need-hls need-card: $(VENV)/ready
	@$(VITIS_PYTHON) -m gen.vitis need $(@:need-%=%) --board $(BOARD) --platform "$(PLATFORM)"

vitis-files: build ## write the inputs of the Vitis tools (build/NAME/vitis)
	@$(if $(LAYER),$(VITIS_PYTHON) -m gen.vitis layer $(BUILD) $(LAYER))
	@$(VITIS_PYTHON) -m gen.vitis files $(VITIS_BUILD) --board $(BOARD) --jobs $(JOBS) \
	    $(if $(CLOCK),--clock $(CLOCK)) $(if $(HLS_CLOCK),--hls-clock $(HLS_CLOCK)) \
	    $(if $(CLOCK_KEY),--clock-key $(CLOCK_KEY)) $(if $(STRATEGIES),--strategies $(STRATEGIES))

vectors: vitis-files ## record what passes between the kernels in one step, for their test benches
	@+$(VITIS_FLOW) vectors

kernel-bench: vitis-files ## run every kernel's test bench under g++ (needs no Vitis)
	@+$(VITIS_FLOW) bench

csim: need-hls vitis-files ## C simulation of every kernel in Vitis HLS (KERNEL=... for one)
	@+$(VITIS_FLOW) csim

csynth: need-hls vitis-files ## synthesise every kernel with Vitis HLS and summarise the reports
	@+$(VITIS_FLOW) csynth

cosim: need-hls vitis-files ## co-simulate every kernel's RTL against its test bench
	@+$(VITIS_FLOW) cosim

xo: need-card vitis-files ## compile the kernels with v++, one .xo each (use -j)
	@+$(VITIS_FLOW) xo

xclbin: need-card vitis-files ## link for the card: TARGET=hw|hw_emu PLATFORM=... CLOCK=222 FALLBACK=1
	@+$(VITIS_FLOW) xclbin

check-vitis: $(VENV)/ready ## is a Vitis installed that fits the board?
	@$(VITIS_PYTHON) -m gen.vitis check-vitis --board $(BOARD)

check-platform: $(VENV)/ready ## is the card's platform installed? (PLATFORM=...)
	@$(VITIS_PYTHON) -m gen.vitis check-platform --board $(BOARD) --platform "$(PLATFORM)"

check-xrt: $(VENV)/ready ## are XRT, its tools and pyxrt usable?
	@$(VITIS_PYTHON) -m gen.vitis check-xrt --board $(BOARD)

doctor: $(VENV)/ready ## everything at once: compilers, platform, XRT, card
	@$(VITIS_PYTHON) -m gen.vitis doctor --board $(BOARD) --platform "$(PLATFORM)"

reports: $(VENV)/ready ## modelled figures against those of the Vitis reports (ENGINE_FILE=... takes measured timing)
	@$(VITIS_PYTHON) -m gen.reports $(VITIS_BUILD) $(if $(ENGINE_FILE),--engine $(ENGINE_FILE))

lint-hls: $(VENV)/ready ## check kernels and emitted files for what only Vitis would notice
	@$(VITIS_PYTHON) -m gen.hlslint hls/kernels $(patsubst %/vitis/vitis.json,%,$(wildcard $(BUILD)/vitis/vitis.json))
