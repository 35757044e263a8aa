/*
 * Runs and their table: see run.h.
 *
 * The table's lock covers its list and which runs it keeps; a run's lock covers its state. A run's bytes come on the HTTP loop's
 * thread straight into its spool, its end from the keeper (output.h). Order of locks: table, run, a call's.
 */
#include "run.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "output.h"
#include "process.h"

enum { RUNS_KEPT = 16, RUN_STOP_MS = 2000 };

struct run_table {
	pthread_mutex_t lock;
	unsigned refs;        /* under the lock: the owner's and each run's */
	struct run *newest;   /* under the lock: every run there is, in falling numbers */
	uint64_t last, begun; /* under the lock: numbers given out */
	bool closed;          /* under the lock: run_table_free was called */
	struct sandbox *sb;   /* borrowed */
	char *spool_dir;
	char *prefix; /* of the ids of our commands: no other mount's are the same */
};

struct run_waiter {
	struct run_waiter *next;
	struct call *call;
};

struct run {
	struct run *next, *prev; /* table's lock, as these: */
	unsigned refs;
	uint64_t begun; /* 0: not begun; else it grows with each run that began */
	bool kept;      /* the table holds a reference */

	uint64_t number;
	struct run_table *table;
	struct spool *spool;
	char *id;

	pthread_mutex_t lock;
	_Atomic int state; /* enum run_state; changes under lock */
	_Atomic bool over; /* nothing more will come; set under lock, before those who wait are woken */
	struct output *output; /* under lock */
	char *command;         /* under lock until it is set; then constant */
	bool starting, cancel; /* under lock */
	bool may_run;          /* under lock: in the sandbox, for all we know */
	bool timed_out;        /* under lock, as those below */
	int code;
	int64_t timeout_ms;
	struct timespec started, ended;
	struct fault fault;
	struct run_waiter *waiters;
};

/* ---- the table ---- */

static void run_table_put(struct run_table *t)
{
	pthread_mutex_lock(&t->lock);
	bool last = --t->refs == 0;
	pthread_mutex_unlock(&t->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->spool_dir);
	free(t->prefix);
	free(t);
}

/* Where nameless files go: the user's cache if there is one, for /tmp can be memory. */
static char *run_spool_dir(void)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	AUTO_BUF path = BUF_INIT;

	if (cache && cache[0] == '/')
		buf_str(&path, cache);
	else if (home && home[0] == '/')
		buf_printf(&path, "%s/.cache", home);
	else
		return strdup("/tmp");
	if (buf_error(&path) == 0 && mkdir(path.data, 0700) < 0 && errno != EEXIST)
		log_debug("%s: %s", path.data, strerror(errno));
	buf_str(&path, "/sandboxfs");
	if (buf_error(&path))
		return NULL;
	if ((mkdir(path.data, 0700) < 0 && errno != EEXIST) || access(path.data, W_OK | X_OK) < 0) {
		log_info("%s: %s; output of commands is kept in /tmp", path.data, strerror(errno));
		return strdup("/tmp");
	}
	return buf_steal(&path);
}

int run_table_new(struct sandbox *sb, struct run_table **out)
{
	struct run_table *t = calloc(1, sizeof(*t));
	unsigned char random[8];
	AUTO_BUF prefix = BUF_INIT;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->refs = 1;
	t->sb = sb;
	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		run_table_put(t);
		return -EIO;
	}
	/* A leading dot: no process can have such an id, for such names are refused. */
	buf_str(&prefix, ".run-");
	for (size_t i = 0; i < sizeof(random); i++)
		buf_printf(&prefix, "%02x", random[i]);
	t->prefix = buf_steal(&prefix);
	t->spool_dir = run_spool_dir();
	if (!t->prefix || !t->spool_dir) {
		run_table_put(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

static void run_free(struct run *r)
{
	output_close(r->output);
	if (r->spool)
		spool_put(r->spool);
	fault_clear(&r->fault);
	pthread_mutex_destroy(&r->lock);
	free(r->command);
	free(r->id);
	run_table_put(r->table);
	free(r);
}

struct run *run_get(struct run *r)
{
	AUTO_UNLOCK(&r->table->lock);
	r->refs++;
	return r;
}

/* Drops a reference with the table's lock held. True: it was the last, the run is out of the list, and run_free is due. */
static bool run_drop(struct run *r)
{
	struct run_table *t = r->table;

	if (--r->refs > 0)
		return false;
	if (r->prev)
		r->prev->next = r->next;
	else
		t->newest = r->next;
	if (r->next)
		r->next->prev = r->prev;
	return true;
}

void run_put(struct run *r)
{
	struct run_table *t = r->table;

	pthread_mutex_lock(&t->lock);
	bool last = run_drop(r);
	pthread_mutex_unlock(&t->lock);
	if (last)
		run_free(r);
}

/* Lets go of the kept run that began first, if there are too many. Runs that have not ended stay, and do not count. */
static struct run *run_table_surplus(struct run_table *t)
{
	struct run *oldest = NULL;
	unsigned kept = 0;

	for (struct run *r = t->newest; r; r = r->next) {
		if (!r->kept || (!atomic_load(&r->over) && atomic_load(&r->state) < RUN_ENDED))
			continue;
		kept++;
		if (!oldest || r->begun < oldest->begun)
			oldest = r;
	}
	return kept > RUNS_KEPT ? oldest : NULL;
}

static void run_table_prune(struct run_table *t)
{
	struct run *r;

	pthread_mutex_lock(&t->lock);
	while ((r = run_table_surplus(t))) {
		r->kept = false;
		if (!run_drop(r))
			continue;
		pthread_mutex_unlock(&t->lock);
		run_free(r);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
}

/* Asks the sandbox to end it, waiting a little: the keeper's thread may be gone already. */
static void run_stop_now(struct run *r)
{
	struct sandbox *sb = r->table->sb;
	const struct http_target *target = sandbox_target(sb);
	AUTO_BUF path = BUF_INIT;
	struct http_reply reply = {0, BUF_INIT};
	struct call c;

	buf_printf(&path, "/api/sandboxfs/commands/%s/signal", r->id);
	if (!target || buf_error(&path))
		return;
	call_init(&c, 0);
	struct http_request q = {
		.target = target,
		.method = "POST",
		.path = path.data,
		.type = "application/json",
		.body = "{\"cancel\":true}",
		.size = strlen("{\"cancel\":true}"),
		.timeout_ms = RUN_STOP_MS,
	};
	int err = http_exchange(server_http(sandbox_server(sb)), &c, &q, &reply);
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

/* The mount ends: what still runs is ended in the sandbox, and nobody will hear of its end. */
static void run_abandon(struct run *r)
{
	pthread_mutex_lock(&r->lock);
	bool runs = r->may_run;
	struct output *o = steal(r->output);
	pthread_mutex_unlock(&r->lock);
	output_close(o);
	if (runs)
		run_stop_now(r);
	if (!o || atomic_load(&r->over))
		return;
	pthread_mutex_lock(&r->lock);
	clock_gettime(CLOCK_REALTIME, &r->ended);
	run_set_fault(r, -ECANCELED, "the mount has ended");
	pthread_mutex_unlock(&r->lock);
	run_end(r, RUN_UNKNOWN, false);
	run_put(r); /* the running command's own */
}

void run_table_free(struct run_table *t)
{
	uint64_t after = 0;

	for (;;) {
		struct run *found = NULL;

		pthread_mutex_lock(&t->lock);
		t->closed = true;
		for (struct run *r = t->newest; r && r->number > after; r = r->next)
			found = r;
		if (found) {
			if (!found->kept)
				found->refs++; /* else the table's own is ours now */
			found->kept = false;
			after = found->number;
		}
		pthread_mutex_unlock(&t->lock);
		if (!found)
			break;
		run_abandon(found);
		run_put(found);
	}
	run_table_put(t);
}

struct run *run_table_find(struct run_table *t, uint64_t number)
{
	AUTO_UNLOCK(&t->lock);
	for (struct run *r = t->newest; r; r = r->next) {
		if (r->number == number) {
			r->refs++;
			return r;
		}
	}
	return NULL;
}

struct run *run_table_last(struct run_table *t)
{
	struct run *last = NULL;

	AUTO_UNLOCK(&t->lock);
	for (struct run *r = t->newest; r; r = r->next) {
		if (r->begun && (!last || r->begun > last->begun))
			last = r;
	}
	if (last)
		last->refs++;
	return last;
}

void run_table_each(struct run_table *t, bool (*cb)(struct run *r, void *arg), void *arg)
{
	uint64_t after = 0;

	/* One at a time by number: the callback may do what it likes, without our lock. */
	for (;;) {
		struct run *found = NULL;

		pthread_mutex_lock(&t->lock);
		for (struct run *r = t->newest; r && r->number > after; r = r->next)
			found = r;
		if (found)
			found->refs++;
		pthread_mutex_unlock(&t->lock);
		if (!found)
			return;
		after = found->number;
		bool more = cb(found, arg);
		run_put(found);
		if (!more)
			return;
	}
}

int run_new(struct run_table *t, struct run **out)
{
	struct run *r = calloc(1, sizeof(*r));
	AUTO_BUF id = BUF_INIT;
	int err;

	if (!r)
		return -ENOMEM;
	err = spool_new(t->spool_dir, sandbox_options(t->sb)->output_max, &r->spool);
	if (err) {
		free(r);
		return err;
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_lock(&t->lock);
	t->refs++;
	r->table = t;
	r->refs = 1;
	r->number = ++t->last;
	r->next = t->newest;
	if (r->next)
		r->next->prev = r;
	t->newest = r;
	pthread_mutex_unlock(&t->lock);
	buf_printf(&id, "%s-%llu", t->prefix, (unsigned long long)r->number);
	r->id = buf_steal(&id);
	if (!r->id) {
		run_put(r);
		return -ENOMEM;
	}
	*out = r;
	return 0;
}

void run_mark_begun(struct run *r)
{
	struct run_table *t = r->table;

	AUTO_UNLOCK(&t->lock);
	if (r->begun || t->closed)
		return;
	r->begun = ++t->begun;
	r->kept = true;
	r->refs++;
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
	r->timeout_ms = spec->timeout_ms > 0 ? spec->timeout_ms : 0;
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

int64_t run_timeout_ms(struct run *r)
{
	AUTO_UNLOCK(&r->lock);
	return r->timeout_ms;
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
