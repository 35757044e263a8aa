/*
 * FUSE requests to node operations and back. See front_impl.h.
 *
 * Every handler has the same shape: make an op, call the node's operation, answer once, here,
 * where the sign of the error changes. What an answer hands to the kernel (a lookup, an open file) is taken back if the
 * answer does not arrive.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "front_impl.h"

enum { MAX_WRITE = 1 << 20, MAX_BACKGROUND = 128 };

/* --- answers --- */

void front_answer(struct op *op, int err)
{
	if (err != OP_REPLIED)
		op_reply_err(op, err > 0 ? 0 : err);
}

struct fuse_entry_param front_entry(const struct front *f, const struct node_entry *e)
{
	struct fuse_entry_param p = {.ino = front_ino(f, e->node),
		.generation = e->node->id,
		.attr = e->attr,
		.attr_timeout = e->attr_timeout,
		.entry_timeout = e->entry_timeout};

	return p;
}

static void answer_entry(struct op *op, int err, struct node_entry *e)
{
	struct front *f = op->front;

	if (err == OP_REPLIED)
		return;
	if (err) {
		op_reply_err(op, err);
		return;
	}
	struct fuse_entry_param p = front_entry(f, e);
	node_hand_out(e->node);
	/* The request may have been given up meanwhile: then the kernel keeps no reference. */
	if (fuse_reply_entry(op_finish(op), &p) < 0)
		node_forget(e->node, 1);
}

static void answer_attr(struct op *op, int err, const struct stat *st, double timeout)
{
	if (err == OP_REPLIED)
		return;
	if (err)
		op_reply_err(op, err);
	else
		fuse_reply_attr(op_finish(op), st, timeout);
}

/* libfuse 3.14 has no field for FOPEN_STREAM and FOPEN_PARALLEL_DIRECT_WRITES: the answer is made by hand. */
static struct fuse_open_out open_out(const struct node_open *o)
{
	static const struct {
		unsigned how, flag;
	} map[] = {{NODE_DIRECT_IO, FOPEN_DIRECT_IO}, {NODE_KEEP_CACHE, FOPEN_KEEP_CACHE},
		{NODE_STREAM, FOPEN_STREAM}, {NODE_PARALLEL_WRITES, FOPEN_PARALLEL_DIRECT_WRITES},
		{NODE_NONSEEKABLE, FOPEN_NONSEEKABLE}, {NODE_NOFLUSH, FOPEN_NOFLUSH}};
	struct fuse_open_out out = {.fh = (uintptr_t)o->file};

	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (o->how & map[i].how)
			out.open_flags |= map[i].flag;
	return out;
}

struct op *front_begin(fuse_req_t req, const struct node *n)
{
	struct front *f = front_of(req);

	return op_new(f, f->ops, req, n->ops->patient, loop_is_alone(f->loop));
}

/* --- names --- */

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);
	struct node_entry e = {.node = NULL};

	if (op)
		answer_entry(op, dir->ops->lookup ? dir->ops->lookup(dir, op, name, &e) : -ENOENT, &e);
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	if (ino != FUSE_ROOT_ID)
		node_forget(front_node(req, ino), count);
	fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		if (forgets[i].ino != FUSE_ROOT_ID)
			node_forget(front_node(req, forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct stat st = {.st_mode = 0};
	double timeout = 0;

	int err;

	if (!op)
		return;
	err = n->ops->getattr ? n->ops->getattr(n, op, front_file(fi), &st, &timeout) : -ENOTSUP;
	answer_attr(op, err, &st, timeout);
}

static void do_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct stat st = {.st_mode = 0};
	double timeout = 0;

	int err;

	if (!op)
		return;
	err = n->ops->setattr ? n->ops->setattr(n, op, front_file(fi), attr, valid, &st, &timeout)
						  : -ENOTSUP;
	answer_attr(op, err, &st, timeout);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	char *text = NULL;
	int err;

	if (!op)
		return;
	err = n->ops->readlink ? n->ops->readlink(n, op, &text) : -EINVAL;
	if (err)
		front_answer(op, err);
	else
		fuse_reply_readlink(op_finish(op), text);
	free(text);
}

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);
	struct node_entry e = {.node = NULL};

	if (op)
		answer_entry(
			op, dir->ops->mknod ? dir->ops->mknod(dir, op, name, mode, rdev, &e) : -EACCES, &e);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);
	struct node_entry e = {.node = NULL};

	if (op)
		answer_entry(op, dir->ops->mkdir ? dir->ops->mkdir(dir, op, name, mode, &e) : -EACCES, &e);
}

static void do_symlink(fuse_req_t req, const char *text, fuse_ino_t parent, const char *name)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);
	struct node_entry e = {.node = NULL};

	if (op)
		answer_entry(
			op, dir->ops->symlink ? dir->ops->symlink(dir, op, name, text, &e) : -EACCES, &e);
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct node_entry e = {.node = NULL};

	if (op)
		answer_entry(op,
			n->ops->link ? n->ops->link(n, op, front_node(req, newparent), newname, &e) : -EPERM,
			&e);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);

	if (op)
		front_answer(op, dir->ops->unlink ? dir->ops->unlink(dir, op, name) : -EPERM);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);

	if (op)
		front_answer(op, dir->ops->rmdir ? dir->ops->rmdir(dir, op, name) : -EPERM);
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	const char *newname, unsigned flags)
{
	struct node *dir = front_node(req, parent), *newdir = front_node(req, newparent);
	struct op *op = front_begin(req, dir);

	if (!op)
		return;
	if (dir->ops != newdir->ops)
		front_answer(op, -EXDEV);
	else
		front_answer(op,
			dir->ops->rename ? dir->ops->rename(dir, op, name, newdir, newname, flags) : -EPERM);
}

/* --- files --- */

static void do_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct node *dir = front_node(req, parent);
	struct op *op = front_begin(req, dir);
	struct node_entry e = {.node = NULL};
	struct node_open o = {.flags = fi->flags};
	struct front *f;
	int err;

	if (!op)
		return;
	f = op->front;
	err = dir->ops->create ? dir->ops->create(dir, op, name, mode, &e, &o) : -EACCES;
	if (err) {
		front_answer(op, err);
		return;
	}
	struct fuse_entry_param p = front_entry(f, &e);
	struct fuse_open_out out = open_out(&o);
	struct node *n = e.node;

	fi->fh = out.fh;
	fi->direct_io = (out.open_flags & FOPEN_DIRECT_IO) != 0;
	fi->keep_cache = (out.open_flags & FOPEN_KEEP_CACHE) != 0;
	fi->nonseekable = (out.open_flags & FOPEN_NONSEEKABLE) != 0;
	fi->noflush = (out.open_flags & FOPEN_NOFLUSH) != 0;
	node_hand_out(n);
	if (fuse_reply_create(op_finish(op), &p, fi) < 0) {
		if (n->ops->release)
			n->ops->release(n, NULL, o.file);
		node_forget(n, 1);
	}
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct node_open o = {.flags = fi->flags};
	int err;

	if (!op)
		return;
	err = n->ops->open ? n->ops->open(n, op, &o) : -EACCES;
	if (err) {
		front_answer(op, err);
		return;
	}
	struct fuse_open_out out = open_out(&o);
	if (fuse_reply_buf(op_finish(op), (const char *)&out, sizeof out) < 0 && n->ops->release)
		n->ops->release(n, NULL, o.file);
}

static void do_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(op, n->ops->read ? n->ops->read(n, op, front_file(fi), size, off) : -EACCES);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *p, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	size_t done = size;
	int err;

	if (!op)
		return;
	err = n->ops->write ? n->ops->write(n, op, front_file(fi), p, size, off, &done) : -EACCES;
	if (err)
		front_answer(op, err);
	else
		op_reply_write(op, done);
}

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(op, n->ops->flush ? n->ops->flush(n, op, front_file(fi)) : 0);
}

void front_release(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi,
	int (*release)(struct node *n, struct op *op, void *file))
{
	struct node *n = node_get(front_node(req, ino)); /* after the answer the kernel may forget it */
	struct op *op = front_begin(req, n);
	int err = release ? release(n, op, front_file(fi)) : 0;

	if (op)
		front_answer(op, err);
	node_put(n);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	front_release(req, ino, fi, front_node(req, ino)->ops->release);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(op, n->ops->fsync ? n->ops->fsync(n, op, front_file(fi), datasync) : 0);
}

static void do_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(op, n->ops->fallocate
							 ? n->ops->fallocate(n, op, front_file(fi), mode, off, len)
							 : -ENOTSUP);
}

static void do_lseek(
	fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	off_t out = 0;
	int err;

	if (!op)
		return;
	err = n->ops->lseek ? n->ops->lseek(n, op, front_file(fi), off, whence, &out) : -EINVAL;
	if (err)
		front_answer(op, err);
	else
		fuse_reply_lseek(op_finish(op), out);
}

static void do_copy_file_range(fuse_req_t req, fuse_ino_t ino, off_t off, struct fuse_file_info *fi,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct node *in = front_node(req, ino), *out = front_node(req, ino_out);
	struct op *op = front_begin(req, in);
	size_t done = 0;
	int err;

	if (!op)
		return;
	if (flags)
		err = -EINVAL;
	else if (in->ops != out->ops)
		err = -EXDEV;
	else
		err = in->ops->copy_range ? in->ops->copy_range(in, op, front_file(fi), off, out,
										front_file(fi_out), off_out, len, &done)
								  : -EOPNOTSUPP;
	if (err)
		front_answer(op, err);
	else
		op_reply_write(op, done);
}

static void do_poll(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	unsigned revents = 0;
	int err;

	if (!op) {
		if (ph)
			fuse_pollhandle_destroy(ph);
		return;
	}
	if (!n->ops->poll) {
		/* Not ENOSYS: the kernel would stop asking for the files that do have an answer. */
		if (ph)
			fuse_pollhandle_destroy(ph);
		fuse_reply_poll(op_finish(op), POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
		return;
	}
	err = n->ops->poll(n, op, front_file(fi), (struct op_poll *)ph, &revents);
	if (err)
		front_answer(op, err);
	else
		fuse_reply_poll(op_finish(op), revents);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	int err;

	if (!op)
		return;
	err = n->ops->statfs ? n->ops->statfs(n, op, &st) : 0;
	if (err)
		front_answer(op, err);
	else
		fuse_reply_statfs(op_finish(op), &st);
}

/* --- extended attributes --- */

/* Both list and get: a size of 0 asks for the length. */
static void answer_xattr(struct op *op, int err, void *value, size_t n, size_t size)
{
	if (err)
		front_answer(op, err);
	else if (!size)
		fuse_reply_xattr(op_finish(op), n);
	else if (n > size)
		op_reply_err(op, -ERANGE);
	else
		op_reply_data(op, value, n);
	free(value);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	void *value = NULL;
	size_t len = 0;

	int err;

	if (!op)
		return;
	err = n->ops->getxattr ? n->ops->getxattr(n, op, name, &value, &len) : -ENOTSUP;
	answer_xattr(op, err, value, len, size);
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);
	void *names = NULL;
	size_t len = 0;

	int err;

	if (!op)
		return;
	err = n->ops->listxattr ? n->ops->listxattr(n, op, &names, &len) : 0;
	answer_xattr(op, err, names, len, size);
}

static void do_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(
			op, n->ops->setxattr ? n->ops->setxattr(n, op, name, value, size, flags) : -ENOTSUP);
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct node *n = front_node(req, ino);
	struct op *op = front_begin(req, n);

	if (op)
		front_answer(op, n->ops->removexattr ? n->ops->removexattr(n, op, name) : -ENOTSUP);
}

/* --- the table --- */

static void do_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	/*
	 * AUTO_INVAL_DATA: when a file's mtime or size turns out to be another, the kernel drops its pages (with the
	 * explicit kind a file that grew over there would read with zeros at the old end). WRITEBACK_CACHE stays off: with it
	 * a size that changed in the sandbox is never seen. HANDLE_KILLPRIV: the sandbox's kernel clears set-uid bits.
	 */
	conn->want |= conn->capable &
				  (FUSE_CAP_ASYNC_READ | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
					  FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
					  FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_EXPIRE_ONLY);
	conn->want &=
		~(unsigned)(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
					FUSE_CAP_SPLICE_MOVE | FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_POSIX_LOCKS |
					FUSE_CAP_FLOCK_LOCKS);
	conn->max_write = MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops front_requests = {
	.init = do_init,
	.lookup = do_lookup,
	.forget = do_forget,
	.forget_multi = do_forget_multi,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.readlink = do_readlink,
	.mknod = do_mknod,
	.mkdir = do_mkdir,
	.symlink = do_symlink,
	.link = do_link,
	.unlink = do_unlink,
	.rmdir = do_rmdir,
	.rename = do_rename,
	.create = do_create,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.flush = do_flush,
	.release = do_release,
	.fsync = do_fsync,
	.fallocate = do_fallocate,
	.lseek = do_lseek,
	.copy_file_range = do_copy_file_range,
	.poll = do_poll,
	.opendir = front_opendir,
	.readdir = front_readdir,
	.readdirplus = front_readdirplus,
	.releasedir = front_releasedir,
	.statfs = do_statfs,
	.getxattr = do_getxattr,
	.listxattr = do_listxattr,
	.setxattr = do_setxattr,
	.removexattr = do_removexattr,
};
