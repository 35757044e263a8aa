/*
 * sessions/new: a document, an id or one JSON object with createSession's options, makes a session. Keys are the SDK's own.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "env.h"
#include "json_make.h"
#include "sessions.h"

static int make_id(struct buf *id)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	unsigned char random[12];
	struct timespec now;
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return -EIO;
	clock_gettime(CLOCK_REALTIME, &now);
	buf_printf(id, "session-%lld-", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	for (size_t i = 0; i < sizeof random; i++)
		buf_char(id, letters[random[i] % (sizeof letters - 1)]);
	return buf_error(id);
}

static int take_text(struct call *c, struct json_object *o, const char *key, const char **out)
{
	struct json_object *v;
	*out = NULL;
	if (!json_object_object_get_ex(o, key, &v) || !v)
		return 0;
	if (!json_object_is_type(v, json_type_string))
		return call_fault(c, EINVAL, NULL, "\"%s\" is to be a string", key);
	*out = json_object_get_string(v);
	if (strlen(*out) != (size_t)json_object_get_string_len(v))
		return call_fault(c, EINVAL, NULL, "\"%s\" holds a NUL byte", key);
	return 0;
}

/* createSession's options. Strings are borrowed from o; *cwd new. */
static int take_spec(
	struct call *c, struct json_object *o, struct session_api_spec *spec, char **cwd)
{
	static const char *const keys[] = {"id", "name", "cwd", "env", "commandTimeoutMs", "isolation",
		"stream", "onOutput", "origin", NULL};
	struct json_object *v;
	AUTO_BUF path = BUF_INIT;
	int err = ctl_check_keys(c, o, keys);
	if (!err)
		err = take_text(c, o, "id", &spec->id);
	if (!err)
		err = take_text(c, o, "cwd", &spec->cwd);
	if (!err && json_object_object_get_ex(o, "env", &v) && v) {
		err = ctl_env_check(c, v, "\"env\"");
		spec->env = v;
	}
	if (!err && json_object_object_get_ex(o, "commandTimeoutMs", &v) && v) {
		spec->timeout_ms = json_object_get_int64(v);
		if (!json_object_is_type(v, json_type_int) || spec->timeout_ms < 0)
			err = call_fault(
				c, EINVAL, NULL, "\"commandTimeoutMs\" is to be a number of milliseconds");
	}
	if (err || !spec->cwd)
		return err;
	/* A relative one is below the workspace. */
	buf_printf(&path, "%s%s", *spec->cwd == '/' ? "" : "/workspace/", spec->cwd);
	err = buf_error(&path) ? -ENOMEM : session_api_path(path.data, cwd);
	if (err == -ENAMETOOLONG)
		return call_fault(
			c, ENAMETOOLONG, NULL, "\"cwd\" is longer than %d bytes", SESSION_API_PATH_MAX);
	spec->cwd = *cwd;
	return err;
}

static int exists(struct call *c, const char *id)
{
	return call_fault(c, EEXIST, NULL,
		"sessions/%s: there is one of this name; use it, or rmdir sessions/%s first", id, id);
}

int session_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	struct session_api_spec spec = {0};
	AUTO_BUF made = BUF_INIT;
	AUTO_FREE char **words = NULL;
	AUTO_FREE char *cwd = NULL;
	AUTO_JSON *o = NULL;
	struct session *s;
	int count = 0;
	int err;
	if (ctl_is_json(n ? text : "", n)) {
		err = ctl_parse_json(c, text, n, &o);
		if (!err)
			err = take_spec(c, o, &spec, &cwd);
		if (!err && !spec.id) {
			err = make_id(&made);
			spec.id = made.data;
		}
	} else {
		err = ctl_split(c, n ? text : "", n, &count, &words);
		if (!err && count != 1)
			err = call_fault(c, EINVAL, NULL,
				"write one id, or one JSON object (id, cwd, env, commandTimeoutMs)");
		spec.id = !err ? words[0] : NULL;
	}
	if (!err && !session_api_id_ok(spec.id))
		err = session_bad_id(c, spec.id);
	if (!err)
		err = session_make_as(ref->sandbox, c, &spec, &s);
	if (err == -EEXIST)
		return exists(c, spec.id);
	if (err)
		return err;
	session_put(s);
	/* Its directory may have been made. */
	if (spec.cwd)
		sandbox_invalidate(ref->sandbox);
	buf_printf(answer, "%s\n", spec.id);
	return 0;
}
