/*
 * Paths from requests, and the answers that speak of a path. Owns nothing.
 */
#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>

#include "common.h"
#include "json_make.h"
#include "session.h"
#include "text.h"

enum { PATH_UNITS = 4096 };

static const char *path_fault(const char *s, size_t n)
{
	if (!s)
		return "path must be a string";
	if (!n)
		return "path must not be empty";
	if (memchr(s, '\0', n))
		return "path must not contain null bytes";
	if (text_utf16_length(s, n) > PATH_UNITS)
		return "path is longer than 4096 characters";
	return NULL;
}

/* From where relative paths are: the workspace, or the directory of the request's session. */
static void add_base(struct request *r, bool in_session, struct buf *b)
{
	static const char none[] = "__DISABLE_SESSION__";
	struct json_object *v;
	const char *id = SESSION_DEFAULT_ID;
	struct session *s = NULL;
	AUTO_BUF environment = BUF_INIT;
	if (in_session && json_object_object_get_ex(r->json, "sessionId", &v) && v)
		id = json_object_get_string(v);
	if (in_session && strcmp(id, none) != 0)
		s = sessions_find(r->server->sessions, id);
	if (!s) {
		buf_str(b, r->server->workspace);
		return;
	}
	int err = session_place(s, b, &environment);
	session_put(s);
	if (err < 0)
		b->failed = true;
}

static char *path_from(struct request *r, const char *member, enum error_code code, bool in_session,
	const char **given, enum MHD_Result *out)
{
	size_t n = 0;
	const char *s = json_text(r->json, member, &n);
	const char *fault = path_fault(s, n);
	if (fault) {
		struct json_object *context = json_object_new_object();
		struct json_object *errors = json_object_new_array();
		struct json_object *one = json_object_new_object();
		json_add(one, "field", json_object_new_string(member));
		json_add(one, "message", json_object_new_string(fault));
		json_add(one, "code", json_object_new_string("invalid_path"));
		json_append(errors, one);
		json_add(context, "validationErrors", errors);
		*out = reply_error(r, code, context, NULL, "Invalid %s: %s", member, fault);
		return NULL;
	}
	*given = s;
	AUTO_BUF b = BUF_INIT;
	while (s[0] == '.' && s[1] == '/')
		s += 2;
	if (*s != '/')
		add_base(r, in_session, &b);
	if (*s && strcmp(s, ".") != 0) {
		if (*s != '/' && b.size && b.data[b.size - 1] != '/')
			buf_char(&b, '/');
		buf_str(&b, s);
	}
	char *path = buf_steal(&b);
	if (!path)
		*out = reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	return path;
}

char *request_path(struct request *r, const char *member, enum error_code code, const char **given,
	enum MHD_Result *out)
{
	return path_from(r, member, code, false, given, out);
}

char *request_session_path(struct request *r, const char *member, enum error_code code,
	const char **given, enum MHD_Result *out)
{
	return path_from(r, member, code, true, given, out);
}

struct json_object *path_context(const char *path, const char *operation)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "path", text_json_str(path));
	json_add(o, "operation", json_object_new_string(operation));
	return o;
}

enum MHD_Result reply_no_file(struct request *r, const char *path, const char *operation)
{
	return reply_error(r, ERR_FILE_NOT_FOUND, path_context(path, operation), operation,
		"File not found: %s", path);
}

enum MHD_Result reply_filesystem(
	struct request *r, const char *path, const char *operation, int exit_code, const char *fmt, ...)
{
	AUTO_BUF text = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	struct json_object *context = path_context(path, operation);
	json_add(context, "stderr", text_json(text.data ? text.data : "", text.size));
	if (exit_code >= 0)
		json_add(context, "exitCode", json_object_new_int(exit_code));
	return reply_error(r, ERR_FILESYSTEM, context, operation, "Failed operation %s on '%s': %s",
		operation, path, text.data ? text.data : "");
}

struct json_object *path_answer(const char *path)
{
	struct json_object *o = answer_new();
	json_add(o, "path", text_json_str(path));
	return o;
}
