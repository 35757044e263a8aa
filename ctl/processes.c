/*
 * processes/: which processes there are, how they come and go, and how they start.
 *
 * What is listed: what the sandbox lists, drafts of this mount (mkdir), and what this mount started in a sandbox that is gone since
 * (`lost`), until rmdir. Looking never starts a sandbox: one that does not run has no processes. While the link is down, those that
 * this mount knows of are listed, and are `lost` until it is back.
 */
#include "processes.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "env.h"
#include "name_list.h"
#include "sessions.h"

static const char process_set_key;

/* ---- the set ---- */

static void *process_set_make(struct sandbox *sb)
{
	struct process_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	pthread_mutex_init(&set->lock, NULL);
	pthread_cond_init(&set->settle, NULL);
	set->sandbox = sb;
	set->refs = 1;
	return set;
}

/* Drops a reference and the lock. */
static void process_set_put(struct process_set *set)
{
	bool last = --set->refs == 0;

	pthread_mutex_unlock(&set->lock);
	if (!last)
		return;
	process_pages_drop(set, NULL);
	pthread_cond_destroy(&set->settle);
	pthread_mutex_destroy(&set->lock);
	free(set);
}

void process_clear(struct process *p)
{
	free(p->command);
	free(p->cwd);
	free(p->session);
	json_object_put(p->env);
	p->command = p->cwd = p->session = NULL;
	p->env = NULL;
	p->timeout_ms = 0;
	p->has_settings = false;
}

/* Drops a reference and the lock of its set. */
static void process_put_locked(struct process *p)
{
	struct process_set *set = p->set;

	if (--p->refs > 0) {
		pthread_mutex_unlock(&set->lock);
		return;
	}
	for (struct process **at = &set->first; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	process_clear(p);
	fault_clear(&p->start_fault);
	free(p->id);
	free(p);
	process_set_put(set);
}

void process_put(void *object)
{
	struct process *p = object;

	pthread_mutex_lock(&p->set->lock);
	process_put_locked(p);
}

static void *process_hold(void *object)
{
	struct process *p = object;
	AUTO_UNLOCK(&p->set->lock);

	p->refs++;
	return p;
}

/* Forgets it; with `ended` only if it was started here, and is not being started again at this moment. */
void process_unpin(struct process *p, bool ended)
{
	pthread_mutex_lock(&p->set->lock);
	if (ended && (!p->started_here || p->starting || p->draft)) {
		pthread_mutex_unlock(&p->set->lock);
		return;
	}
	bool pinned = p->pinned;
	p->pinned = p->draft = p->started_here = false;
	process_clear(p);
	fault_clear(&p->start_fault);
	process_follow_begin(p, NULL, 0);
	if (pinned)
		process_put_locked(p);
	else
		pthread_mutex_unlock(&p->set->lock);
}

static void process_set_stop(void *data)
{
	struct process_set *set = data;

	process_settle_stop(set);
	process_pages_drop(set, NULL);
}

static void process_set_release(void *data)
{
	struct process_set *set = data;

	process_settle_stop(set);
	for (;;) {
		struct process *pinned = NULL;

		pthread_mutex_lock(&set->lock);
		for (struct process *p = set->first; p && !pinned; p = p->next)
			pinned = p->pinned ? p : NULL;
		if (!pinned)
			break;
		pinned->refs++; /* it must last until its pin is out */
		pthread_mutex_unlock(&set->lock);
		process_unpin(pinned, false);
		process_put(pinned);
	}
	process_set_put(set);
}

struct process_set *process_set_of(struct sandbox *sb)
{
	return sandbox_attach(
		sb, &process_set_key, process_set_make, process_set_stop, process_set_release);
}

/* With the lock held. */
static struct process *process_set_find(struct process_set *set, const char *id)
{
	struct process *p = set->first;

	while (p && strcmp(p->id, id) != 0)
		p = p->next;
	return p;
}

/* New reference to the process of this id, which is made if need be; *made tells. NULL: out of memory. */
struct process *process_set_get(struct process_set *set, const char *id, bool *made)
{
	AUTO_UNLOCK(&set->lock);
	struct process *p = process_set_find(set, id);

	*made = !p;
	if (p) {
		p->refs++;
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p || !(p->id = strdup(id))) {
		free(p);
		return NULL;
	}
	p->set = set;
	set->refs++;
	p->refs = 1;
	p->next = set->first;
	set->first = p;
	return p;
}

/* ---- what is known of one ---- */

bool process_lost(struct sandbox *sb, struct process *p)
{
	char boot[sizeof(p->boot)];

	pthread_mutex_lock(&p->set->lock);
	bool here = p->started_here;
	const struct http_target *target = p->target;
	memcpy(boot, p->boot, sizeof(boot));
	pthread_mutex_unlock(&p->set->lock);
	return here && (!sandbox_has_server(sb) || sandbox_replaced_since(sb, boot) ||
					   target != sandbox_target(sb));
}

int process_not_started(struct call *c, const struct process *p)
{
	const struct fault *why = &p->start_fault;

	if (why->err)
		return call_fault(c, ESRCH, why->code, "it is not started, its start failed: %s",
			why->message ? why->message : strerror(why->err));
	return call_fault(
		c, ESRCH, NULL, "it is not started; write its command to processes/%s/cmd", p->id);
}

int process_look(
	const struct ctl_ref *ref, struct call *c, struct process *p, struct process_info *out)
{
	memset(out, 0, sizeof(*out));
	if (!sandbox_has_server(ref->sandbox))
		return -ENOENT;
	int err = process_get(ref->sandbox, c, p->id, out);
	if (err)
		return err;
	pthread_mutex_lock(&p->set->lock);
	bool news = !out->running && !p->end_told;
	pthread_mutex_unlock(&p->set->lock);
	if (news) /* who learns of its end must not meet yesterday's files */
		sandbox_invalidate(ref->sandbox);
	pthread_mutex_lock(&p->set->lock);
	p->end_told = !out->running;
	pthread_mutex_unlock(&p->set->lock);
	return 0;
}

static int process_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct process_set *set;
	struct process_info info = {0};
	bool made;

	if (!process_id_ok(name))
		return -ENOENT;
	set = process_set_of(dir->sandbox);
	if (!set)
		return -ENOMEM;
	struct process *p = process_set_get(set, name, &made);
	if (!p)
		return -ENOMEM;
	int err = process_look(dir, c, p, &info);
	process_info_release(&info);
	if (err == -ENOENT) {
		pthread_mutex_lock(&set->lock);
		bool draft = p->draft || p->starting;
		pthread_mutex_unlock(&set->lock);
		if (draft || process_lost(dir->sandbox, p))
			err = 0;
		else
			process_unpin(p, true); /* its record is gone: somebody removed it */
	} else if (ctl_link_down(err)) {
		pthread_mutex_lock(&set->lock);
		err = p->pinned ? 0 : err;
		pthread_mutex_unlock(&set->lock);
	}
	if (err)
		process_put(p);
	else
		*object = p;
	return err;
}

/* ---- listing ---- */

static int process_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct process_set *set = process_set_of(dir->sandbox);
	AUTO_NAME_LIST names = {0};
	AUTO_NAME_LIST here = {0};
	int err;

	if (!set)
		return -ENOMEM;
	if (sandbox_has_server(dir->sandbox)) {
		err = process_list(dir->sandbox, c, name_list_add, &names);
		if (err && !ctl_link_down(err))
			return err;
	}
	pthread_mutex_lock(&set->lock);
	for (struct process *p = set->first; p; p = p->next) {
		if (p->pinned)
			(void)name_list_add(p->id, &here); /* name_list_sort tells */
	}
	pthread_mutex_unlock(&set->lock);
	if (name_list_sort(&here))
		return -ENOMEM;
	for (size_t i = 0; i < here.count; i++) {
		void *object = NULL;
		if (process_find(dir, c, here.names[i], &object) < 0)
			continue;
		process_put(object);
		(void)name_list_add(here.names[i], &names); /* name_list_sort tells */
	}
	err = name_list_sort(&names);
	if (!err)
		name_list_each(&names, cb, arg);
	return err;
}

/* ---- coming and going ---- */

int process_bad_id(struct call *c, const char *id)
{
	return call_fault(c, EINVAL, NULL,
		"processes/%s: no id of a process; use 1 to 128 of A-Z a-z 0-9 . _ -, no leading dot, not "
		"new "
		"or help",
		id);
}

static int process_make(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct process_set *set;
	bool made;

	if (!process_id_ok(name))
		return process_bad_id(c, name);
	set = process_set_of(dir->sandbox);
	if (!set)
		return -ENOMEM;
	struct process *p = process_set_get(set, name, &made);
	if (!p)
		return -ENOMEM;
	pthread_mutex_lock(&set->lock);
	if (p->pinned) {
		process_put_locked(p);
		return -EEXIST;
	}
	p->pinned = p->draft = p->has_settings = true;
	p->refs++;
	pthread_mutex_unlock(&set->lock);
	*object = p;
	return 0;
}

int process_busy(struct call *c, const struct process *p)
{
	return call_fault(c, EBUSY, NULL, "it is running; echo kill > processes/%s/ctl ends it", p->id);
}

static int process_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	struct process_info info = {0};
	void *object;
	int err = process_find(dir, c, name, &object);

	if (err)
		return err;
	struct process *p = object;
	err = process_look(dir, c, p, &info);
	bool running = info.running;
	process_info_release(&info);
	pthread_mutex_lock(&p->set->lock);
	running = running || p->starting;
	pthread_mutex_unlock(&p->set->lock);
	if (running)
		err = call_fault(c, EBUSY, NULL,
			"processes/%s: it is running; echo kill > processes/%s/ctl ends it", p->id, p->id);
	else if (err == 0)
		err = process_forget(dir->sandbox, c, p->id);
	else if (err == -ENOENT)
		err = 0;
	if (!err) {
		process_unpin(p, false);
		process_pages_drop(p->set, p->id);
	}
	process_put(p);
	return err;
}

/* ---- settings and start ---- */

/* Takes over what the sandbox says, unless there are settings already. With the lock held. */
static int process_adopt(struct process *p, const struct process_info *info)
{
	if (p->has_settings)
		return 0;
	process_clear(p);
	p->command = strdup(info->command);
	p->cwd = info->cwd[0] ? strdup(info->cwd) : NULL;
	if (!p->command || (info->cwd[0] && !p->cwd))
		return -ENOMEM;
	int err = ctl_json_copy(info->env, &p->env);
	if (err)
		return err;
	p->timeout_ms = info->timeout_ms;
	p->has_settings = true;
	return 0;
}

int process_edit(const struct ctl_ref *ref, struct call *c, struct process *p,
	int (*edit)(struct process *p, void *arg), void *arg)
{
	AUTO_PROCESS_INFO info = {0};
	int err = process_look(ref, c, p, &info);

	if (err && err != -ENOENT)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	if (info.running || p->starting)
		return call_fault(c, EBUSY, NULL, "it is running; this is set before the start");
	if (!err)
		err = process_adopt(p, &info);
	else
		err = 0;
	return err ? err : edit(p, arg);
}

/* Reserves the start: settings are complete and nobody else starts it. */
static int process_claim(struct call *c, struct process *p, const struct process_info *info,
	const char *command, size_t n)
{
	AUTO_UNLOCK(&p->set->lock);
	if (info->running || p->starting)
		return process_busy(c, p);
	if (info->command && process_adopt(p, info) < 0)
		return -ENOMEM;
	if (command) {
		char *copy = strndup(command, n);
		if (!copy)
			return -ENOMEM;
		free(p->command);
		p->command = copy;
	}
	if (!p->command)
		return call_fault(
			c, EINVAL, NULL, "it has no command yet; write one to processes/%s/cmd", p->id);
	p->has_settings = true;
	p->starting = true;
	return 0;
}

/* forgotten: the sandbox has no record of an earlier run any more. */
static void process_started(
	struct sandbox *sb, struct call *c, struct process *p, bool forgotten, int err)
{
	struct sandbox_status st;
	const struct http_target *target = sandbox_target(sb);

	sandbox_get_status(sb, &st);
	AUTO_UNLOCK(&p->set->lock);
	p->starting = false;
	if (!p->pinned) {
		p->pinned = true;
		p->refs++;
	}
	fault_clear(&p->start_fault);
	if (err) { /* it can be tried again, with the same settings */
		fault_copy(&p->start_fault, &c->fault);
		p->start_fault.err = -err;
		p->started_here = p->started_here && !forgotten;
		p->draft = p->draft || !p->started_here;
		process_follow_begin(p, NULL, err);
		return;
	}
	p->draft = false;
	p->started_here = true;
	p->end_told = false;
	memcpy(p->boot, st.boot, sizeof(p->boot));
	p->target = target;
	process_follow_begin(p, p->id, 0);
}

/* Where and with what it starts: a session has an environment of its own, all others have what env says. *env is new. */
static int process_place(
	struct sandbox *sb, struct call *c, struct process_spec *spec, struct json_object **env)
{
	if (spec->session)
		return ctl_session_ready(sb, c, spec->session, true);
	int err = ctl_env_merge(sb, spec->env, env);
	spec->env = *env;
	return err;
}

int process_begin(
	const struct ctl_ref *ref, struct call *c, struct process *p, const char *command, size_t n)
{
	AUTO_PROCESS_INFO info = {0};
	int err = sandbox_ready(ref->sandbox, c);

	if (!err)
		err = process_look(ref, c, p, &info);
	bool known = !err;
	if (err && err != -ENOENT)
		return err;
	err = process_claim(c, p, &info, command, n);
	if (err)
		return err;
	/* While it is starting nobody else changes its settings. */
	struct process_spec spec = {
		.command = p->command,
		.size = strlen(p->command),
		.cwd = p->cwd,
		.env = p->env,
		.timeout_ms = p->timeout_ms,
		.session = p->session,
	};
	struct json_object *env = NULL;
	err = sandbox_barrier(ref->sandbox, c);
	if (!err)
		err = process_place(ref->sandbox, c, &spec, &env);
	bool forgotten = false;
	if (!err && known) {
		err = process_forget(ref->sandbox, c, p->id);
		forgotten = !err;
	}
	process_pages_drop(p->set, p->id);
	if (!err)
		err = process_start(ref->sandbox, c, p->id, &spec);
	json_object_put(env);
	process_started(ref->sandbox, c, p, forgotten, err);
	return err;
}

static const struct ctl_row process_row = {.name = "ID",
	.mode = 0700,
	.kind = CTL_DIR,
	.dir = &process_dir,
	.grammar = "a process; mkdir ID, set cwd, timeout, env, then write cmd; rmdir forgets one that "
			   "has ended"};

static const struct ctl_set process_objects = {
	.row = &process_row,
	.find = process_find,
	.each = process_each,
	.get = process_hold,
	.put = process_put,
	.make = process_make,
	.remove = process_remove,
};

static const struct ctl_row process_set_rows[] = {
	{.name = "new",
		.mode = 0600,
		.kind = CTL_DOC,
		.grammar =
			"W a command, or one JSON object (command, processId, cwd, env, sessionId, timeout in "
			"ms), "
			"starts it; R in the same opening: its id",
		.submit = process_submit_new},
	{.name = NULL},
};

const struct ctl_dir ctl_processes_dir = {
	.help = "Processes of the sandbox, whoever started them.",
	.rows = process_set_rows,
	.set = &process_objects,
};
