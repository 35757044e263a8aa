/*
 * runs/ and the files of one run, for the sandbox and for each session alike (ctl_runs_at tells whose).
 *
 * The object of a directory here is the run's number, not the run: the kernel keeps nodes as long as it likes, and
 * the output of a run must go when its turn is over. Owns nothing.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"
#include "runs.h"

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
	struct ctl_runs *rs = ctl_runs_at(ref->up);
	return rs ? run_table_find(ctl_runs_table(rs), number_of(ref->object)) : NULL;
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
	struct ctl_runs *rs = ctl_runs_at(ref->up);
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
	int refused = spool_refused(run_spool(r));
	if (refused)
		return call_fault(c, ENODATA, NULL,
			"bytes %llu to %llu were not kept: %s; make room on the disk of ~/.cache",
			(unsigned long long)off, (unsigned long long)next - 1, strerror(refused));
	return call_fault(c, ENODATA, NULL,
		"bytes %llu to %llu are no longer kept; tail -c +%llu reads on, -o output-max= keeps more, "
		"if "
		"the disk of the sandbox has room",
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
	struct ctl_runs *rs = ctl_runs_at(dir);
	int64_t number;
	(void)c;
	if (!rs)
		return -ENOMEM;
	/* One name a run: 007 is not 7. */
	if (*name == '0' || ctl_parse_number(name, 1, INT64_MAX, &number))
		return -ENOENT;
	AUTO_RUN *r = run_table_find(ctl_runs_table(rs), (uint64_t)number);
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
	struct ctl_runs *rs = ctl_runs_at(dir);
	struct each e = {cb, arg};
	(void)c;
	if (!rs)
		return -ENOMEM;
	run_table_each(ctl_runs_table(rs), each_run, &e);
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
