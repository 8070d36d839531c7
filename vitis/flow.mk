# Files of the Vitis flow. Called by vitis.mk with BUILD=, TARGET= and VITIS_PYTHON=; the kernels,
# the default platform and clocks come from what `python -m gen.vitis files` wrote.
#
# Every target is moved into place when its tool has succeeded, so that what exists is complete.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

VITIS_PYTHON ?= python3
TARGET ?= hw

include $(BUILD)/vitis/settings.mk

RUN     := $(VITIS_PYTHON) -m gen.vitis
FILES   := $(BUILD)/vitis
REPORTS := $(FILES)/reports
CARD    := $(FILES)/$(TARGET).$(basename $(notdir $(PLATFORM)))
WANTED  := $(or $(KERNEL),$(KERNELS))
HEADERS := $(wildcard $(BUILD)/src/*.hpp $(BUILD)/src/*.h hls/kernels/*.hpp)
CHOICE  := --target $(TARGET) --platform $(PLATFORM) --clock $(CLOCK)

.PHONY: vectors bench csim csynth cosim xo xclbin

vectors: $(FILES)/vectors/made
bench: $(WANTED:%=$(REPORTS)/%_bench.log)

csim: $(WANTED:%=$(REPORTS)/%_csim.log)
csynth: $(WANTED:%=$(REPORTS)/%_csynth.xml)
cosim: $(WANTED:%=$(REPORTS)/%_cosim.rpt)
xo: $(WANTED:%=$(CARD)/%.xo)
xclbin: $(CARD)/engine.$(CLOCK).xclbin

$(REPORTS)/%_csynth.xml: $(BUILD)/src/%.cpp $(FILES)/hls/%.tcl $(HEADERS)
	@$(RUN) hls csynth $(BUILD) $*

$(FILES)/vectors/made: $(BUILD)/program.json $(wildcard $(BUILD)/weights.bin $(BUILD)/quant.json) $(HEADERS) $(wildcard vitis/bench/*)
	@$(RUN) vectors $(BUILD)

$(REPORTS)/%_bench.log: $(BUILD)/src/%.cpp $(HEADERS) $(FILES)/vectors/made
	@$(RUN) bench $(BUILD) $*

$(REPORTS)/%_csim.log: $(BUILD)/src/%.cpp $(FILES)/hls/%.tcl $(HEADERS) $(FILES)/vectors/made
	@$(RUN) hls csim $(BUILD) $*

$(REPORTS)/%_cosim.rpt: $(BUILD)/src/%.cpp $(FILES)/hls/%.tcl $(HEADERS) $(FILES)/vectors/made
	@$(RUN) hls cosim $(BUILD) $* --cosim-options="$(COSIM_OPTIONS)"

$(CARD)/%.xo: $(BUILD)/src/%.cpp $(FILES)/compile/%.cfg $(HEADERS)
	@$(RUN) xo $(BUILD) $* $(CHOICE)

# A link that had to fall back leaves its xclbin under the clock that it was made for.
$(CARD)/engine.$(CLOCK).xclbin: $(KERNELS:%=$(CARD)/%.xo) $(FILES)/link/$(TARGET).$(CLOCK).cfg $(BUILD)/program.json
	@$(RUN) xclbin $(BUILD) $(CHOICE) $(if $(FALLBACK),--fallback $(FALLBACK_CLOCKS)) $(if $(PACKAGE),--package)
