/*
 * The life of one run: its start, its output, its end and how to bring that about. See run.h; which runs there are is
 * run_table.c's.
 *
 * A run's bytes come on the HTTP loop's thread straight into its spool, its end from the keeper (output.h).
 */
#include "run_impl.h"

#include <errno.h>
#include <json-c/json.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "output.h"
#include "process.h"

enum { LARGE_COMMAND = 1 << 20 };

void run_free(struct run *r)
{
	output_close(r->output);
	if (r->spool)
		spool_put(r->spool);
	fault_clear(&r->fault);
	pthread_mutex_destroy(&r->lock);
	bool large = r->command && strnlen(r->command, LARGE_COMMAND) == LARGE_COMMAND;
	free(r->command);
	if (large)
		(void)malloc_trim(0); /* it goes back to the system; nothing to give is as well */
	free(r->id);
	run_table_put(r->table);
	free(r);
}

/* Asks the sandbox to end it, and waits for the answer: the keeper's thread may be gone already. */
static void run_stop_now(struct run *r, int64_t until_ms)
{
	struct sandbox *sb = r->table->sb;
	const struct http_target *target = sandbox_target(sb);
	AUTO_BUF path = BUF_INIT;
	struct http_reply reply = {.body = BUF_INIT};
	struct call c;

	buf_printf(&path, "/api/sandboxfs/commands/%s/signal", r->id);
	if (!target || buf_error(&path))
		return;
	call_init(&c, 0);
	call_end_by(&c, until_ms);
	struct http_request q = {
		.target = target,
		.method = "POST",
		.path = path.data,
		.type = "application/json",
		.body = "{\"cancel\":true}",
		.size = strlen("{\"cancel\":true}"),
		.timeout_ms = -1,
		.max_reply = 64 << 10,
	};
	int err = call_cancelled(&c) ? -ETIMEDOUT
								 : http_exchange(server_http(sandbox_server(sb)), &c, &q, &reply);
	if (err)
		log_info("%s: run %llu could not be ended: %s", sandbox_name(sb),
			(unsigned long long)r->number, strerror(-err));
	buf_release(&reply.body);
	call_destroy(&c);
}

static void run_set_fault(struct run *r, int err, const char *reason)
{
	struct fault *f = &r->fault;
	char *text = NULL;

	fault_clear(f);
	f->err = -err;
	clock_gettime(CLOCK_REALTIME, &f->when);
	if (asprintf(&text,
			"the link broke while run %llu ran (%s); its exit code is unknown; see runs/%llu",
			(unsigned long long)r->number, reason ? reason : strerror(-err),
			(unsigned long long)r->number) >= 0)
		f->message = text;
}

/*
 * The state changes before the spool ends: who has read to the end finds the exit code there. Who waits is woken after it: its run's
 * output is complete, and the table holds what it is to hold.
 */
static void run_end(struct run *r, enum run_state state, bool may_run)
{
	pthread_mutex_lock(&r->lock);
	r->may_run = may_run;
	atomic_store(&r->state, state);
	pthread_mutex_unlock(&r->lock);
	spool_end(r->spool);
	run_get(r); /* the table may let it go here */
	run_table_prune(r->table);
	pthread_mutex_lock(&r->lock);
	atomic_store(&r->over, true);
	for (struct run_waiter *w = r->waiters; w; w = w->next)
		call_wake(w->call);
	pthread_mutex_unlock(&r->lock);
	run_put(r);
}

void run_abandon(struct run *r, int64_t until_ms)
{
	pthread_mutex_lock(&r->lock);
	bool runs = r->may_run;
	struct output *o = steal(r->output);
	pthread_mutex_unlock(&r->lock);
	output_close(o);
	if (runs)
		run_stop_now(r, until_ms);
	if (!o || atomic_load(&r->over))
		return;
	pthread_mutex_lock(&r->lock);
	clock_gettime(CLOCK_REALTIME, &r->ended);
	run_set_fault(r, -ECANCELED, "the mount has ended");
	pthread_mutex_unlock(&r->lock);
	run_end(r, RUN_UNKNOWN, false);
	run_put(r); /* the running command's own */
}

/* ---- events of the output ---- */

static void run_time(uint64_t micros, struct timespec *out)
{
	if (micros == 0 || micros / 1000000 > INT32_MAX * (uint64_t)4) {
		clock_gettime(CLOCK_REALTIME, out);
		return;
	}
	out->tv_sec = (time_t)(micros / 1000000);
	out->tv_nsec = (long)(micros % 1000000) * 1000;
}

static void run_on_started(void *arg, uint64_t time, uint32_t pid)
{
	struct run *r = arg;

	(void)pid; /* its number means something in the sandbox only */
	AUTO_UNLOCK(&r->lock);
	run_time(time, &r->started);
}

/* What the disk here does not take is missing for good: say so at its place, rather than stop the command. */
static void run_on_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct run *r = arg;
	enum spool_view view = stream == 2 ? SPOOL_STDERR : SPOOL_STDOUT;
	int err = spool_append(r->spool, view, p, n);

	(void)time; /* a spool keeps none */
	if (err && spool_append_gap(r->spool, view, n) < 0)
		log_error("%s: run %llu: output is lost: %s", sandbox_name(r->table->sb),
			(unsigned long long)r->number, strerror(-err));
}

static void run_on_gap(void *arg, unsigned stream, uint64_t n)
{
	struct run *r = arg;

	if (spool_append_gap(r->spool, stream == 2 ? SPOOL_STDERR : SPOOL_STDOUT, n) < 0)
		log_error("%s: run %llu: output is lost", sandbox_name(r->table->sb),
			(unsigned long long)r->number);
}

static void run_on_end(void *arg, const struct output_end *end)
{
	struct run *r = arg;
	bool gone = end->err == -ESTALE;

	pthread_mutex_lock(&r->lock);
	run_time(end->err ? 0 : end->time, &r->ended);
	r->code = end->code;
	r->timed_out = end->timed_out;
	if (end->err)
		run_set_fault(r, end->err, end->reason);
	pthread_mutex_unlock(&r->lock);
	run_end(r, end->err ? RUN_UNKNOWN : RUN_ENDED, end->err && end->may_run && !gone);
	run_put(r); /* the running command's own */
}

static const struct output_events run_events = {
	.started = run_on_started,
	.data = run_on_data,
	.gap = run_on_gap,
	.end = run_on_end,
};

/* ---- the life of a run ---- */

static int run_make_body(struct run *r, const struct run_spec *spec, struct buf *body)
{
	struct json_object *env = spec->env ? json_object_new_object() : NULL;
	int err = spec->env && !env ? -ENOMEM : 0;

	for (const char *const *e = spec->env; !err && e && *e; e++)
		err = process_env_set(env, *e);
	struct process_spec p = {
		.command = spec->command,
		.size = spec->size,
		.cwd = spec->cwd,
		.env = env,
		.timeout_ms = spec->timeout_ms,
		.session = spec->session,
	};
	if (!err)
		err = process_body(r->id, &p, false, spec->input, spec->input_size, body);
	json_object_put(env);
	return err;
}

/* Takes what is to be known of the command before it starts. -EALREADY: it was started before. */
static int run_prepare(struct run *r, const struct run_spec *spec)
{
	char *command = strndup(spec->command ? spec->command : "", spec->size);

	if (!command)
		return -ENOMEM;
	AUTO_UNLOCK(&r->lock);
	if (r->starting) {
		free(command);
		return -EALREADY;
	}
	r->starting = true;
	r->command = command;
	clock_gettime(CLOCK_REALTIME, &r->started);
	return r->cancel ? -EINTR : 0;
}

/* It did not start, or nobody knows. */
static int run_start_failed(struct run *r, struct call *c, int err, bool may_run)
{
	if (err != -EINTR)
		call_fault(c, -err, NULL, "the command cannot be started: %s", strerror(-err));
	pthread_mutex_lock(&r->lock);
	clock_gettime(CLOCK_REALTIME, &r->ended);
	if (c)
		fault_copy(&r->fault, &c->fault);
	pthread_mutex_unlock(&r->lock);
	run_end(r, may_run ? RUN_UNKNOWN : RUN_REFUSED, false);
	return err;
}

int run_start(struct run *r, struct call *c, const struct run_spec *spec)
{
	AUTO_BUF body = BUF_INIT;
	struct output *o = NULL;
	bool may_run = false;
	int err = run_prepare(r, spec);

	if (err == -EALREADY)
		return call_fault(
			c, EBUSY, NULL, "run %llu has been started", (unsigned long long)r->number);
	run_mark_begun(r);
	if (!err)
		err = run_make_body(r, spec, &body);
	if (err)
		return run_start_failed(r, c, err, false);
	pthread_mutex_lock(&r->lock);
	atomic_store(&r->state, RUN_RUNNING);
	r->may_run = true;
	pthread_mutex_unlock(&r->lock);
	run_get(r); /* until its end is told */
	err = output_start(r->table->sb, c, r->id, &body, &run_events, r, &o, &may_run);
	process_explain(c, err, spec->cwd);
	if (!o) {
		run_start_failed(r, c, err, may_run);
		run_put(r);
		return err;
	}
	pthread_mutex_lock(&r->lock);
	r->output = o;
	bool cancelled = r->cancel;
	pthread_mutex_unlock(&r->lock);
	/* A cancel that came before the command was known may have been refused by a server that just started. */
	if (cancelled && err == 0)
		run_cancel(r);
	return err;
}

static bool run_has_ended(void *arg)
{
	return atomic_load(&((struct run *)arg)->over);
}

int run_wait(struct run *r, struct call *c)
{
	struct run_waiter w = {.call = c};
	int err;

	pthread_mutex_lock(&r->lock);
	w.next = r->waiters;
	r->waiters = &w;
	pthread_mutex_unlock(&r->lock);
	err = call_wait(c, run_has_ended, r, -1);
	pthread_mutex_lock(&r->lock);
	for (struct run_waiter **at = &r->waiters; *at; at = &(*at)->next) {
		if (*at == &w) {
			*at = w.next;
			break;
		}
	}
	if (!err && atomic_load(&r->state) != RUN_ENDED) {
		err = r->fault.err ? -r->fault.err : -ESTALE;
		if (!c->fault.err)
			fault_copy(&c->fault, &r->fault);
	}
	pthread_mutex_unlock(&r->lock);
	return err;
}

void run_cancel(struct run *r)
{
	pthread_mutex_lock(&r->lock);
	r->cancel = true;
	bool runs = r->may_run;
	pthread_mutex_unlock(&r->lock);
	if (!runs)
		return;
	int err = output_cancel(r->table->sb, r->id);
	if (err)
		log_error("%s: run %llu cannot be cancelled: %s", sandbox_name(r->table->sb),
			(unsigned long long)r->number, strerror(-err));
}

/* ---- what is known of it ---- */

enum run_state run_state(struct run *r)
{
	return (enum run_state)atomic_load(&r->state);
}

bool run_has_begun(struct run *r)
{
	enum run_state state = run_state(r);

	return state != RUN_RESERVED && state != RUN_REFUSED;
}

uint64_t run_number(const struct run *r)
{
	return r->number;
}

int run_exit(struct run *r, bool *timed_out)
{
	AUTO_UNLOCK(&r->lock);
	if (timed_out)
		*timed_out = r->timed_out;
	return r->code;
}

const char *run_command(struct run *r)
{
	AUTO_UNLOCK(&r->lock);
	return r->command ? r->command : "";
}

void run_times(struct run *r, struct timespec *started, struct timespec *ended)
{
	AUTO_UNLOCK(&r->lock);
	if (started)
		*started = r->started;
	if (ended)
		*ended = r->ended;
}

struct spool *run_spool(struct run *r)
{
	return r->spool;
}

void run_fault(struct run *r, struct fault *copy)
{
	AUTO_UNLOCK(&r->lock);
	fault_copy(copy, &r->fault);
}
