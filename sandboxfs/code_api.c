/* Requests on contexts: see code_api.h. Everything that comes back is checked. */
#include "code_api.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "json_make.h"

enum { ID_MAX = 128, LIST_MAX = 4096 };

static const char unreserved[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

const char *code_api_language(const char *word)
{
	static const struct {
		const char *word, *language;
	} words[] = {{"python", "python"}, {"python3", "python"}, {"py", "python"},
		{"javascript", "javascript"}, {"js", "javascript"}, {"node", "javascript"},
		{"typescript", "typescript"}, {"ts", "typescript"}};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(word, words[i].word) == 0)
			return words[i].language;
	return NULL;
}

bool code_api_id_ok(const char *id)
{
	size_t n = strspn(id, unreserved);
	return n > 0 && n <= ID_MAX && !id[n] && *id != '.' && strcmp(id, "new") != 0 &&
		   strcmp(id, "help") != 0;
}

static bool is_code(const struct fault *f, const char *code)
{
	return f->code && strcmp(f->code, code) == 0;
}

/*
 * sandbox_api where a missing context is -ENOENT and nothing that runs -ESRCH, without a fault. -ENOTSUP stays what the server says of a
 * language, and is a sentence of ours where it has no such route.
 */
static int request(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	bool had = c->fault.err;
	int err = sandbox_api(sb, c, method, path, body, reply);
	if (!err || had)
		return err;
	if (is_code(&c->fault, "CONTEXT_NOT_FOUND") || is_code(&c->fault, "CONTEXT_ALREADY_EXISTS") ||
		err == -ESRCH) {
		fault_clear(&c->fault);
	} else if (err == -EAGAIN) {
		/* For who opened a file EAGAIN means something else. */
		err = -EBUSY;
		c->fault.err = EBUSY;
	} else if (err == -ENOTSUP && (!c->fault.code || is_code(&c->fault, "UNKNOWN_ERROR"))) {
		fault_clear(&c->fault);
		call_fault(c, ENOTSUP, NULL,
			"this server cannot do that with a context; it takes sandboxd in the sandbox");
	}
	return err;
}

static int senseless(struct call *c)
{
	return call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;
	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string)
			   ? json_object_get_string(v)
			   : NULL;
}

int code_api_create(struct sandbox *sb, struct call *c, const struct code_api_spec *spec, char **id)
{
	struct json_object *reply = NULL, *body = json_object_new_object();
	bool ok = body && json_add(body, "language", json_object_new_string(spec->language)) &&
			  (!spec->id || json_add(body, "id", json_object_new_string(spec->id))) &&
			  (!spec->cwd || json_add(body, "cwd", json_object_new_string(spec->cwd))) &&
			  (!spec->env || json_add(body, "env_vars", json_object_get(spec->env)));
	int err = ok ? request(sb, c, "POST", "/api/contexts", body, &reply) : -ENOMEM;
	json_object_put(body);
	if (err)
		return err;
	const char *got = text_of(reply, "contextId");
	if (!got || !code_api_id_ok(got))
		err = senseless(c);
	else if (!(*id = strdup(got)))
		err = -ENOMEM;
	json_object_put(reply);
	return err;
}

int code_api_list(struct sandbox *sb, struct call *c,
	bool (*cb)(const struct code_api_info *info, void *arg), void *arg)
{
	struct json_object *reply = NULL, *list;
	int err = request(sb, c, "GET", "/api/contexts", NULL, &reply);
	if (err)
		return err;
	if (!json_object_object_get_ex(reply, "contexts", &list) ||
		!json_object_is_type(list, json_type_array)) {
		json_object_put(reply);
		return senseless(c);
	}
	size_t n = json_object_array_length(list);
	if (n > LIST_MAX) {
		json_object_put(reply);
		return call_fault(c, EPROTO, NULL, "the server lists more than %d contexts", LIST_MAX);
	}
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		if (!json_object_is_type(o, json_type_object))
			continue;
		struct code_api_info info = {.id = text_of(o, "id"), .language = text_of(o, "language")};
		if (info.id && info.language && code_api_id_ok(info.id) && !cb(&info, arg))
			break;
	}
	json_object_put(reply);
	return 0;
}

/* Ids are of letters that a path takes as they are. */
static int on_context(struct sandbox *sb, struct call *c, const char *method, const char *id,
	const char *what, struct json_object *body)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "/api/contexts/%s%s", id, what);
	return buf_error(&path) ? -ENOMEM : request(sb, c, method, path.data, body, NULL);
}

int code_api_delete(struct sandbox *sb, struct call *c, const char *id)
{
	return on_context(sb, c, "DELETE", id, "", NULL);
}

int code_api_restart(struct sandbox *sb, struct call *c, const char *id)
{
	return on_context(sb, c, "POST", id, "/restart", NULL);
}

int code_api_variables(
	struct sandbox *sb, struct call *c, const char *id, struct json_object *variables)
{
	struct json_object *body = json_object_new_object();
	int err = body && json_add(body, "variables", json_object_get(variables))
				  ? on_context(sb, c, "POST", id, "/variables", body)
				  : -ENOMEM;
	json_object_put(body);
	return err;
}

int code_api_interrupt(struct sandbox *sb, struct call *c, const char *id, const char *run_id)
{
	struct json_object *body = json_object_new_object();
	bool ok = body && (!run_id || json_add(body, "runId", json_object_new_string(run_id)));
	int err = ok ? on_context(sb, c, "POST", id, "/interrupt", body) : -ENOMEM;
	json_object_put(body);
	return err == -ESRCH ? 0 : err;
}
