/*
 * The fields that execute, execute/stream, process/start and our own commands have in common. Owns nothing.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "common.h"
#include "environment.h"
#include "json_make.h"
#include "session.h"
#include "text.h"

static bool is_blank(const char *s)
{
	return !s[strspn(s, " \t\r\n\v\f")];
}

bool run_session(struct request *r, bool empty_is_absent, enum session_kind *kind,
	const char **name, enum MHD_Result *out)
{
	struct json_object *v;
	*name = NULL;
	*kind = SESSION_DEFAULT;
	bool given = json_object_object_get_ex(r->json, "sessionId", &v) && v;
	const char *s =
		given && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
	if (s && strlen(s) != (size_t)json_object_get_string_len(v))
		s = NULL;
	/* A bearer token is none: it would become the name of a session, for all to read. */
	if (empty_is_absent && (!given || (s && !*s))) {
		s = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "X-Session-Id");
		s = s ? s : request_query(r, "session");
		s = s ? s : request_query(r, "sessionId");
		given = s && !is_blank(s);
	}
	if (!given)
		return true;
	if (!s || is_blank(s)) {
		*out = reply_error(r, ERR_INTERNAL, NULL, NULL, "Invalid sessionId");
		return false;
	}
	*name = s;
	*kind = strcmp(s, "__DISABLE_SESSION__") == 0 ? SESSION_NONE : SESSION_NAMED;
	return true;
}

bool run_place(struct request *r, enum session_kind kind, const char *name, bool in_shell,
	struct command_spec *spec, enum MHD_Result *out)
{
	if (kind == SESSION_NONE)
		return true;
	if (in_shell && !environment_names_are_good(spec->env)) {
		*out = reply_error(r, ERR_COMMAND_EXECUTION, NULL, NULL,
			"Failed to execute command: env has a name that a shell cannot assign");
		return false;
	}
	const char *id = kind == SESSION_DEFAULT ? SESSION_DEFAULT_ID : name;
	/* What runs beside the default shell needs none. */
	int err = 0;
	if (kind == SESSION_DEFAULT && !in_shell)
		spec->session = sessions_find(r->server->sessions, id);
	else
		err = sessions_open(r->server->sessions, id, &spec->session);
	if (err < 0) {
		*out = reply_error(r, ERR_INTERNAL, NULL, NULL, "Session '%s' cannot be created: %s", id,
			strerrordesc_np(-err));
		return false;
	}
	spec->in_shell = in_shell;
	return true;
}

enum MHD_Result run_session_lost(struct request *r, struct command *c)
{
	bool deleted = session_is_deleted(c->session);
	struct json_object *context = json_object_new_object();
	json_add(context, "sessionId", text_json_str(session_id(c->session)));
	json_add(context, "exitCode", json_object_new_int(c->exit_code));
	return reply_error(r, deleted ? ERR_SESSION_DESTROYED : ERR_SESSION_TERMINATED, context,
		"command.execute",
		deleted ? "Session '%s' was deleted" : "The shell of session '%s' has ended",
		session_id(c->session));
}

bool run_spec(
	struct request *r, bool blank_refused, struct command_spec *spec, enum MHD_Result *out)
{
	*spec = (struct command_spec){.timeout_ms = -1};
	enum error_code code = blank_refused ? ERR_INVALID_COMMAND : ERR_COMMAND_EXECUTION;
	spec->text = json_text(r->json, "command", &spec->size);
	if (!spec->text || (blank_refused && is_blank(spec->text))) {
		*out = reply_error(r, code, NULL, NULL, "Invalid command: it must be a non-empty string");
		return false;
	}
	if (memchr(spec->text, '\0', spec->size)) {
		*out = reply_error(r, ERR_COMMAND_EXECUTION, NULL, NULL,
			"Failed to execute command: it must be a string without null bytes");
		return false;
	}
	size_t n = 0;
	spec->cwd = json_text(r->json, "cwd", &n);
	if (spec->cwd && strlen(spec->cwd) != n) {
		*out = reply_error(r, ERR_VALIDATION, NULL, NULL, "cwd must not contain null bytes");
		return false;
	}
	struct json_object *env;
	if (json_object_object_get_ex(r->json, "env", &env) && env) {
		if (!json_object_is_type(env, json_type_object)) {
			*out = reply_error(r, ERR_VALIDATION, NULL, NULL, "env must be an object of strings");
			return false;
		}
		spec->env = env;
	}
	int64_t timeout;
	if (json_number(r->json, "timeoutMs", &timeout) && timeout >= 0)
		spec->timeout_ms = timeout < INT32_MAX * 1000LL ? timeout : -1;
	return true;
}

enum MHD_Result run_failed(struct request *r, enum error_code code, const char *operation,
	const struct command_spec *spec, int err)
{
	AUTO_BUF why = BUF_INIT;
	struct json_object *context = json_object_new_object();
	if (err == -ECANCELED) {
		json_object_put(context);
		return reply_error(r, ERR_OPERATION_INTERRUPTED, NULL, operation,
			"The command was cancelled before it was started");
	}
	if (err == -EINVAL) {
		json_object_put(context);
		return reply_error(r, ERR_VALIDATION, NULL, operation, "env must not contain null bytes");
	}
	text_errno(&why, err);
	if (spec->cwd)
		json_add(context, "cwd", text_json_str(spec->cwd));
	/* The official server's words: the directory is meant, where it names the shell. */
	return reply_error(r, code, context, operation,
		"Failed to execute command: %s, posix_spawn '%s'", why.data ? why.data : "",
		r->server->shell);
}

struct json_object *run_text(struct command *c, enum spool_view view, uint64_t end)
{
	AUTO_BUF b = BUF_INIT;
	if (command_output(c, view, end, &b) < 0 || buf_error(&b) < 0)
		return NULL;
	return text_json(b.data ? b.data : "", b.size);
}
