/* Environments; see environment.h. */
#include "environment.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

static bool is_overlaid(struct json_object *env, const char *name, size_t n)
{
	AUTO_BUF key = BUF_INIT;
	struct json_object *value = NULL;
	buf_add(&key, name, n);
	return env && !buf_error(&key) &&
		   json_object_object_get_ex(env, key.data ? key.data : "", &value) && value;
}

static void add(struct buf *out, struct json_object *env, const char *name, const char *value)
{
	if (!is_overlaid(env, name, strlen(name)))
		(void)environment_default(out, name, value); /* out of memory is left in out */
}

static void add_entry(struct buf *out, struct json_object *env, const char *entry)
{
	size_t n = strcspn(entry, "=");
	/* What is the shell's own business begins anew. */
	bool own =
		(n == 3 && memcmp(entry, "PWD", n) == 0) || (n == 5 && memcmp(entry, "SHLVL", n) == 0);
	if (n && entry[n] && !own && !is_overlaid(env, entry, n))
		buf_add(out, entry, strlen(entry) + 1);
}

static void add_base(struct buf *out, const struct buf *base, struct json_object *env)
{
	for (size_t at = 0; at < base->size; at += strlen(base->data + at) + 1)
		add_entry(out, env, base->data + at);
}

int environment_make(struct buf *out, const struct server *server, const struct buf *base,
	const char *cwd, struct json_object *env)
{
	if (base && base->size) {
		add_base(out, base, env);
	} else {
		for (char *const *entry = server->inherited; entry && *entry; entry++)
			add_entry(out, env, *entry);
		add(out, env, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
		add(out, env, "HOME", "/root");
		add(out, env, "LANG", "C.UTF-8");
		add(out, env, "LC_ALL", "C.UTF-8");
		add(out, env, "USER", "root");
		add(out, env, "SHELL", server->shell);
	}
	add(out, env, "PWD", cwd);
	if (env) {
		json_object_object_foreach(env, name, value)
		{
			if (!value || !*name)
				continue;
			const char *text = json_object_get_string(value);
			if (json_object_is_type(value, json_type_string) &&
				strlen(text) != (size_t)json_object_get_string_len(value))
				return -EINVAL;
			buf_printf(out, "%s=%s", name, text);
			buf_char(out, '\0');
		}
	}
	return buf_error(out);
}

int environment_default(struct buf *b, const char *name, const char *value)
{
	size_t n = strlen(name);
	for (size_t at = 0; at < b->size; at += strlen(b->data + at) + 1)
		if (strncmp(b->data + at, name, n) == 0 && b->data[at + n] == '=')
			return 0;
	buf_printf(b, "%s=%s", name, value);
	buf_char(b, '\0');
	return buf_error(b);
}

bool environment_names_are_good(struct json_object *env)
{
	if (!env)
		return true;
	json_object_object_foreach(env, name, value)
	{
		if (!value)
			continue;
		if (!isalpha((unsigned char)*name) && *name != '_')
			return false;
		for (const char *p = name; *p; p++)
			if (!isalnum((unsigned char)*p) && *p != '_')
				return false;
	}
	return true;
}
