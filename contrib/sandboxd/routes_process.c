/*
 * The routes below /api/process. Owns nothing: records are the table's.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "session.h"
#include "text.h"

enum { KILL_GRACE_MS = 5000, KILL_WAIT_MS = 12000 };

static enum MHD_Result no_process(struct request *r, const char *id, const char *operation)
{
	struct json_object *context = json_object_new_object();
	json_add(context, "processId", text_json_str(id));
	return reply_error(r, ERR_PROCESS_NOT_FOUND, context, operation, "Process not found: %s", id);
}

/* The process a request names: a new reference to one that is listed, or NULL. */
static struct command *find_process(struct request *r)
{
	struct command *c = commands_find(r->server->commands, r->id);
	/* One that is being started is not described before it runs. */
	if (c && c->listed && !command_wait_started(c))
		return c;
	commands_put(c);
	return NULL;
}

static struct json_object *describe(struct command *c, bool whole)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "id", text_json_str(c->id));
	json_add(o, "pid", json_object_new_int(command_pid(c)));
	json_add(o, "command", text_json(c->text, c->text_size));
	json_add(o, "status", json_object_new_string(command_status(c)));
	json_add(o, "startTime", text_time(&c->begin_time));
	if (command_ended(c)) {
		if (whole)
			json_add(o, "endTime", text_time(&c->end_time));
		json_add(o, "exitCode", json_object_new_int(c->exit_code));
	}
	return o;
}

enum MHD_Result route_process_start(struct request *r)
{
	enum MHD_Result result;
	enum session_kind kind;
	const char *session;
	struct command_spec spec;
	if (!request_json(r, false, &result) || !run_session(r, false, &kind, &session, &result) ||
		!run_spec(r, true, &spec, &result))
		return result;
	size_t n = 0;
	spec.id = json_text(r->json, "processId", &n);
	if (spec.id && (!n || strlen(spec.id) != n || n > 128 || strchr(spec.id, '/')))
		return reply_error(r, ERR_VALIDATION, NULL, "process.start",
			"Invalid processId: 1 to 128 of A-Z a-z 0-9 . _ -");
	spec.timeout_note = true;
	spec.listed = true;
	struct command *c;
	if (!run_place(r, kind, session, false, &spec, &result))
		return result;
	int err = commands_start(r->server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	session_put(spec.session);
	if (err == -EBUSY)
		return reply_error(
			r, ERR_RESOURCE_BUSY, NULL, "process.start", "Process %s is still running", spec.id);
	if (err < 0)
		return run_failed(r, ERR_COMMAND_EXECUTION, "process.start", &spec, err);
	struct json_object *o = answer_new();
	json_add(o, "processId", text_json_str(c->id));
	json_add(o, "pid", json_object_new_int(command_pid(c)));
	json_add(o, "command", text_json(c->text, c->text_size));
	commands_put(c);
	return reply_json(r, 200, o);
}

enum MHD_Result route_process_list(struct request *r)
{
	const char *status = request_query(r, "status");
	struct command **all;
	ssize_t count = commands_all(r->server->commands, &all);
	if (count < 0)
		return reply_error(r, ERR_INTERNAL, NULL, "process.list", "out of memory");
	struct json_object *list = json_object_new_array();
	for (ssize_t i = 0; i < count; i++) {
		if (all[i]->listed && command_has_run(all[i]) &&
			(!status || strcmp(status, command_status(all[i])) == 0))
			json_append(list, describe(all[i], false));
		commands_put(all[i]);
	}
	free(all);
	struct json_object *o = answer_new();
	json_add(o, "processes", list);
	return reply_json(r, 200, o);
}

enum MHD_Result route_process_get(struct request *r)
{
	struct command *c = find_process(r);
	if (!c)
		return no_process(r, r->id, "process.get");
	struct json_object *o = answer_new();
	json_add(o, "process", describe(c, true));
	commands_put(c);
	return reply_json(r, 200, o);
}

enum MHD_Result route_process_kill(struct request *r)
{
	struct command *c = find_process(r);
	if (!c)
		return no_process(r, r->id, "process.kill");
	int err = command_cancel(c, KILL_GRACE_MS);
	if (!err && !command_wait_dead(c, text_monotonic_ms() + KILL_WAIT_MS))
		err = -EBUSY;
	commands_put(c);
	struct json_object *o = answer_new();
	json_add(o, "processId", text_json_str(r->id));
	if (!err)
		return reply_json(r, 200, o);
	if (err == -EBUSY) {
		json_object_put(o);
		return reply_error(
			r, ERR_RESOURCE_BUSY, NULL, "process.kill", "Process %s cannot be killed", r->id);
	}
	json_object_object_del(o, "success");
	return reply_error(
		r, ERR_COMMAND_NOT_FOUND, o, "process.kill", "Process %s has ended already", r->id);
}

enum MHD_Result route_process_kill_all(struct request *r)
{
	struct command **all;
	ssize_t count = commands_all(r->server->commands, &all);
	if (count < 0)
		return reply_error(r, ERR_INTERNAL, NULL, "process.kill", "out of memory");
	int cleaned = 0;
	int64_t deadline = text_monotonic_ms() + KILL_WAIT_MS;
	/* All are asked before the first is awaited. */
	for (ssize_t i = 0; i < count; i++)
		if (!all[i]->listed || command_cancel(all[i], KILL_GRACE_MS) < 0) {
			commands_put(all[i]);
			all[i] = NULL;
		}
	for (ssize_t i = 0; i < count; i++) {
		if (all[i] && command_wait_dead(all[i], deadline))
			cleaned++;
		commands_put(all[i]);
	}
	free(all);
	struct json_object *o = answer_new();
	json_add(o, "cleanedCount", json_object_new_int(cleaned));
	return reply_json(r, 200, o);
}

enum MHD_Result route_process_logs(struct request *r)
{
	struct command *c = find_process(r);
	if (!c)
		return no_process(r, r->id, "process.logs");
	struct json_object *out = run_text(c, SPOOL_STDOUT, UINT64_MAX);
	struct json_object *err = out ? run_text(c, SPOOL_STDERR, UINT64_MAX) : NULL;
	commands_put(c);
	if (!err) {
		json_object_put(out);
		return reply_error(
			r, ERR_INTERNAL, NULL, "process.logs", "the output does not fit into memory");
	}
	struct json_object *o = answer_new();
	json_add(o, "processId", text_json_str(r->id));
	json_add(o, "stdout", out);
	json_add(o, "stderr", err);
	return reply_json(r, 200, o);
}

enum MHD_Result route_process_stream(struct request *r)
{
	struct command *c = find_process(r);
	return c ? reply_command_events(r, c, EVENTS_PROCESS) : no_process(r, r->id, "process.stream");
}
