/*
 * The line of `events`: see events_line.h.
 */
#include "events_line.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "json_make.h"

void events_request_release(struct events_request *q)
{
	json_object_put(q->body);
	free(q->dir);
	free(q->since);
	*q = (struct events_request){0};
}

static int bad_word(struct call *c, const char *word)
{
	return call_fault(c, EINVAL, NULL,
		"not understood: %s; write [DIR] [include=G]... [exclude=G]... [recursive=no] "
		"[since=VERSION]",
		word);
}

static int set(struct json_object *o, const char *key, struct json_object *v)
{
	return json_add(o, key, v) ? 0 : -ENOMEM;
}

static int add_glob(struct json_object *o, const char *key, const char *glob)
{
	struct json_object *list = NULL;
	if (!json_object_object_get_ex(o, key, &list)) {
		int err = set(o, key, json_object_new_array());
		if (err)
			return err;
		(void)json_object_object_get_ex(o, key, &list); /* it was put there just now */
	}
	return json_append(list, json_object_new_string(glob)) ? 0 : -ENOMEM;
}

/* A path below workspace/, or of the sandbox as /workspace/... */
static int take_dir(struct call *c, const char *word, struct events_request *q)
{
	static const char top[] = "/workspace";
	const char *below = word;
	if (*word == '/') {
		size_t n = sizeof top - 1;
		if (strncmp(word, top, n) != 0 || (word[n] && word[n] != '/'))
			return call_fault(
				c, EINVAL, NULL, "%s: only what is below /workspace is watched", word);
		below = word + n;
	}
	below += strspn(below, "/");
	for (const char *p = below; *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");
		if (n == 2 && strncmp(p, "..", 2) == 0)
			return call_fault(c, EINVAL, NULL, "%s: .. has no place here", word);
		p += n;
	}
	free(q->dir);
	q->dir = strdup(below);
	return q->dir ? set(q->body, "dir", json_object_new_string(below)) : -ENOMEM;
}

static int take_word(struct call *c, const char *word, bool first, struct events_request *q)
{
	if (strncmp(word, "include=", 8) == 0 && word[8])
		return add_glob(q->body, "include", word + 8);
	if (strncmp(word, "exclude=", 8) == 0 && word[8])
		return add_glob(q->body, "exclude", word + 8);
	if (strcmp(word, "recursive=no") == 0 || strcmp(word, "recursive=yes") == 0)
		return set(q->body, "recursive", json_object_new_boolean(word[10] == 'y'));
	if (strncmp(word, "since=", 6) == 0) {
		q->asks = true;
		free(q->since);
		q->since = strdup(word + 6);
		return q->since ? 0 : -ENOMEM;
	}
	/* A mistyped option is no directory; one that is named so is given as /workspace/NAME=. */
	size_t name = strspn(word, "abcdefghijklmnopqrstuvwxyz");
	bool option = name && word[name] == '=';
	return first && !option ? take_dir(c, word, q) : bad_word(c, word);
}

int events_request_parse(struct call *c, const char *line, size_t n, struct events_request *out)
{
	AUTO_FREE char **argv = NULL;
	int argc = 0;

	*out = (struct events_request){.body = json_object_new_object(), .dir = strdup("")};
	int err = out->body && out->dir ? ctl_split(c, line, n, &argc, &argv) : -ENOMEM;
	for (int i = 0; !err && i < argc; i++)
		err = take_word(c, argv[i], i == 0, out);
	if (err)
		events_request_release(out);
	return err;
}

struct json_object *events_request_check(const struct events_request *q)
{
	static const char *const same[] = {"include", "exclude", "recursive"};
	AUTO_BUF path = BUF_INIT;
	struct json_object *o = json_object_new_object(), *v;
	buf_printf(&path, "/workspace%s%s", *q->dir ? "/" : "", q->dir);
	int err = o && !buf_error(&path) ? set(o, "path", json_object_new_string(path.data)) : -ENOMEM;
	for (size_t i = 0; !err && i < sizeof same / sizeof same[0]; i++)
		if (json_object_object_get_ex(q->body, same[i], &v))
			err = set(o, same[i], json_object_get(v));
	/* Some are excluded by default, unless any is given: one that no file can have. */
	if (!err && !json_object_object_get_ex(o, "include", &v) &&
		!json_object_object_get_ex(o, "exclude", &v))
		err = add_glob(o, "exclude", "a//b");
	if (!err && q->since && *q->since)
		err = set(o, "since", json_object_new_string(q->since));
	if (!err)
		return o;
	json_object_put(o);
	return NULL;
}
