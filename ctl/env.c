/*
 * env, env.json, and variables as control files have them: see env.h.
 *
 * Owns, per sandbox, one object of strings behind a lock. json-c counts references without a lock, so nothing of that object leaves
 * this file: what goes out is a copy.
 */
#include "env.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cleanup.h"
#include "json_make.h"

enum { PAIR_MAX = 128 * 1024 - 1 /* of NAME=VALUE: with more, the kernel starts no program */ };

struct env {
	pthread_mutex_t lock;
	struct json_object *values; /* under the lock; may be NULL */
};

/* --- one per sandbox --- */

static void *env_make(struct sandbox *sb)
{
	struct env *e = calloc(1, sizeof *e);
	(void)sb;
	if (e)
		pthread_mutex_init(&e->lock, NULL);
	return e;
}

static void env_release(void *data)
{
	struct env *e = data;
	json_object_put(e->values);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static struct env *env_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, env_make, NULL, env_release);
}

/* --- objects --- */

/* Sets name in o to a copy of value, a string or NULL. */
static int put_copy(struct json_object *o, const char *name, struct json_object *value)
{
	struct json_object *copy = value ? json_object_new_string_len(json_object_get_string(value),
										   json_object_get_string_len(value))
									 : NULL;
	if ((value && !copy) || json_object_object_add(o, name, copy) < 0) {
		json_object_put(copy);
		return -ENOMEM;
	}
	return 0;
}

int ctl_env_changed(struct json_object *base, struct json_object *changes, struct json_object **out)
{
	AUTO_JSON *o = json_object_new_object();
	int err = o ? 0 : -ENOMEM;
	if (!err && base) {
		json_object_object_foreach(base, name, value)
		{
			err = err ? err : put_copy(o, name, value);
		}
	}
	if (!err && changes) {
		json_object_object_foreach(changes, name, value)
		{
			if (value)
				err = err ? err : put_copy(o, name, value);
			else
				json_object_object_del(o, name);
		}
	}
	if (!err)
		*out = steal(o);
	return err;
}

int ctl_env_merge(struct sandbox *sb, struct json_object *own, struct json_object **out)
{
	struct env *e = env_of(sb);
	AUTO_JSON *merged = NULL;
	*out = NULL;
	if (!e)
		return -ENOMEM;
	int err;
	{
		AUTO_UNLOCK(&e->lock);
		err = ctl_env_changed(e->values, NULL, &merged);
	}
	/* null in a request sets nothing, as in the SDK: what is set here stays. */
	if (!err && own) {
		json_object_object_foreach(own, name, value)
		{
			if (value)
				err = err ? err : put_copy(merged, name, value);
		}
	}
	if (!err && json_object_object_length(merged))
		*out = steal(merged);
	return err;
}

void ctl_env_free_pairs(char **pairs)
{
	for (char **p = pairs; p && *p; p++)
		free(*p);
	free(pairs);
}

int ctl_env_pairs(struct sandbox *sb, const char *const *own, char ***out)
{
	AUTO_JSON *here = NULL;
	size_t own_count = 0, count = 0;
	int err = ctl_env_merge(sb, NULL, &here);
	*out = NULL;
	while (own && own[own_count])
		own_count++;
	if (err || (!here && !own_count))
		return err;
	size_t here_count = here ? (size_t)json_object_object_length(here) : 0;
	char **pairs = calloc(here_count + own_count + 1, sizeof *pairs);
	if (!pairs)
		return -ENOMEM;
	if (here) {
		json_object_object_foreach(here, name, value)
		{
			AUTO_BUF pair = BUF_INIT;
			buf_printf(&pair, "%s=", name);
			buf_str(&pair, json_object_get_string(value));
			pairs[count] = buf_steal(&pair);
			err = pairs[count] ? err : -ENOMEM;
			count += pairs[count] != NULL;
		}
	}
	/* Behind those of the mount: of two with one name the later counts. */
	for (size_t i = 0; !err && i < own_count; i++) {
		pairs[count] = strdup(own[i]);
		err = pairs[count] ? 0 : -ENOMEM;
		count += pairs[count] != NULL;
	}
	if (err)
		ctl_env_free_pairs(pairs);
	else
		*out = pairs;
	return err;
}

/* --- how variables are written --- */

static bool is_name(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool digit = s[i] >= '0' && s[i] <= '9';
		bool letter = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || s[i] == '_';
		if (!letter && !(digit && i))
			return false;
	}
	return n > 0;
}

/* One line into changes. What is wrong may be a piece of a secret: no message repeats it. */
static int parse_line(
	struct call *c, const char *line, size_t n, size_t number, struct json_object *changes)
{
	if (n && line[n - 1] == '\r')
		n--;
	if (!n || *line == '#')
		return 0;
	const char *equals = memchr(line, '=', n);
	size_t name_size = equals ? (size_t)(equals - line) : n;
	if (!equals && !is_name(line, name_size))
		return call_fault(c, EINVAL, NULL,
			"line %zu: KEY=VALUE or KEY is wanted (KEY alone unsets it; letters, digits, _); "
			"nothing "
			"was changed",
			number);
	if (!is_name(line, name_size))
		return call_fault(c, EINVAL, NULL,
			"line %zu: what is before = is no name of a variable (letters, digits, _); write "
			"KEY=VALUE, or KEY alone to unset it; a value with newlines goes to env.json; nothing "
			"was changed",
			number);
	if (n > PAIR_MAX)
		return call_fault(c, E2BIG, NULL,
			"line %zu: longer than %d bytes, no program could be started with it; nothing was "
			"changed",
			number, PAIR_MAX);
	AUTO_FREE char *name = strndup(line, name_size);
	AUTO_JSON *value =
		equals ? json_object_new_string_len(equals + 1, (int)(n - name_size - 1)) : NULL;
	if (!name || (equals && !value) || json_object_object_add(changes, name, value) < 0)
		return -ENOMEM;
	value = NULL;
	return 0;
}

int ctl_env_parse(struct call *c, const char *text, size_t n, struct json_object **changes)
{
	AUTO_JSON *o = json_object_new_object();
	size_t number = 1;
	int err = o ? 0 : -ENOMEM;
	if (n && memchr(text, 0, n))
		return call_fault(c, EINVAL, NULL, "a variable holds no NUL byte; nothing was changed");
	for (const char *p = text, *end = text + n; !err && n && p < end; number++) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		err = parse_line(c, p, (size_t)((newline ? newline : end) - p), number, o);
		p = newline ? newline + 1 : end;
	}
	if (!err)
		*changes = steal(o);
	return err;
}

int ctl_env_check(struct call *c, struct json_object *env, const char *what)
{
	if (!json_object_is_type(env, json_type_object))
		return call_fault(c, EINVAL, NULL, "%s is to be an object of strings", what);
	json_object_object_foreach(env, name, value)
	{
		if (!is_name(name, strlen(name)))
			return call_fault(c, EINVAL, NULL,
				"%s: a key is no name of a variable; use letters, digits and _", what);
		if (value && !json_object_is_type(value, json_type_string))
			return call_fault(
				c, EINVAL, NULL, "%s: the value of %s is to be a string, or null", what, name);
		size_t n = value ? (size_t)json_object_get_string_len(value) : 0;
		if (value && memchr(json_object_get_string(value), 0, n))
			return call_fault(c, EINVAL, NULL, "%s: the value of %s holds a NUL byte", what, name);
		if (strlen(name) + 1 + n > PAIR_MAX)
			return call_fault(c, E2BIG, NULL,
				"%s: %s is longer than %d bytes, no program could be started with it", what, name,
				PAIR_MAX);
	}
	return 0;
}

/* The same of one JSON object; null unsets. */
static int parse_json(struct call *c, const char *text, size_t n, struct json_object **changes)
{
	AUTO_JSON *o = NULL;
	int err = ctl_parse_json(c, n ? text : "", n, &o);
	if (!err)
		err = ctl_env_check(c, o, "the environment");
	if (!err)
		*changes = steal(o);
	return err;
}

void ctl_env_put(struct json_object *env, struct buf *out)
{
	if (!env)
		return;
	json_object_object_foreach(env, name, value)
	{
		const char *text = json_object_get_string(value);
		size_t n = (size_t)json_object_get_string_len(value);
		/* A carriage return at its end would not come back either. */
		bool plain = !memchr(text, '\n', n) && !(n && text[n - 1] == '\r');
		if (plain)
			buf_printf(out, "%s=%s\n", name, text);
		else
			buf_printf(out, "# %s is not shown: its value has newlines\n", name);
	}
}

/* One JSON object and a newline. */
static void put_json(struct json_object *env, struct buf *out)
{
	size_t n = 0;
	const char *text = env ? json_object_to_json_string_length(
								 env, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n)
						   : "{}";
	if (!text) {
		out->failed = true;
		return;
	}
	buf_add(out, text, env ? n : 2);
	buf_char(out, '\n');
}

/* --- the rows --- */

static int show(const struct ctl_ref *ref, struct buf *out,
	void (*put)(struct json_object *env, struct buf *out))
{
	struct env *e = env_of(ref->sandbox);
	if (!e)
		return -ENOMEM;
	AUTO_UNLOCK(&e->lock);
	put(e->values, out);
	return 0;
}

int ctl_env_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	return show(ref, out, ctl_env_put);
}

int ctl_env_show_json(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	return show(ref, out, put_json);
}

/* All of it or nothing. */
static int store(const struct ctl_ref *ref, struct json_object *changes)
{
	struct env *e = env_of(ref->sandbox);
	struct json_object *values;
	if (!e)
		return -ENOMEM;
	AUTO_UNLOCK(&e->lock);
	int err = ctl_env_changed(e->values, changes, &values);
	if (err)
		return err;
	json_object_put(e->values);
	e->values = values;
	return 0;
}

/* `>` adds like `>>`: who forgets a > loses nothing. */
int ctl_env_store(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_JSON *changes = NULL;
	(void)append;
	int err = ctl_env_parse(c, text, n, &changes);
	return err ? err : store(ref, changes);
}

int ctl_env_store_json(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_JSON *changes = NULL;
	(void)append;
	int err = parse_json(c, text, n, &changes);
	return err ? err : store(ref, changes);
}
