/*
 * Operations on what a node is, by whatever reaches it: attributes, links, extended attributes, the file system. One request each; no
 * cache but the kernel's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- by node --- */

static bool is_stale(int err)
{
	return err == -ESTALE || err == -ENOENT || err == -ENOTDIR || err == -ELOOP;
}

static int ask(struct wnode *n, struct call *c, const struct fileop_target *target,
	const struct target_job *job, struct batch *b, struct reader *body)
{
	int err;

	batch_init(b, n->tree->client, c);
	struct buf *q = batch_add(b, job->code, 0);
	fileop_put_target(q, target);
	if (job->add)
		job->add(q, job->arg);
	err = batch_send(b);
	return err ? err : batch_next(b, body);
}

/*
 * By the handle of an open file, or by the one that takes its place when the server has lost it. -EBADF: by name, then.
 */
static int ask_by_handle(struct wnode *n, struct wfile *f, struct call *c,
	const struct target_job *job, struct batch *b, struct reader *body)
{
	for (bool again = false;; again = true) {
		struct fileop_target target = {.handle = tree_handle(f), .path = "/"};
		int err = ask(n, c, &target, job, b, body);

		if (err != -EBADF || again)
			return err;
		batch_release(b);
		err = tree_renew(f, c, target.handle);
		if (err)
			return err == -EINTR ? err : -EBADF;
	}
}

static int ask_by_names(struct wnode *n, struct call *c, const struct target_job *job,
	struct batch *b, struct reader *body)
{
	struct fileop_target target = {.dev = n->dev, .ino = n->ino};

	for (;;) {
		AUTO_BUF path = BUF_INIT;
		int err = tree_path(n, 0, &path);

		if (err)
			return err == -ESTALE && tree_gone_by_us(n) ? -ENOENT : err;
		target.path = path.data;
		err = ask(n, c, &target, job, b, body);
		if (!is_stale(err) || n->root_path)
			return err;
		tree_drop_dentry(n, 0);
		batch_release(b);
	}
}

/* By f, which was borrowed, or NULL, and is returned. -EBADF: some other way, then. */
static int ask_by_file(struct wnode *n, struct wfile *f, struct call *c,
	const struct target_job *job, struct batch *b, struct reader *body)
{
	int err;

	if (!f)
		return -EBADF;
	err = tree_open_now(f, c);
	if (err)
		err = err == -EINTR ? err : -EBADF;
	else
		err = ask_by_handle(n, f, c, job, b, body);
	tree_return_file(n, f);
	return err;
}

int tree_on_target(struct wnode *n, struct call *c, const struct target_job *job, struct batch *b,
	struct reader *body)
{
	int err = ask_by_file(n, tree_borrow_file(n), c, job, b, body), other;

	if (err != -EBADF)
		return err;
	batch_release(b);
	err = ask_by_names(n, c, job, b, body);
	if (err != -ESTALE)
		return err;
	batch_release(b);
	other = ask_by_file(n, tree_borrow_by_path(n), c, job, b, body);
	return other == -EBADF ? err : other;
}

void tree_note_attr(struct wnode *n, const struct fileop_attr *a)
{
	AUTO_UNLOCK(&n->lock);
	n->attr = *a;
	n->has_attr = true;
}

bool tree_same_data(const struct fileop_attr *a, const struct fileop_attr *b)
{
	return a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
		   a->mtime.tv_nsec == b->mtime.tv_nsec && a->ctime.tv_sec == b->ctime.tv_sec &&
		   a->ctime.tv_nsec == b->ctime.tv_nsec;
}

static int stat_link_to_workspace(struct tree *t, struct stat *st, double *timeout)
{
	AUTO_FREE char *text = NULL;
	int err = tree_link_to_workspace(t, &text);

	if (!err)
		tree_stat(t, &tree_workspace_link_attr, text, st);
	*timeout = CACHE_MS / 1000.0;
	return err;
}

/* What a dirty or staged file shows is what it will be: it is sent first. A file that was only opened is not. */
static int settle_if_written(struct wnode *n, struct call *c, struct fileop_attr *a, bool *sent)
{
	*sent = false;
	return tree_has_unsent(n) ? tree_settle(n, c, a, sent) : 0;
}

/* An honest size for a file whose unsent bytes could not be sent: they stay visible here. */
static void add_unsent(struct wnode *n, struct fileop_attr *a)
{
	AUTO_UNLOCK(&n->lock);

	if (n->buffer_used && !(n->buffer_file->flags & O_APPEND) &&
		n->buffer_off + n->buffer_used > a->size)
		a->size = n->buffer_off + n->buffer_used;
}

/* A root of a sandbox that nobody has started, as last seen: ls -l of the directory that it is in must not start it. */
static void stat_unstarted_root(struct wnode *n, struct stat *st, double *timeout)
{
	const struct options *o = sandbox_options(n->tree->sandbox);
	struct fileop_attr a = {.mode = S_IFDIR | 0755, .nlink = 2, .uid = o->uid, .gid = o->gid};

	struct sandbox_status s;

	sandbox_get_status(n->tree->sandbox, &s);
	a.atime = a.mtime = a.ctime = s.since;
	pthread_mutex_lock(&n->lock);
	if (n->has_attr)
		a = n->attr;
	pthread_mutex_unlock(&n->lock);
	tree_stat(n->tree, &a, NULL, st);
	*timeout = 0; /* the kernel asks again once it has been */
}

int tree_getattr(struct node *node, struct op *op, void *file, struct stat *st, double *timeout)
{
	struct target_job job = {.code = FILEOP_GETATTR};
	struct wnode *n = wnode_of(node);
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *link = NULL;
	struct fileop_attr a;
	struct reader body;
	bool sent;
	int err;

	(void)file;
	if (n->is_link_to_workspace)
		return stat_link_to_workspace(n->tree, st, timeout);
	if (n->root_path && !sandbox_has_server(n->tree->sandbox)) {
		stat_unstarted_root(n, st, timeout);
		return sandbox_gone(n->tree->sandbox) ? -ESTALE : 0;
	}
	if (tree_known_dir(n, &a, timeout)) {
		tree_stat(n->tree, &a, NULL, st);
		return 0;
	}
	err = settle_if_written(n, op_call(op), &a, &sent);
	if (sent && !err) {
		tree_stat(n->tree, &a, NULL, st);
	} else {
		AUTO_BATCH b = {.count = 0};
		int held = err;

		err = tree_on_target(n, op_call(op), &job, &b, &body);
		if (!err)
			err = fileop_get_attr(&body, &a);
		if (!err && S_ISLNK(a.mode)) {
			text = reader_str(&body);
			err = text ? 0 : -EPROTO;
		}
		if (err)
			return held ? held : err;
		if (held)
			add_unsent(n, &a);
		struct wnode *parent = text ? tree_parent(n) : NULL;
		if (parent) {
			err = tree_shown_link(parent, &a, text, &link);
			node_put(&parent->node);
		}
		if (err)
			return err;
		tree_stat(n->tree, &a, link, st);
	}
	tree_note_attr(n, &a);
	tree_note_granted(n);
	*timeout = CACHE_MS / 1000.0;
	return 0;
}

int tree_readlink(struct node *node, struct op *op, char **text)
{
	struct target_job job = {.code = FILEOP_GETATTR};
	struct wnode *n = wnode_of(node), *parent;
	AUTO_BATCH b = {.count = 0};
	AUTO_FREE char *stored = NULL;
	struct fileop_attr a;
	struct reader body;
	int err;

	if (n->is_link_to_workspace)
		return tree_link_to_workspace(n->tree, text);
	err = tree_on_target(n, op_call(op), &job, &b, &body);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (err)
		return err;
	stored = reader_str(&body);
	if (!stored)
		return -EPROTO;
	if (!S_ISLNK(a.mode))
		return -EINVAL;
	parent = tree_parent(n);
	if (!parent)
		return -ESTALE;
	err = tree_shown_link(parent, &a, stored, text);
	node_put(&parent->node);
	return err;
}

static void add_setattr(struct buf *b, void *arg)
{
	fileop_put_setattr(b, arg);
}

/* Which of the kernel's wishes go to the sandbox; -EPERM for an owner that this mount cannot give. */
static int wishes(struct tree *t, const struct stat *st, int valid, struct fileop_setattr *s)
{
	static const struct {
		int kernel;
		uint32_t ours;
	} map[] = {{NODE_SET_MODE, FILEOP_SET_MODE}, {NODE_SET_SIZE, FILEOP_SET_SIZE},
		{NODE_SET_ATIME, FILEOP_SET_ATIME}, {NODE_SET_MTIME, FILEOP_SET_MTIME},
		{NODE_SET_ATIME_NOW, FILEOP_SET_ATIME_NOW}, {NODE_SET_MTIME_NOW, FILEOP_SET_MTIME_NOW}};
	const struct options *o = sandbox_options(t->sandbox);

	memset(s, 0, sizeof *s);
	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (valid & map[i].kernel)
			s->valid |= map[i].ours;
	/* The kernel sets ATIME beside ATIME_NOW. */
	if (s->valid & FILEOP_SET_ATIME_NOW)
		s->valid &= ~(uint32_t)FILEOP_SET_ATIME;
	if (s->valid & FILEOP_SET_MTIME_NOW)
		s->valid &= ~(uint32_t)FILEOP_SET_MTIME;
	if (o->idmap == IDMAP_NONE) {
		s->valid |= valid & NODE_SET_UID ? FILEOP_SET_UID : 0;
		s->valid |= valid & NODE_SET_GID ? FILEOP_SET_GID : 0;
	} else if (((valid & NODE_SET_UID) && st->st_uid != o->uid) ||
			   ((valid & NODE_SET_GID) && st->st_gid != o->gid)) {
		return -EPERM;
	}
	s->mode = st->st_mode & 07777;
	s->uid = st->st_uid;
	s->gid = st->st_gid;
	s->size = (uint64_t)st->st_size;
	s->atime = st->st_atim;
	s->mtime = st->st_mtim;
	return 0;
}

/* The size of what is staged is about to change in the sandbox, or (sent) may have: then that is there alone. */
static void note_resizing(struct wnode *n, bool sent)
{
	AUTO_UNLOCK(&n->lock);

	n->changes++;
	for (struct wfile *f = n->files; f; f = f->next) {
		f->wrote |= f->staged;
		f->pushed |= f->staged && sent;
	}
}

int tree_setattr(struct node *node, struct op *op, void *file, const struct stat *st, int valid,
	struct stat *out, double *timeout)
{
	struct wnode *n = wnode_of(node);
	AUTO_BATCH b = {.count = 0};
	struct fileop_setattr s;
	struct target_job job = {.code = FILEOP_SETATTR, .add = add_setattr, .arg = &s};
	struct fileop_attr a;
	struct reader body;
	bool sent;
	int err = wishes(n->tree, st, valid, &s);

	if (err)
		return err;
	if (!s.valid) /* a chown to what it is already */
		return tree_getattr(node, op, file, out, timeout);
	err = settle_if_written(n, op_call(op), &a, &sent);
	if (err)
		return err;
	if (s.valid & FILEOP_SET_SIZE)
		note_resizing(n, false);
	err = tree_on_target(n, op_call(op), &job, &b, &body);
	if ((s.valid & FILEOP_SET_SIZE) && err != -EBADF)
		note_resizing(n, true);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (err)
		return err;
	tree_stat(n->tree, &a, NULL, out);
	tree_note_attr(n, &a);
	tree_note_granted(n);
	*timeout = CACHE_MS / 1000.0;
	return 0;
}

/* --- the rest --- */

int tree_statfs(struct node *node, struct op *op, struct statvfs *st)
{
	struct wnode *n = wnode_of(node);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	int err;

	batch_init(&b, n->tree->client, op_call(op));
	err = tree_path(n, 0, &path);
	if (err)
		return err;
	tree_add_string(batch_add(&b, FILEOP_STATFS, 0), path.data);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	st->f_bsize = reader_u64(&body);
	st->f_frsize = reader_u64(&body);
	st->f_blocks = reader_u64(&body);
	st->f_bfree = reader_u64(&body);
	st->f_bavail = reader_u64(&body);
	st->f_files = reader_u64(&body);
	st->f_ffree = reader_u64(&body);
	st->f_favail = st->f_ffree;
	st->f_namemax = reader_u64(&body);
	/* Programs divide by them. */
	if (!st->f_bsize || !st->f_frsize)
		return -EPROTO;
	return body.bad ? -EPROTO : 0;
}

struct xattr_args {
	const char *name;
	const void *value;
	size_t size;
	int flags;
	bool set;
};

static void add_xattr(struct buf *b, void *arg)
{
	const struct xattr_args *x = arg;

	tree_add_string(b, x->name);
	if (x->set) {
		buf_bytes(b, x->value, x->size);
		buf_u32(b, (uint32_t)x->flags);
	}
}

/* The value or the names that an answer carries. New. */
static int take_bytes(struct reader *body, void **out, size_t *size)
{
	const void *p = reader_bytes(body, size);

	if (!p)
		return -EPROTO;
	*out = malloc(*size ? *size : 1);
	if (!*out)
		return -ENOMEM;
	memcpy(*out, p, *size);
	return 0;
}

int tree_getxattr(struct node *node, struct op *op, const char *name, void **value, size_t *size)
{
	struct xattr_args x = {.name = name};
	struct target_job job = {.code = FILEOP_GETXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err;

	/* The kernel asks for security.capability and the like at many a turn: the answer is known. */
	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	err = tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
	return err ? err : take_bytes(&body, value, size);
}

int tree_listxattr(struct node *node, struct op *op, void **names, size_t *size)
{
	struct target_job job = {.code = FILEOP_LISTXATTR};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err = tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);

	return err ? err : take_bytes(&body, names, size);
}

int tree_setxattr(
	struct node *node, struct op *op, const char *name, const void *value, size_t size, int flags)
{
	struct xattr_args x = {.name = name, .value = value, .size = size, .flags = flags, .set = true};
	struct target_job job = {.code = FILEOP_SETXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;

	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
}

int tree_removexattr(struct node *node, struct op *op, const char *name)
{
	struct xattr_args x = {.name = name};
	struct target_job job = {.code = FILEOP_REMOVEXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;

	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
}
