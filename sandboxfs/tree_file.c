/*
 * Open files of the file tree: open, create, read, write, close, and the rarer calls on descriptors. How what is written reaches
 * the sandbox is tree_send.c's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- open --- */

/* What the kernel may keep, and the bytes that came along. */
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
	f->ahead_changes = n->changes;
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
		f->ahead_until_ms = call_now_ms() + CACHE_MS;
	}
}

static bool has_open_files(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);
	return n->files != NULL;
}

/* The bytes at the beginning are worth sending along when the kernel has none of this file. */
static bool wants_ahead(struct wnode *n, int flags)
{
	AUTO_UNLOCK(&n->lock);
	return (flags & O_ACCMODE) != O_WRONLY && !(flags & O_TRUNC) && !n->data_cached;
}

/* One attempt to open by the name number `which`. */
static int open_once(struct wnode *n, struct op *op, unsigned which, bool stage, struct wfile *f,
	struct node_open *o)
{
	bool ahead = wants_ahead(n, o->flags), created, staged;
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

int tree_open(struct node *node, struct op *op, struct node_open *o)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f;
	bool stage;
	int err;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	err = tree_settle(n, op_call(op), NULL, NULL);
	if (err && (o->flags & O_ACCMODE) != O_RDONLY)
		return err;
	f = calloc(1, sizeof *f);
	if (!f)
		return -ENOMEM;
	f->node = n;
	f->flags = o->flags;
	f->handle = batch_client_handle(n->tree->client);
	stage = (o->flags & O_TRUNC) && !has_open_files(n);
	for (unsigned which = 0;;) {
		err = open_once(n, op, which, stage, f, o);
		if (err != -ESTALE && err != -ENOENT && err != -ENOTDIR)
			break;
		tree_drop_dentry(n, which);
	}
	if (err) {
		tree_free_file(f);
		return err == -ENODATA ? -ESTALE : err;
	}
	if (o->flags & O_TRUNC) {
		pthread_mutex_lock(&n->lock);
		n->changes++;
		pthread_mutex_unlock(&n->lock);
	}
	tree_add_file(n, f);
	tree_note_dirty(n);
	o->file = f;
	return 0;
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
	bool created, staged, alone;
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
	alone = !has_open_files(n);
	note_opened(n, f, &a, NULL, o);
	tree_add_file(n, f);
	tree_note_dirty(n);
	if (staged && !alone)
		err = tree_settle(n, op_call(op), &a, NULL);
	if (err) {
		tree_remove_file(n, f);
		node_put(&n->node);
		return err;
	}
	o->file = f;
	tree_entry(n, &a, NULL, out);
	return 0;
}

/* --- read --- */

/* From what came with the open. False: ask. */
static bool read_ahead(struct wnode *n, struct wfile *f, struct op *op, size_t size, off_t off)
{
	uint64_t at = (uint64_t)off;
	AUTO_FREE char *copy = NULL;
	bool whole, fits;

	pthread_mutex_lock(&n->lock);
	whole = f->ahead_size < PREFETCH; /* the file ended within */
	fits = f->ahead && f->ahead_changes == n->changes && !n->buffer_used &&
		   call_now_ms() < f->ahead_until_ms && at <= f->ahead_size &&
		   (whole || at + size <= f->ahead_size);
	pthread_mutex_unlock(&n->lock);
	if (!fits)
		return false;
	if (size > f->ahead_size - at)
		size = f->ahead_size - (size_t)at;
	/* A copy: with the answer the file may be closed and these bytes freed. */
	copy = malloc(size ? size : 1);
	if (!copy)
		return false;
	memcpy(copy, f->ahead + at, size);
	op_reply_data(op, copy, size);
	return true;
}

/* Lays bytes that could not be sent over what the sandbox has. */
static int overlay(struct wnode *n, uint64_t off, size_t size, struct buf *data)
{
	AUTO_UNLOCK(&n->lock);
	uint64_t from = n->buffer_off, to = n->buffer_off + n->buffer_used;

	if (!n->buffer_used || (n->buffer_file->flags & O_APPEND) || to <= off || from >= off + size)
		return 0;
	if (from < off)
		from = off;
	if (to > off + size)
		to = off + size;
	while (data->size < to - off && !data->failed)
		buf_char(data, 0);
	if (data->failed)
		return -ENOMEM;
	memcpy(data->data + (from - off), n->buffer + (from - n->buffer_off), (size_t)(to - from));
	return 0;
}

static int read_once(struct wnode *n, struct wfile *f, struct op *op, size_t size, off_t off)
{
	struct fileop_target target = {.handle = f->handle, .path = "/"};
	AUTO_BATCH b;
	struct reader body;
	const void *p;
	size_t got;
	bool held;
	int err;

	batch_init(&b, n->tree->client, op_call(op));
	struct buf *q = batch_add(&b, FILEOP_READ, 0);
	fileop_put_target(q, &target);
	buf_u64(q, (uint64_t)off);
	buf_u32(q, (uint32_t)size);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	p = reader_bytes(&body, &got);
	if (!p || got > size)
		return -EPROTO;
	pthread_mutex_lock(&n->lock);
	held = n->buffer_used > 0;
	pthread_mutex_unlock(&n->lock);
	if (held) {
		AUTO_BUF data = BUF_INIT;
		buf_add(&data, p, got);
		err = overlay(n, (uint64_t)off, size, &data);
		if (err)
			return err;
		op_reply_data(op, data.data, data.size);
	} else {
		op_reply_data(op, p, got);
	}
	return OP_REPLIED;
}

int tree_read(struct node *node, struct op *op, void *file, size_t size, off_t off)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	bool unsent;
	int err;

	if (read_ahead(n, f, op, size, off))
		return OP_REPLIED;
	pthread_mutex_lock(&n->lock);
	unsent = n->buffer_used > 0;
	pthread_mutex_unlock(&n->lock);
	if (unsent && (err = tree_send_buffer(n, op_call(op))) == -EINTR)
		return err; /* after another failure the bytes are laid over what is read */
	if (size > FILEOP_MAX_READ)
		size = FILEOP_MAX_READ;
	err = read_once(n, f, op, size, off);
	if (err == -EBADF) {
		err = tree_io_begin(n, op_call(op));
		if (!err) {
			err = tree_reopen(f, op_call(op));
			tree_io_end(n);
		}
		if (!err)
			err = read_once(n, f, op, size, off);
	}
	return err;
}

/* --- write --- */

/* Can these bytes go behind what is in the buffer? busy is ours. */
static bool continues(const struct wnode *n, const struct wfile *f, size_t size, uint64_t off)
{
	if (!n->buffer_used)
		return true;
	return n->buffer_file == f && n->buffer_used + size <= BUFFER_SIZE &&
		   ((f->flags & O_APPEND) || n->buffer_off + n->buffer_used == off);
}

static int buffer_add(struct wnode *n, struct wfile *f, const void *p, size_t size, uint64_t off)
{
	AUTO_UNLOCK(&n->lock);
	size_t need = n->buffer_used + size, room = 4096;

	while (room < need)
		room *= 2;
	char *more = realloc(n->buffer, room);
	if (!more)
		return -ENOMEM;
	n->buffer = more;
	if (!n->buffer_used) {
		n->buffer_file = f;
		n->buffer_off = off;
	}
	memcpy(n->buffer + n->buffer_used, p, size);
	n->buffer_used = need;
	n->changes++;
	f->wrote = true;
	return 0;
}

/* busy is ours. */
static int write_locked(
	struct wnode *n, struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off)
{
	struct fileop_attr a;
	bool sent, scarce = sandbox_avail(n->sandbox) < SPACE_MARGIN;
	int err = 0;

	if (!continues(n, f, size, off) || scarce)
		err = tree_push(n, c, false, &a, &sent);
	if (err)
		return err;
	if (size < BUFFER_SIZE / 2 && !scarce)
		return buffer_add(n, f, p, size, off);
	pthread_mutex_lock(&n->lock);
	n->changes++;
	f->wrote = true;
	pthread_mutex_unlock(&n->lock);
	/* What is behind the buffer has been pushed or fills it: large writes go as they are. */
	err = n->buffer_used ? tree_push(n, c, false, &a, &sent) : 0;
	if (!err)
		err = tree_send(f, c, p, size, off, false, &a);
	if (!err && a.nlink == 0 && !f->staged && !tree_gone_by_us(n))
		err = tree_salvage(n, f, c);
	if (!err)
		f->pushed = true;
	return err;
}

int tree_write(struct node *node, struct op *op, void *file, const void *p, size_t size, off_t off,
	size_t *done)
{
	struct wnode *n = wnode_of(node);
	int err = tree_io_begin(n, op_call(op));

	if (err)
		return err;
	err = write_locked(n, file, op_call(op), p, size, (uint64_t)off);
	tree_io_end(n);
	*done = size;
	return err;
}

/* --- the end of writing --- */

/*
 * A shell that opens for `cmd > f` closes its spare descriptor before cmd has written anything: a flush without a write is
 * not the end of the file. If it was (`: > f`), release gives the empty file its name.
 */
int tree_flush(struct node *node, struct op *op, void *file)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	bool untouched;

	if ((f->flags & O_ACCMODE) == O_RDONLY)
		return 0;
	pthread_mutex_lock(&n->lock);
	untouched = f->staged && !f->wrote;
	pthread_mutex_unlock(&n->lock);
	return untouched ? 0 : tree_settle(n, op_call(op), NULL, NULL);
}

int tree_release(struct node *node, struct op *op, void *file)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	bool keep;

	(void)op;
	if (op && f->staged && !f->wrote)
		(void)tree_settle(
			n, op_call(op), NULL, NULL); /* what fails is kept and listed in ctl/sync */
	pthread_mutex_lock(&n->lock);
	/* The close said so: these bytes are still to be sent. Whoever sends them takes the file away afterwards. */
	keep = n->buffer_file == f || f->staged;
	f->released = keep;
	pthread_mutex_unlock(&n->lock);
	if (!keep)
		tree_remove_file(n, f);
	else if (op && tree_gone_by_us(n))
		(void)tree_drop_unsent(n, op_call(op)); /* nobody can read them any more */
	tree_note_dirty(n);
	return 0;
}

int tree_fsync(struct node *node, struct op *op, void *file, int datasync)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	AUTO_BATCH b;
	struct reader body;
	int err = tree_settle(n, op_call(op), NULL, NULL);

	batch_init(&b, n->tree->client, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_FSYNC, 0);
	buf_u64(q, f->handle);
	buf_u8(q, datasync != 0);
	err = batch_send(&b);
	return err ? err : batch_next(&b, &body);
}

/* --- the rarer ones --- */

int tree_fallocate(struct node *node, struct op *op, void *file, int mode, off_t off, off_t len)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	AUTO_BATCH b;
	struct reader body;
	int err = tree_send_buffer(n, op_call(op));

	batch_init(&b, n->tree->client, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_FALLOCATE, 0);
	buf_u64(q, f->handle);
	buf_u32(q, (uint32_t)mode);
	buf_u64(q, (uint64_t)off);
	buf_u64(q, (uint64_t)len);
	pthread_mutex_lock(&n->lock);
	n->changes++;
	f->wrote = f->pushed = true;
	pthread_mutex_unlock(&n->lock);
	err = batch_send(&b);
	return err ? err : batch_next(&b, &body);
}

int tree_lseek(struct node *node, struct op *op, void *file, off_t off, int whence, off_t *out)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	AUTO_BATCH b;
	struct reader body;
	int err = tree_send_buffer(n, op_call(op));

	batch_init(&b, n->tree->client, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_SEEK, 0);
	buf_u64(q, f->handle);
	buf_u64(q, (uint64_t)off);
	buf_u32(q, (uint32_t)whence);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	*out = (off_t)reader_u64(&body);
	return body.bad || *out < 0 ? -EPROTO : 0;
}

int tree_copy_range(struct node *nin, struct op *op, void *fin, off_t off, struct node *nout,
	void *fout, off_t outoff, size_t len, size_t *done)
{
	struct wnode *in = wnode_of(nin), *out = wnode_of(nout);
	struct wfile *from = fin, *to = fout;
	AUTO_BATCH b;
	struct reader body;
	uint64_t copied;
	int err;

	batch_init(&b, in->tree->client, op_call(op));
	if (in->tree != out->tree)
		return -EXDEV;
	err = tree_send_buffer(in, op_call(op));
	if (!err)
		err = tree_send_buffer(out, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_COPY_RANGE, 0);
	buf_u64(q, from->handle);
	buf_u64(q, (uint64_t)off);
	buf_u64(q, to->handle);
	buf_u64(q, (uint64_t)outoff);
	buf_u64(q, len);
	pthread_mutex_lock(&out->lock);
	out->changes++;
	to->wrote = to->pushed = true;
	pthread_mutex_unlock(&out->lock);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	copied = reader_u64(&body);
	*done = (size_t)copied;
	return body.bad || copied > len ? -EPROTO : 0;
}
