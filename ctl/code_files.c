/*
 * The files of one context, but for run: settings, and what came of its newest run from here. Owns nothing.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "code_api.h"
#include "code_room.h"
#include "kinds.h"

static void run_drop(struct code_run **r)
{
	code_run_put(*r);
}
#define AUTO_RUN __attribute__((cleanup(run_drop))) struct code_run

/* --- settings --- */

static int show_language(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	buf_printf(out, "%s\n", code_context_language(ref->object));
	return 0;
}

static int store_language(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_FREE char **words = NULL;
	int count = 0;
	(void)append; /* one word, whatever stood there */
	int err = ctl_split(c, n ? text : "", n, &count, &words);
	if (!err && count != 1)
		err = call_fault(c, EINVAL, NULL, "write one word: python, javascript or typescript");
	return err ? err : code_context_set_language(ref->object, c, words[0]);
}

static int show_variables(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	return code_context_put_variables(ref->object, out);
}

static int submit_variables(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	struct json_object *o = NULL;
	(void)answer;
	int err = ctl_parse_json(c, n ? text : "", n, &o);
	if (!err)
		err = code_context_set_variables(ref->object, ref->sandbox, c, o);
	json_object_put(o);
	return err;
}

static int verb_interrupt(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	bool begun;
	(void)argc;
	(void)argv;
	/* One of ours may be on its way. */
	AUTO_RUN *r = code_context_last(ref->object);
	if (r && !code_run_settled(r))
		code_run_interrupt(r);
	AUTO_FREE char *id = code_context_id(ref->object, &begun);
	int err = !begun ? 0 : id ? code_api_interrupt(ref->sandbox, c, id, NULL) : -ENOMEM;
	return err == -ENOENT ? 0 : err;
}

static int verb_restart(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	int err = code_context_restart(ref->object, ref->sandbox, c);
	return err == -ENOENT ? code_context_lost(ref->object, c) : err;
}

static int verb_timeout(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	int64_t ms;
	(void)argc;
	if (ctl_parse_duration(argv[1], &ms))
		return call_fault(c, EINVAL, NULL,
			"timeout %s: not a time; write 500ms, 30s, 10m, 2h, or 0 for none", argv[1]);
	code_context_set_timeout(ref->object, ms);
	return 0;
}

static const struct ctl_verb context_verbs[] = {
	{"interrupt", 0, 0, verb_interrupt, "interrupt"},
	{"restart", 0, 0, verb_restart, "restart"},
	{"timeout", 1, 1, verb_timeout, "timeout DUR"},
	{NULL, 0, 0, NULL, NULL},
};

static int show_settings(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	int64_t ms = code_context_timeout(ref->object);
	(void)c;
	if (ms % 1000)
		buf_printf(out, "timeout %lldms\n", (long long)ms);
	else
		buf_printf(out, "timeout %lld\n", (long long)ms / 1000);
	return 0;
}

/* --- what came of the newest run --- */

static struct timespec run_mtime(const struct ctl_ref *ref)
{
	AUTO_RUN *r = code_context_last(ref->object);
	return r ? code_run_time(r) : (struct timespec){0};
}

static int printed_size(const struct ctl_ref *ref, enum spool_view view, uint64_t *size)
{
	AUTO_RUN *r = code_context_last(ref->object);
	*size = r ? spool_size(code_run_printed(r), view) : 0;
	return 0;
}

static ssize_t printed_pread(const struct ctl_ref *ref, struct call *c, enum spool_view view,
	void *p, size_t n, uint64_t off)
{
	uint64_t next = off;
	AUTO_RUN *r = code_context_last(ref->object);
	ssize_t got = r ? spool_pread(code_run_printed(r), view, p, n, off, NULL, &next) : 0;
	if (got != -ESPIPE)
		return got;
	return call_fault(c, ENODATA, NULL,
		"bytes %llu to %llu are no longer kept; tail -c +%llu reads on, -o output-max= keeps more",
		(unsigned long long)off, (unsigned long long)next - 1, (unsigned long long)next + 1);
}

static int stdout_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	(void)c;
	return printed_size(ref, SPOOL_STDOUT, size);
}

static int stderr_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	(void)c;
	return printed_size(ref, SPOOL_STDERR, size);
}

static ssize_t stdout_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	return printed_pread(ref, c, SPOOL_STDOUT, p, n, off);
}

static ssize_t stderr_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	return printed_pread(ref, c, SPOOL_STDERR, p, n, off);
}

static int show_error(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_RUN *r = code_context_last(ref->object);
	(void)c;
	if (r)
		code_run_put_error(r, out);
	return buf_error(out);
}

static int show_json(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_RUN *r = code_context_last(ref->object);
	(void)c;
	return r ? code_run_put_json(r, out) : 0;
}

/* --- results/ --- */

static void file_name(const struct code_file *f, struct buf *out)
{
	buf_printf(out, "%u.%s", f->number, f->ext);
}

static int file_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	AUTO_RUN *r = code_context_last(dir->object);
	size_t n = r ? code_run_files(r) : 0;
	(void)c;
	for (size_t i = 0; i < n; i++) {
		const struct code_file *f = code_run_file(r, i);
		AUTO_BUF own = BUF_INIT;
		file_name(f, &own);
		if (buf_error(&own))
			return -ENOMEM;
		if (strcmp(own.data, name) == 0) {
			(void)code_run_get(r); /* the file's own is the run's */
			*object = (void *)(uintptr_t)f;
			return 0;
		}
	}
	return -ENOENT;
}

static int file_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	AUTO_RUN *r = code_context_last(dir->object);
	size_t n = r ? code_run_files(r) : 0;
	(void)c;
	for (size_t i = 0; i < n; i++) {
		AUTO_BUF own = BUF_INIT;
		file_name(code_run_file(r, i), &own);
		if (buf_error(&own))
			return -ENOMEM;
		if (!cb(own.data, arg))
			break;
	}
	return 0;
}

static void *file_get(void *object)
{
	struct code_file *f = object;
	(void)code_run_get(f->run);
	return f;
}

static void file_put(void *object)
{
	code_run_put(((struct code_file *)object)->run);
}

static int file_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)
{
	(void)c;
	*size = ((const struct code_file *)ref->object)->size;
	return 0;
}

static ssize_t file_pread(
	const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)
{
	(void)c;
	return code_file_read(ref->object, p, n, off);
}

static struct timespec file_mtime(const struct ctl_ref *ref)
{
	return code_run_time(((const struct code_file *)ref->object)->run);
}

static const struct ctl_row file_row = {.name = "N.EXT",
	.mode = 0444,
	.kind = CTL_SIZED,
	.copied = true,
	.size = file_size,
	.pread = file_pread,
	.mtime = file_mtime,
	.grammar = "R display N of the newest run: txt html png jpg svg json tex md js"};

static const struct ctl_set files_set = {
	.row = &file_row, .find = file_find, .each = file_each, .get = file_get, .put = file_put};

static const struct ctl_dir results_dir = {
	.help = "What the newest run displayed; a display with two forms is two files of one N.",
	.set = &files_set};

/* --- the table --- */

static const struct ctl_row context_rows[] = {
	{.name = "language",
		.mode = 0600,
		.kind = CTL_TEXT,
		.show = show_language,
		.store = store_language,
		.grammar = "W python, javascript or typescript, before the first run; R it"},
	{.name = "variables.json",
		.mode = 0600,
		.kind = CTL_DOC,
		.show = show_variables,
		.submit = submit_variables,
		.grammar = "W one object, each name is set in the context; R what was set here"},
	{.name = "run",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = code_begin,
		.talk = &code_talk_ops,
		.stream = &code_stream_ops,
		.max = 16 * 1024 * 1024,
		.grammar = "W code, close waits for its end; RW the first read starts it, read what an "
				   "interpreter prints; R that of the newest run so far"},
	{.name = "stdout",
		.mode = 0444,
		.kind = CTL_SIZED,
		.size = stdout_size,
		.pread = stdout_pread,
		.mtime = run_mtime,
		.grammar = "R what the newest run from here printed; grows while it runs"},
	{.name = "stderr",
		.mode = 0444,
		.kind = CTL_SIZED,
		.size = stderr_size,
		.pread = stderr_pread,
		.mtime = run_mtime,
		.grammar = "R its errors, likewise"},
	{.name = "error",
		.mode = 0444,
		.kind = CTL_TEXT,
		.show = show_error,
		.mtime = run_mtime,
		.grammar = "R empty, or NAME: MESSAGE and the traceback"},
	{.name = "result.json",
		.mode = 0444,
		.kind = CTL_TEXT,
		.show = show_json,
		.mtime = run_mtime,
		.grammar = "R outputs, error, results, logs and executionCount as one JSON object"},
	{.name = "results",
		.mode = 0700,
		.kind = CTL_DIR,
		.dir = &results_dir,
		.grammar = "N.EXT: what it displayed"},
	{.name = "ctl",
		.mode = 0666,
		.kind = CTL_VERBS,
		.show = show_settings,
		.verbs = context_verbs,
		.grammar = "R the settings, can be written back; W:"},
	{.name = NULL},
};

const struct ctl_dir ctl_code_context_dir = {
	.help = "One context: an interpreter that keeps its state.",
	.rows = context_rows,
	.list_help = true,
};
