/*
 * Uploads (CTL_UPLOAD, to write): what is written is handed on at once, of any length, and the close waits for what comes of it.
 *
 * When it is whole is told as for a document (doc.c): by a FLUSH of the process that opened it, once something was written, else
 * by RELEASE. Of a writer that was killed it is not whole: it is cut then, never finished. An error that came too late for
 * its close meets the next opening that reads.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

struct upload_file {
	struct ctl_file file;
	void *state;
	struct ctl_document writer; /* who opened it; it holds no text */
	pthread_mutex_t
		lock; /* covers what follows, and is held while something is handed on: its order is that of the writes */
	bool begun, over;
};

static int upload_write(struct ctl_file *f, struct op *op, const void *p, size_t n)
{
	struct upload_file *u = (struct upload_file *)f;
	AUTO_UNLOCK(&u->lock);
	if (u->over)
		return call_fault(op_call(op), EPIPE, NULL, "its end was told already; open it once more");
	u->begun = u->begun || n;
	int err = u->file.node->row->upload->write(u->state, op_call(op), p, n);
	/* What was not taken would be a hole in the middle. */
	if (err)
		u->over = true;
	return err;
}

static int upload_finish(struct upload_file *u, struct call *c, bool late)
{
	struct ctl_node *n = u->file.node;
	AUTO_UNLOCK(&u->lock);
	if (!u->begun || u->over)
		return 0;
	u->over = true;
	int err = n->row->upload->finish(u->state, c);
	if (!err)
		ctl_tree_answered(n->tree, n->path, NULL);
	else if (late && err != -EINTR)
		ctl_tree_note_late(n->tree, n->path, err);
	return err;
}

static int upload_flush(struct ctl_file *f, struct op *op)
{
	struct upload_file *u = (struct upload_file *)f;
	int signal = 0;
	{
		AUTO_UNLOCK(&u->lock);
		if (!u->begun || u->over)
			return 0;
	}
	switch (ctl_document_flush(&u->writer, op, &signal)) {
	case CTL_FLUSH_SEND:
		return upload_finish(u, op_call(op), false);
	case CTL_FLUSH_DROP: {
		AUTO_UNLOCK(&u->lock);
		u->over = true;
		return call_fault(op_call(op), ECANCELED, NULL,
			"signal %d killed the writer before it closed the file; it is cut there", signal);
	}
	default:
		return 0;
	}
}

static void upload_release(struct ctl_file *f, struct op *op)
{
	struct upload_file *u = (struct upload_file *)f;
	if (op) {
		int err = upload_finish(u, op_call(op), true);
		if (err)
			(void)ctl_fail(f->node, op_call(op), err, "close"); /* noted; nobody waits for it */
	}
	f->node->row->upload->close(u->state);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct ctl_file_ops upload_file_ops = {
	.write = upload_write, .flush = upload_flush, .release = upload_release};

int ctl_upload_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	AUTO_FREE struct upload_file *u = calloc(1, sizeof *u);
	if (!u)
		return -ENOMEM;
	u->file.ops = &upload_file_ops;
	int err = n->row->upload->open(&n->ref, op_call(op), &u->state);
	if (err)
		return err;
	pthread_mutex_init(&u->lock, NULL);
	ctl_document_init(&u->writer, op, 0);
	o->how = NODE_DIRECT_IO | NODE_STREAM;
	*out = &steal(u)->file;
	return 0;
}
