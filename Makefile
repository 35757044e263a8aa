# sandboxfs: build, check, install. Read from top to bottom.
#
#   make            build/sandboxfs and build/sandboxd
#   make run        install what is missing, build, mount a sandbox on ./mnt;  make stop  unmounts
#   make check      install what tests need, build, run every test
#   make bench      measure against the bare disk and sshfs
#   make lint       formatting and clang-tidy
#   make asan tsan  the programs under sanitizers; make check SAN=address,undefined tests them
#   make install    PREFIX=/usr/local, DESTDIR= for packagers;  make uninstall

# --- yours to override ---
CC ?= cc
CFLAGS ?= -O2 -g
LDFLAGS ?=
PREFIX ?= /usr/local
DESTDIR ?=
WERROR ?= -Werror
PKG_CONFIG ?= pkg-config
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
# sanitizers of a build of its own, e.g. SAN=address,undefined
SAN ?=
# where everything goes; tests read the same variable to know what they test
comma := ,
empty :=
BUILD ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

# --- ours ---
O := $(BUILD)/obj
ALL_CPPFLAGS = -D_GNU_SOURCE -Isandboxfs -Ictl -Icontrib/common $(CPPFLAGS)
ALL_CFLAGS = -std=c17 -Wall -Wextra $(WERROR) $(CFLAGS) -pthread \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
ALL_LDFLAGS = $(LDFLAGS) -pthread $(if $(SAN),-fsanitize=$(SAN))

# Asked when a recipe runs, not when this file is read: `make run` may just have installed them.
FS_PKGS := fuse3 libcurl json-c libpcre2-8 nettle
# Debian's wslay says nothing to pkg-config.
WSLAY_LIBS ?= -lwslay
D_PKGS := libmicrohttpd json-c libarchive
TEST_PKGS := $(FS_PKGS) $(D_PKGS) cmocka
pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1))
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1))

FS_SRC := $(wildcard sandboxfs/*.c ctl/*.c) contrib/common/buf.c contrib/common/spool.c \
	contrib/common/fileop.c
D_SRC := $(wildcard contrib/sandboxd/*.c contrib/common/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
# Inside a sandbox the environment is empty: what sanitizers do there is compiled in.
ifneq ($(SAN),)
FS_SRC += tests/lib/san_options.c
D_SRC += tests/lib/san_options.c
endif
HEADERS := $(wildcard sandboxfs/*.h ctl/*.h contrib/common/*.h contrib/sandboxd/*.h)

all: $(BUILD)/sandboxfs $(BUILD)/sandboxd

$(BUILD)/sandboxfs: $(FS_SRC:%.c=$O/%.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(call pkg_libs,$(FS_PKGS)) $(WSLAY_LIBS) $(LDLIBS)

$(BUILD)/sandboxd: $(D_SRC:%.c=$O/%.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(call pkg_libs,$(D_PKGS)) $(LDLIBS)

$O/sandboxfs/%.o $O/ctl/%.o: PKGS = $(FS_PKGS)
$O/contrib/%.o: PKGS = $(D_PKGS)
$O/tests/%.o: PKGS = $(TEST_PKGS)
$O/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(call pkg_cflags,$(PKGS)) -MMD -MP -c -o $@ $<

# Compiled in by the assembler, which -MMD does not see.
$O/contrib/sandboxd/interpreter_scripts.o: $(wildcard contrib/sandboxd/interpreter/*)

# A unit test is one program; its first line, /* links: a.c b.c */, names the sources it is linked with.
unit: $(UNIT)
unit_links = $(patsubst %.c,$O/%.o,$(shell sed -n '1s|^/\* *links: *\([^*]*\)\*/.*|\1|p' tests/unit/$(1).c))
.SECONDEXPANSION:
$(BUILD)/unit/%: $O/tests/unit/%.o $$(call unit_links,$$*)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--as-needed $(call pkg_libs,$(TEST_PKGS)) $(WSLAY_LIBS) $(LDLIBS)

# --- what tests, packagers and people at a terminal ask for ---
deps:
	contrib/deps
deps-test:
	contrib/deps test
deps-bench:
	contrib/deps bench

run: deps all
	contrib/demo start $(BUILD)
stop:
	contrib/demo stop $(BUILD)

check: deps-test all unit
	BUILD=$(BUILD) SAN=$(SAN) tests/run $(TESTS)
bench: deps-bench all
	BUILD=$(BUILD) tests/bench/bench

# These goals install compilers and libraries first, so nothing may be compiled before.
READY := $(if $(filter bench,$(MAKECMDGOALS)),deps-bench) \
	$(if $(filter check,$(MAKECMDGOALS)),deps-test) $(if $(filter run,$(MAKECMDGOALS)),deps)
$(sort $(FS_SRC:%.c=$O/%.o) $(D_SRC:%.c=$O/%.o) $(UNIT_SRC:%.c=$O/%.o)): | $(READY)

asan:
	$(MAKE) SAN=address,undefined all unit
tsan:
	$(MAKE) SAN=thread all unit

lint: lint-format lint-tidy
lint-format:
	$(CLANG_FORMAT) --dry-run -Werror $(FS_SRC) $(D_SRC) $(UNIT_SRC) $(HEADERS)
lint-tidy:
	printf '%s\n' $(sort $(FS_SRC) $(D_SRC)) | xargs -n 4 -P "$$(nproc)" sh -c \
		'$(CLANG_TIDY) --quiet "$$@" -- -std=c17 $(ALL_CPPFLAGS) $(call pkg_cflags,$(TEST_PKGS))' sh

install: all
	install -D -m 755 $(BUILD)/sandboxfs $(DESTDIR)$(PREFIX)/bin/sandboxfs
	install -D -m 755 $(BUILD)/sandboxd $(DESTDIR)$(PREFIX)/bin/sandboxd
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/sandboxfs $(DESTDIR)$(PREFIX)/bin/sandboxd

clean:
	rm -rf $(BUILD)

.PHONY: all unit deps deps-test deps-bench run stop check bench asan tsan lint lint-format lint-tidy install uninstall clean
.DELETE_ON_ERROR:
.SECONDARY:

-include $(FS_SRC:%.c=$O/%.d) $(D_SRC:%.c=$O/%.d) $(UNIT_SRC:%.c=$O/%.d)
