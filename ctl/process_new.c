/*
 * processes/new: a document, a command or one JSON object, starts a process.
 *
 * Keys are the SDK's own. The same file in sessions/ID/processes/ starts one where the session is. A request that fails leaves nothing behind.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "processes.h"
#include "sessions.h"

static int make_id(char out[40])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	unsigned char random[6];
	struct timespec now;
	AUTO_BUF id = BUF_INIT;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	clock_gettime(CLOCK_REALTIME, &now);
	buf_printf(&id, "proc_%lld_", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	for (size_t i = 0; i < sizeof(random); i++)
		buf_char(&id, letters[random[i] % (sizeof(letters) - 1)]);
	if (buf_error(&id) || id.size >= 40)
		return -ENOMEM;
	memcpy(out, id.data, id.size + 1);
	return 0;
}

/* What a JSON document asks for; strings are borrowed from it. */
struct request {
	const char *id, *command, *cwd;
	const char *session;     /* NULL: of none */
	struct json_object *env; /* new */
	int64_t timeout_ms;
};

static int request_text(struct call *c, struct json_object *o, const char *key, const char **out)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !v)
		return 0;
	if (!json_object_is_type(v, json_type_string))
		return call_fault(c, EINVAL, NULL, "\"%s\" is not a string", key);
	*out = json_object_get_string(v);
	if (strlen(*out) != (size_t)json_object_get_string_len(v))
		return call_fault(c, EINVAL, NULL, "\"%s\" holds a NUL byte", key);
	return 0;
}

static int request_env(struct call *c, struct json_object *given, struct json_object **out)
{
	if (!json_object_is_type(given, json_type_object))
		return call_fault(c, EINVAL, NULL, "\"env\" is not an object of strings");
	*out = json_object_new_object();
	if (!*out)
		return -ENOMEM;
	json_object_object_foreach(given, key, value)
	{
		AUTO_BUF pair = BUF_INIT;

		if (!value) /* as the server has it: null is not set */
			continue;
		if (!json_object_is_type(value, json_type_string))
			return call_fault(c, EINVAL, NULL, "\"env\": the value of %s is not a string", key);
		buf_printf(&pair, "%s=%s", key, json_object_get_string(value));
		int err = buf_error(&pair);
		if (!err && strchr(key, '='))
			err = -EINVAL;
		if (!err)
			err = process_env_set(*out, pair.data);
		if (err == -EINVAL)
			return call_fault(c, EINVAL, NULL, "\"env\": \"%s\" is no name of a variable", key);
		if (err)
			return err;
	}
	return 0;
}

static int request_read(struct call *c, struct json_object *o, struct request *r)
{
	/* The SDK's names. Those that would need a callback, or what only its objects have, change nothing. */
	static const char *const keys[] = {"command", "processId", "sessionId", "cwd", "env", "timeout",
		"encoding", "autoCleanup", "stream", "onOutput", "origin", NULL};
	struct json_object *v;
	const char *session = NULL, *here = r->session;
	int err = ctl_check_keys(c, o, keys);

	if (!err)
		err = request_text(c, o, "command", &r->command);
	if (!err)
		err = request_text(c, o, "processId", &r->id);
	if (!err)
		err = request_text(c, o, "cwd", &r->cwd);
	if (!err)
		err = request_text(c, o, "sessionId", &session);
	if (!err && session && *session && here && strcmp(session, here) != 0)
		err = call_fault(c, EINVAL, NULL,
			"\"sessionId\": these are the files of session %s; write to processes/new, or leave it "
			"out",
			here);
	/* The SDK's word for none is none here as well. */
	if (!err && session && *session && strcmp(session, "__DISABLE_SESSION__") != 0)
		r->session = session;
	if (!err && !r->command)
		err = call_fault(c, EINVAL, NULL, "\"command\" is missing");
	if (!err && r->id && !process_id_ok(r->id))
		err = process_bad_id(c, r->id);
	if (!err && json_object_object_get_ex(o, "timeout", &v) && v) {
		if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0)
			return call_fault(c, EINVAL, NULL, "\"timeout\" is not a number of milliseconds");
		r->timeout_ms = json_object_get_int64(v);
	}
	if (!err && json_object_object_get_ex(o, "env", &v) && v)
		err = request_env(c, v, &r->env);
	return err;
}

static int process_configure(struct call *c, struct process *p, const struct request *r)
{
	AUTO_FREE char *cwd = r->cwd && *r->cwd ? strdup(r->cwd) : NULL;
	AUTO_FREE char *session = r->session ? strdup(r->session) : NULL;

	if ((r->cwd && *r->cwd && !cwd) || (r->session && !session))
		return -ENOMEM;
	AUTO_UNLOCK(&p->set->lock);
	if (p->starting)
		return process_busy(c, p);
	process_clear(p);
	int err = ctl_json_copy(r->env, &p->env);
	if (err)
		return err;
	p->cwd = steal(cwd);
	p->session = steal(session);
	p->timeout_ms = r->timeout_ms;
	p->has_settings = true;
	return 0;
}

static bool is_blank_text(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!strchr(" \t\r\n", text[i]))
			return false;
	}
	return true;
}

static int process_new(const struct ctl_ref *ref, struct call *c, const struct request *r, size_t n,
	struct buf *answer)
{
	struct process_set *set = process_set_of(ref->sandbox);
	struct process_info info = {0};
	char made_id[40];
	bool made;
	int err = 0;

	if (is_blank_text(r->command, n))
		return call_fault(c, EINVAL, NULL, "there is no command in it");
	if (!r->id)
		err = make_id(made_id);
	if (err || !set)
		return err ? err : -ENOMEM;
	struct process *p = process_set_get(set, r->id ? r->id : made_id, &made);
	if (!p)
		return -ENOMEM;
	if (r->id) { /* one that runs keeps its settings */
		err = process_look(ref, c, p, &info);
		if (info.running)
			err = process_busy(c, p);
		else if (err == -ENOENT)
			err = 0;
		process_info_release(&info);
	}
	if (!err)
		err = process_configure(c, p, r);
	if (!err)
		err = process_begin(ref, c, p, r->command, n);
	if (err && made)
		process_unpin(p, false); /* a request that failed leaves nothing behind */
	if (!err)
		buf_printf(answer, "%s\n", p->id);
	process_put(p);
	return err;
}

int process_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	struct request r = {.session = ctl_session_at(ref)};
	struct json_object *o = NULL;
	int err;

	if (n > 0 && memchr(text, 0, n))
		return call_fault(c, EINVAL, NULL, "a command holds no NUL byte");
	if (!ctl_is_json(text, n)) {
		r.command = n > 0 ? text : "";
		n -= n > 0 && text[n - 1] == '\n';
		return process_new(ref, c, &r, n, answer);
	}
	err = ctl_parse_json(c, text, n, &o);
	if (!err)
		err = request_read(c, o, &r);
	if (!err)
		err = process_new(ref, c, &r, strlen(r.command), answer);
	json_object_put(r.env);
	json_object_put(o);
	return err;
}
