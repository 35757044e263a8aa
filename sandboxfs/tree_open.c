/*
 * Opening and creating files: by which name, staged or not, what the kernel may keep, and the bytes that come along.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* What the kernel may keep, and the bytes that came along; f knows how old these are. */
static void note_opened(struct wnode *n, struct wfile *f, const struct fileop_attr *a,
	struct reader *ahead, struct node_open *o)
{
	bool keep;
	size_t size = 0;
	const void *p = ahead ? reader_bytes(ahead, &size) : NULL;

	pthread_mutex_lock(&n->lock);
	keep = n->data_cached && tree_same_data(a, &n->data_attr);
	n->data_cached = true;
	n->data_attr = *a;
	n->attr = *a;
	n->has_attr = true;
	pthread_mutex_unlock(&n->lock);
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
	return !n->data_cached || n->attr.size <= SMALL;
}

/* One attempt to open by the name number `which`. */
static int open_once(struct wnode *n, struct op *op, unsigned which, bool stage, struct wfile *f,
	struct node_open *o)
{
	bool ahead = wants_ahead(n, f), created, staged;
	struct fileop_target target = {.handle = f->handle, .path = "/"};
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct fileop_attr a;
	struct reader body, data = {.bad = true};
	int err;

	batch_init(&b, n->tree->client, op_call(op));
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
	f->staged = staged;
	note_opened(n, f, &a, ahead ? &data : NULL, o);
	return 0;
}

/* Opens by each of its names until one is right. */
static int open_by_names(
	struct wnode *n, struct op *op, bool stage, struct wfile *f, struct node_open *o)
{
	int err;

	for (;;) {
		err = open_once(n, op, 0, stage, f, o);
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
		err = open_by_names(n, op, trunc && !has_open_files(n), f, o);
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

/* What could not be sent stays visible here; another opening that reads goes on. */
static int open_to_read(struct wnode *n, struct op *op, struct wfile *f, struct node_open *o)
{
	int err = tree_settle(n, op_call(op), NULL, NULL);

	if (err != -EINTR)
		err = open_by_names(n, op, false, f, o);
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
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = tree_get_opened(&body, &a, &created, &staged);
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
