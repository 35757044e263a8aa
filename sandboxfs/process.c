/*
 * Requests on processes: see process.h. Everything that comes back is checked: strings for length, numbers for their range, names
 * for what a directory can show.
 */
#include "process.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "feed.h"
#include "json_make.h"
#include "output.h"

enum { PROCESS_ID_MAX = 128, LIST_MAX = 4096 };

bool process_id_ok(const char *id)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t n = strspn(id, letters);

	return n > 0 && n <= PROCESS_ID_MAX && id[n] == 0 && id[0] != '.' && strcmp(id, "new") != 0 &&
		   strcmp(id, "help") != 0;
}

int process_env_set(struct json_object *env, const char *pair)
{
	const char *equals = strchr(pair, '=');
	size_t n = equals ? (size_t)(equals - pair) : 0;
	struct json_object *value;

	if (n == 0 || (pair[0] >= '0' && pair[0] <= '9'))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		char ch = pair[i];
		if (!(ch == '_' || (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
				(ch >= 'A' && ch <= 'Z')))
			return -EINVAL;
	}
	AUTO_FREE char *name = strndup(pair, n);
	value = name ? json_object_new_string(equals + 1) : NULL;
	return json_add(env, name, value) ? 0 : -ENOMEM;
}

int process_body(const char *id, const struct process_spec *spec, bool listed, const void *input,
	size_t input_size, struct buf *body)
{
	struct json_object *o = json_object_new_object();
	bool ok = o && spec->size <= INT32_MAX;

	ok = ok && json_add(o, "id", json_object_new_string(id));
	ok = ok && json_add(o, "command", json_object_new_string_len(spec->command, (int)spec->size));
	if (spec->cwd)
		ok = ok && json_add(o, "cwd", json_object_new_string(spec->cwd));
	if (spec->env)
		ok = ok && json_add(o, "env", json_object_get(spec->env));
	if (spec->timeout_ms > 0)
		ok = ok && json_add(o, "timeoutMs", json_object_new_int64(spec->timeout_ms));
	if (spec->session)
		ok = ok && json_add(o, "sessionId", json_object_new_string(spec->session));
	if (listed)
		ok = ok && json_add(o, "list", json_object_new_boolean(true));
	size_t n = 0;
	const char *text = ok ? json_text_of(o, &n) : NULL;
	ok = text && n <= UINT32_MAX;
	if (ok) {
		buf_bytes(body, text, n);
		buf_add(body, input ? input : "", input ? input_size : 0);
	}
	json_object_put(o);
	return ok ? buf_error(body) : -ENOMEM;
}

static void ignore_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	(void)arg, (void)time, (void)stream, (void)p, (void)n; /* the sandbox keeps it */
}

static void ignore_end(void *arg, const struct output_end *end)
{
	(void)arg, (void)end; /* who wants to know asks */
}

static const struct output_events start_events = {.data = ignore_data, .end = ignore_end};

void process_explain(struct call *c, int err, const char *cwd)
{
	if (err != -ENOENT || !cwd)
		return;
	/* The shell is always there: what was not found is the directory, though the server names the shell. */
	fault_clear(&c->fault);
	call_fault(c, ENOENT, NULL, "there is no directory %s in the sandbox", cwd);
}

int process_start(
	struct sandbox *sb, struct call *c, const char *id, const struct process_spec *spec)
{
	AUTO_BUF body = BUF_INIT;
	struct output *o = NULL;
	bool may_run;
	int err = process_body(id, spec, true, NULL, 0, &body);

	if (err)
		return err;
	err = output_start(sb, c, id, &body, &start_events, NULL, &o, &may_run);
	output_close(o);
	process_explain(c, err, spec->cwd);
	return err;
}

/* ---- what the server tells ---- */

void process_info_release(struct process_info *i)
{
	free(i->command);
	free(i->cwd);
	json_object_put(i->env);
	memset(i, 0, sizeof(*i));
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

static bool number_of(struct json_object *o, const char *key, int64_t *out)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) ||
		!(json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double)))
		return false;
	*out = json_object_get_int64(v);
	return true;
}

/* A short word without control characters; anything else is left out. */
static void copy_word(char *to, size_t size, const char *from)
{
	to[0] = 0;
	if (!from || strlen(from) >= size)
		return;
	for (const char *p = from; *p; p++) {
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 127)
			return;
	}
	memcpy(to, from, strlen(from) + 1);
}

static void read_sizes(struct json_object *o, const char *key, uint64_t to[3])
{
	static const char *const views[] = {"both", "stdout", "stderr"};
	struct json_object *sizes;
	int64_t n;

	if (!json_object_object_get_ex(o, key, &sizes) || !json_object_is_type(sizes, json_type_object))
		return;
	for (int i = 0; i < 3; i++) {
		if (number_of(sizes, views[i], &n) && n > 0)
			to[i] = (uint64_t)n;
	}
}

static int read_info(struct json_object *o, struct process_info *out)
{
	const char *command = text_of(o, "command"), *cwd = text_of(o, "cwd");
	struct json_object *env;
	int64_t n;

	memset(out, 0, sizeof(*out));
	out->command = strdup(command ? command : "");
	out->cwd = strdup(cwd ? cwd : "");
	if (!out->command || !out->cwd) {
		process_info_release(out);
		return -ENOMEM;
	}
	if (json_object_object_get_ex(o, "env", &env) && json_object_is_type(env, json_type_object))
		out->env = json_object_get(env);
	copy_word(out->status, sizeof(out->status), text_of(o, "status"));
	copy_word(out->started, sizeof(out->started), text_of(o, "startTime"));
	copy_word(out->ended, sizeof(out->ended), text_of(o, "endTime"));
	out->running = strcmp(out->status, "running") == 0 || strcmp(out->status, "starting") == 0;
	if (number_of(o, "pid", &n) && n > 0)
		out->pid = n;
	if (number_of(o, "timeoutMs", &n) && n > 0)
		out->timeout_ms = n;
	if (number_of(o, "exitCode", &n) && n >= 0 && n <= 255) {
		out->has_exit = true;
		out->exit_code = (int)n;
	}
	struct json_object *timed;
	out->timed_out =
		json_object_object_get_ex(o, "timedOut", &timed) && json_object_get_boolean(timed);
	read_sizes(o, "sizes", out->size);
	read_sizes(o, "first", out->first);
	return 0;
}

/* sandbox_api on a command; `what` follows its id in the path. A missing one is -ENOENT without a fault. */
static int command_api(struct sandbox *sb, struct call *c, const char *method, const char *id,
	const char *what, struct json_object *body, struct json_object **reply)
{
	AUTO_BUF path = BUF_INIT;
	int err;

	buf_printf(&path, "/api/sandboxfs/commands/%s%s", id, what);
	if (buf_error(&path))
		return -ENOMEM;
	bool had = c->fault.err;
	err = sandbox_api(sb, c, method, path.data, body, reply);
	if ((err == -ENOENT || err == -ESRCH || err == -ENOTSUP) && !had)
		fault_clear(&c->fault);
	if (err == -ENOTSUP)
		call_fault(c, ENOTSUP, NULL,
			"this server cannot show its processes as files; it takes sandboxd in the sandbox");
	return err;
}

int process_get(struct sandbox *sb, struct call *c, const char *id, struct process_info *out)
{
	struct json_object *reply = NULL, *o;
	int err = command_api(sb, c, "GET", id, "", NULL, &reply);

	memset(out, 0, sizeof(*out));
	if (err)
		return err == -ESRCH ? -ENOENT : err;
	if (json_object_object_get_ex(reply, "command", &o) && json_object_is_type(o, json_type_object))
		err = read_info(o, out);
	else
		err = call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	json_object_put(reply);
	return err;
}

int process_list(
	struct sandbox *sb, struct call *c, bool (*cb)(const char *id, void *arg), void *arg)
{
	struct json_object *reply = NULL, *list;
	int err = sandbox_api(sb, c, "GET", "/api/process/list", NULL, &reply);

	if (err)
		return err;
	if (!json_object_object_get_ex(reply, "processes", &list) ||
		!json_object_is_type(list, json_type_array)) {
		json_object_put(reply);
		return call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	}
	size_t n = json_object_array_length(list);
	if (n > LIST_MAX) {
		json_object_put(reply);
		return call_fault(c, EPROTO, NULL, "the server lists more than %d processes", LIST_MAX);
	}
	for (size_t i = 0; i < n; i++) {
		const char *id = text_of(json_object_array_get_idx(list, i), "id");
		if (id && process_id_ok(id) && !cb(id, arg))
			break;
	}
	json_object_put(reply);
	return 0;
}

int process_signal(struct sandbox *sb, struct call *c, const char *id, const char *signal)
{
	struct json_object *body = json_object_new_object();
	bool ok = body && (signal ? json_add(body, "signal", json_object_new_string(signal))
							  : json_add(body, "cancel", json_object_new_boolean(true)));
	int err = ok ? command_api(sb, c, "POST", id, "/signal", body, NULL) : -ENOMEM;

	json_object_put(body);
	if (err == -ESRCH || err == -ENOENT)
		return 0;
	return err;
}

/* ---- waiting ---- */

struct wait {
	struct call *call;
	struct feed *feed;
	_Atomic bool changed;
};

static void wait_wake(void *arg)
{
	struct wait *w = arg;

	atomic_store(&w->changed, true);
	call_wake(w->call);
}

static bool wait_changed(void *arg)
{
	return atomic_load(&((struct wait *)arg)->changed);
}

int process_wait(struct sandbox *sb, struct call *c, const char *id, int64_t wait_ms)
{
	struct wait w = {.call = c};
	struct feed_item item;
	AUTO_PROCESS_INFO info = {0};
	int64_t deadline = call_now_ms() + wait_ms;
	int err = process_get(sb, c, id, &info);

	if (err || !info.running)
		return err == -ENOENT ? 0 : err;
	err = feed_new(sb, wait_wake, &w, &w.feed);
	if (!err)
		err = feed_attach(w.feed, id, info.size[SPOOL_BOTH]);
	while (!err) {
		int got;

		err = call_wait(c, wait_changed, &w, deadline);
		atomic_store(&w.changed, false);
		while (!err && (got = feed_next(w.feed, &item)) == 1 && item.kind <= FEED_GAP)
			;
		if (!err && got != -EAGAIN) {
			err = got < 0 ? got : 0;
			break;
		}
	}
	feed_close(w.feed);
	return err;
}

int process_forget(struct sandbox *sb, struct call *c, const char *id)
{
	int err = command_api(sb, c, "DELETE", id, "", NULL, NULL);

	return err == -ENOENT || err == -ESRCH ? 0 : err;
}

int process_read(struct sandbox *sb, struct call *c, const char *id, enum spool_view view,
	uint64_t off, size_t n, struct buf *out)
{
	static const char *const views[] = {"both", "stdout", "stderr"};
	AUTO_BUF path = BUF_INIT;

	buf_printf(&path, "/api/sandboxfs/commands/%s/output?view=%s&offset=%llu&length=%zu", id,
		views[view], (unsigned long long)off, n);
	if (buf_error(&path))
		return -ENOMEM;
	return sandbox_raw(sb, c, "GET", path.data, NULL, NULL, 0, out);
}
