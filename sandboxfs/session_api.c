/* Requests on sessions: see session_api.h. Everything that comes back is checked. */
#include "session_api.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "json_make.h"

enum { ID_MAX = 128, NAME_LONGEST = 255 };

static const char unreserved[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

bool session_api_id_ok(const char *id)
{
	size_t n = strspn(id, unreserved);
	return n > 0 && n <= ID_MAX && !id[n] && session_api_id_shown(id);
}

bool session_api_id_shown(const char *id)
{
	size_t n = strlen(id);
	return n > 0 && n <= NAME_LONGEST && id[0] != '.' && !strchr(id, '/') &&
		   strcmp(id, "new") != 0 && strcmp(id, "help") != 0;
}

int session_api_path(const char *path, char **out)
{
	AUTO_BUF clean = BUF_INIT;

	if (*path != '/')
		return -EINVAL;
	if (strlen(path) > SESSION_API_PATH_MAX)
		return -ENAMETOOLONG;
	for (const char *p = path; *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");
		if (n == 2 && memcmp(p, "..", 2) == 0) {
			while (clean.size && clean.data[--clean.size] != '/')
				;
		} else if (n && !(n == 1 && *p == '.')) {
			buf_char(&clean, '/');
			buf_add(&clean, p, n);
		}
		p += n;
	}
	if (!clean.size)
		buf_char(&clean, '/');
	buf_add(&clean, "", 1); /* it may have been longer */
	*out = buf_steal(&clean);
	return *out ? 0 : -ENOMEM;
}

/* "Session 'ID' not found" has no code of its own, and the id may be any word that means something else. */
static bool says_not_found(const struct fault *f)
{
	static const char begin[] = "Session '", end[] = "' not found";
	size_t n = f->message ? strlen(f->message) : 0;
	return n >= strlen(begin) + strlen(end) && strncmp(f->message, begin, strlen(begin)) == 0 &&
		   strcmp(f->message + n - strlen(end), end) == 0;
}

/* sandbox_api on one session: a missing one is -ENOENT, a conflict -EEXIST, nothing to be ended -ESRCH, without a fault. */
static int request(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	bool had = c->fault.err;
	int err = sandbox_api(sb, c, method, path, body, reply);
	if (err && !had && says_not_found(&c->fault))
		err = -ENOENT;
	bool lacks = err == -ENOTSUP;
	if ((err == -ENOENT || err == -EEXIST || err == -ESRCH || lacks) && !had)
		fault_clear(&c->fault);
	if (lacks)
		call_fault(c, ENOTSUP, NULL,
			"this server cannot show its sessions as files; it takes sandboxd in the sandbox");
	return err;
}

/* The server's words are those of a program, and name no session. */
static int cannot_make(struct call *c, const char *id, const char *path, int err)
{
	static const int of_files[] = {
		EROFS, EACCES, EPERM, EEXIST, ENOTDIR, ENOENT, ELOOP, ENAMETOOLONG, ENOSPC, EDQUOT, EINVAL};
	size_t i = 0, count = sizeof of_files / sizeof *of_files;
	while (i < count && err != -of_files[i])
		i++;
	if (i == count)
		return err;
	fault_clear(&c->fault);
	return call_fault(c, -err, "FILESYSTEM_ERROR",
		"%s: there is no directory %s, and it cannot be made: %s; give another cwd", id, path,
		strerror(-err));
}

static int make_directory(struct sandbox *sb, struct call *c, const char *id, const char *path)
{
	struct json_object *body = json_object_new_object();
	bool ok = body && json_add(body, "path", json_object_new_string(path)) &&
			  json_add(body, "recursive", json_object_new_boolean(true)) &&
			  json_add(body, "sessionId", json_object_new_string("__DISABLE_SESSION__"));
	int err = ok ? sandbox_api(sb, c, "POST", "/api/mkdir", body, NULL) : -ENOMEM;
	json_object_put(body);
	return err ? cannot_make(c, id, path, err) : 0;
}

int session_api_create(struct sandbox *sb, struct call *c, const struct session_api_spec *spec)
{
	/* The server would begin elsewhere, without a word. */
	int err = spec->cwd ? make_directory(sb, c, spec->id, spec->cwd) : 0;
	if (err)
		return err;
	struct json_object *body = json_object_new_object();
	bool ok = body && json_add(body, "id", json_object_new_string(spec->id));
	ok = ok && json_add(body, "cwd", json_object_new_string(spec->cwd ? spec->cwd : "/workspace"));
	ok = ok && (!spec->env || json_add(body, "env", json_object_get(spec->env)));
	ok = ok && (spec->timeout_ms <= 0 ||
				   json_add(body, "commandTimeoutMs", json_object_new_int64(spec->timeout_ms)));
	err = ok ? request(sb, c, "POST", "/api/session/create", body, NULL) : -ENOMEM;
	json_object_put(body);
	return err;
}

void session_api_info_release(struct session_api_info *i)
{
	free(i->cwd);
	*i = (struct session_api_info){0};
}

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v;
	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type) ? v : NULL;
}

static int read_info(struct json_object *o, struct session_api_info *out)
{
	struct json_object *cwd = member(o, "cwd", json_type_string);
	struct json_object *state = member(o, "state", json_type_string);
	struct json_object *code = member(o, "exitCode", json_type_int);
	const char *path = cwd ? json_object_get_string(cwd) : "";
	bool whole = cwd && strlen(path) == (size_t)json_object_get_string_len(cwd);
	int64_t exit_code = code ? json_object_get_int64(code) : 0;
	if (!state || !whole || exit_code < 0 || exit_code > 255)
		return -EPROTO;
	out->ended = strcmp(json_object_get_string(state), "ended") == 0;
	out->exit_code = (int)exit_code;
	/* It becomes the text of a link on this host. */
	int err = session_api_path(path, &out->cwd);
	return err && err != -ENOMEM ? -EPROTO : err;
}

int session_api_get(
	struct sandbox *sb, struct call *c, const char *id, struct session_api_info *out)
{
	struct json_object *reply = NULL;
	AUTO_BUF path = BUF_INIT;
	*out = (struct session_api_info){0};
	buf_str(&path, "/api/sandboxfs/session?id=");
	for (const char *p = id; *p; p++) {
		if (strchr(unreserved, *p))
			buf_char(&path, *p);
		else
			buf_printf(&path, "%%%02X", (unsigned char)*p);
	}
	if (buf_error(&path))
		return -ENOMEM;
	int err = request(sb, c, "GET", path.data, NULL, &reply);
	if (err)
		return err;
	struct json_object *o = member(reply, "session", json_type_object);
	err = o ? read_info(o, out) : -EPROTO;
	if (err == -EPROTO)
		call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	json_object_put(reply);
	return err;
}

int session_api_list(
	struct sandbox *sb, struct call *c, bool (*cb)(const char *id, void *arg), void *arg)
{
	struct json_object *reply = NULL;
	int err = sandbox_api(sb, c, "GET", "/api/session/list", NULL, &reply);
	if (err)
		return err;
	struct json_object *list = member(reply, "data", json_type_array);
	if (!list)
		err = call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	size_t n = list ? json_object_array_length(list) : 0;
	if (n > SESSION_API_LIST_MAX) {
		n = 0;
		err = call_fault(
			c, EPROTO, NULL, "the server lists more than %d sessions", SESSION_API_LIST_MAX);
	}
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *id = json_object_is_type(o, json_type_string) ? json_object_get_string(o) : "";
		if (call_cancelled(c)) {
			err = -EINTR;
			break;
		}
		if (session_api_id_shown(id) && !cb(id, arg))
			break;
	}
	json_object_put(reply);
	return err;
}

int session_api_delete(struct sandbox *sb, struct call *c, const char *id)
{
	struct json_object *body = json_object_new_object();
	bool ok = body && json_add(body, "sessionId", json_object_new_string(id));
	int err = ok ? request(sb, c, "POST", "/api/session/delete", body, NULL) : -ENOMEM;
	json_object_put(body);
	return err;
}

static int send_signal(struct sandbox *sb, struct call *c, const char *id, const char *action)
{
	struct json_object *body = json_object_new_object();
	bool ok = body && json_add(body, "sessionId", json_object_new_string(id)) &&
			  json_add(body, "action", json_object_new_string(action));
	int err = ok ? request(sb, c, "POST", "/api/sandboxfs/session/signal", body, NULL) : -ENOMEM;
	json_object_put(body);
	return err == -ESRCH ? 0 : err;
}

int session_api_interrupt(struct sandbox *sb, struct call *c, const char *id)
{
	return send_signal(sb, c, id, "interrupt");
}

int session_api_kill(struct sandbox *sb, struct call *c, const char *id)
{
	return send_signal(sb, c, id, "kill");
}
