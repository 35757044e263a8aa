/*
 * Documents: all that one opening writes is one request (DOC), or one new text (TEXT that can be written).
 *
 * A document goes out once. What the kernel sends, as seen with strace of shells on a test file system:
 * `cmd > f` is OPEN, FLUSH (the shell's spare descriptor), WRITE..., FLUSH, RELEASE; every child that inherits
 * the descriptor adds a FLUSH when it ends. So a FLUSH with nothing unsent means nothing, and one that comes from
 * another process than the opener's means nothing either: `{ cat a; cat b; } > f` is one document. A close by a process
 * that is exiting gets no interrupt and could not be killed while it waits: RELEASE sends in its place. And a process that
 * was killed while it wrote has not said all it wanted to: nothing is sent then.
 * With reading and writing in one opening FLUSH is never the end: the first read is, or else RELEASE.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { DOCUMENT_MAX = 16 * 1024 * 1024, FLAG_EXITING = 0x4 };

/* --- processes --- */

/* The content of /proc/TID/NAME in text, NUL-terminated. False: there is none. */
static bool read_proc(pid_t tid, const char *name, char *text, size_t size)
{
	char path[64]; /* a number and a name of ours */
	snprintf(path, sizeof path, "/proc/%d/%s", (int)tid, name);
	FILE *f = tid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return false;
	size_t n = fread(text, 1, size - 1, f);
	fclose(f);
	text[n] = 0;
	return n > 0;
}

pid_t ctl_process_of(pid_t tid)
{
	char text[4096]; /* Tgid comes in the first lines */
	if (!read_proc(tid, "status", text, sizeof text))
		return 0;
	const char *p = strstr(text, "\nTgid:");
	return p ? (pid_t)strtol(p + 6, NULL, 10) : 0;
}

/* Field number of /proc/TID/stat, counted as in proc(5) (only those after the name). */
static unsigned long long stat_field(const char *text, int number)
{
	const char *p = strrchr(text, ')');
	for (int at = 2; p && at < number; at++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

/* --- a document on its way --- */

void ctl_document_init(struct ctl_document *d, struct op *op, size_t max)
{
	*d = (struct ctl_document){
		.max = max ? max : DOCUMENT_MAX, .opener = ctl_process_of(op_pid(op))};
}

int ctl_document_add(struct ctl_document *d, struct call *c, const void *p, size_t n)
{
	if (d->over || n > d->max - d->text.size) {
		d->over = true;
		buf_release(&d->text);
		return call_fault(c, EFBIG, NULL, "longer than %zu bytes; nothing of it was sent", d->max);
	}
	buf_add(&d->text, p, n);
	if (buf_error(&d->text)) {
		d->over = true;
		buf_release(&d->text);
		return -ENOMEM;
	}
	return 0;
}

enum ctl_flush ctl_document_flush(const struct ctl_document *d, struct op *op, int *signal)
{
	char text[4096];
	pid_t tid = op_pid(op);
	if (!d->opener || ctl_process_of(tid) != d->opener ||
		!read_proc(tid, "stat", text, sizeof text))
		return CTL_FLUSH_LEAVE;
	if (!(stat_field(text, 9) & FLAG_EXITING))
		return CTL_FLUSH_SEND;
	*signal = (int)(stat_field(text, 52) & 0x7f);
	return *signal ? CTL_FLUSH_DROP : CTL_FLUSH_LEAVE;
}

/* --- the file --- */

struct doc_file {
	struct ctl_file file;
	pthread_mutex_t lock; /* covers what follows; not held while a document is sent */
	struct ctl_document doc;
	struct buf answer;
	size_t answer_at;
};

static int doc_write(struct ctl_file *f, struct op *op, const void *p, size_t n)
{
	struct doc_file *d = (struct doc_file *)f;
	AUTO_UNLOCK(&d->lock);
	return ctl_document_add(&d->doc, op_call(op), p, n);
}

static int doc_handle(
	struct ctl_file *f, struct call *c, const struct buf *text, struct buf *answer)
{
	const struct ctl_row *row = f->node->row;
	const struct ctl_ref *ref = &f->node->ref;
	if (row->kind == CTL_DOC)
		return row->submit(ref, c, text->data, text->size, answer);
	int err = row->store(ref, c, text->data, text->size, !(f->flags & O_TRUNC));
	if (!err && ctl_file_reads(f->flags) && row->show)
		err = row->show(ref, c, answer);
	return err;
}

/* Sends what is unsent. late: who closes may not see the error. */
static int doc_send(struct doc_file *d, struct call *c, bool late)
{
	AUTO_BUF text = BUF_INIT;
	AUTO_BUF answer = BUF_INIT;
	{
		AUTO_UNLOCK(&d->lock);
		if (d->doc.over || !d->doc.text.size) {
			d->doc.over = false;
			return 0; /* too long: its write has said so */
		}
		text = d->doc.text;
		d->doc.text = (struct buf)BUF_INIT;
	}
	struct ctl_node *n = d->file.node;
	int err = doc_handle(&d->file, c, &text, &answer);
	if (!err)
		err = buf_error(&answer);
	if (err) {
		if (late && err != -EINTR)
			ctl_tree_note_late(n->tree, n->path, err);
		return err;
	}
	ctl_tree_answered(n->tree, n->path, n->row->kind == CTL_DOC ? &answer : NULL);
	AUTO_UNLOCK(&d->lock);
	buf_release(&d->answer);
	d->answer = answer;
	d->answer_at = 0;
	answer = (struct buf)BUF_INIT;
	return 0;
}

static int doc_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	struct doc_file *d = (struct doc_file *)f;
	(void)off; /* the answer has a cursor of its own: writes have moved the descriptor's */
	int err = doc_send(d, op_call(op), false);
	if (err)
		return err;
	AUTO_FREE char *p = NULL;
	size_t n;
	{
		AUTO_UNLOCK(&d->lock);
		n = d->answer.size - d->answer_at;
		if (n > size)
			n = size;
		p = malloc(n + 1);
		if (!p)
			return -ENOMEM;
		if (n)
			memcpy(p, d->answer.data + d->answer_at, n);
		d->answer_at += n;
	}
	op_reply_data(op, p, n);
	return OP_REPLIED;
}

/* What is left of a document whose writer was killed. */
static int doc_drop(struct doc_file *d, struct call *c, int signal)
{
	AUTO_UNLOCK(&d->lock);
	buf_release(&d->doc.text);
	return call_fault(c, ECANCELED, NULL,
		"signal %d killed the writer before it closed the file; nothing was sent", signal);
}

static int doc_flush(struct ctl_file *f, struct op *op)
{
	struct doc_file *d = (struct doc_file *)f;
	int signal = 0;
	if (ctl_file_reads(f->flags))
		return 0;
	enum ctl_flush what;
	{
		AUTO_UNLOCK(&d->lock);
		if (!d->doc.text.size && !d->doc.over)
			return 0;
		what = ctl_document_flush(&d->doc, op, &signal);
	}
	switch (what) {
	case CTL_FLUSH_SEND:
		return doc_send(d, op_call(op), true);
	case CTL_FLUSH_DROP:
		return doc_drop(d, op_call(op), signal);
	default:
		return 0;
	}
}

static void doc_release(struct ctl_file *f, struct op *op)
{
	struct doc_file *d = (struct doc_file *)f;
	if (op) {
		int err = doc_send(d, op_call(op), true);
		if (err)
			(void)ctl_fail(f->node, op_call(op), err, "close"); /* noted; nobody waits for it */
	}
	buf_release(&d->doc.text);
	buf_release(&d->answer);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct ctl_file_ops doc_file_ops = {
	.read = doc_read, .write = doc_write, .flush = doc_flush, .release = doc_release};

int ctl_doc_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	if (n->row->kind == CTL_DOC) {
		int err = ctl_begin(n, op_call(op));
		if (err)
			return err;
	}
	struct doc_file *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->file.ops = &doc_file_ops;
	pthread_mutex_init(&d->lock, NULL);
	ctl_document_init(&d->doc, op, n->row->max);
	o->how = NODE_DIRECT_IO | NODE_STREAM;
	*out = &d->file;
	return 0;
}
