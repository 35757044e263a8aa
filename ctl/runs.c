/*
 * runs/, last, and what the tree keeps of a sandbox's runs: see runs.h.
 *
 * Owns the run table, the list of runs whose end is not told yet, and the threads that wait for ends; at the sandbox's end it
 * cancels them and waits until they are gone. They hold no reference to the sandbox: they would keep it alive.
 */
#include "runs.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { THREAD_STACK = 256 * 1024 };

struct worker {
	struct worker *next;
	struct ctl_runs *rs;
	struct call call;
	void (*fn)(struct ctl_runs *rs, struct call *c, void *arg);
	void *arg;
};

struct pending {
	struct pending *next;
	uint64_t number;
};

struct ctl_runs {
	struct sandbox *sb; /* borrowed */
	struct run_table *table;
	pthread_mutex_t lock; /* covers what follows */
	pthread_cond_t idle;  /* a worker has gone */
	struct worker *workers;
	struct pending *pending;
	struct run *json;
	bool closing;
};

/* --- life --- */

static void *runs_make(struct sandbox *sb)
{
	AUTO_FREE struct ctl_runs *rs = calloc(1, sizeof *rs);
	if (!rs || run_table_new(sb, &rs->table))
		return NULL;
	rs->sb = sb;
	pthread_mutex_init(&rs->lock, NULL);
	pthread_cond_init(&rs->idle, NULL);
	return steal(rs);
}

static bool cancel_running(struct run *r, void *arg)
{
	(void)arg;
	if (run_state(r) == RUN_RUNNING)
		run_cancel(r);
	return true;
}

static void runs_stop(void *data)
{
	struct ctl_runs *rs = data;
	pthread_mutex_lock(&rs->lock);
	rs->closing = true;
	for (struct worker *w = rs->workers; w; w = w->next)
		call_cancel(&w->call);
	while (rs->workers)
		pthread_cond_wait(&rs->idle, &rs->lock);
	struct run *json = steal(rs->json);
	pthread_mutex_unlock(&rs->lock);
	if (json)
		run_put(json);
	run_table_close(rs->table);
}

static void runs_release(void *data)
{
	struct ctl_runs *rs = data;
	runs_stop(rs);
	run_table_free(rs->table);
	while (rs->pending) {
		struct pending *p = rs->pending;
		rs->pending = p->next;
		free(p);
	}
	pthread_cond_destroy(&rs->idle);
	pthread_mutex_destroy(&rs->lock);
	free(rs);
}

struct ctl_runs *ctl_runs_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, runs_make, runs_stop, runs_release);
}

struct run_table *ctl_runs_table(struct ctl_runs *rs)
{
	return rs->table;
}

/* --- threads --- */

static void *worker_thread(void *arg)
{
	struct worker *w = arg;
	struct ctl_runs *rs = w->rs;
	w->fn(rs, &w->call, w->arg);
	{
		AUTO_UNLOCK(&rs->lock);
		struct worker **at = &rs->workers;
		while (*at != w)
			at = &(*at)->next;
		*at = w->next;
		/* With the lock held: runs_release may destroy everything as soon as it sees the list empty. */
		call_destroy(&w->call);
		free(w);
		pthread_cond_broadcast(&rs->idle);
	}
	return NULL;
}

int ctl_runs_thread(
	struct ctl_runs *rs, void (*fn)(struct ctl_runs *rs, struct call *c, void *arg), void *arg)
{
	struct worker *w = calloc(1, sizeof *w);
	pthread_attr_t attr;
	pthread_t thread;
	if (!w)
		return -ENOMEM;
	*w = (struct worker){.rs = rs, .fn = fn, .arg = arg};
	call_init(&w->call, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&rs->lock);
	int err = rs->closing ? ECANCELED : pthread_create(&thread, &attr, worker_thread, w);
	if (!err) {
		w->next = rs->workers;
		rs->workers = w;
	}
	pthread_mutex_unlock(&rs->lock);
	pthread_attr_destroy(&attr);
	if (err) {
		call_destroy(&w->call);
		free(w);
	}
	return -err;
}

/* --- from the start of a run to the moment its end may be told --- */

static int pending_add(struct ctl_runs *rs, uint64_t number)
{
	struct pending *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	AUTO_UNLOCK(&rs->lock);
	*p = (struct pending){.next = rs->pending, .number = number};
	rs->pending = p;
	return 0;
}

static void pending_remove(struct ctl_runs *rs, uint64_t number)
{
	AUTO_UNLOCK(&rs->lock);
	for (struct pending **at = &rs->pending; *at; at = &(*at)->next) {
		struct pending *p = *at;
		if (p->number == number) {
			*at = p->next;
			free(p);
			return;
		}
	}
}

bool ctl_runs_settled(struct ctl_runs *rs, struct run *r)
{
	enum run_state state = run_state(r);
	if (state == RUN_RESERVED || state == RUN_RUNNING)
		return false;
	AUTO_UNLOCK(&rs->lock);
	for (struct pending *p = rs->pending; p; p = p->next)
		if (p->number == run_number(r))
			return false;
	return true;
}

int ctl_runs_start(struct ctl_runs *rs, struct call *c, struct run *r, const struct run_spec *spec)
{
	run_mark_begun(r);
	int err = pending_add(rs, run_number(r));
	if (err)
		return err;
	err = sandbox_barrier(rs->sb, c);
	if (!err)
		err = run_start(r, c, spec);
	else
		ctl_runs_abandon(r);
	if (err && err != -EINTR)
		pending_remove(rs, run_number(r));
	return err;
}

void ctl_runs_abandon(struct run *r)
{
	const struct run_spec nothing = {.command = ""};
	if (run_state(r) != RUN_RESERVED)
		return;
	/* A start that is cancelled before it begins sends nothing and closes the run. */
	run_cancel(r);
	(void)run_start(r, NULL, &nothing); /* it fails, as it is to */
}

static void settle(struct ctl_runs *rs, struct run *r)
{
	sandbox_invalidate(rs->sb);
	pending_remove(rs, run_number(r));
}

int ctl_runs_finish(struct ctl_runs *rs, struct call *c, struct run *r)
{
	int err = run_has_begun(r) ? run_wait(r, c) : 0;
	/* An interrupted wait, not a run that ended so: that one is at its end. */
	if (err == -EINTR && run_state(r) == RUN_RUNNING)
		return err;
	settle(rs, r);
	if (err)
		(void)call_fault(c, -err, NULL,
			"run %llu ended and its exit code is unknown: %s; see runs/%llu",
			(unsigned long long)run_number(r), strerror(-err), (unsigned long long)run_number(r));
	return err;
}

static void finish_thread(struct ctl_runs *rs, struct call *c, void *arg)
{
	struct run *r = arg;
	(void)ctl_runs_finish(rs, c, r); /* who asked is gone; the end is in runs/ */
	run_put(r);
}

void ctl_runs_finish_behind(struct ctl_runs *rs, struct run *r)
{
	if (ctl_runs_thread(rs, finish_thread, run_get(r)) == 0)
		return;
	/* No thread to wait with: the end is told when it comes, and what was cached goes now and by its time. */
	run_put(r);
	settle(rs, r);
}

void ctl_runs_set_json(struct ctl_runs *rs, struct run *r)
{
	struct run *old;
	{
		AUTO_UNLOCK(&rs->lock);
		old = rs->json;
		rs->json = rs->closing ? NULL : run_get(r);
	}
	if (old)
		run_put(old);
}

struct run *ctl_runs_get_json(struct ctl_runs *rs)
{
	AUTO_UNLOCK(&rs->lock);
	return rs->json ? run_get(rs->json) : NULL;
}

/* --- verbs and last --- */

int ctl_runs_cancel(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	int64_t number;
	if (!rs)
		return -ENOMEM;
	if (argc < 2) {
		run_table_each(rs->table, cancel_running, NULL);
		return 0;
	}
	if (ctl_parse_number(argv[1], 1, INT64_MAX, &number))
		return call_fault(c, EINVAL, NULL, "cancel %s: not the number of a run; ls runs", argv[1]);
	struct run *r = run_table_find(rs->table, (uint64_t)number);
	bool running = r && run_state(r) == RUN_RUNNING;
	if (running)
		run_cancel(r);
	if (r)
		run_put(r);
	return running ? 0 : call_fault(c, ESRCH, NULL, "cancel %s: no such run is running", argv[1]);
}

int ctl_runs_last(const struct ctl_ref *ref, struct call *c, struct buf *text)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	(void)c;
	struct run *r = rs ? run_table_last(rs->table) : NULL;
	if (!r)
		return rs ? -ENOENT : -ENOMEM;
	buf_printf(text, "runs/%llu", (unsigned long long)run_number(r));
	run_put(r);
	return buf_error(text);
}

/*
 * --- runs/N/ ---
 *
 * The object of a directory here is the run's number, not the run: the kernel keeps nodes as long as it likes, and
 * the output of a run must go when its turn is over.
 */

static uint64_t number_of(const void *object)
{
	return (uint64_t)(uintptr_t)object;
}

static void run_drop(struct run **r)
{
	if (*r)
		run_put(*r);
}
#define AUTO_RUN __attribute__((cleanup(run_drop))) struct run

/* New reference; NULL: it is no longer kept. */
static struct run *run_of(const struct ctl_ref *ref)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	return rs ? run_table_find(rs->table, number_of(ref->object)) : NULL;
}

static int no_run(const struct ctl_ref *ref, struct call *c)
{
	return call_fault(c, ESTALE, NULL, "run %llu is no longer kept; the newest 16 are",
		(unsigned long long)number_of(ref->object));
}

static int show_cmd(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_RUN *r = run_of(ref);
	if (!r)
		return no_run(ref, c);
	const char *command = run_command(r);
	size_t n = strlen(command);
	buf_add(out, command, n);
	if (n && command[n - 1] != '\n')
		buf_char(out, '\n');
	return 0;
}

static int show_exit(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_RUN *r = run_of(ref);
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	if (!r || !rs)
		return no_run(ref, c);
	if (!ctl_runs_settled(rs, r))
		return 0;
	if (run_state(r) == RUN_ENDED)
		buf_printf(out, "%d\n", run_exit(r, NULL));
	else
		buf_str(out, "unknown\n");
	return 0;
}

static int show_started(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct timespec started, ended;
	AUTO_RUN *r = run_of(ref);
	if (!r)
		return no_run(ref, c);
	run_times(r, &started, &ended);
	if (!started.tv_sec)
		return 0;
	ctl_put_time(out, &started);
	buf_char(out, '\n');
	return 0;
}

static int show_duration(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct timespec started, ended;
	AUTO_RUN *r = run_of(ref);
	if (!r)
		return no_run(ref, c);
	run_times(r, &started, &ended);
	if (!started.tv_sec || !ended.tv_sec)
		return 0;
	int64_t ms = (int64_t)(ended.tv_sec - started.tv_sec) * 1000 +
				 (ended.tv_nsec - started.tv_nsec) / 1000000;
	if (ms < 0)
		ms = 0; /* the sandbox's clock and ours: started is ours until the sandbox says its own */
	buf_printf(out, "%lld.%03lld\n", (long long)(ms / 1000), (long long)(ms % 1000));
	return 0;
}

static ssize_t output_pread(const struct ctl_ref *ref, struct call *c, enum spool_view view,
	void *p, size_t n, uint64_t off)
{
	uint64_t next = off;
	AUTO_RUN *r = run_of(ref);
	if (!r)
		return no_run(ref, c);
	ssize_t got = spool_pread(run_spool(r), view, p, n, off, NULL, &next);
	if (got != -ESPIPE)
		return got;
	return call_fault(c, ENODATA, NULL,
		"bytes %llu to %llu are no longer kept; tail -c +%llu reads on, -o output-max= keeps more",
		(unsigned long long)off, (unsigned long long)next - 1, (unsigned long long)next + 1);
}

static int output_size(
	const struct ctl_ref *ref, struct call *c, enum spool_view view, uint64_t *size)
{
	AUTO_RUN *r = run_of(ref);
	if (!r)
		return no_run(ref, c);
	*size = spool_size(run_spool(r), view);
	return 0;
}

static int stdout_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	return output_size(ref, c, SPOOL_STDOUT, size);
}

static int stderr_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	return output_size(ref, c, SPOOL_STDERR, size);
}

static int logs_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	return output_size(ref, c, SPOOL_BOTH, size);
}

static ssize_t stdout_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	return output_pread(ref, c, SPOOL_STDOUT, p, n, off);
}

static ssize_t stderr_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	return output_pread(ref, c, SPOOL_STDERR, p, n, off);
}

static ssize_t logs_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	return output_pread(ref, c, SPOOL_BOTH, p, n, off);
}

static struct timespec run_mtime(const struct ctl_ref *ref)
{
	struct timespec started = {0}, ended = {0};
	AUTO_RUN *r = run_of(ref);
	if (r)
		run_times(r, &started, &ended);
	return ended.tv_sec ? ended : started;
}

static const struct ctl_row run_rows[] = {
	{"cmd", 0444, CTL_TEXT, .show = show_cmd, .mtime = run_mtime,
		.grammar = "R the command or script"},
	{"stdout", 0444, CTL_SIZED, .size = stdout_size, .pread = stdout_pread, .mtime = run_mtime,
		.grammar = "R its output, byte for byte; grows while it runs"},
	{"stderr", 0444, CTL_SIZED, .size = stderr_size, .pread = stderr_pread, .mtime = run_mtime,
		.grammar = "R its errors, likewise"},
	{"logs", 0444, CTL_SIZED, .size = logs_size, .pread = logs_pread, .mtime = run_mtime,
		.grammar = "R both, in the order of arrival"},
	{"exit", 0444, CTL_TEXT, .show = show_exit, .mtime = run_mtime,
		.grammar = "R empty while it runs, then its exit code, or `unknown`"},
	{"started", 0444, CTL_TEXT, .show = show_started, .mtime = run_mtime,
		.grammar = "R when, ISO 8601 UTC"},
	{"duration", 0444, CTL_TEXT, .show = show_duration, .mtime = run_mtime,
		.grammar = "R seconds, once it has ended"},
	{.name = NULL},
};

static const struct ctl_dir run_dir = {
	.help = "One run of a command.", .rows = run_rows, .list_help = true};

static const struct ctl_row run_row = {.name = "N",
	.mode = 0700,
	.kind = CTL_DIR,
	.dir = &run_dir,
	.mtime = run_mtime,
	.grammar = "one run; the newest 16 and those of open conversations"};

static int runs_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct ctl_runs *rs = ctl_runs_of(dir->sandbox);
	int64_t number;
	(void)c;
	if (!rs)
		return -ENOMEM;
	/* One name a run: 007 is not 7. */
	if (*name == '0' || ctl_parse_number(name, 1, INT64_MAX, &number))
		return -ENOENT;
	AUTO_RUN *r = run_table_find(rs->table, (uint64_t)number);
	*object = (void *)(uintptr_t)number;
	return r ? 0 : -ENOENT;
}

struct each {
	bool (*cb)(const char *name, void *arg);
	void *arg;
};

static bool each_run(struct run *r, void *arg)
{
	struct each *e = arg;
	AUTO_BUF name = BUF_INIT;
	buf_printf(&name, "%llu", (unsigned long long)run_number(r));
	return !buf_error(&name) && e->cb(name.data, e->arg);
}

static int runs_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct ctl_runs *rs = ctl_runs_of(dir->sandbox);
	struct each e = {cb, arg};
	(void)c;
	if (!rs)
		return -ENOMEM;
	run_table_each(rs->table, each_run, &e);
	return 0;
}

/* A number needs no references. */
static void *runs_get(void *object)
{
	return object;
}

static void runs_put(void *object)
{
	(void)object;
}

static const struct ctl_set runs_set = {
	.row = &run_row, .find = runs_find, .each = runs_each, .get = runs_get, .put = runs_put};

const struct ctl_dir ctl_runs_dir = {
	.help = "The newest runs of exec and exec.json; ../last is the newest.", .set = &runs_set};
