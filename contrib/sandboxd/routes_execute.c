/*
 * POST /api/execute and /api/execute/stream. Owns nothing: a command's record stays in the table, its end
 * is awaited here.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "session.h"
#include "text.h"

static void add_session(struct json_object *o, const char *name)
{
	if (name)
		json_add(o, "sessionId", text_json_str(name));
}

static enum MHD_Result answer_execute(struct request *r, const char *text, size_t size,
	const char *session, int exit_code, struct json_object *out, struct json_object *err)
{
	struct json_object *o = answer_new();
	json_add(o, "success", json_object_new_boolean(exit_code == 0));
	json_add(o, "exitCode", json_object_new_int(exit_code));
	json_add(o, "stdout", out);
	json_add(o, "stderr", err);
	json_add(o, "command", text_json(text, size));
	json_add(o, "duration", json_object_new_int(0));
	add_session(o, session);
	return reply_json(r, 200, o);
}

static enum MHD_Result answer_background(struct request *r, struct command *c, const char *session)
{
	struct json_object *o = answer_new();
	json_add(o, "processId", text_json_str(c->id));
	json_add(o, "pid", json_object_new_int(command_pid(c)));
	json_add(o, "command", text_json(c->text, c->text_size));
	add_session(o, session);
	return reply_json(r, 200, o);
}

/* Waits for the end, or until the client has gone: the command runs on then. */
static enum MHD_Result answer_end(struct request *r, struct command *c, const char *session)
{
	int state = -ETIMEDOUT;
	while (state == -ETIMEDOUT) {
		state = command_wait_output(c, SPOOL_BOTH, UINT64_MAX, text_monotonic_ms() + HTTP_TICK_MS);
		if (state == -ETIMEDOUT && client_gone(r->client))
			return MHD_NO;
	}
	if (c->session_lost)
		return run_session_lost(r, c);
	struct json_object *out = run_text(c, SPOOL_STDOUT, c->end_size[SPOOL_STDOUT]);
	struct json_object *err = out ? run_text(c, SPOOL_STDERR, c->end_size[SPOOL_STDERR]) : NULL;
	if (!err) {
		json_object_put(out);
		return reply_error(
			r, ERR_INTERNAL, NULL, "command.execute", "the output does not fit into memory");
	}
	return answer_execute(r, c->text, c->text_size, session, c->exit_code, out, err);
}

enum MHD_Result route_execute(struct request *r)
{
	enum MHD_Result result;
	enum session_kind kind;
	const char *session;
	struct command_spec spec;
	if (!request_json(r, false, &result) || !run_session(r, true, &kind, &session, &result) ||
		!run_spec(r, false, &spec, &result))
		return result;
	bool background = json_flag(r->json, "background", false);
	spec.timeout_note = true;
	spec.listed = background;
	struct command *c;
	if (!run_place(r, kind, session, !background, &spec, &result))
		return result;
	int err = commands_start(r->server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	session_put(spec.session);
	if (err < 0)
		return run_failed(r, ERR_COMMAND_EXECUTION, "command.execute", &spec, err);
	result = background ? answer_background(r, c, session) : answer_end(r, c, session);
	/* The record of what was answered whole is of no use to anybody. */
	if (!background && command_ended(c))
		(void)commands_forget(r->server->commands, c->id);
	commands_put(c);
	return result;
}

enum MHD_Result route_execute_stream(struct request *r)
{
	enum MHD_Result result;
	enum session_kind kind;
	const char *session;
	struct command_spec spec;
	if (!request_json(r, false, &result) || !run_session(r, true, &kind, &session, &result) ||
		!run_spec(r, true, &spec, &result))
		return result;
	/* A time-out is not part of this route, and every stream is a process of the list. */
	spec.timeout_ms = -1;
	spec.listed = true;
	if (!run_place(r, kind, session, true, &spec, &result))
		return result;
	struct command *c;
	int err = commands_start(r->server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	session_put(spec.session);
	if (err < 0)
		return run_failed(r, ERR_STREAM_START, "command.stream", &spec, err);
	return reply_command_events(r, c, EVENTS_EXECUTE);
}
