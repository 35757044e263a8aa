/*
 * sessions/: which sessions there are, how they come and go, and what they are given.
 *
 * What is listed is what the sandbox lists, and `default`, which is there without having been made. Looking never starts a sandbox: one that
 * does not run has no other. While the link is down those that were seen here are listed.
 *
 * Owns the set of a sandbox's sessions, and a table of runs of its own for the lines that set variables: they are in nobody's
 * runs/, for their text has the values. The set's lock covers the list and all fields but ids; it is not held over a request.
 */
#include "sessions.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "env.h"
#include "json_make.h"
#include "kinds.h"
#include "name_list.h"
#include "session_api.h"

struct session_set {
	pthread_mutex_t lock;
	unsigned refs;
	bool closing;
	uint64_t
		clock; /* counts what was seen; an answer is older than what was seen since its request */
	struct session *first;
	struct sandbox *sandbox; /* borrowed */
	struct run_table *table;
};

/* --- the set --- */

static void *set_make(struct sandbox *sb)
{
	AUTO_FREE struct session_set *set = calloc(1, sizeof *set);
	if (!set || run_table_new(sb, &set->table))
		return NULL;
	pthread_mutex_init(&set->lock, NULL);
	set->refs = 1;
	set->sandbox = sb;
	return steal(set);
}

static void set_put(struct session_set *set)
{
	pthread_mutex_lock(&set->lock);
	bool last = --set->refs == 0;
	pthread_mutex_unlock(&set->lock);
	if (!last)
		return;
	run_table_free(set->table);
	pthread_mutex_destroy(&set->lock);
	free(set);
}

/* Does this reference to it, taken with the lock held, turn out to be the last? Then session_free is due, without it. */
static bool session_drop(struct session *s)
{
	if (--s->refs)
		return false;
	struct session **at = &s->set->first;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	return true;
}

static void session_free(struct session *s)
{
	struct session_set *set = s->set;
	ctl_runs_put(s->owner.runs);
	json_object_put(s->env);
	free(s->id);
	free(s);
	set_put(set);
}

void session_put(void *object)
{
	struct session *s = object;
	pthread_mutex_t *lock = &s->set->lock;
	pthread_mutex_lock(lock);
	bool last = session_drop(s);
	pthread_mutex_unlock(lock);
	if (last)
		session_free(s);
}

static void *session_hold(void *object)
{
	struct session *s = object;
	AUTO_UNLOCK(&s->set->lock);
	s->refs++;
	return s;
}

/*
 * The sandbox did not have it at `then`: its name is free for another one. False: it was seen since. The caller holds a reference.
 */
static bool session_forget(struct session *s, uint64_t then)
{
	AUTO_UNLOCK(&s->set->lock);
	if (s->pinned && s->seen > then)
		return false;
	if (s->pinned)
		s->refs--;
	s->pinned = false;
	s->removed = true;
	return true;
}

static uint64_t set_clock(struct session_set *set)
{
	AUTO_UNLOCK(&set->lock);
	return set->clock;
}

/* Calls fn for every session there is, removed ones too, each held meanwhile. */
static void each_held(struct session_set *set, void (*fn)(struct session *s))
{
	pthread_mutex_lock(&set->lock);
	struct session *s = set->first;
	if (s)
		s->refs++;
	while (s) {
		pthread_mutex_unlock(&set->lock);
		fn(s);
		pthread_mutex_lock(&set->lock);
		struct session *next = s->next;
		if (next)
			next->refs++;
		if (session_drop(s)) {
			pthread_mutex_unlock(&set->lock);
			session_free(s); /* not the set: the caller has it */
			pthread_mutex_lock(&set->lock);
		}
		s = next;
	}
	pthread_mutex_unlock(&set->lock);
}

static void forget_always(struct session *s)
{
	(void)session_forget(s, UINT64_MAX); /* always true */
}

static void stop_runs(struct session *s)
{
	ctl_runs_stop(s->owner.runs);
}

static void set_stop(void *data)
{
	struct session_set *set = data;
	{
		AUTO_UNLOCK(&set->lock);
		set->closing = true;
	}
	each_held(set, stop_runs);
	run_table_close(set->table);
}

static void set_release(void *data)
{
	struct session_set *set = data;
	set_stop(set);
	each_held(set, forget_always);
	set_put(set);
}

static struct session_set *set_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, set_make, set_stop, set_release);
}

static void cancel_runs(struct session *s)
{
	ctl_runs_cancel_all(s->owner.runs);
}

void ctl_sessions_cancel(struct sandbox *sb)
{
	struct session_set *set = set_of(sb);
	if (set)
		each_held(set, cancel_runs);
}

/* With the lock held. */
static struct session *set_find(struct session_set *set, const char *id)
{
	struct session *s = set->first;
	while (s && (s->removed || strcmp(s->id, id) != 0))
		s = s->next;
	return s;
}

/* New reference to the session of this id, which is made if need be. 0 or -ENOMEM. */
static int set_get(struct session_set *set, const char *id, struct session **out)
{
	{
		AUTO_UNLOCK(&set->lock);
		*out = set_find(set, id);
		if (*out) {
			(*out)->refs++;
			return 0;
		}
	}
	AUTO_FREE struct session *fresh = calloc(1, sizeof *fresh);
	AUTO_FREE char *copy = strdup(id);
	struct ctl_runs *runs = NULL;
	int err = fresh && copy ? ctl_runs_new(set->sandbox, id, &runs) : -ENOMEM;
	if (err)
		return err;
	{
		AUTO_UNLOCK(&set->lock);
		*out = set_find(set, id);
		if (*out) {
			(*out)->refs++;
		} else if (set->closing) {
			err = -ESTALE;
		} else {
			*fresh = (struct session){.owner.runs = steal(runs),
				.set = set,
				.id = steal(copy),
				.refs = 1,
				.next = set->first};
			set->first = *out = steal(fresh);
			set->refs++;
		}
	}
	if (runs)
		ctl_runs_put(runs);
	return err;
}

static void session_pin(struct session *s)
{
	AUTO_UNLOCK(&s->set->lock);
	if (!s->pinned && !s->removed) {
		s->pinned = true;
		s->refs++;
	}
	s->seen = ++s->set->clock;
}

const char *ctl_session_at(const struct ctl_ref *ref)
{
	const struct session *s = ref->object;
	return s ? s->id : NULL;
}

static bool is_default(const char *id)
{
	return strcmp(id, SESSION_API_DEFAULT) == 0;
}

/* --- looking --- */

static int session_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	AUTO_SESSION_INFO info = {0};
	struct session_set *set = set_of(dir->sandbox);
	struct session *s;
	if (!session_api_id_shown(name))
		return -ENOENT;
	int err = set ? set_get(set, name, &s) : -ENOMEM;
	if (err)
		return err;
	*object = s;
	if (is_default(name)) {
		session_pin(s);
		return 0;
	}
	uint64_t now = set_clock(set);
	err =
		sandbox_has_server(dir->sandbox) ? session_api_get(dir->sandbox, c, name, &info) : -ENOENT;
	if (err == -ENOENT) {
		err = session_forget(s, now) ? err : 0;
	} else if (ctl_link_down(err)) {
		AUTO_UNLOCK(&set->lock);
		err = s->pinned ? 0 : err;
	} else if (!err) {
		session_pin(s);
	}
	if (err)
		session_put(s);
	return err;
}

/* The sandbox could not be asked: what was seen here is listed. */
static void add_seen(struct session_set *set, struct name_list *names)
{
	AUTO_UNLOCK(&set->lock);
	for (struct session *s = set->first; s; s = s->next)
		if (s->pinned && session_api_id_shown(s->id))
			(void)name_list_add(s->id, names); /* name_list_sort tells */
}

/* Forgets what was seen here and is not among all that the sandbox had at `then`. */
static void forget_others(struct session_set *set, const struct name_list *names, uint64_t then)
{
	struct session *unused = NULL;
	pthread_mutex_lock(&set->lock);
	for (struct session **at = &set->first; *at;) {
		struct session *s = *at;
		bool forget = s->pinned && s->seen <= then && !name_list_has(names, s->id);
		if (forget) {
			s->pinned = false;
			s->removed = true;
		}
		if (forget && --s->refs == 0) {
			*at = s->next;
			s->next = unused;
			unused = s;
		} else {
			at = &s->next;
		}
	}
	pthread_mutex_unlock(&set->lock);
	while (unused) {
		struct session *s = unused;
		unused = s->next;
		session_free(s);
	}
}

static int session_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct session_set *set = set_of(dir->sandbox);
	AUTO_NAME_LIST names = {0};
	int err = 0;
	if (!set)
		return -ENOMEM;
	uint64_t now = set_clock(set);
	(void)name_list_add(SESSION_API_DEFAULT, &names); /* name_list_sort tells */
	if (sandbox_has_server(dir->sandbox)) {
		err = session_api_list(dir->sandbox, c, name_list_add, &names);
		if (err && !ctl_link_down(err))
			return err;
	}
	if (err)
		add_seen(set, &names);
	if (name_list_sort(&names))
		return -ENOMEM;
	if (!err)
		forget_others(set, &names, now);
	name_list_each(&names, cb, arg);
	return 0;
}

/* --- coming and going --- */

static void session_set_env(struct session *s, struct json_object *env)
{
	AUTO_UNLOCK(&s->set->lock);
	json_object_put(s->env);
	s->env = env;
}

int session_make_as(
	struct sandbox *sb, struct call *c, const struct session_api_spec *spec, struct session **out)
{
	struct session_api_spec full = *spec;
	struct session_set *set = set_of(sb);
	struct session *s;
	int err = set ? ctl_env_merge(sb, spec->env, &full.env) : -ENOMEM;
	if (err)
		return err;
	AUTO_JSON *env = full.env;
	uint64_t now = set_clock(set);
	err = session_api_create(sb, c, &full);
	if (!err)
		err = set_get(set, spec->id, &s);
	if (err)
		return err;
	/* One that was seen before under this name is another: its runs are not this one's. */
	if (!is_default(s->id) && session_forget(s, now)) {
		session_put(s);
		err = set_get(set, spec->id, &s);
		if (err)
			return err;
	}
	session_set_env(s, steal(env));
	session_pin(s);
	*out = s;
	return 0;
}

int ctl_session_ready(struct sandbox *sb, struct call *c, const char *id, bool make)
{
	AUTO_SESSION_INFO info = {0};
	int err = session_api_get(sb, c, id, &info);
	if (err != -ENOENT)
		return err;
	if (!make && !is_default(id))
		return call_fault(c, ESTALE, NULL,
			"session %s is gone, with its shell and what that knew; mkdir sessions/%s makes a new "
			"one",
			id, id);
	struct session_api_spec spec = {.id = id};
	struct session *s = NULL;
	err = session_make_as(sb, c, &spec, &s);
	if (s)
		session_put(s);
	return err == -EEXIST ? 0 : err;
}

int session_bad_id(struct call *c, const char *id)
{
	return call_fault(c, EINVAL, NULL,
		"sessions/%s: no id of a session; use 1 to 128 of A-Z a-z 0-9 . _ -, no leading dot, not "
		"new or help",
		id);
}

static int session_make(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct session_api_spec spec = {.id = name};
	struct session *s;
	if (!session_api_id_ok(name))
		return session_bad_id(c, name);
	if (is_default(name))
		return -EEXIST;
	int err = ctl_exec_begin(dir, c);
	if (!err)
		err = session_make_as(dir->sandbox, c, &spec, &s);
	if (!err)
		*object = s;
	return err;
}

static int session_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	void *object;
	if (is_default(name))
		return call_fault(c, EPERM, NULL,
			"sessions/default: the default session stays; echo kill > sessions/default/ctl ends "
			"its "
			"shell");
	int err = session_find(dir, c, name, &object);
	if (err)
		return err;
	err = session_api_delete(dir->sandbox, c, name);
	if (!err || err == -ENOENT) {
		(void)session_forget(object, UINT64_MAX); /* always true */
		/* What it ran has ended, and wrote until then. */
		sandbox_invalidate(dir->sandbox);
	}
	session_put(object);
	return err;
}

/* --- its environment --- */

void session_put_env(
	struct session *s, struct buf *out, void (*put)(struct json_object *env, struct buf *out))
{
	AUTO_UNLOCK(&s->set->lock);
	put(s->env, out);
}

/* The line that makes the changes in a shell. */
static int env_script(struct json_object *changes, struct buf *out)
{
	json_object_object_foreach(changes, name, value)
	{
		buf_str(out, out->size ? " &&\n" : "");
		buf_printf(out, value ? "export %s=" : "unset -v %s", name);
		if (value)
			buf_shell_quote(out, json_object_get_string(value));
	}
	return buf_error(out);
}

/* Has the session's shell run the script. */
static int run_script(struct session *s, struct call *c, const struct buf *script)
{
	struct run *r;
	struct run_spec spec = {.command = script->data, .size = script->size, .session = s->id};
	int err = run_new(s->set->table, &r);
	if (err)
		return err;
	err = run_start(r, c, &spec);
	if (!err)
		err = run_wait(r, c);
	if (err == -EINTR)
		run_cancel(r);
	if (!err && run_exit(r, NULL) != 0)
		err = call_fault(c, EPERM, NULL,
			"the session's shell refused it (exit %d): is one of them readonly?",
			run_exit(r, NULL));
	run_put(r);
	return err;
}

int session_change_env(
	const struct ctl_ref *ref, struct call *c, struct session *s, struct json_object *changes)
{
	AUTO_BUF script = BUF_INIT;
	struct json_object *env;
	if (!json_object_object_length(changes))
		return 0;
	int err = env_script(changes, &script);
	if (!err)
		err = ctl_session_ready(ref->sandbox, c, s->id, false);
	if (!err)
		err = run_script(s, c, &script);
	if (err)
		return err;
	AUTO_UNLOCK(&s->set->lock);
	err = ctl_env_changed(s->env, changes, &env);
	if (err)
		return err;
	json_object_put(s->env);
	s->env = env;
	return 0;
}

/* --- the tables --- */

static const struct ctl_row session_row = {.name = "ID",
	.mode = 0700,
	.kind = CTL_DIR,
	.dir = &ctl_session_dir,
	.grammar = "a shell that keeps its directory, variables and functions from command to command; "
			   "mkdir ID makes one, rmdir ends it and all that it started"};

static const struct ctl_set session_objects = {
	.row = &session_row,
	.find = session_find,
	.each = session_each,
	.get = session_hold,
	.put = session_put,
	.make = session_make,
	.remove = session_remove,
};

static const struct ctl_row session_set_rows[] = {
	{.name = "new",
		.mode = 0600,
		.kind = CTL_DOC,
		.grammar =
			"W an id, or one JSON object (id, cwd, env, commandTimeoutMs), makes a session; R "
			"in the same opening: its id",
		.begin = ctl_exec_begin,
		.submit = session_submit_new},
	{.name = NULL},
};

const struct ctl_dir ctl_sessions_dir = {
	.help = "Sessions of the sandbox, whoever made them. `default` is always there.",
	.rows = session_set_rows,
	.set = &session_objects,
};
