/*
 * The routes of sessions. Owns nothing: sessions are the table's (session.h).
 *
 * Besides those of the API, for our own client:
 *   GET  /api/sandboxfs/session?id=ID          -> {"success":true,"session":{"id","state":"alive"|"ended","exitCode"?,"pid"?,"cwd","commands":N}}
 *        commands: how many run or wait. `ended`: its shell has; the next command starts another.
 *   POST /api/sandboxfs/session/signal {"sessionId","action":"interrupt"|"kill"}   the command that runs, or the shell with it
 *        -> {"success":true}; nothing runs, or there is no shell: 404 COMMAND_NOT_FOUND
 * An unknown session is 500 INTERNAL_ERROR "Session 'ID' not found", as with the API.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "session.h"
#include "text.h"

static enum MHD_Result no_session(struct request *r, const char *id, const char *operation)
{
	return reply_error(r, ERR_INTERNAL, NULL, operation, "Session '%s' not found", id);
}

/* A member that names a session: not empty, no blanks only, no NUL. */
static const char *get_id(struct json_object *o, const char *member)
{
	size_t n = 0;
	const char *id = json_text(o, member, &n);
	return id && strlen(id) == n && id[strspn(id, " \t\r\n\v\f")] ? id : NULL;
}

static struct json_object *options_answer(struct request *r)
{
	struct json_object *o = json_object_new_object();
	static const char *const members[] = {"cwd", "commandTimeoutMs"};
	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		struct json_object *v = NULL;
		if (json_object_object_get_ex(r->json, members[i], &v))
			json_add_as(o, members[i], v);
	}
	return o;
}

static enum MHD_Result answer_created(struct request *r, const char *id)
{
	struct json_object *data = json_object_new_object();
	json_add(data, "id", text_json_str(id));
	json_add(data, "ready", json_object_new_boolean(true));
	json_add(data, "options", options_answer(r));
	struct json_object *o = answer_new();
	json_add(o, "data", data);
	json_add_as(o, "containerPlacementId", NULL);
	return reply_json(r, 200, o);
}

enum MHD_Result route_session_create(struct request *r)
{
	static const char operation[] = "session.create";
	/* What is no object counts as an empty one here. */
	struct json_object *o = r->body.size ? json_tokener_parse(r->body.data) : NULL;
	if (o && !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	r->json = o ? o : json_object_new_object();
	if (!r->json)
		return reply_json(r, 500, NULL);

	struct session_spec spec = {.timeout_ms = -1};
	AUTO_BUF made = BUF_INIT;
	struct json_object *v = NULL;
	size_t n = 0;
	spec.id = get_id(r->json, "id");
	if (!spec.id && json_object_object_get_ex(r->json, "id", &v) && v)
		return reply_error(
			r, ERR_VALIDATION, NULL, operation, "id must be a string that is not blank");
	if (!spec.id) {
		char letters[13];
		text_random(letters, 12);
		buf_printf(&made, "session_%lld_%s", (long long)text_now_ms(), letters);
		spec.id = made.data;
	}
	spec.cwd = json_text(r->json, "cwd", &n);
	if (spec.cwd && strlen(spec.cwd) != n)
		return reply_error(r, ERR_VALIDATION, NULL, operation, "cwd must not contain null bytes");
	if (json_object_object_get_ex(r->json, "env", &spec.env) && spec.env &&
		!json_object_is_type(spec.env, json_type_object))
		return reply_error(r, ERR_VALIDATION, NULL, operation, "env must be an object of strings");
	int64_t timeout;
	if (json_number(r->json, "commandTimeoutMs", &timeout) && timeout > 0)
		spec.timeout_ms = timeout;
	struct session *s;
	int err = spec.id ? sessions_create(r->server->sessions, &spec, &s) : -ENOMEM;
	if (err == -EEXIST) {
		struct json_object *context = json_object_new_object();
		json_add(context, "sessionId", text_json_str(spec.id));
		return reply_error(
			r, ERR_SESSION_EXISTS, context, operation, "Session '%s' already exists", spec.id);
	}
	if (err == -EINVAL)
		return reply_error(r, ERR_VALIDATION, NULL, operation, "env must not contain null bytes");
	if (err < 0)
		return reply_error(r, ERR_INTERNAL, NULL, operation, "The session cannot be created: %s",
			strerrordesc_np(-err));
	enum MHD_Result result = answer_created(r, session_id(s));
	session_put(s);
	return result;
}

enum MHD_Result route_session_list(struct request *r)
{
	struct json_object *o = answer_new();
	json_add(o, "data", sessions_list(r->server->sessions));
	return reply_json(r, 200, o);
}

enum MHD_Result route_session_delete(struct request *r)
{
	enum MHD_Result result;
	if (!request_json(r, true, &result))
		return result;
	const char *id = get_id(r->json, "sessionId");
	if (!id)
		return reply_error(r, ERR_VALIDATION, NULL, "session.delete",
			"sessionId must be a string that is not blank");
	if (sessions_delete(r->server->sessions, id) < 0)
		return no_session(r, id, "session.delete");
	struct json_object *o = answer_new();
	json_add(o, "sessionId", text_json_str(id));
	return reply_json(r, 200, o);
}

enum MHD_Result route_session_get(struct request *r)
{
	const char *id = request_query(r, "id");
	if (!id)
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "the query names no id");
	struct session *s = sessions_find(r->server->sessions, id);
	if (!s)
		return no_session(r, id, NULL);
	struct session_state state;
	int err = session_state(s, &state);
	session_put(s);
	if (err < 0)
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	struct json_object *o = json_object_new_object();
	json_add(o, "id", text_json_str(id));
	json_add(o, "state", json_object_new_string(state.ended ? "ended" : "alive"));
	if (state.ended)
		json_add(o, "exitCode", json_object_new_int(state.exit_code));
	if (state.pid)
		json_add(o, "pid", json_object_new_int(state.pid));
	json_add(o, "cwd", text_json_str(state.cwd));
	json_add(o, "commands", json_object_new_uint64(state.commands));
	free(state.cwd);
	struct json_object *answer = answer_new();
	json_add(answer, "session", o);
	return reply_json(r, 200, answer);
}

enum MHD_Result route_session_signal(struct request *r)
{
	enum MHD_Result result;
	if (!request_json(r, true, &result))
		return result;
	const char *id = get_id(r->json, "sessionId");
	const char *action = json_text(r->json, "action", NULL);
	bool kill = action && strcmp(action, "kill") == 0;
	if (!id || !action || (!kill && strcmp(action, "interrupt") != 0))
		return reply_error(
			r, ERR_VALIDATION, NULL, NULL, "sessionId is a session, action is interrupt or kill");
	struct session *s = sessions_find(r->server->sessions, id);
	if (!s)
		return no_session(r, id, NULL);
	int err = kill ? session_kill(s) : session_interrupt(s);
	session_put(s);
	if (err < 0)
		return reply_error(r, ERR_COMMAND_NOT_FOUND, NULL, NULL,
			kill ? "Session '%s' has no shell just now" : "Session '%s' runs nothing", id);
	return reply_json(r, 200, answer_new());
}
