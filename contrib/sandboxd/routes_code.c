/*
 * The code interpreter's routes. Owns the state of each run's stream: the ends of characters that were cut by a read.
 *
 *   GET    /api/interpreter/health                as the official server's, and "languages":{NAME:{"available","reason"?}}
 *   POST   /api/contexts                          {"language"?,"cwd"?,"env_vars"?,"id"?,"variables"?}; the last two are our own
 *   GET    /api/contexts, /api/contexts/ID        each with "status" starting idle busy, "kernel" and "missing" once known
 *   DELETE /api/contexts/ID
 *   POST   /api/execute/code                      {"context_id","code","language"?,"timeoutMs"?,"runId"?}: events as they happen
 *   POST   /api/contexts/ID/interrupt             {"runId"?}: ^C for what runs, or for that run alone; 404 COMMAND_NOT_FOUND: none
 *   POST   /api/contexts/ID/restart               a new executor without the old variables
 *   POST   /api/contexts/ID/variables             {"variables":{}}: sets each; waits for its turn
 *
 * A display is one `result` event with all its forms. Nothing that code prints is repeated or added: results and errors have events
 * of their own.
 */
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "common.h"
#include "interpreter.h"
#include "json_make.h"
#include "routes.h"
#include "text.h"

enum { CUT_MAX = 4, ID_MAX = 128 };

static const char operation[] = "code.execute";

static enum MHD_Result no_context(struct request *r, const char *id)
{
	struct json_object *context = json_object_new_object();
	json_add(context, "contextId", text_json_str(id));
	return reply_error(
		r, ERR_CONTEXT_NOT_FOUND, context, "context.find", "Context %s not found", id);
}

static enum MHD_Result no_memory(struct request *r)
{
	return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
}

/* A string member that has no NUL; NULL: it is not there. False: it is no such string. */
static bool get_word(struct request *r, const char *name, const char **out)
{
	struct json_object *v;
	size_t n = 0;
	*out = NULL;
	if (!json_object_object_get_ex(r->json, name, &v) || !v)
		return true;
	*out = json_text(r->json, name, &n);
	return *out && strlen(*out) == n;
}

static bool id_is_good(const char *id)
{
	size_t n = strlen(id);
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)id[i]) && !strchr("._-", id[i]))
			return false;
	return n && n <= ID_MAX && *id != '.';
}

static bool is_name(const char *s)
{
	if (!isalpha((unsigned char)*s) && *s != '_')
		return false;
	while (*s && (isalnum((unsigned char)*s) || *s == '_'))
		s++;
	return !*s;
}

/* The variables of the body, borrowed; NULL: there are none. False: *out is the answer. */
static bool get_variables(struct request *r, struct json_object **v, enum MHD_Result *out)
{
	*v = NULL;
	if (!json_object_object_get_ex(r->json, "variables", v) || !*v)
		return true;
	if (!json_object_is_type(*v, json_type_object)) {
		*out = reply_error(r, ERR_VALIDATION, NULL, NULL, "variables must be an object");
		return false;
	}
	json_object_object_foreach(*v, name, value)
	{
		(void)value;
		if (!is_name(name)) {
			*out = reply_error(r, ERR_VALIDATION, NULL, NULL,
				"%s: not the name of a variable; use letters, digits and _", name);
			return false;
		}
	}
	return true;
}

/* --- contexts --- */

static enum error_code lack_code(enum language l)
{
	return l == LANGUAGE_PYTHON       ? ERR_PYTHON_NOT_AVAILABLE
		   : l == LANGUAGE_JAVASCRIPT ? ERR_JAVASCRIPT_NOT_AVAILABLE
									  : ERR_TYPESCRIPT_NOT_AVAILABLE;
}

enum MHD_Result route_interpreter_health(struct request *r)
{
	struct json_object *o = answer_new();
	struct json_object *all = json_object_new_object();
	json_add(o, "status", json_object_new_string("healthy"));
	for (int l = 0; l < LANGUAGES; l++) {
		struct json_object *one = json_object_new_object();
		const char *lack = language_lack(r->server, (enum language)l);
		json_add(one, "available", json_object_new_boolean(!lack));
		if (lack)
			json_add(one, "reason", json_object_new_string(lack));
		json_add(all, language_name((enum language)l), one);
	}
	json_add(o, "languages", all);
	return reply_json(r, 200, o);
}

/* False: *out is the answer. */
static bool get_language(struct request *r, enum language *l, enum MHD_Result *out)
{
	const char *word;
	*l = LANGUAGE_PYTHON;
	if (!get_word(r, "language", &word) || (word && !language_find(word, l))) {
		*out = reply_error(r, ERR_VALIDATION, NULL, "context.create",
			"%s: not a language; use python, javascript or typescript", word ? word : "language");
		return false;
	}
	const char *lack = language_lack(r->server, *l);
	if (lack) {
		*out = reply_error(r, lack_code(*l), NULL, "context.create", "%s", lack);
		return false;
	}
	return true;
}

static bool get_environment(struct request *r, struct json_object **env, enum MHD_Result *out)
{
	static const char *const names[] = {"env_vars", "envVars", "env"};
	*env = NULL;
	for (size_t i = 0; !*env && i < sizeof names / sizeof *names; i++)
		json_object_object_get_ex(r->json, names[i], env);
	if (*env && !json_object_is_type(*env, json_type_object)) {
		*out = reply_error(
			r, ERR_VALIDATION, NULL, "context.create", "env_vars must be an object of strings");
		return false;
	}
	return true;
}

static enum MHD_Result answer_context(struct request *r, struct context *c)
{
	struct json_object *o = answer_new();
	json_add(o, "contextId", text_json_str(context_id(c)));
	json_add(o, "language", json_object_new_string(language_name(context_language(c))));
	json_add(o, "cwd", text_json_str(context_cwd(c)));
	return reply_json(r, 200, o);
}

static enum MHD_Result create(
	struct request *r, const struct context_spec *spec, struct json_object *variables)
{
	struct context *c;
	int err = context_new(r->server->interpreter, spec, &c);
	if (err == -EEXIST)
		return reply_error(
			r, ERR_CONTEXT_EXISTS, NULL, "context.create", "Context %s exists already", spec->id);
	if (err == -EAGAIN)
		return reply_error(r, ERR_INTERPRETER_NOT_READY, NULL, "context.create",
			"There are too many contexts: delete one");
	if (err < 0)
		return no_memory(r);
	struct run *run;
	if (variables && run_new(c, NULL, NULL, 0, variables, -1, &run) == 0)
		run_leave(run);
	enum MHD_Result result = answer_context(r, c);
	context_put(c);
	return result;
}

enum MHD_Result route_context_create(struct request *r)
{
	enum MHD_Result result;
	struct context_spec spec = {.cwd = r->server->workspace};
	struct json_object *variables, *given;
	AUTO_FREE char *cwd = NULL;
	if (!request_json(r, false, &result) || !get_language(r, &spec.language, &result) ||
		!get_environment(r, &spec.env, &result) || !get_variables(r, &variables, &result))
		return result;
	if (!get_word(r, "id", &spec.id) || (spec.id && !id_is_good(spec.id)))
		return reply_error(r, ERR_VALIDATION, NULL, "context.create",
			"id must be 1 to 128 of A-Z a-z 0-9 . _ - and not begin with a dot");
	if (json_object_object_get_ex(r->json, "cwd", &given) && given) {
		const char *words;
		struct stat st;
		cwd = request_path(r, "cwd", ERR_VALIDATION, &words, &result);
		if (!cwd)
			return result;
		if (stat(cwd, &st) < 0)
			return reply_no_file(r, cwd, "context.create");
		if (!S_ISDIR(st.st_mode))
			return reply_error(r, ERR_NOT_DIRECTORY, path_context(cwd, "context.create"),
				"context.create", "Not a directory: %s", cwd);
		spec.cwd = cwd;
	}
	return create(r, &spec, variables);
}

enum MHD_Result route_context_list(struct request *r)
{
	struct context **all;
	ssize_t n = context_all(r->server->interpreter, &all);
	if (n < 0)
		return no_memory(r);
	struct json_object *list = json_object_new_array();
	for (ssize_t i = 0; i < n; i++) {
		json_append(list, context_describe(all[i]));
		context_put(all[i]);
	}
	free(all);
	struct json_object *o = answer_new();
	json_add(o, "contexts", list);
	return reply_json(r, 200, o);
}

enum MHD_Result route_context_get(struct request *r)
{
	struct context *c = context_find(r->server->interpreter, r->id);
	if (!c)
		return no_context(r, r->id);
	struct json_object *o = answer_new();
	json_add(o, "context", context_describe(c));
	context_put(c);
	return reply_json(r, 200, o);
}

enum MHD_Result route_context_delete(struct request *r)
{
	if (context_delete(r->server->interpreter, r->id) < 0)
		return no_context(r, r->id);
	struct json_object *o = answer_new();
	json_add(o, "contextId", text_json_str(r->id));
	return reply_json(r, 200, o);
}

enum MHD_Result route_context_interrupt(struct request *r)
{
	enum MHD_Result result;
	const char *run_id = NULL;
	if (r->body.size && !request_json(r, true, &result))
		return result;
	if (r->json && !get_word(r, "runId", &run_id))
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "runId must be a string");
	struct context *c = context_find(r->server->interpreter, r->id);
	if (!c)
		return no_context(r, r->id);
	int err = context_interrupt(c, run_id);
	context_put(c);
	if (err < 0)
		return reply_error(r, ERR_COMMAND_NOT_FOUND, NULL, NULL, "Nothing runs in it");
	return reply_json(r, 200, answer_new());
}

enum MHD_Result route_context_restart(struct request *r)
{
	struct context *c = context_find(r->server->interpreter, r->id);
	if (!c)
		return no_context(r, r->id);
	context_restart(c);
	context_put(c);
	return reply_json(r, 200, answer_new());
}

/* Waits for the end of a run without looking at what it prints. */
static enum MHD_Result wait_over(struct request *r, struct run *run)
{
	for (;;) {
		struct run_event e;
		AUTO_BUF data = BUF_INIT;
		int got = run_next(run, text_monotonic_ms() + HTTP_TICK_MS, &e, &data);
		if (got == -ETIMEDOUT && client_gone(r->client))
			return MHD_NO;
		if (got == -ETIMEDOUT || (got == 1 && e.part != RUN_OVER))
			continue;
		if (got < 0)
			return no_memory(r);
		const char *words = e.json ? json_text(e.json, "evalue", NULL) : NULL;
		if (e.json)
			return reply_error(
				r, ERR_CODE_EXECUTION, NULL, operation, "%s", words ? words : "failed");
		return reply_json(r, 200, answer_new());
	}
}

enum MHD_Result route_context_variables(struct request *r)
{
	enum MHD_Result result;
	struct json_object *variables;
	if (!request_json(r, true, &result) || !get_variables(r, &variables, &result))
		return result;
	if (!variables)
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "variables must be an object");
	struct context *c = context_find(r->server->interpreter, r->id);
	if (!c)
		return no_context(r, r->id);
	struct run *run;
	int err = run_new(c, NULL, NULL, 0, variables, -1, &run);
	context_put(c);
	if (err < 0)
		return err == -ENOENT ? no_context(r, r->id) : no_memory(r);
	result = wait_over(r, run);
	run_leave(run);
	return result;
}

/* --- execute/code --- */

struct coding {
	struct stream stream; /* first: the glue knows it by this */
	struct run *run;
	struct {
		char bytes[CUT_MAX]; /* the beginning of a character */
		size_t n;
	} cut[3];
};

static int coding_text(
	struct coding *s, enum spool_view view, const char *p, size_t n, bool last, struct buf *out)
{
	AUTO_BUF raw = BUF_INIT;
	AUTO_BUF text = BUF_INIT;
	buf_add(&raw, s->cut[view].bytes, s->cut[view].n);
	buf_add(&raw, p, n);
	if (buf_error(&raw) < 0)
		return -ENOMEM;
	size_t used = raw.size ? text_repair(&text, raw.data, raw.size, last) : 0;
	s->cut[view].n = raw.size - used;
	if (raw.size > used)
		memcpy(s->cut[view].bytes, raw.data + used, raw.size - used);
	if (!text.size)
		return buf_error(&text);
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(view == SPOOL_STDERR ? "stderr" : "stdout"));
	json_add(o, "text", json_object_new_string_len(text.data, (int)text.size));
	return event_add(out, o);
}

/* What has been cut cannot be completed any more. */
static int coding_flush(struct coding *s, struct buf *out)
{
	int err = coding_text(s, SPOOL_STDOUT, "", 0, true, out);
	return err < 0 ? err : coding_text(s, SPOOL_STDERR, "", 0, true, out);
}

static struct json_object *typed(const char *type, struct json_object *members)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(type));
	if (members) {
		json_object_object_foreach(members, name, value)
		{
			json_add_as(o, name, value);
		}
	}
	return o;
}

static int coding_next(struct stream *stream, struct buf *out)
{
	struct coding *s = (struct coding *)stream;
	struct run_event e;
	AUTO_BUF data = BUF_INIT;
	int got = run_next(s->run, text_monotonic_ms() + HTTP_TICK_MS, &e, &data);
	if (got == -ETIMEDOUT)
		return 1;
	if (got < 0)
		return got;
	if (e.part == RUN_OUTPUT)
		return coding_text(s, e.stream, data.data, data.size, false, out) < 0 ? -ENOMEM : 1;
	if (coding_flush(s, out) < 0)
		return -ENOMEM;
	if (e.part == RUN_RESULT) {
		struct json_object *o = typed("result", e.json);
		json_add(o, "metadata", json_object_new_object());
		return event_add(out, o) < 0 ? -ENOMEM : 1;
	}
	struct json_object *o = typed(e.json ? "error" : "execution_complete", e.json);
	json_add(o, "execution_count", json_object_new_int64(e.count));
	return event_add(out, o) < 0 ? -ENOMEM : 0;
}

static void coding_release(struct stream *stream)
{
	struct coding *s = (struct coding *)stream;
	run_put(s->run);
	free(s);
}

/* Errors before the stream have a shape of their own here. */
static enum MHD_Result refuse(struct request *r, enum error_code code, const char *what)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "error", text_json_str(what));
	json_add(o, "code", json_object_new_string(error_name(code)));
	json_add(o, "details", json_object_new_object());
	return reply_json(r, error_status(code), o);
}

static enum MHD_Result refuse_context(struct request *r, const char *id)
{
	AUTO_BUF what = BUF_INIT;
	buf_printf(&what, "Context %s not found", id);
	return refuse(r, ERR_CONTEXT_NOT_FOUND, what.data ? what.data : "Context not found");
}

static enum MHD_Result begin(struct request *r, struct context *c, const char *run_id)
{
	size_t n = 0;
	int64_t timeout = -1;
	const char *code = json_text(r->json, "code", &n);
	if (json_number(r->json, "timeoutMs", &timeout) && timeout <= 0)
		return refuse(r, ERR_VALIDATION, "timeoutMs must be greater than 0");
	struct coding *s = calloc(1, sizeof *s);
	int err = s ? run_new(c, run_id, code, n, NULL, timeout, &s->run) : -ENOMEM;
	if (err < 0) {
		free(s);
		return err == -ENOENT ? refuse_context(r, context_id(c))
							  : refuse(r, ERR_INTERNAL, "out of memory");
	}
	s->stream = (struct stream){.next = coding_next, .release = coding_release};
	return reply_stream(r, "text/event-stream", &s->stream);
}

enum MHD_Result route_execute_code(struct request *r)
{
	enum MHD_Result result;
	const char *id, *word, *run_id;
	enum language l;
	if (!request_json(r, false, &result))
		return result;
	if (!get_word(r, "context_id", &id) || !id)
		return refuse(r, ERR_VALIDATION, "context_id must be a string");
	if (!json_text(r->json, "code", NULL))
		return refuse(r, ERR_VALIDATION, "code must be a string");
	if (!get_word(r, "runId", &run_id))
		return refuse(r, ERR_VALIDATION, "runId must be a string");
	struct context *c = context_find(r->server->interpreter, id);
	if (!c)
		return refuse_context(r, id);
	if (get_word(r, "language", &word) && word &&
		(!language_find(word, &l) || l != context_language(c)))
		result = refuse(r, ERR_CODE_EXECUTION, "the context has another language");
	else
		result = begin(r, c, run_id);
	context_put(c);
	return result;
}
