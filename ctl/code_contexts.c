/*
 * code/: which contexts there are, how they come and go, and what they are given.
 *
 * What is listed is what the sandbox lists, and three that are there without having been made, one a language. A context that was made
 * here begins with its first run (or at code/new): until then it is a draft, and known to this mount alone. Looking never
 * starts a sandbox. While the link is down those that were seen here are listed.
 *
 * Owns the set of a sandbox's contexts. The name of a context is its id on servers that take names; others give it an id of their own.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "code_api.h"
#include "code_room.h"
#include "env.h"
#include "kinds.h"

static const char *const standard[] = {"python", "javascript", "typescript"};
enum { STANDARD = sizeof standard / sizeof *standard };

struct code_set;
struct code_context {
	struct code_set *set; /* a reference */
	char *name;
	/* under the set's lock */
	unsigned refs;
	struct code_context *next;
	bool pinned;   /* the set has a reference: it is there */
	char *id;      /* as the server calls it; NULL: it has not begun */
	uint64_t seen; /* when it was last there */
	const char *language;
	int64_t timeout_ms;
	struct json_object *variables; /* what was set here; NULL: nothing */
	struct code_run *last;
};

struct code_set {
	pthread_mutex_t lock;
	unsigned refs;
	bool closing;
	uint64_t
		clock; /* counts what was seen: an answer is older than what was seen since its request */
	struct code_context *first;
};

static void drop_json(struct json_object **o)
{
	json_object_put(*o);
}
#define AUTO_JSON __attribute__((cleanup(drop_json))) struct json_object

/* --- the set --- */

static void *set_make(struct sandbox *sb)
{
	struct code_set *set = calloc(1, sizeof *set);
	(void)sb;
	if (!set)
		return NULL;
	pthread_mutex_init(&set->lock, NULL);
	set->refs = 1;
	return set;
}

static void set_put(struct code_set *set)
{
	pthread_mutex_lock(&set->lock);
	bool last = --set->refs == 0;
	pthread_mutex_unlock(&set->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&set->lock);
	free(set);
}

struct code_context *code_context_get(struct code_context *k)
{
	AUTO_UNLOCK(&k->set->lock);
	k->refs++;
	return k;
}

static void context_free(struct code_context *k)
{
	struct code_set *set = k->set;
	code_run_put(k->last);
	json_object_put(k->variables);
	free(k->id);
	free(k->name);
	free(k);
	set_put(set);
}

void code_context_put(struct code_context *k)
{
	struct code_set *set = k->set;
	pthread_mutex_lock(&set->lock);
	bool last = --k->refs == 0;
	struct code_context **at = &set->first;
	while (last && *at != k)
		at = &(*at)->next;
	if (last)
		*at = k->next;
	pthread_mutex_unlock(&set->lock);
	if (last)
		context_free(k);
}

static void context_drop(struct code_context **k)
{
	if (*k)
		code_context_put(*k);
}
#define AUTO_CONTEXT __attribute__((cleanup(context_drop))) struct code_context

/* Takes it out of the set, unless it was seen since `then`. False: it was. The caller holds a reference. */
static bool context_forget(struct code_context *k, uint64_t then)
{
	AUTO_UNLOCK(&k->set->lock);
	if (!k->pinned)
		return true;
	if (k->seen > then)
		return false;
	k->pinned = false;
	k->refs--;
	return true;
}

/* A reference to one more after k (NULL: the first), whose own is given back. */
static struct code_context *set_next(struct code_set *set, struct code_context *k)
{
	struct code_context *next;
	{
		AUTO_UNLOCK(&set->lock);
		next = k ? k->next : set->first;
		if (next)
			next->refs++;
	}
	if (k)
		code_context_put(k);
	return next;
}

static void set_stop(void *data)
{
	struct code_set *set = data;
	AUTO_UNLOCK(&set->lock);
	set->closing = true;
}

static void set_release(void *data)
{
	struct code_set *set = data;
	set_stop(set);
	for (struct code_context *k = set_next(set, NULL); k; k = set_next(set, k))
		(void)context_forget(k, UINT64_MAX); /* always true */
	set_put(set);
}

static struct code_set *set_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, set_make, set_stop, set_release);
}

void ctl_code_cancel(struct sandbox *sb)
{
	struct code_set *set = set_of(sb);
	for (struct code_context *k = set ? set_next(set, NULL) : NULL; k; k = set_next(set, k)) {
		struct code_run *r = code_context_last(k);
		if (r && !code_run_settled(r))
			code_run_interrupt(r);
		code_run_put(r);
	}
}

/* With the lock held. */
static struct code_context *set_find(struct code_set *set, const char *name)
{
	struct code_context *k = set->first;
	while (k && (!k->pinned || strcmp(k->name, name) != 0))
		k = k->next;
	return k;
}

static struct code_context *set_known(struct code_set *set, const char *name)
{
	AUTO_UNLOCK(&set->lock);
	struct code_context *k = set_find(set, name);
	if (k)
		k->refs++;
	return k;
}

/* New reference to the context of this name, which is put in if need be. id NULL: as a draft. 0, -ENOMEM or -ESTALE. */
static int set_get(struct code_set *set, const char *name, const char *id, const char *language,
	struct code_context **out)
{
	AUTO_FREE struct code_context *fresh = calloc(1, sizeof *fresh);
	AUTO_FREE char *copy = strdup(name);
	AUTO_FREE char *id_copy = id ? strdup(id) : NULL;
	if (!fresh || !copy || (id && !id_copy))
		return -ENOMEM;
	AUTO_UNLOCK(&set->lock);
	struct code_context *k = set_find(set, name);
	if (!k && set->closing)
		return -ESTALE;
	if (!k) {
		*fresh = (struct code_context){.set = set,
			.name = steal(copy),
			.refs = 1, /* the set's */
			.next = set->first,
			.pinned = true,
			.language = language};
		k = set->first = steal(fresh);
		set->refs++;
	}
	if (id) {
		if (!k->id)
			k->id = steal(id_copy);
		k->language = language;
	}
	k->seen = ++set->clock;
	k->refs++;
	*out = k;
	return 0;
}

/* --- what a context is --- */

const char *code_context_name(const struct code_context *k)
{
	return k->name;
}

const char *code_context_language(struct code_context *k)
{
	AUTO_UNLOCK(&k->set->lock);
	return k->language;
}

static bool is_standard(const char *name)
{
	for (size_t i = 0; i < STANDARD; i++)
		if (strcmp(name, standard[i]) == 0)
			return true;
	return false;
}

int code_context_set_language(struct code_context *k, struct call *c, const char *word)
{
	const char *language = code_api_language(word);
	if (!language)
		return call_fault(
			c, EINVAL, NULL, "%s: not a language; write python, javascript or typescript", word);
	AUTO_UNLOCK(&k->set->lock);
	if (language != k->language && (k->id || is_standard(k->name)))
		return call_fault(c, EBUSY, NULL,
			"it is one of %s; a context keeps its language from its first run on: make another",
			k->language);
	k->language = language;
	return 0;
}

int64_t code_context_timeout(struct code_context *k)
{
	AUTO_UNLOCK(&k->set->lock);
	return k->timeout_ms;
}

void code_context_set_timeout(struct code_context *k, int64_t ms)
{
	AUTO_UNLOCK(&k->set->lock);
	k->timeout_ms = ms;
}

char *code_context_id(struct code_context *k, bool *begun)
{
	AUTO_UNLOCK(&k->set->lock);
	*begun = k->id != NULL;
	return k->id ? strdup(k->id) : NULL;
}

struct code_run *code_context_last(struct code_context *k)
{
	AUTO_UNLOCK(&k->set->lock);
	return k->last ? code_run_get(k->last) : NULL;
}

void code_context_set_last(struct code_context *k, struct code_run *r)
{
	struct code_run *old;
	{
		AUTO_UNLOCK(&k->set->lock);
		old = k->last;
		k->last = code_run_get(r);
	}
	code_run_put(old);
}

/* --- its beginning --- */

static int take_id(struct code_context *k, const char *id)
{
	AUTO_FREE char *copy = strdup(id);
	if (!copy)
		return -ENOMEM;
	AUTO_UNLOCK(&k->set->lock);
	if (!k->id)
		k->id = steal(copy);
	k->seen = ++k->set->clock;
	return 0;
}

static struct json_object *variables_of(struct code_context *k)
{
	AUTO_UNLOCK(&k->set->lock);
	return json_object_get(k->variables);
}

int code_context_begin(struct code_context *k, struct sandbox *sb, struct call *c)
{
	bool begun;
	AUTO_FREE char *known = code_context_id(k, &begun);
	AUTO_FREE char *id = NULL;
	AUTO_JSON *env = NULL;
	AUTO_JSON *variables = NULL;
	if (begun)
		return known ? 0 : -ENOMEM;
	struct code_api_spec spec = {.id = k->name, .language = code_context_language(k)};
	int err = ctl_env_merge(sb, NULL, &env);
	spec.env = env;
	if (!err)
		err = code_api_create(sb, c, &spec, &id);
	if (err && err != -EEXIST)
		return err;
	const char *real = id ? id : k->name;
	variables = variables_of(k);
	err = variables && json_object_object_length(variables)
			  ? code_api_variables(sb, c, real, variables)
			  : 0;
	return err ? err : take_id(k, real);
}

int code_context_lost(struct code_context *k, struct call *c)
{
	if (!is_standard(k->name)) {
		(void)context_forget(k, UINT64_MAX); /* always true */
		return call_fault(c, ESTALE, "CONTEXT_NOT_FOUND",
			"context %s is gone, with its variables; mkdir code/%s makes a new one", k->name,
			k->name);
	}
	AUTO_UNLOCK(&k->set->lock);
	free(steal(k->id));
	json_object_put(steal(k->variables));
	return 0;
}

/* --- variables --- */

static int keep_variables(struct code_context *k, struct json_object *variables)
{
	AUTO_UNLOCK(&k->set->lock);
	struct json_object *all = json_object_new_object();
	if (!all)
		return -ENOMEM;
	struct json_object *from[] = {k->variables, variables};
	for (size_t i = 0; i < 2; i++) {
		if (!from[i])
			continue;
		json_object_object_foreach(from[i], name, value)
		{
			if (json_object_object_add(all, name, json_object_get(value)) < 0) {
				json_object_put(value);
				json_object_put(all);
				return -ENOMEM;
			}
		}
	}
	json_object_put(k->variables);
	k->variables = all; /* a new object each time: who has the old one reads it */
	return 0;
}

static int check_variables(struct call *c, struct json_object *variables)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	static const char more[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
	json_object_object_foreach(variables, name, value)
	{
		(void)value;
		if (!*name || !strchr(letters, *name) || name[strspn(name, more)])
			return call_fault(
				c, EINVAL, NULL, "%s: not the name of a variable; use letters, digits and _", name);
	}
	return 0;
}

int code_context_set_variables(
	struct code_context *k, struct sandbox *sb, struct call *c, struct json_object *variables)
{
	bool begun;
	AUTO_FREE char *id = code_context_id(k, &begun);
	int err = check_variables(c, variables);
	if (!err && begun)
		err = id ? code_api_variables(sb, c, id, variables) : -ENOMEM;
	if (err == -ENOENT)
		err = code_context_lost(k, c);
	return err ? err : keep_variables(k, variables);
}

int code_context_put_variables(struct code_context *k, struct buf *out)
{
	AUTO_JSON *all = variables_of(k);
	const char *text = all ? json_object_to_json_string_ext(
								 all, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
						   : "{}";
	if (!text)
		return -ENOMEM;
	buf_printf(out, "%s\n", text);
	return buf_error(out);
}

int code_context_restart(struct code_context *k, struct sandbox *sb, struct call *c)
{
	bool begun;
	AUTO_FREE char *id = code_context_id(k, &begun);
	int err = !begun ? 0 : !id ? -ENOMEM : code_api_restart(sb, c, id);
	if (err || !begun)
		return err;
	AUTO_UNLOCK(&k->set->lock);
	json_object_put(steal(k->variables));
	return 0;
}

/* --- looking --- */

static bool link_down(int err)
{
	return err == -EHOSTUNREACH || err == -ETIMEDOUT;
}

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
		s->language = standard[0];
	return false;
}

static int context_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct code_set *set = set_of(dir->sandbox);
	struct code_context *found = NULL;
	if (!set)
		return -ENOMEM;
	if (!code_api_id_ok(name))
		return -ENOENT;
	int err = is_standard(name) ? set_get(set, name, NULL, code_api_language(name), &found) : 0;
	AUTO_CONTEXT *k = found ? NULL : set_known(set, name);
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
	if (err && !(link_down(err) && k))
		return err;
	if (!err && search.language)
		err = set_get(set, name, search.id, search.language, &found);
	else if (k && (err || !context_forget(k, then)))
		found = steal(k), err = 0;
	*object = found;
	return err ? err : found ? 0 : -ENOENT;
}

struct names {
	struct code_set *set;
	char **name;
	size_t count;
	bool failed;
};

static void names_release(struct names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->name[i]);
	free(n->name);
}

static void names_add(struct names *n, const char *name)
{
	for (size_t i = 0; i < n->count; i++)
		if (strcmp(n->name[i], name) == 0)
			return;
	char **more = realloc(n->name, (n->count + 1) * sizeof *more);
	if (more)
		n->name = more;
	char *copy = more ? strdup(name) : NULL;
	if (copy)
		n->name[n->count++] = copy;
	else
		n->failed = true;
}

/* By the name that it has here. */
static bool add_listed(const struct code_api_info *info, void *arg)
{
	struct names *n = arg;
	AUTO_UNLOCK(&n->set->lock);
	struct code_context *k = n->set->first;
	while (k && !(k->pinned && k->id && strcmp(k->id, info->id) == 0))
		k = k->next;
	names_add(n, k ? k->name : info->id);
	return !n->failed;
}

/* Drafts; and where the sandbox could not be asked, all that was seen. */
static void add_known(struct names *n, bool all)
{
	AUTO_UNLOCK(&n->set->lock);
	for (struct code_context *k = n->set->first; k; k = k->next)
		if (k->pinned && (all || !k->id))
			names_add(n, k->name);
}

static int context_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	__attribute__((cleanup(names_release))) struct names names = {.set = set_of(dir->sandbox)};
	int err = 0;
	if (!names.set)
		return -ENOMEM;
	for (size_t i = 0; i < STANDARD; i++)
		names_add(&names, standard[i]);
	if (sandbox_has_server(dir->sandbox))
		err = code_api_list(dir->sandbox, c, add_listed, &names);
	if (err && !link_down(err))
		return err;
	add_known(&names, err != 0);
	if (names.failed)
		return -ENOMEM;
	for (size_t i = 0; i < names.count && cb(names.name[i], arg); i++)
		;
	return 0;
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
	struct code_set *set = set_of(dir->sandbox);
	struct code_context *k;
	if (!code_api_id_ok(name))
		return call_fault(c, EINVAL, NULL,
			"code/%s: no name of a context; use 1 to 128 of A-Z a-z 0-9 . _ -, no leading dot, not "
			"new or help",
			name);
	if (is_standard(name))
		return -EEXIST;
	int err = set ? set_get(set, name, NULL, standard[0], &k) : -ENOMEM;
	if (!err)
		*object = k;
	return err;
}

static int context_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	void *object;
	bool begun;
	if (is_standard(name))
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
	(void)context_forget(k, UINT64_MAX); /* always true */
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
				  ? check_variables(c, w->variables)
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
	struct code_set *set = set_of(ref->sandbox);
	struct code_api_spec spec = {.language = code_api_language(w->language), .cwd = w->cwd};
	if (!spec.language)
		return call_fault(c, EINVAL, NULL,
			"%s: not a language; write python, javascript or typescript", w->language);
	int err = set ? ctl_env_merge(ref->sandbox, w->env, &env) : -ENOMEM;
	spec.env = env;
	if (!err)
		err = code_api_create(ref->sandbox, c, &spec, &id);
	if (!err)
		err = set_get(set, id, id, spec.language, &k);
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
	struct wish w = {.language = standard[0]};
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
