/*
 * exec: a command or script written, its output read. What the protocol of a conversation is, and why, stands in
 * conversation.c; this is the plain format: a request is shell text, a run is told by its bytes.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "conversation.h"
#include "kinds.h"

enum { GONE = ENODATA };

/* Connects, and waits for what was written before: a shell shows the error of an open, not that of a close. */
int ctl_exec_begin(const struct ctl_ref *ref, struct call *c)
{
	int err = sandbox_ready(ref->sandbox, c);
	return err ? err : sandbox_barrier(ref->sandbox, c);
}

/* Without blanks, is it empty or a comment? In a conversation that starts nothing. */
static bool says_nothing(const char *text, size_t n)
{
	size_t at = 0;
	while (at < n && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r'))
		at++;
	return at == n || text[at] == '#';
}

static int parse(
	struct call *c, const char *text, size_t n, bool line, struct conversation_request *out)
{
	if (line && says_nothing(text, n))
		return 1;
	if (memchr(text, 0, n))
		return call_fault(c, EINVAL, NULL, "a command holds no NUL byte; stdin of exec.json may");
	buf_add(&out->command, text, n);
	return buf_error(&out->command);
}

struct place {
	struct run *run; /* borrowed */
	uint64_t off;
};

static void *reader_new(struct run *r)
{
	struct place *at = calloc(1, sizeof *at);
	if (at)
		at->run = r;
	return at;
}

static ssize_t reader_next(void *reader, bool settled, void *p, size_t n)
{
	struct place *at = reader;
	uint64_t next = at->off;
	ssize_t got = spool_pread(run_spool(at->run), SPOOL_BOTH, p, n, at->off, NULL, &next);
	if (got == -ESPIPE) {
		/* Too slow for what is kept: an error, not a cut; what follows is read next. */
		at->off = next;
		return -GONE;
	}
	if (got > 0)
		at->off += (uint64_t)got;
	return got == 0 && !settled ? -EAGAIN : got;
}

static const struct conversation_format format = {.name = "exec",
	.tells_number = true,
	.parse = parse,
	.reader_new = reader_new,
	.reader_next = reader_next,
	.reader_free = free};

static int exec_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct conversation *v;
	(void)c;
	int err = conversation_open(ref, t, &format, &v);
	if (!err)
		*state = v;
	return err;
}

const struct ctl_talk_ops ctl_exec_talk = {.open = exec_open,
	.line = conversation_line,
	.next = conversation_next,
	.first = conversation_first,
	.document = conversation_document,
	.close = conversation_close};

/* --- reading alone: the newest run so far --- */

static int stream_open(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	struct conversation_view *w;
	(void)c;
	(void)s; /* it never waits, so nothing wakes it */
	if (!rs)
		return -ENOMEM;
	int err = conversation_view_open(ref, run_table_last(ctl_runs_table(rs)), &format, &w);
	if (!err)
		*cursor = w;
	return err;
}

const struct ctl_stream_ops ctl_exec_stream = {
	.open = stream_open, .next = conversation_view_next, .close = conversation_view_close};
