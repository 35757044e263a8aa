/*
 * Opening and creating files: by which name, staged or not, what the kernel may keep, and the bytes that come along.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "front.h"
#include "tree_impl.h"

/*
 * The kernel reads no further than the size it last heard of, which may be of a second ago. Not told while a read waits, which an
 * opening at the first use does, if the file got smaller: the answer to that read tells, unless something else has told meanwhile
 * (attr_version in fs/fuse/file.c), and then the pages behind the end would be taken for zeros of the file.
 */
static void tell_kernel(
	struct wnode *n, const struct fileop_attr *was, const struct fileop_attr *a, bool reading)
{
	struct front *front = server_front(sandbox_server(n->tree->sandbox));
	bool same = a->size == was->size && a->mtime.tv_sec == was->mtime.tv_sec &&
				a->mtime.tv_nsec == was->mtime.tv_nsec;

	if (front && (reading ? a->size > was->size : !same))
		front_forget_inode(front, &n->node, false);
}

/* What the kernel may keep, and the bytes that came along; f knows how old these are. */
static void note_opened(struct wnode *n, struct wfile *f, const struct fileop_attr *a,
	struct reader *ahead, struct node_open *o)
{
	struct fileop_attr was;
	bool keep, told;
	size_t size = 0;
	const void *p = ahead ? reader_bytes(ahead, &size) : NULL;

	pthread_mutex_lock(&n->lock);
	keep = n->data_cached && tree_same_data(a, &n->data_attr);
	n->data_cached = true;
	n->data_attr = *a;
	was = n->attr;
	told = n->has_attr;
	n->attr = *a;
	n->has_attr = true;
	pthread_mutex_unlock(&n->lock);
	if (told)
		tell_kernel(n, &was, a, f->later);
	if (keep)
		o->how |= NODE_KEEP_CACHE;
	/* Sizes of procfs are no sizes: without direct I/O its files would read as empty. */
	if ((a->flags & FILEOP_ATTR_SPECIAL) || (a->size == 0 && (f->flags & O_ACCMODE) == O_RDONLY))
		o->how |= NODE_DIRECT_IO;
	if (p && size && !(o->how & NODE_DIRECT_IO)) {
		f->ahead = malloc(size);
		if (f->ahead)
			memcpy(f->ahead, p, size);
		f->ahead_size = f->ahead ? size : 0;
	}
}

static bool has_open_files(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);
	return n->files != NULL;
}

/*
 * The bytes at the beginning are worth sending along when the kernel has none of this file; and of a small one always, for what it has may
 * be old or in part, and to find that out would take a round trip more. They are as old as the question: what is written or runs out while
 * the answer is on its way makes them old.
 */
static bool wants_ahead(struct wnode *n, struct wfile *f)
{
	AUTO_UNLOCK(&n->lock);

	f->ahead_changes = n->changes;
	f->ahead_until_ms = call_now_ms() + CACHE_MS;
	if ((f->flags & O_ACCMODE) == O_WRONLY || (f->flags & O_TRUNC))
		return false;
	return f->later || !n->data_cached || n->attr.size <= SMALL;
}

/* One attempt to open by the name number `which`. */
static int open_once(struct wnode *n, struct call *c, unsigned which, bool stage, struct wfile *f,
	struct node_open *o)
{
	bool ahead = wants_ahead(n, f), created, staged;
	struct fileop_target target = {.handle = f->handle, .path = "/"};
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct fileop_attr a;
	struct reader body, data = {.bad = true};
	int err;

	batch_init(&b, n->tree->client, c);
	err = tree_path(n, which, &path);
	if (err)
		return err == -ESTALE ? -ENODATA : err; /* no such name: the caller stops trying */
	tree_add_open(
		&b, f->handle, path.data, n, tree_open_flags(o->flags) | (stage ? FILEOP_O_STAGE : 0), 0);
	if (ahead) {
		struct buf *q = batch_add(&b, FILEOP_READ, 0);
		fileop_put_target(q, &target);
		buf_u64(q, 0);
		buf_u32(q, PREFETCH);
	}
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = tree_get_opened(&body, &a, &created, &staged);
	if (err)
		return err;
	if (ahead && batch_next(&b, &data) < 0)
		ahead = false; /* a later read tells why */
	pthread_mutex_lock(&n->lock);
	f->staged = staged;
	pthread_mutex_unlock(&n->lock);
	note_opened(n, f, &a, ahead ? &data : NULL, o);
	return 0;
}

/* Opens by each of its names until one is right. */
static int open_by_names(
	struct wnode *n, struct call *c, bool stage, struct wfile *f, struct node_open *o)
{
	int err;

	for (;;) {
		err = open_once(n, c, 0, stage, f, o);
		if (err != -ESTALE && err != -ENOENT && err != -ENOTDIR)
			break;
		tree_drop_dentry(n, 0);
	}
	return err == -ENODATA ? -ESTALE : err;
}

/*
 * With busy, so that of two that truncate at once one is first, and the other finds it in the list: only the first and only
 * opening is staged.
 */
static int open_to_write(struct wnode *n, struct op *op, struct wfile *f, struct node_open *o)
{
	struct fileop_attr a;
	bool sent, trunc = (o->flags & O_TRUNC) != 0;
	int err = tree_io_begin(n, op_call(op));

	if (err)
		return err;
	err = tree_push(n, op_call(op), SEND_COMMIT, &a, &sent);
	if (!err)
		err = open_by_names(n, op_call(op), trunc && !has_open_files(n), f, o);
	if (!err && trunc) {
		pthread_mutex_lock(&n->lock);
		n->changes++;
		pthread_mutex_unlock(&n->lock);
	}
	if (!err)
		tree_add_file(n, f);
	tree_io_end(n);
	return err;
}

/*
 * Over a slow link the opening of a file that is known within the second waits for nothing: it is sent by the closer, or by the first
 * who reads, with the first bytes in one request. Not if its pages here are many: to keep them it must be known that they are what the sandbox has. Nor if it has unsent bytes,
 * or no size that tells how much there is to be read.
 */
static bool may_open_later(struct wnode *n)
{
	struct tree *t = n->tree;
	bool known;

	if (!batch_client_slow(t->client))
		return false;
	pthread_mutex_lock(&t->lock);
	known = n->granted_until_ms > call_now_ms() && n->granted_age == t->age && !n->in_dirty;
	pthread_mutex_unlock(&t->lock);
	AUTO_UNLOCK(&n->lock);
	return known && n->has_attr && n->attr.size > 0 && !n->buffer_used &&
		   !(n->attr.flags & FILEOP_ATTR_SPECIAL) && (!n->data_cached || n->attr.size <= PREFETCH);
}

/*
 * Opens what f->path is by now: the file that its program asked for has no name any more, and the one in its place is read, as if it
 * had been opened a moment later.
 */
static int open_by_path(struct wfile *f, struct call *c)
{
	struct wnode *n = f->node;
	AUTO_BATCH b;
	struct fileop_attr a, was;
	struct reader body;
	bool created, staged;
	int err;

	batch_init(&b, n->tree->client, c);
	tree_add_open(&b, f->handle, f->path, NULL, tree_open_flags(f->flags), 0);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = tree_get_opened(&body, &a, &created, &staged);
	if (err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EISDIR || err == -ENXIO)
		return -ESTALE; /* there is no file */
	if (err)
		return err;
	pthread_mutex_lock(&n->lock);
	f->by_path = true;
	n->data_cached = false;
	was = n->attr;
	pthread_mutex_unlock(&n->lock);
	tell_kernel(n, &was, &a, f->later);
	return 0;
}

/* Pages are the node's: those of another file would be read by all who have it open. */
static bool is_only_file(struct wfile *f)
{
	AUTO_UNLOCK(&f->node->lock);
	return f->node->files == f && !f->next;
}

static bool is_later(struct wfile *f, bool *removed)
{
	AUTO_UNLOCK(&f->node->lock);

	*removed = f->removed;
	return f->later;
}

int tree_open_now(struct wfile *f, struct call *c)
{
	struct wnode *n = f->node;
	struct node_open ignored = {.flags = f->flags};
	bool removed;
	int err;

	if (!is_later(f, &removed))
		return 0;
	err = tree_io_begin(n, c);
	if (err)
		return err;
	if (is_later(f, &removed) && !removed) {
		err = open_by_names(n, c, false, f, &ignored);
		if (err == -ESTALE && is_only_file(f))
			err = open_by_path(f, c);
		pthread_mutex_lock(&n->lock);
		f->later = err != 0;
		removed = f->removed;
		pthread_mutex_unlock(&n->lock);
		if (removed && !err) /* meanwhile, when it was not open */
			tree_close_handle(n->tree, f->handle);
	}
	tree_io_end(n);
	return err;
}

int tree_open_all_now(struct wnode *n, struct call *c)
{
	for (;;) {
		struct wfile *f;
		int err;

		pthread_mutex_lock(&n->lock);
		for (f = n->files; f && !f->later; f = f->next)
			;
		if (f)
			f->users++;
		pthread_mutex_unlock(&n->lock);
		if (!f)
			return 0;
		err = tree_open_now(f, c);
		tree_return_file(n, f);
		if (err)
			return err == -EINTR ? err : 0; /* its reader will hear of it */
	}
}

/*
 * Who has found another file under its name is told ESTALE: the kernel then looks the name up anew, and opens that one. A file that is
 * replaced all the time may be another again by then, so for a second what is there is opened at once.
 */
static int open_replaced(struct wnode *n, struct call *c, struct wfile *f, struct node_open *o)
{
	struct tree *t = n->tree;
	AUTO_BUF path = BUF_INIT;
	int64_t now = call_now_ms();
	bool again;
	int err;

	pthread_mutex_lock(&t->lock);
	again = now < t->replaced_until_ms;
	t->replaced_until_ms = now + CACHE_MS;
	pthread_mutex_unlock(&t->lock);
	if (!again)
		return -ESTALE;
	err = tree_known_path(n, &path);
	if (err)
		return err;
	f->path = buf_steal(&path);
	o->how |= NODE_DIRECT_IO; /* the pages stay the node's */
	return open_by_path(f, c);
}

/* What could not be sent stays visible here; another opening that reads goes on. */
static int open_to_read(struct wnode *n, struct op *op, struct wfile *f, struct node_open *o)
{
	int err;

	if (may_open_later(n)) {
		AUTO_BUF path = BUF_INIT;

		f->path = tree_path(n, 0, &path) == 0 ? buf_steal(&path) : NULL;
		f->later = f->path != NULL;
		if (f->later) {
			tree_add_file(n, f);
			tree_open_soon(n->tree, f);
			return 0;
		}
	}
	err = tree_settle(n, op_call(op), NULL, NULL);
	if (err != -EINTR)
		err = open_by_names(n, op_call(op), false, f, o);
	if (err == -ESTALE)
		err = open_replaced(n, op_call(op), f, o);
	if (!err)
		tree_add_file(n, f);
	return err;
}

int tree_open(struct node *node, struct op *op, struct node_open *o)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f;
	int err;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	f = calloc(1, sizeof *f);
	if (!f)
		return -ENOMEM;
	f->node = n;
	f->flags = o->flags;
	f->handle = batch_client_handle(n->tree->client);
	if ((o->flags & O_ACCMODE) != O_RDONLY || (o->flags & O_TRUNC))
		err = open_to_write(n, op, f, o);
	else
		err = open_to_read(n, op, f, o);
	if (err) {
		tree_free_file(f);
		return err;
	}
	o->file = f;
	return 0;
}

/* The node of a new file is known; others may have it open under another name. Takes n. */
static int add_created(
	struct wnode *n, struct op *op, struct wfile *f, struct fileop_attr *a, struct node_open *o)
{
	bool sent;
	int err = tree_io_begin(n, op_call(op));

	if (err) {
		tree_close_handle(n->tree, f->handle);
		tree_free_file(f);
		node_put(&n->node);
		return err;
	}
	bool alone = !has_open_files(n);
	note_opened(n, f, a, NULL, o);
	tree_add_file(n, f);
	if (f->staged && !alone)
		err = tree_push(n, op_call(op), SEND_COMMIT, a, &sent);
	tree_io_end(n);
	if (err) {
		tree_remove_file(n, f);
		node_put(&n->node);
	}
	return err;
}

int tree_create(struct node *node, struct op *op, const char *name, mode_t mode,
	struct node_entry *out, struct node_open *o)
{
	struct wnode *dir = wnode_of(node), *n;
	struct wfile *f;
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct fileop_attr a;
	struct reader body;
	bool created, staged;
	unsigned long touch;
	unsigned flags = tree_open_flags(o->flags) | FILEOP_O_CREATE |
					 (o->flags & O_EXCL ? FILEOP_O_EXCL : FILEOP_O_STAGE);
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	err = tree_settle_children(dir, name, op_call(op));
	if (!err)
		err = tree_child_path(dir, name, &path);
	f = err ? NULL : calloc(1, sizeof *f);
	if (!f)
		return err ? err : -ENOMEM;
	f->flags = o->flags;
	f->mode = mode;
	f->handle = batch_client_handle(dir->tree->client);
	tree_add_open(&b, f->handle, path.data, NULL, flags, mode);
	tree_touch_begin(dir, &b, &touch);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = tree_get_opened(&body, &a, &created, &staged);
	if (!err)
		tree_touch_end(dir, &b, touch);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (err) {
		tree_free_file(f);
		return err;
	}
	f->staged = staged;
	f->unborn = staged && created;
	err = add_created(n, op, f, &a, o);
	if (err)
		return err;
	o->file = f;
	tree_entry(n, &a, NULL, out);
	return 0;
}
