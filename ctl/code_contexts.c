/*
 * Contexts of code/: what is known of each (code_room.h), and how one begins in the sandbox.
 *
 * A context that was made here begins with its first run (or at code/new): until then it is a draft, and known to this mount alone.
 * Owns the set of a sandbox's contexts. The name of a context is its id on servers that take names; others give it an id of their own.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "code_api.h"
#include "code_set.h"
#include "env.h"
#include "json_make.h"

const char *const code_standard[CODE_STANDARD] = {"python", "javascript", "typescript"};

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

/* Takes it out of the set, unless it was seen since `then`. False: it was. The caller holds a reference. */
bool code_context_forget(struct code_context *k, uint64_t then)
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
		(void)code_context_forget(k, UINT64_MAX); /* always true */
	set_put(set);
}

struct code_set *code_set_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, set_make, set_stop, set_release);
}

void ctl_code_cancel(struct sandbox *sb)
{
	struct code_set *set = code_set_of(sb);
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

struct code_context *code_set_known(struct code_set *set, const char *name)
{
	AUTO_UNLOCK(&set->lock);
	struct code_context *k = set_find(set, name);
	if (k)
		k->refs++;
	return k;
}

/* New reference to the context of this name, which is put in if need be. id NULL: as a draft. 0, -ENOMEM or -ESTALE. */
int code_set_get(struct code_set *set, const char *name, const char *id, const char *language,
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

bool code_is_standard(const char *name)
{
	for (size_t i = 0; i < CODE_STANDARD; i++)
		if (strcmp(name, code_standard[i]) == 0)
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
	if (language != k->language && (k->id || code_is_standard(k->name)))
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

/* A copy. NULL: there are none. */
static int variables_of(struct code_context *k, struct json_object **out)
{
	AUTO_UNLOCK(&k->set->lock);
	return ctl_json_copy(k->variables, out);
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
	err = variables_of(k, &variables);
	if (!err && variables && json_object_object_length(variables))
		err = code_api_variables(sb, c, real, variables);
	return err ? err : take_id(k, real);
}

int code_context_lost(struct code_context *k, struct call *c)
{
	if (!code_is_standard(k->name)) {
		(void)code_context_forget(k, UINT64_MAX); /* always true */
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

/* All of them or none: what is kept is changed by putting another in its place. */
static int keep_variables(struct code_context *k, struct json_object *variables)
{
	AUTO_UNLOCK(&k->set->lock);
	AUTO_JSON *all = NULL;
	int err = ctl_json_copy(k->variables, &all);
	if (!err && !all && !(all = json_object_new_object()))
		err = -ENOMEM;
	if (err)
		return err;
	json_object_object_foreach(variables, name, value)
	{
		struct json_object *copy;
		err = ctl_json_copy(value, &copy);
		if (!err && json_object_object_add(all, name, copy) < 0) {
			json_object_put(copy);
			err = -ENOMEM;
		}
		if (err)
			return err;
	}
	json_object_put(k->variables);
	k->variables = steal(all);
	return 0;
}

int code_check_variables(struct call *c, struct json_object *variables)
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
	int err = code_check_variables(c, variables);
	if (!err && begun)
		err = id ? code_api_variables(sb, c, id, variables) : -ENOMEM;
	if (err == -ENOENT)
		err = code_context_lost(k, c);
	return err ? err : keep_variables(k, variables);
}

int code_context_put_variables(struct code_context *k, struct buf *out)
{
	AUTO_JSON *all = NULL;
	int err = variables_of(k, &all);
	if (err)
		return err;
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
