# minim: build, run, test. `make help` lists the targets.
#
#   make CC=clang          another compiler           make SAN=address,undefined test   sanitizers
#   make V=1               show the commands          make B=dir                        another build folder

CC      ?= gcc
AR      ?= ar
CFLAGS  ?= -O3 -g
PREFIX  ?= /usr/local
comma   := ,
B       ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
Q       := $(if $(V),,@)

# The contract of kernels/kernels.h needs a*b+c to stay two roundings: -ffp-contract=off, and never -ffast-math.
FLAGS   := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -ffp-contract=off -fvisibility=hidden -fPIC -pthread -MMD -MP \
           $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
LIBS    := -lm -pthread

# Optional packages: what is missing is left out, and `make` says so.
have     = $(shell pkg-config --exists $(1) 2>/dev/null && echo 1)
HAVE_REMOTE := $(and $(call have,libcurl),$(call have,jansson))
HAVE_CMOCKA := $(call have,cmocka)
HAVE_HTTPD  := $(call have,libmicrohttpd)
HAVE_BLAS   := $(call have,openblas)

ENGINE_SRC := $(wildcard kernels/*.c kernels/ref/*.c kernels/x86/*.c models/*.c engine/*.c)
ROUTER_SRC := $(if $(HAVE_REMOTE),$(wildcard router/*.c))
TOOLS_SRC  := $(wildcard tools/*.c)
ENGINE_OBJ := $(ENGINE_SRC:%.c=$B/%.o)
ROUTER_OBJ := $(ROUTER_SRC:%.c=$B/%.o)
TOOLS_OBJ  := $(TOOLS_SRC:%.c=$B/%.o)
REMOTE_CFLAGS := $(if $(HAVE_REMOTE),$(shell pkg-config --cflags libcurl jansson) -DMINIM_WITH_ROUTER)
REMOTE_LIBS   := $(if $(HAVE_REMOTE),$(shell pkg-config --libs libcurl jansson))

.PHONY: all lib clean
all: $B/minim
lib: $B/libminim.a

$B/libminim.a: $(ENGINE_OBJ)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$B/libminim_router.a: $(ROUTER_OBJ)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$B/minim: $(TOOLS_OBJ) $(if $(HAVE_REMOTE),$B/libminim_router.a) $B/libminim.a
	$(Q)$(CC) $(FLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(REMOTE_LIBS) $(LIBS)

$B/router/%.o $B/tools/%.o: FLAGS += $(REMOTE_CFLAGS)
$B/models/default.o: models/stories260K.gguf

$B/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $<"
	$(Q)$(CC) $(FLAGS) $(CFLAGS) $(CPPFLAGS) -c -o $@ $<

clean:
	rm -rf build

-include $(ENGINE_OBJ:.o=.d) $(ROUTER_OBJ:.o=.d) $(TOOLS_OBJ:.o=.d)
