/*
 * One sandbox: its name, references, state and life, and what the rooms above keep with it. See sandbox.h; requests to its
 * server, and whether that answers, are sandbox_link.c's.
 *
 * A sandbox of our own (local:) that has ended is simply started again by the next use.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "sandbox_impl.h"

enum { FRESH_MS = 10000, GOODBYE_MS = 4000, LAST_WORD_MS = 1000 };

const char *sandbox_state_word(enum sandbox_state s)
{
	static const char *const words[] = {
		"unknown", "starting", "running", "unreachable", "replaced", "in-use"};

	return words[s];
}

int sandbox_new(struct server *s, const char *name, struct sandbox **out)
{
	struct sandbox *sb = calloc(1, sizeof *sb);

	if (!sb)
		return -ENOMEM;
	sb->name = strdup(name);
	if (!sb->name) {
		free(sb);
		return -ENOMEM;
	}
	sb->server = s;
	sb->sleep_after_ms = SANDBOX_SLEEP_AFTER_MS;
	sb->avail = UINT64_MAX;
	atomic_init(&sb->refs, 1);
	pthread_mutex_init(&sb->lock, NULL);
	clock_gettime(CLOCK_REALTIME, &sb->since);
	*out = sb;
	return 0;
}

struct sandbox *sandbox_get(struct sandbox *sb)
{
	atomic_fetch_add(&sb->refs, 1);
	return sb;
}

void sandbox_put(struct sandbox *sb)
{
	if (!sb || atomic_fetch_sub(&sb->refs, 1) != 1)
		return;
	if (sb->files)
		sb->files_ops->free(sb->files);
	for (struct target_box *b = sb->targets, *next; b; b = next) {
		next = b->next;
		free(b->target.base);
		free(b->target.unix_path);
		free(b->target.token);
		free(b);
	}
	fault_clear(&sb->fault);
	pthread_mutex_destroy(&sb->lock);
	free(sb->detail);
	free(sb->name);
	free(sb);
}

const char *sandbox_name(const struct sandbox *sb)
{
	return sb->name;
}

struct server *sandbox_server(struct sandbox *sb)
{
	return sb->server;
}

int64_t sandbox_end_by(struct sandbox *sb)
{
	struct server *s = sb->server;
	AUTO_UNLOCK(&s->lock);
	return s->end_by_ms ? s->end_by_ms : call_now_ms() + GOODBYE_MS;
}

/* The driver's word comes last, and must not find all the time used up. */
int64_t sandbox_stop_by(struct sandbox *sb)
{
	return sandbox_end_by(sb) + LAST_WORD_MS;
}

const struct options *sandbox_options(struct sandbox *sb)
{
	return sb->server->options;
}

bool sandbox_gone(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->gone;
}

void sandbox_set_state(struct sandbox *sb, enum sandbox_state state, const char *detail)
{
	if (sb->state != state)
		clock_gettime(CLOCK_REALTIME, &sb->since);
	sb->state = state;
	free(sb->detail);
	sb->detail = detail ? strdup(detail) : NULL; /* without memory the word has to do */
	waitq_wake(&sb->changed);
}

void sandbox_set_answering(struct sandbox *sb)
{
	if (sb->replaced)
		sandbox_set_state(sb, SANDBOX_REPLACED,
			"the sandbox was lost, another answers in its place; `accept` in ctl goes on with it");
	else
		sandbox_set_state(sb, SANDBOX_RUNNING, NULL);
}

/* --- coming to life --- */

int sandbox_pause(struct sandbox *sb, struct call *c, int64_t ms)
{
	AUTO_UNLOCK(&sb->lock);
	int err = waitq_wait(&sb->changed, &sb->lock, c, call_now_ms() + ms);

	return err == -EINTR ? err : 0;
}

/* The driver says, from a thread of its own, that the instance ended by itself. */
static void on_died(void *arg)
{
	struct sandbox *sb = arg;
	bool abort;

	pthread_mutex_lock(&sb->lock);
	sb->died = true;
	abort = sb->started;
	if (sb->started)
		sandbox_set_state(sb, SANDBOX_UNKNOWN, "it ended by itself; the next use starts it again");
	pthread_mutex_unlock(&sb->lock);
	if (abort)
		log_error("%s: its server ended by itself", sb->name);
}

/* Asks until the server answers, within timeout=. The instance is known to us alone yet. */
static int wait_for_answer(struct sandbox *sb, struct call *c, const struct http_target *target)
{
	struct server *s = sb->server;
	int64_t deadline = call_now_ms() + s->options->timeout_ms, pause = RETRY_FIRST_MS;
	struct http_request r = {.target = target,
		.method = "GET",
		.path = "/api/ping",
		.timeout_ms = PING_TIMEOUT_MS,
		.max_reply = 64 << 10};

	for (;;) {
		struct http_reply reply = {.body = BUF_INIT};
		int err = http_exchange(s->http, c, &r, &reply);

		buf_release(&reply.body);
		if (!err && reply.status == 200)
			return 0;
		if (err == -EINTR)
			return err;
		if (!err && reply.status != 503)
			return call_fault(c, EPROTO, NULL,
				"%s: the server at %s answers a ping with status %d; it does not speak the "
				"container API",
				sb->name, s->options->server, reply.status);
		if (err == -EPROTO)
			return call_fault(c, EPROTO, NULL, "%s: what answers at %s does not speak HTTP",
				sb->name, s->options->server);
		if (!s->driver->ours && err == -EHOSTUNREACH)
			return call_fault(c, EHOSTUNREACH, NULL,
				"%s: no server takes connections at %s; start it, or check the address", sb->name,
				s->options->server);
		if (call_now_ms() + pause > deadline)
			return call_fault(c, err ? -err : EHOSTDOWN, NULL,
				"%s: no answer after %lld s; -o timeout= waits longer", sb->name,
				(long long)s->options->timeout_ms / 1000);
		pthread_mutex_lock(&sb->lock);
		bool died = sb->died;
		pthread_mutex_unlock(&sb->lock);
		if (died)
			return call_fault(
				c, EIO, NULL, "%s: its server ended while it started; see ctl/log", sb->name);
		err = sandbox_pause(sb, c, pause);
		if (err)
			return err;
		pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2;
	}
}

/* A copy of where an instance listens. It stays until the sandbox's last put: requests still point to it. */
static int note_target(struct sandbox *sb, const struct http_target *t)
{
	struct target_box *box = calloc(1, sizeof *box);

	if (!box)
		return -ENOMEM;
	box->target.base = strdup(t->base);
	box->target.unix_path = t->unix_path ? strdup(t->unix_path) : NULL;
	box->target.token = t->token ? strdup(t->token) : NULL;
	box->target.running = &sb->uses;
	AUTO_UNLOCK(&sb->lock);
	box->next = sb->targets;
	sb->targets = box;
	return box->target.base && !box->target.unix_path == !t->unix_path &&
				   !box->target.token == !t->token
			   ? 0
			   : -ENOMEM;
}

/* Does the work of starting; sb->starting is ours. */
static int do_start(struct sandbox *sb, struct call *c)
{
	struct server *s = sb->server;
	struct driver_instance fresh = {.data = NULL};
	bool stop_old;
	int err;

	pthread_mutex_lock(&sb->lock);
	stop_old = sb->started;
	sb->started = false;
	sb->died = false;
	sb->generation++;
	pthread_mutex_unlock(&sb->lock);
	if (stop_old) {
		http_abort(s->http, &sb->targets->target, -ECONNRESET);
		s->driver->stop(s->driver_state, sandbox_stop_by(sb), sb->name, &sb->instance);
	}
	err = s->driver->start(s->driver_state, c, sb->name, on_died, sb, &fresh);
	if (err)
		return err;
	err = note_target(sb, &fresh.target);
	if (!err)
		err = wait_for_answer(sb, c, &sb->targets->target);
	if (err) {
		s->driver->stop(s->driver_state, sandbox_stop_by(sb), sb->name, &fresh);
		return err;
	}
	pthread_mutex_lock(&sb->lock);
	sb->instance = fresh;
	sb->ways = 0; /* asked with the first request */
	pthread_mutex_unlock(&sb->lock);
	return 0;
}

int sandbox_fault_over(struct sandbox *sb, struct call *c, bool gone)
{
	return gone ? call_fault(c, ESTALE, NULL, "%s: the sandbox was destroyed", sb->name)
				: call_fault(c, ESTALE, NULL, "%s: the mount is ending", sb->name);
}

int sandbox_start(struct sandbox *sb, struct call *c)
{
	int64_t deadline = call_now_ms() + sb->server->options->timeout_ms;
	int err = 0;

	pthread_mutex_lock(&sb->lock);
	while (!sb->gone && !sb->closed && sb->starting && !err) {
		err = waitq_wait(&sb->changed, &sb->lock, c, deadline);
		if (err == -ETIMEDOUT)
			call_fault(c, ETIMEDOUT, NULL,
				"%s: still starting after %lld s; -o timeout= waits longer", sb->name,
				(long long)sb->server->options->timeout_ms / 1000);
	}
	if (!err && (sb->gone || sb->closed))
		err = sandbox_fault_over(sb, c, sb->gone);
	if (!err && (!sb->started || sb->died))
		err = call_may_wait(c);
	if (err || (sb->started && !sb->died)) {
		sb->used_ms = err ? sb->used_ms : call_now_ms(); /* it is not let go of now */
		pthread_mutex_unlock(&sb->lock);
		return err;
	}
	sb->starting = true;
	sb->starter = c;
	sandbox_set_state(sb, SANDBOX_STARTING, NULL);
	pthread_mutex_unlock(&sb->lock);

	err = do_start(sb, c);

	pthread_mutex_lock(&sb->lock);
	sb->starting = false;
	sb->starter = NULL;
	sb->started = !err;
	if (!err) {
		sb->answered_ms = sb->used_ms = call_now_ms();
		sandbox_set_answering(sb);
	} else {
		sandbox_set_state(sb, err == -EBUSY ? SANDBOX_IN_USE : SANDBOX_UNKNOWN,
			c->fault.message ? c->fault.message : strerror(-err));
	}
	pthread_mutex_unlock(&sb->lock);
	return err;
}

int sandbox_ready(struct sandbox *sb, struct call *c)
{
	struct json_object *reply = NULL;
	bool reachable;
	int64_t age;
	int err = sandbox_start(sb, c);

	if (!err)
		err = sandbox_look_who(sb, c);
	if (err)
		return err;
	pthread_mutex_lock(&sb->lock);
	age = call_now_ms() - sb->answered_ms;
	reachable = sb->state != SANDBOX_UNREACHABLE;
	pthread_mutex_unlock(&sb->lock);
	if (age < FRESH_MS && reachable)
		return 0;
	err = sandbox_api(sb, c, "GET", "/api/ping", NULL, &reply);
	json_object_put(reply);
	return err;
}

const struct http_target *sandbox_target(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->started ? &sb->targets->target : NULL;
}

/* --- what is known of it --- */

void sandbox_note_boot(
	struct sandbox *sb, const uint8_t boot[16], uint64_t workspace_ino, uint64_t avail)
{
	bool changed;

	pthread_mutex_lock(&sb->lock);
	changed = sb->has_boot && memcmp(sb->boot, boot, sizeof sb->boot) != 0;
	if (changed)
		log_info("%s: its server was started anew", sb->name);
	if (changed && sb->workspace_ino != workspace_ino && !sb->server->driver->ours) {
		log_error("%s: another sandbox answers in its place: what was in it is gone", sb->name);
		sb->replaced = true;
		sandbox_set_answering(sb);
	}
	memcpy(sb->boot, boot, sizeof sb->boot);
	sb->has_boot = true;
	sb->workspace_ino = workspace_ino;
	sb->avail = avail;
	pthread_mutex_unlock(&sb->lock);
	/* Not here: this thread may answer the very read that holds a page to be dropped. */
	void *files = changed ? sandbox_files(sb) : NULL;
	if (files)
		sb->files_ops->invalidate_soon(files);
}

int sandbox_fault_replaced(struct sandbox *sb, struct call *c)
{
	{
		AUTO_UNLOCK(&sb->lock);
		if (!sb->replaced)
			return 0;
	}
	call_fault(c, ESTALE, NULL,
		"%s: the sandbox was lost, another one answers in its place; nothing is written to it and "
		"nothing runs in it before `accept` in ctl (what is unsent is in sync; `discard` drops it)",
		sb->name);
	sandbox_note_fault(sb, &c->fault);
	return -ESTALE;
}

void sandbox_accept(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	if (sb->replaced && sb->state == SANDBOX_REPLACED)
		sandbox_set_state(sb, SANDBOX_RUNNING, NULL);
	sb->replaced = false;
}

uint64_t sandbox_avail(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->avail;
}

static void hex_of(const uint8_t *p, char *out)
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", p[i]);
}

bool sandbox_replaced_since(struct sandbox *sb, const char *boot)
{
	char now[40] = "";
	AUTO_UNLOCK(&sb->lock);

	if (sb->died || sb->gone || sb->closed)
		return true;
	if (sb->has_boot)
		hex_of(sb->boot, now);
	return boot && *boot && *now && strcmp(boot, now) != 0;
}

void sandbox_describe_status(struct sandbox *sb, struct sandbox_status *out, struct buf *detail)
{
	struct server *s = sb->server;
	char holder[256] = ""; /* cut by the driver: a path for people */
	bool ours;

	memset(out, 0, sizeof *out);
	pthread_mutex_lock(&sb->lock);
	out->state = sb->state;
	out->since = sb->since;
	if (sb->detail)
		buf_str(detail, sb->detail);
	snprintf(out->id, sizeof out->id, "%s", sb->name);
	if (sb->has_boot)
		hex_of(sb->boot, out->boot);
	ours = sb->started || sb->starting;
	if (sb->started)
		snprintf(out->network, sizeof out->network, "%s", sb->instance.network);
	pthread_mutex_unlock(&sb->lock);
	if (!ours && s->driver->in_use &&
		s->driver->in_use(s->driver_state, sb->name, holder, sizeof holder) == 1) {
		out->state = SANDBOX_IN_USE;
		buf_clear(detail);
		buf_str(detail, holder);
	} else if (!ours && out->state == SANDBOX_IN_USE) {
		out->state = SANDBOX_UNKNOWN;
	}
}

void sandbox_get_status(struct sandbox *sb, struct sandbox_status *out)
{
	AUTO_BUF detail = BUF_INIT;

	sandbox_describe_status(sb, out, &detail);
}

bool sandbox_has_server(struct sandbox *sb)
{
	struct sandbox_status st;

	sandbox_get_status(sb, &st);
	switch (st.state) {
	case SANDBOX_RUNNING:
	case SANDBOX_UNREACHABLE:
	case SANDBOX_REPLACED:
		return true;
	case SANDBOX_IN_USE:
		return false;
	default:
		return !sb->server->driver->starts;
	}
}

void sandbox_note_fault(struct sandbox *sb, const struct fault *f)
{
	AUTO_UNLOCK(&sb->lock);
	fault_copy(&sb->fault, f);
}

void sandbox_last_fault(struct sandbox *sb, struct fault *copy)
{
	AUTO_UNLOCK(&sb->lock);
	memset(copy, 0, sizeof *copy);
	fault_copy(copy, &sb->fault);
}

/* --- the rooms above --- */

void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data))
{
	struct attachment *a;
	AUTO_UNLOCK(&sb->lock);

	for (a = sb->attachments; a; a = a->next)
		if (a->key == key)
			return a->data;
	a = sb->closed ? NULL : calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->key = key;
	a->stop = stop;
	a->release = release;
	/* make only allocates: it may not call back into this room. */
	a->data = make(sb);
	if (!a->data) {
		free(a);
		return NULL;
	}
	a->next = sb->attachments;
	sb->attachments = a;
	return a->data;
}

void *sandbox_set_files(struct sandbox *sb, const struct sandbox_files *ops, void *files)
{
	AUTO_UNLOCK(&sb->lock);
	if (!sb->files) {
		sb->files_ops = ops;
		sb->files = files;
	}
	return sb->files;
}

void *sandbox_files(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->files;
}

int sandbox_barrier(struct sandbox *sb, struct call *c)
{
	void *files = sandbox_files(sb);
	int err = sandbox_fault_replaced(sb, c);

	return err || !files ? err : sb->files_ops->barrier(files, c);
}

void sandbox_invalidate(struct sandbox *sb)
{
	void *files = sandbox_files(sb);

	if (files)
		sb->files_ops->invalidate(files);
}

void sandbox_describe_sync(struct sandbox *sb, struct buf *out)
{
	void *files = sandbox_files(sb);

	if (files)
		sb->files_ops->describe_sync(files, out);
}

int sandbox_retry(struct sandbox *sb, struct call *c, const char *path)
{
	void *files = sandbox_files(sb);

	return files ? sb->files_ops->retry(files, c, path) : 0;
}

int sandbox_discard(struct sandbox *sb, struct call *c, const char *path)
{
	void *files = sandbox_files(sb);

	return files ? sb->files_ops->discard(files, c, path) : path ? -ENOENT : 0;
}

void sandbox_drop_caches(struct sandbox *sb)
{
	void *files = sandbox_files(sb);

	if (files)
		sb->files_ops->drop_caches(files);
}

void sandbox_stop_attachments(struct sandbox *sb)
{
	struct attachment *a;

	pthread_mutex_lock(&sb->lock);
	a = sb->attachments; /* it is closed: none is added any more */
	pthread_mutex_unlock(&sb->lock);
	for (; a; a = a->next)
		if (a->stop)
			a->stop(a->data);
	void *files = sandbox_files(sb);
	if (files)
		sb->files_ops->end(files);
}

void sandbox_release_attachments(struct sandbox *sb)
{
	struct attachment *a, *next;

	pthread_mutex_lock(&sb->lock);
	sb->closed = true;
	a = sb->attachments;
	sb->attachments = NULL;
	const struct http_target *target = sb->started ? &sb->targets->target : NULL;
	pthread_mutex_unlock(&sb->lock);
	if (target) /* what still asks it is none of ours, and threads that are joined here wait for the answer */
		http_abort(sb->server->http, target, -ESTALE);
	void *files = sandbox_files(sb);
	if (files)
		sb->files_ops->end(files);
	for (; a; a = next) {
		next = a->next;
		a->release(a->data);
		free(a);
	}
}

void sandbox_stop(struct sandbox *sb)
{
	struct server *s = sb->server;
	struct call c;
	bool started;

	call_init(&c, 0);
	pthread_mutex_lock(&sb->lock);
	sb->closed = true;
	waitq_wake(&sb->changed);
	while (sb->starting)
		(void)waitq_wait(&sb->changed, &sb->lock, &c, -1); /* nobody cancels this call */
	started = sb->started;
	sb->started = false;
	sandbox_set_state(sb, SANDBOX_UNKNOWN, NULL);
	pthread_mutex_unlock(&sb->lock);
	call_destroy(&c);
	if (started) {
		http_abort(s->http, &sb->targets->target, -ESTALE);
		s->driver->stop(s->driver_state, sandbox_stop_by(sb), sb->name, &sb->instance);
	}
}
