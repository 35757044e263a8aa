/*
 * Lines of `git`, scripts for the sandbox, git's messages: see git_line.h.
 */
#include "git_line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"

enum { DEPTH_MAX = 1 << 30, TIMEOUT_MS = 600 * 1000 /* the SDK's */ };

static const char workspace[] = "/workspace";

void git_request_release(struct git_request *q)
{
	free(q->url);
	free(q->server);
	free(q->user);
	free(q->password);
	free(q->branch);
	free(q->dir);
	*q = (struct git_request){0};
}

static int bad_word(struct call *c, const char *word)
{
	/* What may hold a password is not repeated. */
	return call_fault(c, EINVAL, NULL,
		"not understood: %s; write URL [branch=B] [dir=D] [depth=N] [timeout=DUR]",
		strchr(word, '@') ? "***" : word);
}

/* --- the URL --- */

static int hex_value(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	ch |= 0x20;
	return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* New: n bytes with their %XX decoded. NULL: out of memory, or a byte that would end a line of git's credential protocol. */
static char *percent_decoded(const char *s, size_t n)
{
	char *out = malloc(n + 1), *to = out;
	if (!out)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		int ch = (unsigned char)s[i];
		if (ch == '%' && n - i > 2 && hex_value(s[i + 1]) >= 0 && hex_value(s[i + 2]) >= 0) {
			ch = hex_value(s[i + 1]) * 16 + hex_value(s[i + 2]);
			i += 2;
		}
		if (ch < ' ') {
			free(out);
			return NULL;
		}
		*to++ = (char)ch;
	}
	*to = 0;
	return out;
}

/* With a helper in git's -c KEY=VALUE, its key must be plain. */
static bool is_plain_host(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]", s[i]))
			return false;
	return n > 0;
}

/* Takes name and password out of scheme://name:password@host/path. */
static int take_credentials(
	struct call *c, const char *url, const char *host, struct git_request *q)
{
	size_t n = strcspn(host, "/?#");
	const char *at = memrchr(host, '@', n);
	const char *colon = at ? memchr(host, ':', (size_t)(at - host)) : NULL;
	bool http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;

	if (!at || (!http && !colon))
		return (q->url = strdup(url)) ? 0 : -ENOMEM;
	if (!http)
		return call_fault(c, EINVAL, NULL,
			"a password in such a URL is not used by git; take it out, or use https");
	const char *end = host + n, *name_end = colon ? colon : at;
	if (!is_plain_host(at + 1, (size_t)(end - at - 1)))
		return call_fault(c, EINVAL, NULL, "no host in the URL: %s", at + 1);
	AUTO_BUF clean = BUF_INIT;
	AUTO_BUF server = BUF_INIT;
	buf_add(&server, url, (size_t)(host - url));
	buf_add(&server, at + 1, (size_t)(end - at - 1));
	buf_add(&clean, url, (size_t)(host - url));
	buf_str(&clean, at + 1);
	q->url = buf_steal(&clean);
	q->server = buf_steal(&server);
	q->user = percent_decoded(host, (size_t)(name_end - host));
	q->password = colon ? percent_decoded(colon + 1, (size_t)(at - colon - 1)) : strdup("");
	if (!q->url || !q->server)
		return -ENOMEM;
	return q->user && q->password ? 0
								  : call_fault(c, EINVAL, NULL,
										"the name or password in the URL has control characters");
}

static int take_url(struct call *c, const char *url, struct git_request *q)
{
	const char *host = strstr(url, "://");
	if (!*url || strchr(url, '\n'))
		return bad_word(c, url);
	/* ext::, fd:: and the like run programs; git refuses most of them, but why try. */
	if (!host && strstr(url, "::"))
		return call_fault(c, EINVAL, NULL, "%s: no URL of a repository", url);
	if (!host)
		return (q->url = strdup(url)) ? 0 : -ENOMEM;
	return take_credentials(c, url, host + 3, q);
}

/* --- the directory --- */

/* New: the name that git would give the clone of this URL. NULL: it has none. */
static char *name_of_url(const char *url)
{
	const char *path = strstr(url, "://");
	path = path ? path + 3 : url;
	const char *first = path;
	size_t n = strlen(path);
	while (n && path[n - 1] == '/')
		n--;
	if (n > 5 && strncmp(path + n - 5, "/.git", 5) == 0)
		n -= 5;
	while (n && path[n - 1] == '/')
		n--;
	if (n > 4 && strncmp(path + n - 4, ".git", 4) == 0)
		n -= 4;
	size_t begin = n;
	while (begin && path[begin - 1] != '/' && path[begin - 1] != ':')
		begin--;
	/* http://host alone names no repository. */
	if (begin == n || (begin == 0 && first != url))
		return NULL;
	return strndup(path + begin, n - begin);
}

/* Adds what the path says below the workspace, without empty and `.` parts. False: it leads out. */
static bool add_parts(struct buf *out, const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");
		if (n == 2 && strncmp(path, "..", 2) == 0)
			return false;
		if (n && !(n == 1 && *path == '.')) {
			buf_char(out, '/');
			buf_add(out, path, n);
		}
		path += n;
		while (*path == '/')
			path++;
	}
	return true;
}

static int take_dir(struct call *c, const char *given, struct git_request *q)
{
	AUTO_BUF dir = BUF_INIT;
	AUTO_FREE char *name = given ? strdup(given) : name_of_url(q->url);
	size_t n = sizeof workspace - 1;
	if (!name)
		return call_fault(c, EINVAL, NULL, "the URL gives no name; add dir=");
	const char *below = name;
	if (*name == '/') {
		if (strncmp(name, workspace, n) != 0 || (name[n] && name[n] != '/'))
			return call_fault(c, EINVAL, NULL, "%s: not below /workspace", name);
		below = name + n;
		while (*below == '/')
			below++;
	}
	buf_str(&dir, workspace);
	if (!add_parts(&dir, below))
		return call_fault(c, EINVAL, NULL, "%s: .. has no place in a directory's name here", name);
	if (!given && dir.size == n)
		return call_fault(c, EINVAL, NULL, "the URL gives no name; add dir=");
	q->dir = buf_steal(&dir);
	return q->dir ? 0 : -ENOMEM;
}

/* --- the line --- */

static int take_word(struct call *c, const char *word, struct git_request *q, const char **dir)
{
	int err = 0;
	if (strncmp(word, "branch=", 7) == 0 && word[7] && word[7] != '-' && !q->branch)
		err = (q->branch = strdup(word + 7)) ? 0 : -ENOMEM;
	else if (strncmp(word, "dir=", 4) == 0 && word[4] && !strchr(word, '\n'))
		*dir = word + 4;
	else if (strncmp(word, "depth=", 6) == 0)
		err = ctl_parse_number(word + 6, 1, DEPTH_MAX, &q->depth);
	else if (strncmp(word, "timeout=", 8) == 0)
		err = ctl_parse_duration(word + 8, &q->timeout_ms);
	else
		err = -EINVAL;
	if (err == -EINVAL || q->timeout_ms <= 0)
		return bad_word(c, word);
	return err;
}

int git_request_parse(struct call *c, const char *line, size_t n, struct git_request *out)
{
	AUTO_FREE char **argv = NULL;
	const char *dir = NULL;
	int argc = 0;

	*out = (struct git_request){.timeout_ms = TIMEOUT_MS};
	/* The sentence of an open quote would repeat the line, and with it a password. */
	int err = ctl_split(NULL, line, n, &argc, &argv);
	if (err == -EINVAL)
		return call_fault(c, EINVAL, NULL, "a ' is not closed (two of them inside '...' are one)");
	if (!err && !argc)
		return call_fault(
			c, EINVAL, NULL, "no URL; write URL [branch=B] [dir=D] [depth=N] [timeout=DUR]");
	if (!err)
		err = take_url(c, argv[0], out);
	for (int i = 1; !err && i < argc; i++)
		err = take_word(c, argv[i], out, &dir);
	if (!err)
		err = take_dir(c, dir, out);
	if (err)
		git_request_release(out);
	return err;
}

/* --- the script --- */

int git_request_stage(const struct git_request *q, const char *id, struct buf *path)
{
	const char *slash = strrchr(q->dir, '/');
	bool top = strcmp(q->dir, workspace) == 0;
	buf_add(path, q->dir, top ? sizeof workspace - 1 : (size_t)(slash - q->dir));
	buf_printf(path, "/.clone-%s", id);
	return buf_error(path);
}

static void put_assignment(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, "%s=", name);
	buf_shell_quote(out, value);
	buf_char(out, '\n');
}

/* git with its options, in the script's words. */
static void put_clone(const struct git_request *q, struct buf *out)
{
	buf_str(out, "git ");
	if (q->server) {
		AUTO_BUF helper = BUF_INIT;
		buf_printf(&helper,
			"credential.%s.helper=!f() { [ \"$1\" != get ] || printf "
			"'username=%%s\\npassword=%%s\\n' \"$CLONE_USER\" \"$CLONE_PASSWORD\"; }; f",
			q->server);
		buf_str(out, "-c ");
		buf_shell_quote(out, helper.data ? helper.data : "");
		out->failed |= helper.failed;
		buf_char(out, ' ');
	}
	buf_str(out, "clone --progress ");
	if (q->branch) {
		buf_str(out, "--branch ");
		buf_shell_quote(out, q->branch);
		buf_char(out, ' ');
	}
	if (q->depth)
		buf_printf(out, "--depth %lld ", (long long)q->depth);
	buf_str(out, "-- ");
	buf_shell_quote(out, q->url);
	buf_str(out, " \"$t\"");
}

int git_request_script(
	const struct git_request *q, const char *stage, struct buf *script, struct buf *input)
{
	put_assignment(script, "d", q->dir);
	put_assignment(script, "t", stage);
	/* One stream, so that nothing overtakes anything; messages that can be understood; nobody to ask. */
	buf_str(script, "exec 1>&2\n"
					"export LC_ALL=C LANGUAGE= GIT_TERMINAL_PROMPT=0 GIT_ASKPASS= SSH_ASKPASS=\n"
					"export GIT_SSH_COMMAND=\"${GIT_SSH_COMMAND:-ssh -oBatchMode=yes}\"\n"
					"command -v git >/dev/null || { echo 'git: command not found'; exit 127; }\n"
					"full() { [ ! -d \"$d\" ] || [ -n \"$(ls -A \"$d\")\" ]; }\n"
					"if { [ -e \"$d\" ] || [ -L \"$d\" ]; } && full; then\n"
					"\techo \"fatal: destination path '$d' already exists and is not an empty "
					"directory.\"\n"
					"\texit 128\n"
					"fi\n"
					"mkdir -p \"${t%/*}\" || exit 1\n"
					"trap 'rm -rf \"$t\"' EXIT\n"
					"trap 'exit 143' HUP INT TERM\n");
	if (q->server) {
		buf_str(script, "IFS= read -r CLONE_USER; IFS= read -r CLONE_PASSWORD\n"
						"export CLONE_USER CLONE_PASSWORD\n");
		buf_printf(input, "%s\n%s\n", q->user, q->password);
	}
	/* git's first line names the place where it works, which is of no interest. */
	buf_str(script, "rc=$({ { ");
	put_clone(q, script);
	buf_str(script, " 2>&1 >/dev/null </dev/null; echo $? >&3; } | {\n"
					"\tIFS= read -r line\n"
					"\tcase $line in\n"
					"\t\"Cloning into \"*) echo \"Cloning into '$d'...\" ;;\n"
					"\t*) printf '%s\\n' \"$line\" ;;\n"
					"\tesac\n"
					"\texec cat\n"
					"} >&2; } 3>&1)\n"
					"[ \"$rc\" = 0 ] || exit \"${rc:-1}\"\n");
	if (strcmp(q->dir, workspace) == 0)
		buf_str(script, "find \"$t\" -mindepth 1 -maxdepth 1 -exec mv -t \"$d\" {} + || exit 1\n");
	else
		buf_str(script, "mv -T \"$t\" \"$d\" || exit 1\n");
	buf_str(script, "echo \"dir $d\"\n");
	return buf_error(script) ? -ENOMEM : buf_error(input);
}

/* --- what git says --- */

static const struct {
	const char *text;
	int err;
} meanings[] = {
	{"command not found", ENOTSUP},
	{"already exists and is not an empty", EEXIST},
	{"Remote branch", ENOENT}, /* ... not found in upstream */
	{"Could not find remote branch", ENOENT},
	{"Authentication failed", EACCES},
	{"could not read Username", EACCES},
	{"could not read Password", EACCES},
	{"terminal prompts disabled", EACCES},
	{"Permission denied (", EACCES}, /* (publickey,password) */
	{"Host key verification failed", EACCES},
	{"returned error: 401", EACCES},
	{"returned error: 403", EACCES},
	{"access denied or repository not exported", EACCES},
	{"Could not resolve host", EHOSTUNREACH},
	{"Temporary failure in name resolution", EHOSTUNREACH},
	{"unable to look up", EHOSTUNREACH},
	{"Failed to connect", EHOSTUNREACH},
	{"unable to connect", EHOSTUNREACH},
	{"Couldn't connect", EHOSTUNREACH},
	{"Connection refused", EHOSTUNREACH},
	{"Connection timed out", EHOSTUNREACH},
	{"Connection reset", EHOSTUNREACH},
	{"No route to host", EHOSTUNREACH},
	{"Network is unreachable", EHOSTUNREACH},
	{"returned error: 404", ENOENT},
	{"not found", ENOENT}, /* repository '...' not found */
	{"does not appear to be a git repository", ENOENT},
	{"does not exist", ENOENT},
	{"No space left on device", ENOSPC},
	{"Disk quota exceeded", EDQUOT},
	{"Permission denied", EACCES},
	{"No such file or directory", ENOENT},
	{"early EOF", EHOSTUNREACH},
	{"hung up unexpectedly", EHOSTUNREACH},
};

/* The last line that says what is wrong, without its `fatal: `; else the last line. */
static void last_words(const char *said, struct buf *why)
{
	const char *best = NULL, *last = said;
	size_t best_size = 0, last_size = 0;
	for (const char *p = said; *p;) {
		size_t n = strcspn(p, "\r\n");
		const char *text = strncmp(p, "fatal: ", 7) == 0   ? p + 7
						   : strncmp(p, "error: ", 7) == 0 ? p + 7
														   : NULL;
		/* The first fatal one is the cause; what follows is advice. */
		if (text && (!best || best[-7] == 'e')) {
			best = text;
			best_size = n - 7;
		}
		if (n) {
			last = p;
			last_size = n;
		}
		p += n;
		p += strspn(p, "\r\n");
	}
	buf_add(why, best ? best : last, best ? best_size : last_size);
}

int git_errno(const char *said, int code, struct buf *why)
{
	int err = EIO;
	for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
		if (strstr(said, meanings[i].text)) {
			err = meanings[i].err;
			break;
		}
	last_words(said, why);
	if (code == 127 && err == ENOTSUP) {
		buf_clear(why);
		buf_str(why, "the sandbox has no git; install it there");
	} else if (!why->size) {
		buf_printf(why, "git ended with exit code %d", code);
	}
	return err;
}
