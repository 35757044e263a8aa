/*
 * The command line: one table of options with type, place, default and help. See options.h.
 * Read once; what is kept is constant afterwards. Prints its own errors, one sentence each.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buf.h"
#include "cleanup.h"
#include "ctl.h"
#include "options.h"

enum kind { O_BOOL, O_STRING, O_MS, O_SIZE, O_UID, O_GID, O_UMASK, O_CHOICE, O_LIMITS, O_PASS };
enum { HELP_COLUMN = 27 };

static const struct option_row {
	const char *name;
	enum kind kind;
	size_t at;
	const char *fallback;
	const char *
		value; /* as --help shows it; of a choice, "a|b": the number of the word is stored as an enum */
	const char *help;
	bool local; /* means something on local: alone */
} rows[] = {
#define AT(field) offsetof(struct options, field)
	{"sandbox", O_STRING, AT(sandbox), NULL, "NAME", "mount this sandbox alone", false},
	{"create", O_BOOL, AT(create), NULL, NULL, "with sandbox=: make it if there is none", false},
	{"preview-host", O_STRING, AT(preview_host), NULL, "HOST",
		"where URLs of ports/ of a bridge are: a domain of contrib/worker's, or trycloudflare.com",
		false},
	{"subdir", O_STRING, AT(subdir), NULL, "workspace",
		"with sandbox=: mount its workspace alone (its control tree is at .ctl)", false},
	{"timeout", O_MS, AT(timeout_ms), "60s", "DUR", "how long a server may be silent", false},
	{"start", O_MS, AT(start_ms), "150s", "DUR",
		"how long a sandbox may take to start where a bridge starts it", false},
	{"drain", O_MS, AT(drain_ms), "30s", "DUR", "how long SIGTERM waits for unsent writes", false},
	{"output-max", O_SIZE, AT(output_max), "256M", "SIZE", "output kept of each run and process",
		false},
	{"symlinks", O_CHOICE, AT(symlinks), "rewrite", "rewrite|verbatim",
		"rewrite: links out of the tree read as paths into root/; verbatim: the stored text",
		false},
	{"idmap", O_CHOICE, AT(idmap), "user", "user|none",
		"user: all belongs to you; none: real numbers", false},
	{"uid", O_UID, AT(uid), NULL, "N", "who owns what is shown (idmap=user) [you]", false},
	{"gid", O_GID, AT(gid), NULL, "N", "its group [yours]", false},
	{"umask", O_UMASK, AT(umask), NULL, "OCTAL", "bits taken from every mode shown", false},
	{"ro", O_BOOL, AT(ro), NULL, NULL, "read only", false},
	{"allow_other", O_BOOL, AT(allow_other), NULL, NULL, "other users may enter (never ctl/)",
		false},
	{"allow_root", O_BOOL, AT(allow_root), NULL, NULL, "root may enter", false},
	{"auto_unmount", O_BOOL, AT(auto_unmount), NULL, NULL, "unmount when the program dies", false},
	{"list-root", O_BOOL, AT(list_root), NULL, NULL, "show root/ in listings", false},
	{"token_file", O_STRING, AT(token_file), NULL, "FILE", "holds the bearer token of a server",
		false},
	{"net", O_CHOICE, AT(net), "internet", "internet|lan|none", "what a sandbox reaches", true},
	{"min-free", O_SIZE, AT(min_free), "256M", "SIZE",
		"disk space that writes through the mount leave free; commands inside are not bound by it",
		true},
	{"limits", O_LIMITS, 0, NULL, "LIMIT[+LIMIT]...",
		"processes:N of a sandbox; memory:SIZE of each process alone (data and heap, not all of "
		"them together); tmp:SIZE of /tmp",
		true},
	{"noexec", O_PASS, 0, NULL, NULL, "programs of the mount do not run here", false},
	{"noatime", O_PASS, 0, NULL, NULL, NULL, false},
#undef AT
};

/* What mount(8) and fstab add, and means nothing here. */
static const char *const ignored[] = {"rw", "dev", "nodev", "suid", "nosuid", "exec", "async",
	"sync", "atime", "relatime", "auto", "noauto", "user", "users", "nouser", "owner", "group",
	"nofail", "_netdev", "defaults", "default_permissions", NULL};

static int fail(const char *fmt, const char *a, const char *b)
{
	fputs("sandboxfs: ", stderr);
	fprintf(stderr, fmt, a, b);
	fputc('\n', stderr);
	return -EINVAL;
}

static int parse_size(const char *s, uint64_t *out)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long n;
	unsigned shift = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		const char *u = strchr(units, *end & ~0x20);
		if (!u || !*u || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(u - units + 1);
	}
	if (shift && n > (UINT64_MAX >> shift))
		return -EINVAL;
	*out = (uint64_t)n << shift;
	return 0;
}

static int parse_limits(struct options *o, const char *value)
{
	AUTO_FREE char *copy = strdup(value);
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	for (char *w = strtok_r(copy, "+", &save); w; w = strtok_r(NULL, "+", &save)) {
		char *v = strchr(w, ':');
		uint64_t *to;

		if (!v)
			return -EINVAL;
		*v++ = 0;
		to = strcmp(w, "processes") == 0 ? &o->limit_processes
			 : strcmp(w, "memory") == 0  ? &o->limit_memory
			 : strcmp(w, "tmp") == 0     ? &o->limit_tmp
										 : NULL;
		if (!to || parse_size(v, to) < 0)
			return -EINVAL;
	}
	return 0;
}

static int parse_choice(const char *choices, const char *value, int *out)
{
	size_t n = strlen(value);
	int number = 0;

	for (const char *c = choices; c; number++) {
		const char *end = strchr(c, '|');
		size_t len = end ? (size_t)(end - c) : strlen(c);

		if (len == n && memcmp(c, value, n) == 0) {
			*out = number;
			return 0;
		}
		c = end ? end + 1 : NULL;
	}
	return -EINVAL;
}

static int set_value(struct options *o, const struct option_row *r, const char *value)
{
	char *place = (char *)o + r->at;
	int64_t number;
	int choice;

	switch (r->kind) {
	case O_BOOL:
		*(bool *)place = true;
		return 0;
	case O_STRING:
		free(*(char **)place);
		*(char **)place = strdup(value);
		return *(char **)place ? 0 : -ENOMEM;
	case O_MS:
		if (ctl_parse_duration(value, &number) < 0 || number < 1)
			return -EINVAL;
		*(int64_t *)place = number;
		return 0;
	case O_SIZE:
		return parse_size(value, (uint64_t *)place);
	case O_UID:
	case O_GID:
		if (ctl_parse_number(value, 0, UINT32_MAX - 1, &number) < 0)
			return -EINVAL;
		*(uint32_t *)place = (uint32_t)number;
		return 0;
	case O_UMASK: {
		char *end;
		unsigned long m = strtoul(value, &end, 8);
		if (!*value || *end || m > 0777)
			return -EINVAL;
		o->umask = (mode_t)m;
		o->has_umask = true;
		return 0;
	}
	case O_CHOICE:
		if (parse_choice(r->value, value, &choice) < 0)
			return -EINVAL;
		*(int *)place = choice; /* the enums of options.h are ints */
		return 0;
	case O_LIMITS:
		return parse_limits(o, value);
	case O_PASS: {
		AUTO_BUF b = BUF_INIT;
		buf_printf(&b, "%s%s%s", o->pass ? o->pass : "", o->pass ? "," : "", r->name);
		free(o->pass);
		o->pass = buf_steal(&b);
		return o->pass ? 0 : -ENOMEM;
	}
	}
	return -EINVAL;
}

static bool is_ignored(const char *word)
{
	if (strncmp(word, "x-", 2) == 0 || strncmp(word, "comment=", 8) == 0 ||
		strncmp(word, "user=", 5) == 0)
		return true;
	for (size_t i = 0; ignored[i]; i++)
		if (strcmp(ignored[i], word) == 0)
			return true;
	return false;
}

static int one_option(struct options *o, char *word)
{
	char *value = strchr(word, '=');

	if (!*word || is_ignored(word))
		return 0;
	if (value)
		*value++ = 0;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct option_row *r = &rows[i];
		bool plain = r->kind == O_BOOL || r->kind == O_PASS;

		if (strcmp(r->name, word) != 0)
			continue;
		if (plain && value)
			return fail("-o %s takes no value%s; see sandboxfs --help", word, "");
		if (!plain && (!value || !*value))
			return fail("-o %s= needs a value%s; see sandboxfs --help", word, "");
		if (set_value(o, r, value ? value : "") < 0)
			return fail(
				"-o %s=%s is not a value for it; see sandboxfs --help", word, value ? value : "");
		if (r->local)
			o->for_local = r->name;
		return 0;
	}
	return fail("-o %s is not an option%s; see sandboxfs --help", word, "");
}

/* Options are separated by commas; \, is a comma within one. */
static int option_list(struct options *o, const char *list)
{
	AUTO_BUF word = BUF_INIT;
	int err = 0;

	for (const char *p = list; !err; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\')) {
			buf_char(&word, *++p);
		} else if (*p && *p != ',') {
			buf_char(&word, *p);
		} else {
			buf_char(&word, 0);
			err = word.failed ? -ENOMEM : one_option(o, word.data);
			buf_clear(&word);
			if (!*p)
				break;
		}
	}
	return err;
}

void options_help(FILE *to)
{
	fputs(
		"usage: sandboxfs [-f] [-d] [-o OPTION[,OPTION]...] [SERVER] MOUNTPOINT\n"
		"       sandboxfs -u MOUNTPOINT [--kill]\n\n"
		"SERVER  local: (the default), local:DIR, unix:/path, http://host:port, https://bridge\n\n"
		"  -f         stay in the foreground, log to stderr\n"
		"  -d         the same, with every request of the kernel\n"
		"  -u         unmount: waits until all that was written is in the sandbox\n"
		"  --kill     with -u: end processes that run, and a program that does not end by itself\n"
		"  -V, -h     version, this help\n\noptions (-o):\n",
		to);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct option_row *r = &rows[i];
		int width;

		if (!r->help)
			continue;
		width = fprintf(to, "  %s%s%s", r->name, r->value ? "=" : "", r->value ? r->value : "");
		fprintf(to, "%*s%s%s", width < HELP_COLUMN ? HELP_COLUMN - width : 2, "",
			r->local ? "local: " : "", r->help);
		if (r->fallback)
			fprintf(to, " [%s]", r->fallback);
		fputc('\n', to);
	}
	fputs("\nDUR is 500ms, 30s, 10m, 2h, or seconds. SIZE is bytes, or with K, M, G or T: 256M.\n",
		to);
}

static int defaults(struct options *o)
{
	o->uid = getuid();
	o->gid = getgid();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].fallback && set_value(o, &rows[i], rows[i].fallback) < 0)
			return -EINVAL;
	return 0;
}

static int check(struct options *o)
{
	if (o->subdir && strcmp(o->subdir, "workspace") != 0)
		return fail("-o subdir=%s: the one subdir is `workspace`%s", o->subdir, "");
	if (o->subdir && !o->sandbox)
		return fail("-o subdir=%s needs -o sandbox=NAME%s", o->subdir, "");
	if (o->create && !o->sandbox)
		return fail(
			"-o create goes with -o sandbox=NAME%s%s; in other mounts mkdir makes one", "", "");
	if (o->create && o->ro)
		return fail("-o create makes a sandbox, which -o ro forbids%s%s; leave one out", "", "");
	if (o->for_local && strncmp(o->server, "local:", 6) != 0)
		return fail("-o %s is for local: alone; the sandbox at %s is set up where it was started",
			o->for_local, o->server);
	if (o->token_file && strncmp(o->server, "local:", 6) == 0)
		return fail("-o token_file=%s: a local: server takes no token%s", o->token_file, "");
	if (o->allow_other && o->allow_root)
		return fail("-o allow_other and -o allow_root exclude each other%s%s", "", "");
	if (o->token_file && access(o->token_file, R_OK) < 0)
		return fail("-o token_file=%s: %s", o->token_file, strerror(errno));
	if (strncmp(o->server, "http", 4) == 0 && strchr(o->server, '@'))
		return fail(
			"%s: credentials do not belong into an address%s; use -o token_file=", "SERVER", "");
	return 0;
}

/* Schemes are the same in any case, what follows is not. */
static void lower_scheme(char *server)
{
	static const char *const kinds[] = {"local:", "unix:", "http:", "https:"};

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (strncasecmp(server, kinds[i], strlen(kinds[i])) == 0)
			memcpy(server, kinds[i], strlen(kinds[i]));
}

/* A relative DIR or socket path is meant from here, and the program leaves for /. */
static int absolute_server(struct options *o)
{
	static const char *const kinds[] = {"local:", "unix:"};

	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(kinds[i]);
		AUTO_BUF b = BUF_INIT;
		AUTO_FREE char *here = NULL;

		if (strncmp(o->server, kinds[i], n) != 0 || !o->server[n] || o->server[n] == '/')
			continue;
		here = getcwd(NULL, 0);
		if (!here)
			return -errno;
		buf_printf(&b, "%s%s/%s", kinds[i], here, o->server + n);
		free(o->server);
		o->server = buf_steal(&b);
		return o->server ? 0 : -ENOMEM;
	}
	return 0;
}

static int words(struct options *o, int argc, char **argv, const char **server, const char **mnt)
{
	bool only_names = false;

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (only_names || a[0] != '-' || !a[1]) {
			if (!*server && !*mnt) {
				*mnt = a;
			} else if (!*server) {
				*server = *mnt;
				*mnt = a;
			} else {
				return fail(
					"one SERVER and one MOUNTPOINT; `%s` is too many%s; see sandboxfs --help", a,
					"");
			}
		} else if (strcmp(a, "--") == 0) {
			only_names = true;
		} else if (strncmp(a, "-o", 2) == 0) {
			const char *list = a[2] ? a + 2 : ++i < argc ? argv[i] : NULL;
			int err = list ? option_list(o, list) : fail("-o needs options%s%s", "", "");
			if (err)
				return err;
		} else if (strcmp(a, "-f") == 0) {
			o->foreground = true;
		} else if (strcmp(a, "-d") == 0) {
			o->foreground = o->debug = true;
		} else if (strcmp(a, "-u") == 0) {
			o->unmount = true;
		} else if (strcmp(a, "--kill") == 0) {
			o->kill = true;
		} else if (strcmp(a, "-h") == 0 || strcmp(a, "--help") == 0) {
			o->help = true;
		} else if (strcmp(a, "-V") == 0 || strcmp(a, "--version") == 0) {
			o->version = true;
		} else {
			return fail("%s is not an option%s; see sandboxfs --help", a, "");
		}
	}
	return 0;
}

int options_parse(int argc, char **argv, struct options *o)
{
	const char *server = NULL, *mnt = NULL;
	int err;

	memset(o, 0, sizeof *o);
	err = defaults(o);
	if (!err)
		err = words(o, argc, argv, &server, &mnt);
	if (err || o->help || o->version)
		return err;
	if (!mnt)
		return fail("MOUNTPOINT is missing%s%s; see sandboxfs --help", "", "");
	if (o->kill && !o->unmount)
		return fail("--kill goes with -u%s%s; see sandboxfs --help", "", "");
	if (o->unmount && server)
		return fail("-u takes one MOUNTPOINT; `%s` is too many%s", mnt, "");
	o->server = strdup(server ? server : "local:");
	o->given_mountpoint = strdup(mnt);
	if (!o->server || !o->given_mountpoint)
		return -ENOMEM;
	lower_scheme(o->server);
	err = check(o);
	return err ? err : absolute_server(o);
}

void options_release(struct options *o)
{
	free(o->server);
	free(o->given_mountpoint);
	free(o->mountpoint);
	free(o->sandbox);
	free(o->subdir);
	free(o->token_file);
	free(o->preview_host);
	free(o->pass);
	memset(o, 0, sizeof *o);
}
