/*
 * code/: which contexts there are, how they come and go, and what new ones are given.
 *
 * What is listed is what the sandbox lists, drafts of this mount, and three that are there without having been made, one a language.
 * Looking never starts a sandbox. While the link is down those that were seen here are listed. Owns nothing.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "code_api.h"
#include "code_set.h"
#include "env.h"
#include "json_make.h"
#include "kinds.h"
#include "name_list.h"

static void context_drop(struct code_context **k)
{
	if (*k)
		code_context_put(*k);
}
#define AUTO_CONTEXT __attribute__((cleanup(context_drop))) struct code_context

/* --- looking --- */

struct search {
	const char *id;
	const char *language; /* NULL: it was not there */
};

static bool search_one(const struct code_api_info *info, void *arg)
{
	struct search *s = arg;
	if (strcmp(info->id, s->id) != 0)
		return true;
	s->language = code_api_language(info->language);
	if (!s->language)
		s->language = code_standard[0];
	return false;
}

static int context_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct code_set *set = code_set_of(dir->sandbox);
	struct code_context *found = NULL;
	if (!set)
		return -ENOMEM;
	if (!code_api_id_ok(name))
		return -ENOENT;
	int err =
		code_is_standard(name) ? code_set_get(set, name, NULL, code_api_language(name), &found) : 0;
	AUTO_CONTEXT *k = found ? NULL : code_set_known(set, name);
	bool begun = true;
	AUTO_FREE char *id = k ? code_context_id(k, &begun) : NULL;
	if (!err && k && !begun)
		found = steal(k);
	if (err || found) {
		*object = found;
		return err;
	}
	uint64_t then;
	{
		AUTO_UNLOCK(&set->lock);
		then = set->clock;
	}
	struct search search = {.id = id ? id : name};
	if (sandbox_has_server(dir->sandbox))
		err = code_api_list(dir->sandbox, c, search_one, &search);
	if (err && !(ctl_link_down(err) && k))
		return err;
	if (!err && search.language)
		err = code_set_get(set, name, search.id, search.language, &found);
	else if (k && (err || !code_context_forget(k, then)))
		found = steal(k), err = 0;
	*object = found;
	return err ? err : found ? 0 : -ENOENT;
}

struct listing {
	struct code_set *set;
	struct name_list *names;
};

/* By the name that it has here. */
static bool add_listed(const struct code_api_info *info, void *arg)
{
	struct listing *l = arg;
	AUTO_UNLOCK(&l->set->lock);
	struct code_context *k = l->set->first;
	while (k && !(k->pinned && k->id && strcmp(k->id, info->id) == 0))
		k = k->next;
	return name_list_add(k ? k->name : info->id, l->names);
}

/* Drafts; and where the sandbox could not be asked, all that was seen. */
static void add_known(struct code_set *set, struct name_list *names, bool all)
{
	AUTO_UNLOCK(&set->lock);
	for (struct code_context *k = set->first; k; k = k->next)
		if (k->pinned && (all || !k->id))
			(void)name_list_add(k->name, names); /* name_list_sort tells */
}

static int context_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct code_set *set = code_set_of(dir->sandbox);
	AUTO_NAME_LIST names = {0};
	struct listing l = {set, &names};
	int err = 0;
	if (!set)
		return -ENOMEM;
	for (size_t i = 0; i < CODE_STANDARD; i++)
		(void)name_list_add(code_standard[i], &names); /* name_list_sort tells */
	if (sandbox_has_server(dir->sandbox))
		err = code_api_list(dir->sandbox, c, add_listed, &l);
	if (err && !ctl_link_down(err))
		return err;
	add_known(set, &names, err != 0);
	err = name_list_sort(&names);
	if (!err)
		name_list_each(&names, cb, arg);
	return err;
}

static void *context_hold(void *object)
{
	return code_context_get(object);
}

static void context_let_go(void *object)
{
	code_context_put(object);
}

/* --- coming and going --- */

static int context_make(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct code_set *set = code_set_of(dir->sandbox);
	struct code_context *k;
	if (!code_api_id_ok(name))
		return call_fault(c, EINVAL, NULL,
			"code/%s: no name of a context; use 1 to 128 of A-Z a-z 0-9 . _ -, no leading dot, not "
			"new or help",
			name);
	if (code_is_standard(name))
		return -EEXIST;
	int err = set ? code_set_get(set, name, NULL, code_standard[0], &k) : -ENOMEM;
	if (!err)
		*object = k;
	return err;
}

static int context_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	void *object;
	bool begun;
	if (code_is_standard(name))
		return call_fault(c, EPERM, NULL,
			"code/%s: it is always there; echo restart > code/%s/ctl forgets its variables", name,
			name);
	int err = context_find(dir, c, name, &object);
	if (err)
		return err;
	AUTO_CONTEXT *k = object;
	AUTO_FREE char *id = code_context_id(k, &begun);
	if (begun)
		err = id ? code_api_delete(dir->sandbox, c, id) : -ENOMEM;
	if (err && err != -ENOENT)
		return err;
	(void)code_context_forget(k, UINT64_MAX); /* always true */
	/* What it ran has ended, and wrote until then. */
	if (begun)
		sandbox_invalidate(dir->sandbox);
	return 0;
}

/* --- new --- */

struct wish {
	const char *language, *cwd;
	struct json_object *env, *variables; /* borrowed */
	int64_t timeout_ms;
};

static int wish_text(struct call *c, struct json_object *o, const char *key, const char **out)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, key, &v) || !v)
		return 0;
	if (!json_object_is_type(v, json_type_string) ||
		strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
		return call_fault(c, EINVAL, NULL, "\"%s\" is to be a string without NUL", key);
	*out = json_object_get_string(v);
	return 0;
}

/* createCodeContext's options. */
static int wish_read(struct call *c, struct json_object *o, struct wish *w)
{
	static const char *const keys[] = {
		"language", "cwd", "envVars", "variables", "timeout", "stream", "onOutput", "origin", NULL};
	struct json_object *v;
	int err = ctl_check_keys(c, o, keys);
	if (!err)
		err = wish_text(c, o, "language", &w->language);
	if (!err)
		err = wish_text(c, o, "cwd", &w->cwd);
	if (!err && json_object_object_get_ex(o, "envVars", &w->env) && w->env)
		err = ctl_env_check(c, w->env, "\"envVars\"");
	if (!err && json_object_object_get_ex(o, "variables", &w->variables) && w->variables) {
		err = json_object_is_type(w->variables, json_type_object)
				  ? code_check_variables(c, w->variables)
				  : call_fault(c, EINVAL, NULL, "\"variables\" is to be an object");
	}
	if (!err && json_object_object_get_ex(o, "timeout", &v) && v) {
		w->timeout_ms = json_object_get_int64(v);
		if (!json_object_is_type(v, json_type_int) || w->timeout_ms < 0)
			err = call_fault(c, EINVAL, NULL, "\"timeout\" is to be a number of milliseconds");
	}
	return err;
}

static int wish_make(
	const struct ctl_ref *ref, struct call *c, const struct wish *w, struct buf *answer)
{
	AUTO_FREE char *id = NULL;
	AUTO_JSON *env = NULL;
	AUTO_CONTEXT *k = NULL;
	struct code_set *set = code_set_of(ref->sandbox);
	struct code_api_spec spec = {.language = code_api_language(w->language), .cwd = w->cwd};
	if (!spec.language)
		return call_fault(c, EINVAL, NULL,
			"%s: not a language; write python, javascript or typescript", w->language);
	int err = set ? ctl_env_merge(ref->sandbox, w->env, &env) : -ENOMEM;
	spec.env = env;
	if (!err)
		err = code_api_create(ref->sandbox, c, &spec, &id);
	if (!err)
		err = code_set_get(set, id, id, spec.language, &k);
	if (!err && w->variables)
		err = code_context_set_variables(k, ref->sandbox, c, w->variables);
	if (err)
		return err;
	code_context_set_timeout(k, w->timeout_ms);
	buf_printf(answer, "%s\n", id);
	return 0;
}

static int submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	struct wish w = {.language = code_standard[0]};
	AUTO_JSON *o = NULL;
	AUTO_FREE char **words = NULL;
	int count = 0, err;
	if (ctl_is_json(n ? text : "", n)) {
		err = ctl_parse_json(c, text, n, &o);
		if (!err)
			err = wish_read(c, o, &w);
	} else {
		err = ctl_split(c, n ? text : "", n, &count, &words);
		if (!err && count != 1)
			err = call_fault(c, EINVAL, NULL,
				"write a language, or one JSON object (language, cwd, envVars, variables)");
		if (!err)
			w.language = words[0];
	}
	return err ? err : wish_make(ref, c, &w, answer);
}

/* --- the tables --- */

static const struct ctl_row context_row = {.name = "NAME",
	.mode = 0700,
	.kind = CTL_DIR,
	.dir = &ctl_code_context_dir,
	.grammar = "an interpreter that keeps its variables from run to run; mkdir NAME makes one, "
			   "rmdir ends it"};

static const struct ctl_set context_objects = {
	.row = &context_row,
	.find = context_find,
	.each = context_each,
	.get = context_hold,
	.put = context_let_go,
	.make = context_make,
	.remove = context_remove,
};

static const struct ctl_row set_rows[] = {
	{.name = "new",
		.mode = 0600,
		.kind = CTL_DOC,
		.grammar = "W a language, or one JSON object (language, cwd, envVars, variables), makes a "
				   "context; R in the same opening: its id",
		.begin = ctl_exec_begin,
		.submit = submit_new},
	{.name = NULL},
};

const struct ctl_dir ctl_code_dir = {
	.help = "Contexts of the code interpreter, whoever made them. `python`, `javascript` and "
			"`typescript` are always there.",
	.rows = set_rows,
	.set = &context_objects,
};
