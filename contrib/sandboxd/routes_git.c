/*
 * Cloning a repository. Owns what a clone's stream has reached.
 *
 *   POST /api/git/checkout     {"repoUrl","branch"?,"targetDir"?,"depth"?,"timeoutMs"?=600000}, as the official server's
 *   POST /api/sandboxfs/git    the same and "id"? (the clone is then a command of that id, whose cancel ends it): an event stream,
 *        {"type":"progress","text"} with git's words as they come, then {"type":"complete",...} with the members of the answer
 *        above, or {"type":"error",...} with those of the error
 *
 * Errors have context {"exitCode","stderr","errno"}. What stands before the @ of a URL is shown as *** in every answer. git asks nobody
 * for a password: a repository that wants one fails.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "text.h"

enum {
	TIMEOUT_MS = 600000,
	PIECE = 32 << 10,
	STDERR_MAX = 64 << 10,
	ID_MAX = 128,
	CLEAN_MS = 6000 /* from TERM to the death of the last */
};

static const char operation[] = "git.clone";

struct clone {
	struct stream stream; /* first: the glue knows it by this; unused without a stream */
	struct command *command;
	char *url, *dir;
	char *secret; /* what the URL has before its @, or NULL */
	uint64_t off;
	struct buf line; /* of progress, not yet ended */
};

/* --- passwords --- */

/* user:password or a token alone. 0 or -ENOMEM. */
static int secret_find(const char *url, char **out)
{
	const char *scheme = strstr(url, "://");
	const char *host = scheme ? scheme + 3 : NULL;
	size_t n = host ? strcspn(host, "/?#") : 0;
	const char *at = n ? memrchr(host, '@', n) : NULL;
	*out = NULL;
	if (!at || at == host ||
		(strncmp(url, "ssh:", 4) == 0 && !memchr(host, ':', (size_t)(at - host))))
		return 0;
	*out = strndup(host, (size_t)(at - host));
	return *out ? 0 : -ENOMEM;
}

static void replace_all(struct buf *out, const char *text, const char *word)
{
	size_t n = strlen(word);
	for (const char *found; n && (found = strstr(text, word)); text = found + n) {
		buf_add(out, text, (size_t)(found - text));
		buf_str(out, "***");
	}
	buf_str(out, text);
}

/* Appends text without the secret, nor the password alone. */
static void redact(struct buf *out, const char *text, const char *secret)
{
	const char *colon = secret ? strchr(secret, ':') : NULL;
	AUTO_BUF once = BUF_INIT;
	if (!secret) {
		buf_str(out, text);
		return;
	}
	replace_all(&once, text, secret);
	if (buf_error(&once) < 0)
		out->failed = true;
	else if (colon && strlen(colon + 1) > 3)
		replace_all(out, once.data, colon + 1);
	else
		buf_str(out, once.data);
}

static struct json_object *redacted(const char *text, const char *secret)
{
	AUTO_BUF b = BUF_INIT;
	redact(&b, text, secret);
	return text_json(b.data && !buf_error(&b) ? b.data : "", buf_error(&b) ? 0 : b.size);
}

/* --- starting --- */

static void clone_free(struct clone *g)
{
	if (!g)
		return;
	commands_put(g->command);
	free(g->url);
	free(g->dir);
	free(g->secret);
	buf_release(&g->line);
	free(g);
}

/* The last part of the URL without .git. */
static char *default_directory(struct server *server, const char *url)
{
	size_t n = strcspn(url, "?#");
	while (n && url[n - 1] == '/')
		n--;
	if (n > 4 && strncmp(url + n - 4, ".git", 4) == 0)
		n -= 4;
	size_t begin = n;
	while (begin && !strchr("/:", url[begin - 1]))
		begin--;
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%s/", strcmp(server->workspace, "/") ? server->workspace : "");
	if (begin == n || (n - begin <= 2 && url[begin] == '.'))
		buf_str(&b, "repository");
	else
		buf_add(&b, url + begin, n - begin);
	return buf_steal(&b);
}

/* A string member without NUL that does not look like an option; NULL: it is not there. False: *out is the answer. */
static bool get_word(struct request *r, const char *name, const char **v, enum MHD_Result *out)
{
	struct json_object *o;
	size_t n = 0;
	*v = NULL;
	if (!json_object_object_get_ex(r->json, name, &o) || !o)
		return true;
	*v = json_text(r->json, name, &n);
	if (*v && n && strlen(*v) == n && **v != '-' && !strpbrk(*v, "\n\r"))
		return true;
	*out = reply_error(r, ERR_VALIDATION, NULL, operation, "Invalid %s", name);
	return false;
}

static void script_make_clone(
	struct buf *b, const struct clone *g, const char *branch, int64_t depth)
{
	buf_str(b, "git clone --progress --filter=blob:none");
	if (branch) {
		buf_str(b, " --branch ");
		buf_shell_quote(b, branch);
	}
	if (depth > 0)
		buf_printf(b, " --depth %lld", (long long)depth);
	buf_str(b, " -- ");
	buf_shell_quote(b, g->url);
	buf_char(b, ' ');
	buf_shell_quote(b, g->dir);
	/* On an unborn branch there is no commit: the name is known all the same. */
	buf_str(b, " && { git -C ");
	buf_shell_quote(b, g->dir);
	buf_str(b, " symbolic-ref --short -q HEAD || echo HEAD; }");
}

static int clone_start(struct request *r, struct clone *g, const char *branch, int64_t depth,
	int64_t timeout, const char *id)
{
	AUTO_BUF script = BUF_INIT;
	script_make_clone(&script, g, branch, depth);
	if (buf_error(&script) < 0)
		return -ENOMEM;
	struct json_object *env = json_object_new_object();
	json_add(env, "GIT_TERMINAL_PROMPT", json_object_new_string("0"));
	json_add(env, "GIT_ASKPASS", json_object_new_string("/bin/false"));
	json_add(
		env, "GIT_SSH_COMMAND", json_object_new_string("ssh -oBatchMode=yes -oConnectTimeout=30"));
	struct command_spec spec = {
		.id = id, .text = script.data, .size = script.size, .env = env, .timeout_ms = timeout};
	int err = json_whole(env)
				  ? commands_start(r->server->commands, &spec, EXISTS_REPLACE, &g->command, NULL)
				  : -ENOMEM;
	json_object_put(env);
	return err;
}

/* NULL: *out is the answer. */
static struct clone *clone_new(struct request *r, bool with_id, enum MHD_Result *out)
{
	const char *branch, *dir, *id = NULL, *url, *given;
	int64_t depth = 0, timeout = TIMEOUT_MS;
	struct json_object *v;
	size_t n = 0;
	if (!request_json(r, false, out))
		return NULL;
	url = json_text(r->json, "repoUrl", &n);
	if (!url || !n || strlen(url) != n || *url == '-' || strpbrk(url, " \t\r\n")) {
		*out = reply_error(
			r, ERR_INVALID_GIT_URL, NULL, operation, "repoUrl must be the URL of a repository");
		return NULL;
	}
	if (!get_word(r, "branch", &branch, out) || !get_word(r, "targetDir", &dir, out) ||
		(with_id && !get_word(r, "id", &id, out)))
		return NULL;
	bool bad_depth = json_object_object_get_ex(r->json, "depth", &v) && v &&
					 (!json_number(r->json, "depth", &depth) || depth <= 0 || depth > INT32_MAX);
	bool bad_timeout = json_object_object_get_ex(r->json, "timeoutMs", &v) && v &&
					   (!json_number(r->json, "timeoutMs", &timeout) || timeout <= 0);
	if (bad_depth || bad_timeout || (id && (strlen(id) > ID_MAX || strchr(id, '/')))) {
		*out = reply_error(r, ERR_VALIDATION, NULL, operation, "%s",
			bad_depth     ? "depth must be a positive number"
			: bad_timeout ? "timeoutMs must be greater than 0"
						  : "Invalid id");
		return NULL;
	}
	struct clone *g = calloc(1, sizeof *g);
	if (g) {
		g->url = strdup(url);
		g->dir = dir ? request_path(r, "targetDir", ERR_VALIDATION, &given, out)
					 : default_directory(r->server, url);
	}
	if (g && dir && !g->dir) {
		clone_free(g);
		return NULL;
	}
	int err = g && g->url && g->dir ? secret_find(url, &g->secret) : -ENOMEM;
	if (!err)
		err = clone_start(r, g, branch, depth, timeout, id);
	if (!err)
		return g;
	clone_free(g);
	*out = err == -ECANCELED ? reply_error(r, ERR_OPERATION_INTERRUPTED, NULL, operation,
								   "The clone was cancelled before it was started")
							 : reply_error(r, ERR_GIT_OPERATION_FAILED, NULL, operation,
								   "git cannot be started: %s", strerrordesc_np(-err));
	return NULL;
}

/* --- its end --- */

static const struct {
	const char *words;
	enum error_code code;
	int err;
} meanings[] = {
	{"already exists and is not an empty directory", ERR_GIT_CLONE_FAILED, EEXIST},
	{"could not create work tree dir", ERR_GIT_CLONE_FAILED, EACCES},
	{"No space left on device", ERR_GIT_CLONE_FAILED, ENOSPC},
	{"Remote branch", ERR_GIT_BRANCH_NOT_FOUND, ENOENT},
	{"Authentication failed", ERR_GIT_AUTH_FAILED, EACCES},
	{"could not read Username", ERR_GIT_AUTH_FAILED, EACCES},
	{"could not read Password", ERR_GIT_AUTH_FAILED, EACCES},
	{"unable to read askpass", ERR_GIT_AUTH_FAILED, EACCES},
	{"Permission denied (", ERR_GIT_AUTH_FAILED, EACCES},
	{"Host key verification failed", ERR_GIT_AUTH_FAILED, EACCES},
	{"returned error: 401", ERR_GIT_AUTH_FAILED, EACCES},
	{"returned error: 403", ERR_GIT_AUTH_FAILED, EACCES},
	{"Repository not found", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"repository not found", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"does not appear to be a git repository", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"not valid: is this a git repository", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"returned error: 404", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"' does not exist", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"' not found", ERR_GIT_REPOSITORY_NOT_FOUND, ENOENT},
	{"Could not resolve host", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Temporary failure in name resolution", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Name or service not known", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"unable to look up", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Connection refused", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"onnection timed out", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Network is unreachable", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"No route to host", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Failed to connect", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"Couldn't connect", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"unable to access", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"unable to connect", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"early EOF", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"unexpected disconnect", ERR_GIT_NETWORK, EHOSTUNREACH},
	{"the remote end hung up", ERR_GIT_NETWORK, EHOSTUNREACH},
};

static enum error_code meaning(const struct command *c, const char *said, int *err)
{
	if (c->timed_out) {
		*err = ETIMEDOUT;
		return ERR_GIT_NETWORK;
	}
	if (c->cancelled) {
		*err = ECANCELED;
		return ERR_OPERATION_INTERRUPTED;
	}
	for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
		if (strstr(said, meanings[i].words)) {
			*err = meanings[i].err;
			return meanings[i].code;
		}
	*err = c->exit_code == 127 ? ENOTSUP : EIO;
	return ERR_GIT_OPERATION_FAILED;
}

/* The first line that git means as an error: those after it speak of its consequences. New. */
static char *first_error(const char *said)
{
	const char *best = NULL;
	for (const char *p = said; !best && p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (strncmp(p, "fatal:", 6) == 0 || strncmp(p, "error:", 6) == 0)
			best = p;
	if (!best)
		best = said;
	return strndup(best, strcspn(best, "\n"));
}

/* The text of stderr without the lines that progress has overwritten, and without secrets. */
static void clone_said(struct clone *g, struct buf *out)
{
	AUTO_BUF raw = BUF_INIT;
	AUTO_BUF kept = BUF_INIT;
	if (command_output(g->command, SPOOL_STDERR, UINT64_MAX, &raw) < 0 || !raw.data)
		return;
	for (const char *p = raw.data; *p;) {
		size_t n = strcspn(p, "\r\n");
		if (p[n] != '\r' && kept.size < STDERR_MAX) {
			buf_add(&kept, p, n);
			buf_char(&kept, '\n');
		}
		p += n + (p[n] != '\0');
	}
	if (kept.data && !buf_error(&kept))
		redact(out, kept.data, g->secret);
}

/* The members of the answer. New; *code is what went wrong, or ERR_UNKNOWN: nothing. */
static struct json_object *clone_answer(
	struct clone *g, enum error_code *code, struct json_object **context, char **message)
{
	struct command *c = g->command;
	AUTO_BUF said = BUF_INIT;
	AUTO_BUF branch = BUF_INIT;
	/* A git that was ended takes away what it has made, maybe after its shell: who is told may try again at once. */
	(void)command_wait_dead(c, text_monotonic_ms() + CLEAN_MS);
	*code = ERR_UNKNOWN;
	if (c->exit_code == 0) {
		struct json_object *o = answer_new();
		if (command_output(c, SPOOL_STDOUT, UINT64_MAX, &branch) < 0)
			buf_clear(&branch);
		size_t n = branch.data ? strcspn(branch.data, "\n") : 0;
		json_add(o, "repoUrl", redacted(g->url, g->secret));
		json_add(o, "branch", text_json(n ? branch.data : "", n));
		json_add(o, "targetDir", text_json_str(g->dir));
		return o;
	}
	clone_said(g, &said);
	const char *text = said.data && !buf_error(&said) ? said.data : "";
	int err = EIO;
	*code = meaning(c, text, &err);
	*message = c->exit_code == 127 ? strdup("git is not installed in the sandbox")
			   : c->timed_out      ? strdup("the clone took longer than its time-out")
								   : first_error(text);
	*context = json_object_new_object();
	json_add(*context, "repoUrl", redacted(g->url, g->secret));
	json_add(*context, "targetDir", text_json_str(g->dir));
	json_add(*context, "exitCode", json_object_new_int(c->exit_code));
	json_add(*context, "stderr", text_json_str(text));
	json_add(*context, "errno", json_object_new_string(strerrorname_np(err)));
	return NULL;
}

enum MHD_Result route_git_checkout(struct request *r)
{
	enum MHD_Result result;
	struct clone *g = clone_new(r, false, &result);
	if (!g)
		return result;
	int state = -ETIMEDOUT;
	while (state == -ETIMEDOUT) {
		state = command_wait_output(
			g->command, SPOOL_BOTH, UINT64_MAX, text_monotonic_ms() + HTTP_TICK_MS);
		if (state == -ETIMEDOUT && client_gone(r->client)) {
			clone_free(g);
			return MHD_NO;
		}
	}
	enum error_code code;
	struct json_object *context = NULL;
	AUTO_FREE char *message = NULL;
	struct json_object *o = clone_answer(g, &code, &context, &message);
	/* The record holds the URL as it was given. */
	(void)commands_forget(r->server->commands, g->command->id);
	clone_free(g);
	return o ? reply_json(r, 200, o)
			 : reply_error(r, code, context, operation, "%s", message ? message : "git failed");
}

/* --- with progress --- */

static int progress(struct clone *g, bool all, struct buf *out)
{
	size_t n = g->line.size;
	/* A password could be cut in two: only whole lines are told. */
	while (!all && n && g->line.data[n - 1] != '\n' && g->line.data[n - 1] != '\r')
		n--;
	if (!n)
		return 0;
	AUTO_FREE char *text = strndup(g->line.data, n);
	if (!text)
		return -ENOMEM;
	buf_consume(&g->line, n);
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("progress"));
	json_add(o, "text", redacted(text, g->secret));
	return event_add(out, o);
}

static int clone_over(struct clone *g, struct buf *out)
{
	enum error_code code;
	struct json_object *context = NULL;
	AUTO_FREE char *message = NULL;
	if (progress(g, true, out) < 0)
		return -ENOMEM;
	struct json_object *o = clone_answer(g, &code, &context, &message);
	bool good = o != NULL;
	if (!good) {
		o = json_object_new_object();
		json_add(o, "code", json_object_new_string(error_name(code)));
		json_add(o, "message", text_json_str(message ? message : "git failed"));
		json_add(o, "context", context);
		json_add(o, "httpStatus", json_object_new_int((int)error_status(code)));
	}
	json_add(o, "type", json_object_new_string(good ? "complete" : "error"));
	(void)commands_forget(g->stream.server->commands, g->command->id);
	return event_add(out, o);
}

static int clone_next(struct stream *stream, struct buf *out)
{
	struct clone *g = (struct clone *)stream;
	int64_t until = text_monotonic_ms() + HTTP_TICK_MS;
	int state = command_wait_output(g->command, SPOOL_STDERR, g->off, until);
	if (state == 0)
		return clone_over(g, out) < 0 ? -ENOMEM : 0;
	if (state < 0)
		return 1;
	uint64_t next = g->off;
	char *to = buf_reserve(&g->line, PIECE);
	if (!to)
		return -ENOMEM;
	ssize_t n = spool_pread(g->command->spool, SPOOL_STDERR, to, PIECE, g->off, NULL, &next);
	if (n == -ESPIPE && next > g->off) {
		g->off = next;
		return 1;
	}
	if (n <= 0)
		return n < 0 ? (int)n : 1;
	g->line.size += (size_t)n;
	g->off += (uint64_t)n;
	return progress(g, false, out) < 0 ? -ENOMEM : 1;
}

static void clone_release(struct stream *stream)
{
	clone_free((struct clone *)stream);
}

enum MHD_Result route_git_stream(struct request *r)
{
	enum MHD_Result result;
	struct clone *g = clone_new(r, true, &result);
	if (!g)
		return result;
	g->stream = (struct stream){.next = clone_next, .release = clone_release};
	return reply_stream(r, "text/event-stream", &g->stream);
}
