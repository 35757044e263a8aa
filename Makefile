# sandboxfs: build, check, install. Read from top to bottom.
#
#   make            build/sandboxfs and build/sandboxd
#   make helper     sandboxd as one file that runs in any image, for this machine (part of all), and after
#                   make sysroot  for the other one, x86_64 or aarch64, too
#   make run        install what is missing, build, mount a sandbox on ./mnt;  make stop  unmounts
#   make check      install what tests need, build, run every test
#   make badlink    10 minutes (MINUTES=) of file work over a link that drops, tears, stalls and refuses
#   make bench      measure against the bare disk and sshfs
#   make fuzz       every parser with bytes of chance, FUZZ_TIME=60 seconds each
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
# -iquote, so that no header of ours hides one of a library
ALL_CPPFLAGS = -D_GNU_SOURCE -iquote sandboxfs -iquote ctl -iquote contrib/common $(CPPFLAGS)
ALL_CFLAGS = -std=c17 -Wall -Wextra $(WERROR) $(CFLAGS) -pthread \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
ALL_LDFLAGS = $(LDFLAGS) -pthread $(if $(SAN),-fsanitize=$(SAN))

# Asked when a recipe runs, not when this file is read: `make run` may just have installed them.
FS_PKGS := fuse3 libcurl json-c libpcre2-8 nettle zlib
# Debian's wslay says nothing to pkg-config.
WSLAY_LIBS ?= -lwslay
D_PKGS := libmicrohttpd json-c libarchive nettle zlib
TEST_PKGS := $(FS_PKGS) $(D_PKGS) cmocka
pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1))
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1))

FS_SRC := $(wildcard sandboxfs/*.c ctl/*.c) contrib/common/buf.c contrib/common/spool.c \
	contrib/common/fileop.c contrib/common/mux.c contrib/common/mux_connection.c contrib/common/tree_remove.c
D_SRC := $(wildcard contrib/sandboxd/*.c contrib/common/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
# Inside a sandbox the environment is empty: what sanitizers do there is compiled in.
ifneq ($(SAN),)
FS_SRC += tests/lib/san_options.c
D_SRC += tests/lib/san_options.c
endif
PAGES := $(notdir $(wildcard contrib/man/*.[1-8]))
SHARE = $(PREFIX)/share
HEADERS := $(wildcard sandboxfs/*.h ctl/*.h contrib/common/*.h contrib/sandboxd/*.h)

all: $(BUILD)/sandboxfs $(BUILD)/sandboxd helper

$(BUILD)/sandboxfs: $(FS_SRC:%.c=$O/%.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(call pkg_libs,$(FS_PKGS)) $(WSLAY_LIBS) $(LDLIBS)

$(BUILD)/sandboxd: $(D_SRC:%.c=$O/%.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(call pkg_libs,$(D_PKGS)) $(LDLIBS)

# The helper is sandboxd linked statically: sandboxfs carries it into sandboxes whose own server is another. For this machine it is
# made of the objects above, where they are not sanitized, and what is there to link it is asked when its recipe runs, as above.
# For the other machine it is made if its compiler is here and `make sysroot` was.
MACHINES := x86_64 aarch64
MACHINE := $(shell uname -m)
SYSROOT ?= build/sysroot
H_SRC := $(wildcard contrib/sandboxd/*.c contrib/common/*.c) contrib/helper/no_tls.c
helper_cc = $(if $(filter $(MACHINE),$(1)),$(CC),$(1)-linux-gnu-gcc -B$(SYSROOT)/$(1)/lib -idirafter $(SYSROOT)/$(1)/include)
helper_obj = $(BUILD)/obj$(if $(SAN)$(filter-out $(MACHINE),$(1)),/helper-$(1))
helper_able = $(if $(wildcard $(SYSROOT)/$(1)),$(shell contrib/helper/link -n '$(call helper_cc,$(1))' >/dev/null && echo yes))
HELPERS := $(foreach m,$(MACHINES),$(if $(filter $(MACHINE),$(m)),$(m),$(if $(call helper_able,$(m)),$(m))))
helper: $(HELPERS:%=$(BUILD)/helper/sandboxd-%.gz)
sysroot:
	for machine in $(filter-out $(MACHINE),$(MACHINES)); do contrib/helper/sysroot $$machine $(SYSROOT) || exit 1; done

define helper_rules
$(BUILD)/helper/sandboxd-$(1).gz: $(H_SRC:%.c=$(call helper_obj,$(1))/%.o) contrib/helper/link
	@if missing=$$$$(contrib/helper/link -n '$(call helper_cc,$(1))'); then \
		contrib/helper/link '$(call helper_cc,$(1))' $$(@:.gz=) $(H_SRC:%.c=$(call helper_obj,$(1))/%.o); \
	else echo "no helper for $(1): no $$$$missing (contrib/deps)"; fi
$(if $(filter $O,$(call helper_obj,$(1))),,$(call helper_obj,$(1))/%.o: %.c Makefile
	@mkdir -p $$(@D)
	$(call helper_cc,$(1)) $$(ALL_CPPFLAGS) -std=c17 -Wall -Wextra $$(WERROR) $$(CFLAGS) -pthread -MMD -MP -c -o $$@ $$<)
endef
$(foreach m,$(HELPERS),$(eval $(call helper_rules,$(m))))

$O/sandboxfs/%.o $O/ctl/%.o: PKGS = $(FS_PKGS)
$O/contrib/%.o: PKGS = $(D_PKGS)
$O/tests/%.o: PKGS = $(TEST_PKGS)
$O/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(call pkg_cflags,$(PKGS)) -MMD -MP -c -o $@ $<

# Compiled in by the assembler, which -MMD does not see.
$(addsuffix /contrib/sandboxd/interpreter_scripts.o,$(sort $O $(foreach m,$(HELPERS),$(call helper_obj,$(m))))): \
	$(wildcard contrib/sandboxd/interpreter/*)

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
cloudflare-deps:
	tests/cloudflare/deps

run: deps all
	contrib/demo start $(BUILD)
stop:
	contrib/demo stop $(BUILD)

check: deps-test cloudflare-deps all unit
	BUILD=$(BUILD) SAN=$(SAN) tests/run $(TESTS)
badlink: all
	MINUTES=$(or $(MINUTES),10) BUILD=$(BUILD) SERVER=local bats --filter 'mixed file work' tests/mount/badlink.bats

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

# A fuzz target is one program too; its first line is as a unit test's. What it includes a room for stands in that
# room alone, so that what others would give it may be missing.
FUZZ_CC ?= clang
FUZZ_TIME ?= 60
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
fuzz_links = $(shell sed -n '1s|^/\* *links: *\([^*]*\)\*/.*|\1|p' tests/fuzz/$(1).c)
fuzz-programs: $(FUZZ)
$(BUILD)/fuzz/%: tests/fuzz/%.c $$(call fuzz_links,$$*) $(HEADERS) tests/fuzz/fuzz.h Makefile
	@mkdir -p $(@D)
	$(FUZZ_CC) $(ALL_CPPFLAGS) -iquote contrib/sandboxd -std=c17 -Wall -Wextra $(WERROR) -g -O1 -fno-pie -no-pie -pthread \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined $(call pkg_cflags,$(TEST_PKGS)) \
		-o $@ $(filter %.c,$^) -Wl,--unresolved-symbols=ignore-all $(call pkg_libs,$(TEST_PKGS))
fuzz: fuzz-programs
	FUZZ_TIME=$(FUZZ_TIME) BUILD=$(BUILD) tests/fuzz/run

# The Worker of contrib/worker: its types and its style. Its tests are among those of tests/cloudflare.
worker-check:
	@if command -v npm >/dev/null; then cd contrib/worker && \
		{ [ -x node_modules/.bin/tsc ] || for pause in 0 10 20 30; do \
			sleep $$pause; npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && break; \
		done; } && npm run -s check; \
	else echo 'contrib/worker: not checked, needs node and npm'; fi

lint: lint-format lint-tidy lint-shell lint-man
lint-format:
	$(CLANG_FORMAT) --dry-run -Werror $(FS_SRC) $(D_SRC) contrib/helper/no_tls.c $(wildcard tests/unit/*.[ch]) $(HEADERS) $(FUZZ_SRC) tests/fuzz/fuzz.h
lint-shell:
	shellcheck -s sh contrib/demo contrib/deps contrib/helper/link contrib/helper/sysroot contrib/sbx/sbx contrib/sbx/sbx-sh contrib/editors/sbx-follow tests/fuzz/run tests/cloudflare/deps tests/lib/unshared .ci/run
	shellcheck -s bash contrib/completions/sbx.bash tests/run tests/lib/where.sh
	shellcheck -s bats --include=SC2314,SC2315 tests/*/*.bats # a ! that fails no test
lint-man:
	mandoc -T lint $(PAGES:%=contrib/man/%)
	for page in $(PAGES); do man --warnings -l contrib/man/$$page 2>&1 >/dev/null | { ! grep .; } || exit 1; done
lint-tidy:
	printf '%s\n' $(sort $(FS_SRC) $(D_SRC)) | xargs -n 4 -P "$$(nproc)" sh -c \
		'$(CLANG_TIDY) --quiet "$$@" -- -std=c17 $(ALL_CPPFLAGS) $(call pkg_cflags,$(TEST_PKGS))' sh

install: all
	install -D -m 755 $(BUILD)/sandboxfs $(DESTDIR)$(PREFIX)/bin/sandboxfs
	install -D -m 755 $(BUILD)/sandboxd $(DESTDIR)$(PREFIX)/bin/sandboxd
	for machine in $(HELPERS); do test ! -e $(BUILD)/helper/sandboxd-$$machine.gz || install -D -m 644 \
		$(BUILD)/helper/sandboxd-$$machine.gz $(DESTDIR)$(PREFIX)/lib/sandboxfs/helper/sandboxd-$$machine.gz || exit 1; done
	install -D -m 755 contrib/sbx/sbx $(DESTDIR)$(PREFIX)/bin/sbx
	install -D -m 755 contrib/sbx/sbx-sh $(DESTDIR)$(PREFIX)/bin/sbx-sh
	install -D -m 755 contrib/editors/sbx-follow $(DESTDIR)$(PREFIX)/bin/sbx-follow
	install -D -m 644 contrib/completions/sbx.bash $(DESTDIR)$(SHARE)/bash-completion/completions/sbx
	install -D -m 644 contrib/completions/_sbx $(DESTDIR)$(SHARE)/zsh/site-functions/_sbx
	install -D -m 644 contrib/completions/sbx.fish $(DESTDIR)$(SHARE)/fish/vendor_completions.d/sbx.fish
	for page in $(PAGES); do \
		install -D -m 644 contrib/man/$$page $(DESTDIR)$(SHARE)/man/man$${page##*.}/$$page || exit 1; done
uninstall:
	cd $(DESTDIR)$(PREFIX)/bin && rm -f sandboxfs sandboxd sbx sbx-sh sbx-follow
	rm -rf $(DESTDIR)$(PREFIX)/lib/sandboxfs
	cd $(DESTDIR)$(SHARE) && rm -f bash-completion/completions/sbx zsh/site-functions/_sbx \
		fish/vendor_completions.d/sbx.fish $(foreach page,$(PAGES),man/man$(subst .,,$(suffix $(page)))/$(page))

clean:
	rm -rf $(BUILD)

.PHONY: all worker-check helper sysroot unit deps deps-test deps-bench cloudflare-deps run stop check badlink bench asan tsan fuzz fuzz-programs lint lint-format lint-tidy lint-shell lint-man install uninstall clean
.DELETE_ON_ERROR:
.SECONDARY:

-include $(foreach m,$(HELPERS),$(H_SRC:%.c=$(call helper_obj,$(m))/%.d))
-include $(FS_SRC:%.c=$O/%.d) $(D_SRC:%.c=$O/%.d) $(patsubst %.c,$O/%.d,$(wildcard tests/unit/*.c))
