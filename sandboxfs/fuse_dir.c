/*
 * Requests on directories. A listing is made in a buffer of the size the kernel asked for: node_filler.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "front_impl.h"

struct node_filler {
	fuse_req_t req;
	struct front *front;
	char *data;
	size_t size, used;
	bool plus;
};

bool node_filler_plus(const struct node_filler *f)
{
	return f->plus;
}

bool node_filler_add(struct node_filler *f, const char *name, const struct stat *st,
	const struct node_entry *e, off_t next)
{
	char *to = f->data + f->used;
	size_t left = f->size - f->used, n;

	if (f->plus) {
		struct fuse_entry_param p = {.ino = 0};
		if (e)
			p = front_entry(f->front, e);
		else
			p.attr = *st;
		n = fuse_add_direntry_plus(f->req, to, left, name, &p, next);
	} else {
		n = fuse_add_direntry(f->req, to, left, name, e ? &e->attr : st, next);
	}
	if (n > left)
		return false;
	if (e && f->plus)
		node_hand_out(e->node);
	else if (e)
		node_put(e->node);
	f->used += n;
	return true;
}

void front_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct node_open o = {.flags = fi->flags};
	int err;

	if (!op)
		return;
	err = n->ops->opendir ? n->ops->opendir(n, op, &o) : 0;
	if (err) {
		front_answer(op, err);
		return;
	}
	fi->fh = (uintptr_t)o.file;
	if (fuse_reply_open(op_finish(op), fi) < 0 && n->ops->releasedir)
		n->ops->releasedir(n, NULL, o.file);
}

/* The answer did not arrive: the kernel holds none of the lookups that it would have brought. */
static void take_back(const struct node_filler *f)
{
	size_t at = 0;

	while (f->plus && at + FUSE_NAME_OFFSET_DIRENTPLUS <= f->used) {
		struct fuse_direntplus d;
		memcpy(&d, f->data + at, FUSE_NAME_OFFSET_DIRENTPLUS);
		if (d.entry_out.nodeid)
			node_forget((struct node *)(uintptr_t)d.entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(&d);
	}
}

static void list(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct node_filler f = {.req = req, .size = size, .plus = plus};
	int err = -ENOMEM;

	if (!op)
		return;
	f.front = op->front;
	f.data = malloc(size);
	if (f.data)
		err = n->ops->readdir ? n->ops->readdir(n, op, front_file(fi), off, &f) : -ENOTDIR;
	/* What came before a failure is listed: the next call meets the failure again. */
	if (err && !f.used)
		front_answer(op, err);
	else if (fuse_reply_buf(op_finish(op), f.data, f.used) < 0)
		take_back(&f);
	free(f.data);
}

void front_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, false);
}

void front_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, true);
}

void front_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	front_release(req, ino, fi, front_node(req, ino)->ops->releasedir);
}
