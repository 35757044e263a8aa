/*
 * exec: a command or script written, its output read. What the protocol of a conversation is, and why, stands in
 * conversation.c; this is the plain format: a request is shell text, a run is told by its bytes.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "conversation.h"
#include "kinds.h"

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
	struct buf ahead; /* what was read behind bytes that are lost: told after their error */
};

static void *reader_new(struct run *r)
{
	struct place *at = calloc(1, sizeof *at);
	if (at)
		at->run = r;
	return at;
}

static void reader_free(void *reader)
{
	struct place *at = reader;
	buf_release(&at->ahead);
	free(at);
}

static ssize_t reader_next(void *reader, bool settled, void *p, size_t n, uint64_t *lost)
{
	struct place *at = reader;
	uint64_t off = at->off;
	if (at->ahead.size) {
		if (n > at->ahead.size)
			n = at->ahead.size;
		memcpy(p, at->ahead.data, n);
		buf_consume(&at->ahead, n);
		return (ssize_t)n;
	}
	ssize_t got = spool_read_on(run_spool(at->run), SPOOL_BOTH, p, n, &off, NULL, lost);
	if (got < 0)
		return got;
	if (*lost) {
		/* Too slow for what is kept: an error at its place, not a cut; what follows is read next. */
		buf_add(&at->ahead, p, (size_t)got);
		if (buf_error(&at->ahead)) {
			buf_release(&at->ahead);
			return -ENOMEM;
		}
	}
	at->off = off;
	return *lost ? -ENODATA : got == 0 && !settled ? -EAGAIN : got;
}

static const struct conversation_format format = {.name = "exec",
	.tells_number = true,
	.parse = parse,
	.reader_new = reader_new,
	.reader_next = reader_next,
	.reader_free = reader_free};

static int exec_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	(void)c;
	return conversation_open(ref, t, &format, state);
}

const struct ctl_talk_ops ctl_exec_talk = {.open = exec_open, CONVERSATION_TALK};

/* --- reading alone: the newest run so far --- */

static int stream_open(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	(void)s; /* it never waits, so nothing wakes it */
	return conversation_view_open(ref, &format, cursor);
}

const struct ctl_stream_ops ctl_exec_stream = {.open = stream_open, CONVERSATION_VIEW};
