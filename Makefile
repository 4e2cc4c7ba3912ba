# minim: build, run, test. `make help` lists the targets.
#
#   make CC=clang                      another compiler
#   make SAN=address,undefined test    sanitizers, in a build folder of their own; SAN=thread too
#   make V=1                           show the commands
#   make APT=no run                    never install packages, only say which are missing
#
# The engine needs a C compiler and nothing else. What the other rooms need is looked for below.

ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS  ?= -O3 -g
OBJCOPY ?= $(AR:ar=objcopy)
PREFIX  ?= /usr/local
comma   := ,
B       ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
Q       := $(if $(V),,@)
VERSION := $(shell awk '/define MINIM_VERSION_/ { v = v d $$3; d = "." } END { print v }' engine/minim.h)

# As many jobs as there are CPUs, unless somebody chose (make -j1).
ifeq ($(MAKELEVEL)$(filter -j% --jobserver%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory

# ---- packages: what is missing is left out, and `make` says so ---------------------------------------------------------

# 1 when the compiler finds the header. Asking the compiler works where there is no pkg-config, too.
found = $(shell $(CC) $(CPPFLAGS) -include $(1) -fsyntax-only -x c /dev/null 2>/dev/null && echo 1)

HAVE_CURL    := $(call found,curl/curl.h)
HAVE_JANSSON := $(call found,jansson.h)
# Its header serves every architecture, its library one: a cross compiler has to link it.
HAVE_SQLITE  := $(if $(call found,sqlite3.h),$(shell echo 'int main(void) { return 0; }' | \
                  $(CC) -x c - -lsqlite3 -o /dev/null 2>/dev/null && echo 1))
HAVE_EDIT    := $(call found,histedit.h)
HAVE_BLAS    := $(call found,cblas.h)
HAVE_CMOCKA  := $(call found,stdarg.h -include stddef.h -include setjmp.h -include stdint.h -include cmocka.h)
HAVE_HTTPD   := $(call found,microhttpd.h)
HAVE_CXX     := $(shell $(CC) -fsyntax-only -x c++ /dev/null 2>/dev/null && echo 1)
HAVE_REMOTE  := $(and $(HAVE_CURL),$(HAVE_JANSSON))

# Their names in Debian and Ubuntu.
NEED_RUN  := $(if $(HAVE_CURL),,libcurl4-openssl-dev) $(if $(HAVE_JANSSON),,libjansson-dev) \
             $(if $(HAVE_SQLITE),,libsqlite3-dev) $(if $(HAVE_EDIT),,libedit-dev)
NEED_TEST := $(if $(HAVE_CMOCKA),,libcmocka-dev) $(if $(HAVE_HTTPD),,libmicrohttpd-dev) $(if $(HAVE_CXX),,g++)
NEED_BLAS := $(if $(HAVE_BLAS),,libopenblas-dev)
NEED_ARM  := $(if $(shell command -v aarch64-linux-gnu-gcc),,gcc-aarch64-linux-gnu libc6-dev-arm64-cross) \
             $(if $(shell command -v qemu-aarch64),,qemu-user)

# ---- flags -------------------------------------------------------------------------------------------------------------

# Bits are the same everywhere because a*b+c stays two roundings: -ffp-contract=off, and never -ffast-math. There is no
# -march: each kernel names its instruction set, and the best one is chosen when the program starts.
FLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -ffp-contract=off -fvisibility=hidden -fPIC -pthread \
         $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ROUTER_HAS  := $(if $(HAVE_REMOTE),-DMINIM_WITH_ROUTER) $(if $(HAVE_SQLITE),-DMINIM_WITH_LEDGER)
TOOLS_FLAGS := $(ROUTER_HAS) $(if $(HAVE_JANSSON),-DMINIM_WITH_JANSSON) $(if $(HAVE_EDIT),-DMINIM_WITH_EDIT)
ROUTER_LIBS := $(if $(HAVE_REMOTE),-lcurl -ljansson) $(if $(HAVE_SQLITE),-lsqlite3)
# OpenBLAS is loaded when it is wanted (tools/blas.c).
TOOLS_LIBS  := $(ROUTER_LIBS) $(if $(HAVE_JANSSON),-ljansson) $(if $(HAVE_EDIT),-ledit) $(if $(HAVE_BLAS),-ldl)
LIBS        := -lm -pthread

# ---- what there is to build --------------------------------------------------------------------------------------------

ENGINE_SRC  := $(wildcard kernels/*.c kernels/ref/*.c kernels/quants/*.c kernels/x86/*.c kernels/arm/*.c models/*.c engine/*.c)
# Without libcurl and jansson what includes their headers is left out; the router then has no remote to ask. Without SQLite
# it has no ledger.
with_remote := curl/curl.h|jansson.h|"openai.h"|"remote.h"|"remote_test.h"|MINIM_WITH_ROUTER
needs_remote = $(if $(HAVE_REMOTE),,$(shell grep -lE '$(with_remote)' $(1) /dev/null))
with_ledger := sqlite3.h|"ledger_sql.h"|MINIM_WITH_LEDGER
needs_ledger = $(if $(HAVE_SQLITE),,$(shell grep -lE '$(with_ledger)' $(1) /dev/null))
without      = $(filter-out $(call needs_remote,$(1)) $(call needs_ledger,$(1)),$(1))
ROUTER_SRC  := $(call without,$(wildcard router/*.c))
no_jansson  := $(if $(HAVE_JANSSON),,tools/convert_% tests/test_convert%)
TOOLS_SRC   := $(filter-out $(no_jansson),$(wildcard tools/*.c))
# tests/test_*.c, checkkern.c (with checkkern_*.c) and checkbits.c are programs; the other files in tests/ help them.
TEST_SRC    := $(filter-out $(no_jansson),$(call without,$(wildcard tests/test_*.c tests/checkkern.c)))
HELPER_SRC  := $(call without,$(filter-out tests/test_% tests/check% tests/fuzz_% tests/demo%,$(wildcard tests/*.c)))
BENCH_SRC   := $(wildcard bench/bench_*.c)

objects      = $(patsubst %.c,$B/%.o,$(1))
ENGINE_OBJ  := $(call objects,$(ENGINE_SRC))
ROUTER_OBJ  := $(call objects,$(ROUTER_SRC))
TOOLS_OBJ   := $(call objects,$(TOOLS_SRC))
HELPER_OBJ  := $(call objects,$(HELPER_SRC))
# bench/bench_*.c and bench/plot.c are programs; the other files in bench/ help them, and so do a few of tools/.
BENCH_HELP  := $(call objects,$(filter-out $(BENCH_SRC) bench/plot.c,$(wildcard bench/*.c)) \
                              tools/shapes.c tools/machine.c tools/json.c)
TEST_BIN    := $(TEST_SRC:%.c=$B/%)
BENCH_BIN   := $(BENCH_SRC:%.c=$B/%)
TEST_SCRIPT := $(wildcard tests/test_*.sh)
ARCHIVES    := $B/libminim_router.a $B/libminim.a

.PHONY: all lib run run-built demo demo-built test test-built test-asan test-arm bench bench-built bench-kernels plot plot-built checkkern \
        amalgam install format format-check lint clean help left-out FORCE
.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:

all: $B/minim left-out ## build the program
lib: $(ARCHIVES) ## build only the libraries (build/libminim.a)

left-out:
	@$(if $(HAVE_REMOTE),,echo "left out: remote models, so 'minim ask' needs --route local (install libcurl4-openssl-dev libjansson-dev)")
	@$(if $(HAVE_SQLITE),,echo "left out: the router's ledger, so no budgets, no cached answers, no 'minim route report' (install libsqlite3-dev)")
	@$(if $(HAVE_JANSSON),,echo "left out: 'minim convert', 'minim batch' (install libjansson-dev)")
	@$(if $(HAVE_EDIT),,echo "left out: line editing in 'minim chat' (install libedit-dev)")
	@$(if $(HAVE_BLAS),,echo "left out: 'minim quantize --method gptq', and the comparison with OpenBLAS in 'make bench' (install libopenblas-dev)")

# Objects are made anew when the compiler or its flags change, for example after a package was installed.
export BUILT_WITH := $(CC) $(FLAGS) $(TOOLS_FLAGS) $(CFLAGS) $(CPPFLAGS)
$B/flags: FORCE
	@mkdir -p $B
	@echo "$$BUILT_WITH" | cmp -s - $@ || echo "$$BUILT_WITH" > $@

COMMIT := $(shell git describe --always --dirty --exclude='*' 2>/dev/null)
$B/commit: FORCE
	@mkdir -p $B
	@echo "$(COMMIT)" | cmp -s - $@ || echo "$(COMMIT)" > $@

$B/%.o: %.c $B/flags
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(FLAGS) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<

$B/tools/%.o: FLAGS += $(TOOLS_FLAGS)
$B/tools/blas.o: FLAGS += $(if $(HAVE_BLAS),-DMINIM_WITH_OPENBLAS)
$B/router/evidence.o: FLAGS += $(if $(HAVE_REMOTE),-DMINIM_WITH_JSON)
$B/tests/%.o: FLAGS += $(ROUTER_HAS)
$B/bench/%.o: FLAGS += $(ROUTER_HAS) $(if $(HAVE_BLAS),-DMINIM_WITH_OPENBLAS)
$B/models/default.o: models/stories260K.gguf
# The commit stands beside every measurement; only this file is compiled anew when it changes.
$B/tools/machine.o: FLAGS += -DMINIM_COMMIT='"$(COMMIT)"' -DMINIM_CFLAGS='"$(CFLAGS)"'
$B/tools/machine.o: $B/commit

# A library is one object whose internal names cannot be seen, so that a program may have a pool_run() of its own. Tests and
# benchmarks look inside: they take libinternal.a.
$B/libminim.a: $B/libminim.o
$B/libminim_router.a: $B/libminim_router.o
$B/libminim.o: $(ENGINE_OBJ)
$B/libminim_router.o: $(ROUTER_OBJ)
$B/libminim.o $B/libminim_router.o:
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS) -nostdlib -r -o $@ $^
	$(Q)$(OBJCOPY) --localize-hidden $@

$B/libinternal.a: $(ENGINE_OBJ) $(ROUTER_OBJ)
$B/libhelpers.a: $(HELPER_OBJ)
$B/%.a:
	@echo "  AR    $@"
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

link = @echo "  LINK  $@"; mkdir -p $(@D)$(if $(V),; set -x); $(CC) $(FLAGS) $(CFLAGS) $(LDFLAGS) -o $@

$B/minim: $(TOOLS_OBJ) $(ARCHIVES)
	$(link) $^ $(TOOLS_LIBS) $(LIBS)

$(TEST_BIN) $B/tests/checkbits: $B/%: $B/%.o $B/libhelpers.a $B/libinternal.a
	$(link) $(filter %.o,$^) $(filter %.a,$^) $(if $(HAVE_CMOCKA),-lcmocka) $(if $(HAVE_HTTPD),-lmicrohttpd) $(ROUTER_LIBS) $(if $(HAVE_BLAS),-ldl) $(LIBS)

# The checks of checkkern are in files of their own.
$B/tests/checkkern: $(call objects,$(wildcard tests/checkkern_*.c))

# The only one that looks inside tools/.
$B/tests/test_encode: $(call objects,$(addprefix tools/,encode.c encode_search.c gptq.c blas.c gguf_write.c common.c output.c options.c))

# OpenBLAS concerns the benchmarks and one file of tools/: no reason to compile everything anew when it comes or goes.
$B/blas: FORCE
	@mkdir -p $B
	@echo "$(HAVE_BLAS)" | cmp -s - $@ || echo "$(HAVE_BLAS)" > $@
$(BENCH_HELP) $(BENCH_BIN:%=%.o) $B/tools/blas.o: $B/blas

$(BENCH_BIN): $B/%: $B/%.o $(BENCH_HELP) $B/libinternal.a
	$(link) $^ $(if $(HAVE_BLAS),-lopenblas) $(ROUTER_LIBS) $(LIBS)

$B/bench/plot: $B/bench/plot.o
	$(link) $^ -ljansson $(LIBS)

# ---- running -----------------------------------------------------------------------------------------------------------

# Packages are looked for when make starts, so make is called again once they are there.
install_packages = $(if $(strip $(1)),@APT=$(APT) sh tools/packages.sh $(strip $(1)) || true)

run: ## build and let the built-in model tell its story (ARGS='...' for more)
	$(call install_packages,$(NEED_RUN))
	@$(MAKE) run-built

run-built: all
	@echo
	@printf 'Once upon a time' && $B/minim ask --route local -n 101 "Once upon a time" $(ARGS)

demo: ## the router at work in one terminal, without any outside network
	$(call install_packages,$(NEED_RUN))
	@$(MAKE) demo-built

ifeq ($(and $(HAVE_REMOTE),$(HAVE_SQLITE)),)
demo-built:
	@echo "make demo cannot go on without libcurl4-openssl-dev, libjansson-dev and libsqlite3-dev"; exit 1
else
demo-built: all $B/tests/demo_remote
	@bash tests/demo.sh $B
endif

$B/tests/demo_remote: $B/tests/demo_remote.o
	$(link) $^

test: ## build and run all tests (SAN=address,undefined or SAN=thread: with sanitizers)
	$(call install_packages,$(NEED_RUN) $(NEED_TEST))
	@$(MAKE) test-built

# Larger test data lies beside the repository in some places; tests that find none there say so.
export MINIM_SHARED ?= $(abspath ../shared)

ifeq ($(and $(HAVE_CMOCKA),$(HAVE_HTTPD)),)
test-built:
	@echo "make test cannot go on without$(if $(HAVE_CMOCKA),, libcmocka-dev)$(if $(HAVE_HTTPD),, libmicrohttpd-dev)"; exit 1
else
test-built: all $(if $(and $(HAVE_REMOTE),$(HAVE_SQLITE)),$B/tests/demo_remote) $(TEST_BIN) $(BENCH_BIN) $(if $(HAVE_JANSSON),$B/bench/plot)
	@CC="$(CC)" B="$B" SAN="$(SAN)" LIBS="$(LIBS)" bash tests/run.sh $(TEST_BIN) $(TEST_SCRIPT)
endif

test-asan: ## the tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) SAN=address,undefined test

# Part of `make test` where its packages are: tests/test_arm.sh, one of the scripts.
test-arm: ## cross-compile for 64-bit Arm and test under qemu
	$(call install_packages,$(NEED_ARM))
	@$(MAKE) all
	@B="$B" ARM=must bash tests/test_arm.sh

checkkern: $B/tests/checkkern ## compare every kernel with the reference
	@$<

bench: ## build and run the benchmarks
	$(call install_packages,$(NEED_BLAS))
	@$(MAKE) bench-built

bench-built: all $(BENCH_BIN)
	@$(if $(BENCH_BIN),,echo "there are no benchmarks in bench/")
	@set -e; for program in $(BENCH_BIN); do $$program $(ARGS); done

bench-kernels: $B/bench/bench_kernels ## only the kernels
	@$< $(ARGS)

plot: ## measure the kernels and draw their roofline (SVG=build/roofline.svg, ARGS='--types all ...')
	$(call install_packages,$(NEED_BLAS) $(if $(HAVE_JANSSON),,libjansson-dev))
	@$(MAKE) plot-built

SVG ?= $B/roofline.svg
plot-built: $B/bench/bench_kernels $B/bench/plot
	@$B/bench/bench_kernels --json $(ARGS) > $B/roofline.json
	@$B/bench/plot $B/roofline.json $(SVG)
	@echo "$(SVG)"

# ---- for other programs ------------------------------------------------------------------------------------------------

amalgam: ## the engine as two files: build/minim.c and build/minim.h (WITH_MODEL=1: with the built-in model)
	@mkdir -p $B
	@sh tools/amalgamate.sh $B $(if $(WITH_MODEL),models/stories260K.gguf)

DEST = $(DESTDIR)$(PREFIX)
install: all lib ## install program, libraries, headers and minim.pc (PREFIX=/usr/local, DESTDIR=)
	install -d $(DEST)/bin $(DEST)/include $(DEST)/lib/pkgconfig
	install -m 755 $B/minim $(DEST)/bin/
	install -m 644 $(ARCHIVES) $(DEST)/lib/
	install -m 644 engine/minim.h router/minim_route_learn.h $(DEST)/include/
	sed 's|"../engine/minim.h"|"minim.h"|' router/minim_router.h > $(DEST)/include/minim_router.h
	sh tools/pkgconfig.sh "$(PREFIX)" "$(VERSION)" minim > $(DEST)/lib/pkgconfig/minim.pc
	sh tools/pkgconfig.sh "$(PREFIX)" "$(VERSION)" minim_router "$(if $(HAVE_REMOTE),libcurl jansson) $(if $(HAVE_SQLITE),sqlite3)" \
	    > $(DEST)/lib/pkgconfig/minim_router.pc

# ---- for who works on it -----------------------------------------------------------------------------------------------

ALL_SRC   := $(wildcard engine/*.[ch] kernels/*.[ch] kernels/*/*.[ch] models/*.[ch] router/*.[ch] tools/*.[ch] tests/*.[ch] \
                        bench/*.[ch])
have_tool  = command -v $(1) >/dev/null || { echo "$(1) is not installed: apt-get install $(1)"; exit 1; }

format: ## clang-format, in place
	@$(call have_tool,clang-format)
	@clang-format -i $(ALL_SRC)

format-check: ## complain where clang-format would change something
	@$(call have_tool,clang-format)
	@clang-format --dry-run --Werror $(ALL_SRC)

LINT_SRC   := $(ENGINE_SRC) $(ROUTER_SRC) $(TOOLS_SRC) $(call without,$(wildcard bench/*.c))
LINT_FLAGS := -std=c11 -D_GNU_SOURCE $(TOOLS_FLAGS)
LINT_STAMP := $(LINT_SRC:%.c=$B/lint/%.ok)

lint: lint-cppcheck $(LINT_STAMP) ## cppcheck and clang-tidy; clean or it fails

.PHONY: lint-cppcheck
lint-cppcheck:
	@$(call have_tool,cppcheck)
	@echo "  CPPCHECK"
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppressions-list=tools/cppcheck.txt -D_GNU_SOURCE -D__GNUC__ -D__x86_64__ -D__linux__ $(TOOLS_FLAGS) $(LINT_SRC)

$B/lint/%.ok: %.c .clang-tidy $(filter %.h,$(ALL_SRC))
	@$(call have_tool,clang-tidy)
	@mkdir -p $(@D)
	@echo "  TIDY  $<"
	@clang-tidy --quiet $< -- $(LINT_FLAGS) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

clean: ## remove build/
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s%s\n", $$1, $$2 }' Makefile

-include $(shell find $B -name '*.d' 2>/dev/null)
