/*
 * Conversations (CTL_TALK): openings for reading and writing, line by line; for writing alone, a document.
 *
 * A line may come in parts and ends with its newline, or with the first read after it (FLUSH is never the end:
 * every child that inherits the descriptor sends one). Lines go to the row's talk operations, reads come from them
 * through a channel (stream.c).
 *
 * One rule is kept here for all rows. The end of an answer reads as 0 bytes once; what follows it, if the
 * row says something before the next line, is read next. But programs ask again after an end that did not follow a
 * newline (`while read -r x || [ -n "$x" ]`, Python's `for line in f`, cat after an empty copy_file_range): then the same
 * process gets the end once more.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { LINE_MAX_DEFAULT = 1024 * 1024 };

struct ctl_talk {
	struct ctl_file file;
	struct ctl_channel ch;
	const struct ctl_talk_ops *ops;
	void *state;
	pthread_mutex_t lock; /* covers what follows; not held while a line or document is done */
	struct buf line;      /* the beginning of one */
	bool skipping;        /* the rest of a line that was too long */
	struct ctl_document doc;
	bool begun; /* the first byte of doc was told */
};

void ctl_talk_wake(struct ctl_talk *t)
{
	ctl_channel_wake(&t->ch);
}

bool ctl_talk_nonblock(struct ctl_talk *t)
{
	return t->ch.nonblock;
}

/* --- lines --- */

static int talk_line(struct ctl_talk *t, struct call *c, const char *text, size_t n)
{
	{
		AUTO_UNLOCK(&t->ch.lock);
		t->ch.cut_line = false;
	}
	int err = t->ops->line(t->state, c, text, n);
	if (!err)
		ctl_tree_answered(t->file.node->tree, t->file.node->path, NULL);
	return err;
}

/* Adds what comes before the newline to the line. 1: it is whole now, in *out; 0: it goes on. */
static int talk_collect(
	struct ctl_talk *t, struct call *c, const char *p, size_t n, bool whole, struct buf *out)
{
	size_t max = t->file.node->row->max ? t->file.node->row->max : LINE_MAX_DEFAULT;
	AUTO_UNLOCK(&t->lock);
	/*
	 * The kernel cuts a long write(2) in parts of 1 MiB, and tells an error of a later part as a short count: so every
	 * part of a line that is too long fails, up to the one with its end.
	 */
	if (t->skipping || n > max - t->line.size) {
		buf_release(&t->line);
		t->skipping = !whole;
		return call_fault(
			c, EFBIG, NULL, "a line longer than %zu bytes; nothing of it was sent", max);
	}
	buf_add(&t->line, p, n);
	int err = buf_error(&t->line);
	if (err) {
		buf_release(&t->line);
		return err;
	}
	if (!whole)
		return 0;
	*out = t->line;
	t->line = (struct buf)BUF_INIT;
	return 1;
}

static int talk_write_lines(struct ctl_talk *t, struct call *c, const char *p, size_t n)
{
	for (const char *end = p + n; p < end;) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		AUTO_BUF line = BUF_INIT;
		int r = talk_collect(t, c, p, (size_t)((newline ? newline : end) - p), newline, &line);
		if (r > 0)
			r = talk_line(t, c, line.data ? line.data : "", line.size);
		if (r < 0)
			return r;
		p = newline ? newline + 1 : end;
	}
	return 0;
}

/* A line without a newline ends with the first read. */
static int talk_end_line(struct ctl_talk *t, struct call *c)
{
	AUTO_BUF line = BUF_INIT;
	{
		AUTO_UNLOCK(&t->lock);
		if (t->ops->whole)
			t->skipping = false;
		if (!t->line.size)
			return 0;
		line = t->line;
		t->line = (struct buf)BUF_INIT;
	}
	return talk_line(t, c, line.data, line.size);
}

/* --- documents --- */

static int talk_write_document(struct ctl_talk *t, struct call *c, const void *p, size_t n)
{
	bool first;
	{
		AUTO_UNLOCK(&t->lock);
		first = !t->begun && n;
		t->begun = t->begun || first;
	}
	if (first && t->ops->first) {
		int err = t->ops->first(t->state, c);
		if (err) {
			AUTO_UNLOCK(&t->lock);
			t->begun = false;
			return err;
		}
	}
	AUTO_UNLOCK(&t->lock);
	return ctl_document_add(&t->doc, c, p, n);
}

static int talk_send(struct ctl_talk *t, struct call *c)
{
	struct ctl_node *n = t->file.node;
	AUTO_BUF text = BUF_INIT;
	AUTO_BUF answer = BUF_INIT;
	{
		AUTO_UNLOCK(&t->lock);
		bool over = t->doc.over;
		t->doc.over = false;
		if (over || !t->doc.text.size)
			return 0;
		text = t->doc.text;
		t->doc.text = (struct buf)BUF_INIT;
		t->begun = false;
	}
	int err = t->ops->document ? t->ops->document(t->state, c, text.data, text.size)
							   : n->row->submit(&n->ref, c, text.data, text.size, &answer);
	if (!err)
		ctl_tree_answered(n->tree, n->path, t->ops->document ? NULL : &answer);
	else if (err != -EINTR)
		ctl_tree_note_late(n->tree, n->path, err);
	return err;
}

/* --- the file --- */

static int talk_write(struct ctl_file *f, struct op *op, const void *p, size_t n)
{
	struct ctl_talk *t = (struct ctl_talk *)f;
	if (t->ops->bytes)
		return t->ops->bytes(t->state, op_call(op), p, n);
	if (t->ops->whole && ctl_file_reads(f->flags)) {
		AUTO_BUF none = BUF_INIT; /* a line that has no end but the next read */
		return talk_collect(t, op_call(op), p, n, false, &none);
	}
	return ctl_file_reads(f->flags) || t->ops->live ? talk_write_lines(t, op_call(op), p, n)
													: talk_write_document(t, op_call(op), p, n);
}

/* Is this the reader to whom an end in the middle of a line is told once more? */
static bool talk_ends_again(struct ctl_talk *t, struct op *op)
{
	AUTO_UNLOCK(&t->ch.lock);
	if (!t->ch.cut_line)
		return false;
	t->ch.cut_line = false;
	return t->ch.end_reader == ctl_process_of(op_pid(op));
}

static int talk_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	struct ctl_talk *t = (struct ctl_talk *)f;
	(void)off; /* what is written has moved the descriptor's offset; it means nothing here */
	int err = talk_end_line(t, op_call(op));
	if (err)
		return err;
	if (talk_ends_again(t, op)) {
		op_reply_data(op, "", 0);
		return OP_REPLIED;
	}
	return ctl_channel_read(&t->ch, op, size);
}

static int talk_flush(struct ctl_file *f, struct op *op)
{
	struct ctl_talk *t = (struct ctl_talk *)f;
	int signal = 0;
	if (ctl_file_reads(f->flags))
		return 0;
	if (t->ops->live)
		return ctl_document_flush(&t->doc, op, &signal) == CTL_FLUSH_SEND
				   ? talk_end_line(t, op_call(op))
				   : 0;
	enum ctl_flush what;
	{
		AUTO_UNLOCK(&t->lock);
		if (!t->doc.text.size && !t->doc.over)
			return 0;
		what = ctl_document_flush(&t->doc, op, &signal);
	}
	switch (what) {
	case CTL_FLUSH_SEND:
		return talk_send(t, op_call(op));
	case CTL_FLUSH_DROP: {
		AUTO_UNLOCK(&t->lock);
		buf_release(&t->doc.text);
		return call_fault(op_call(op), ECANCELED, NULL,
			"signal %d killed the writer before it closed the file; nothing was sent", signal);
	}
	default:
		return 0;
	}
}

static void talk_release(struct ctl_file *f, struct op *op)
{
	struct ctl_talk *t = (struct ctl_talk *)f;
	if (op && t->ops->whole && ctl_file_reads(f->flags) && t->line.size) {
		int err = t->ops->document(t->state, op_call(op), t->line.data, t->line.size);
		if (err)
			(void)ctl_fail(f->node, op_call(op), err, "close"); /* noted; nobody waits for it */
	} else if (op && (t->ops->live || !ctl_file_reads(f->flags))) {
		int err = t->ops->live ? talk_end_line(t, op_call(op)) : talk_send(t, op_call(op));
		if (err)
			(void)ctl_fail(f->node, op_call(op), err, "close"); /* noted; nobody waits for it */
	}
	ctl_channel_leave(&t->ch);
	t->ops->close(t->state);
	ctl_channel_destroy(&t->ch);
	buf_release(&t->line);
	buf_release(&t->doc.text);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int talk_poll(struct ctl_file *f, struct op_poll *p, unsigned *revents)
{
	struct ctl_talk *t = (struct ctl_talk *)f;
	if (!t->ops->writable)
		*revents |= POLLOUT | POLLWRNORM;
	if (!ctl_file_reads(f->flags) && !t->ops->writable) {
		op_poll_free(p);
		return 0;
	}
	return ctl_channel_poll(&t->ch, p, revents);
}

static const struct ctl_file_ops talk_file_ops = {.read = talk_read,
	.write = talk_write,
	.flush = talk_flush,
	.release = talk_release,
	.poll = talk_poll};

int ctl_talk_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	int err = ctl_begin(n, op_call(op));
	if (err)
		return err;
	AUTO_FREE struct ctl_talk *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->file.ops = &talk_file_ops;
	t->ops = n->row->talk;
	err = ctl_channel_init(&t->ch, ctl_tree_pump(n->tree), o->flags);
	if (err)
		return err;
	err = t->ops->open(&n->ref, op_call(op), t, &t->state);
	if (err) {
		ctl_channel_destroy(&t->ch);
		return err;
	}
	pthread_mutex_init(&t->lock, NULL);
	ctl_document_init(&t->doc, op, n->row->max);
	{
		AUTO_UNLOCK(&t->ch.lock);
		t->ch.source = t->state;
		t->ch.next = ctl_file_reads(o->flags) ? t->ops->next : NULL;
		t->ch.writable = t->ops->writable;
	}
	o->how = NODE_DIRECT_IO | NODE_STREAM;
	*out = &steal(t)->file;
	return 0;
}
