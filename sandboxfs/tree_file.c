/*
 * Open files of the file tree: read, write, close, and the rarer calls on descriptors. How they are opened is tree_open.c's, how
 * what is written reaches the sandbox tree_send.c's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "cleanup.h"
#include "tree_impl.h"

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

struct range {
	uint64_t off, length;
	int mode;
};

static void add_read(struct buf *b, uint64_t handle, void *arg)
{
	struct fileop_target target = {.handle = handle, .path = "/"};
	const struct range *r = arg;

	fileop_put_target(b, &target);
	buf_u64(b, r->off);
	buf_u32(b, (uint32_t)r->length);
}

/* Answers with what was read and what is held here. */
static int answer_read(struct wnode *n, struct wfile *f, struct op *op, const void *p, size_t got,
	const struct range *r)
{
	AUTO_BUF data = BUF_INIT;
	bool held;
	int err;

	pthread_mutex_lock(&n->lock);
	held = n->buffer_used > 0 && !f->by_path;
	pthread_mutex_unlock(&n->lock);
	if (!held) {
		op_reply_data(op, p, got);
		return OP_REPLIED;
	}
	buf_add(&data, p, got);
	err = overlay(n, r->off, (size_t)r->length, &data);
	if (err)
		return err;
	op_reply_data(op, data.data, data.size);
	return OP_REPLIED;
}

int tree_read(struct node *node, struct op *op, void *file, size_t size, off_t off)
{
	struct wnode *n = wnode_of(node);
	struct range r = {
		.off = (uint64_t)off, .length = size < FILEOP_MAX_READ ? size : FILEOP_MAX_READ};
	struct handle_job job = {.code = FILEOP_READ, .add = add_read, .arg = &r};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	const void *p;
	bool unsent;
	size_t got;
	int err;

	err = tree_open_now(file, op_call(op));
	if (err)
		return err;
	if (read_ahead(n, file, op, size, off))
		return OP_REPLIED;
	pthread_mutex_lock(&n->lock);
	unsent = n->buffer_used > 0;
	pthread_mutex_unlock(&n->lock);
	if (unsent && (err = tree_send_buffer(n, op_call(op))) == -EINTR)
		return err; /* after another failure the bytes are laid over what is read */
	err = tree_on_handle(file, op_call(op), &job, &b, &body);
	if (err)
		return err;
	p = reader_bytes(&body, &got);
	return p && got <= r.length ? answer_read(n, file, op, p, got, &r) : -EPROTO;
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
		err = tree_push(n, c, 0, &a, &sent);
	if (err)
		return err;
	if (size < BUFFER_SIZE / 2 && !scarce)
		return buffer_add(n, f, p, size, off);
	pthread_mutex_lock(&n->lock);
	n->changes++;
	f->wrote = true;
	pthread_mutex_unlock(&n->lock);
	/* What is behind the buffer has been pushed or fills it: large writes go as they are. */
	err = n->buffer_used ? tree_push(n, c, 0, &a, &sent) : 0;
	if (!err)
		err = tree_send(f, c, p, size, off, 0, &a);
	if (!err && a.nlink == 0 && !f->staged && !tree_gone_by_us(n))
		err = tree_salvage(n, f, c);
	if (!err) {
		AUTO_UNLOCK(&n->lock);
		f->pushed = true;
	}
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

/* Of a bucket: who writes to the store does so when a file is synced or closed, and the close in the sandbox is not waited for. */
static bool needs_sync(struct wnode *n)
{
	AUTO_BUF path = BUF_INIT;

	return tree_path(n, 0, &path) == 0 && sandbox_bucket_holds(n->sandbox, path.data);
}

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
	int err = untouched ? 0 : tree_settle(n, op_call(op), NULL, NULL);
	return err || untouched || !needs_sync(n) ? err : tree_fsync(node, op, file, 0);
}

int tree_release(struct node *node, struct op *op, void *file)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	bool keep, unnamed;

	pthread_mutex_lock(&n->lock);
	unnamed = f->staged && !f->wrote;
	pthread_mutex_unlock(&n->lock);
	if (op && unnamed)
		(void)tree_settle(
			n, op_call(op), NULL, NULL); /* what fails is kept and listed in ctl/sync */
	pthread_mutex_lock(&n->lock);
	/* The close said so: these bytes are still to be sent. Whoever sends them takes the file away afterwards. */
	keep = n->buffer_file == f || f->staged;
	f->released = keep;
	pthread_mutex_unlock(&n->lock);
	if (!keep)
		tree_remove_file(n, f);
	else if (!op || !tree_gone_by_us(n) || tree_drop_unsent(n, op_call(op)) < 0)
		tree_retry_later(n->tree); /* else dropped: nobody can read them any more */
	tree_note_dirty(n);
	return 0;
}

static void add_fsync(struct buf *b, uint64_t handle, void *arg)
{
	buf_u64(b, handle);
	buf_u8(b, *(bool *)arg);
}

int tree_fsync(struct node *node, struct op *op, void *file, int datasync)
{
	bool data_alone = datasync != 0;
	struct handle_job job = {.code = FILEOP_FSYNC, .add = add_fsync, .arg = &data_alone};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	bool sent;
	int err = tree_settle_synced(wnode_of(node), op_call(op), &sent);

	return err || sent ? err : tree_on_handle(file, op_call(op), &job, &b, &body);
}

/* --- the rarer ones --- */

/*
 * The content of f is about to be changed in the sandbox, and has been, or may have been: then what a stage has is there alone. A lost
 * handle alone says that nothing was done.
 */
static void note_changing(struct wnode *n, struct wfile *f)
{
	AUTO_UNLOCK(&n->lock);

	n->changes++;
	f->wrote = true;
}

static void note_changed(struct wnode *n, struct wfile *f, int err)
{
	AUTO_UNLOCK(&n->lock);

	n->changes++;
	f->pushed |= err != -EBADF;
}

static void add_range(struct buf *b, uint64_t handle, void *arg)
{
	const struct range *r = arg;

	buf_u64(b, handle);
	buf_u32(b, (uint32_t)r->mode);
	buf_u64(b, r->off);
	buf_u64(b, r->length);
}

int tree_fallocate(struct node *node, struct op *op, void *file, int mode, off_t off, off_t len)
{
	struct wnode *n = wnode_of(node);
	struct range r = {.off = (uint64_t)off, .length = (uint64_t)len, .mode = mode};
	struct handle_job job = {.code = FILEOP_FALLOCATE, .add = add_range, .arg = &r};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err = tree_send_buffer(n, op_call(op));

	if (err)
		return err;
	note_changing(n, file);
	err = tree_on_handle(file, op_call(op), &job, &b, &body);
	note_changed(n, file, err);
	return err;
}

static void add_seek(struct buf *b, uint64_t handle, void *arg)
{
	const struct range *r = arg;

	buf_u64(b, handle);
	buf_u64(b, r->off);
	buf_u32(b, (uint32_t)r->mode);
}

int tree_lseek(struct node *node, struct op *op, void *file, off_t off, int whence, off_t *out)
{
	struct range r = {.off = (uint64_t)off, .mode = whence};
	struct handle_job job = {.code = FILEOP_SEEK, .add = add_seek, .arg = &r};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err = tree_send_buffer(wnode_of(node), op_call(op));

	if (!err)
		err = tree_on_handle(file, op_call(op), &job, &b, &body);
	if (err)
		return err;
	*out = (off_t)reader_u64(&body);
	return body.bad || *out < 0 ? -EPROTO : 0;
}

struct copy {
	struct range from, to;
	struct wfile *source;
	uint64_t asked; /* the source's handle, as it was sent */
};

static void add_copy(struct buf *b, uint64_t handle, void *arg)
{
	struct copy *k = arg;

	k->asked = tree_handle(k->source);
	buf_u64(b, k->asked);
	buf_u64(b, k->from.off);
	buf_u64(b, handle);
	buf_u64(b, k->to.off);
	buf_u64(b, k->to.length);
}

int tree_copy_range(struct node *nin, struct op *op, void *fin, off_t off, struct node *nout,
	void *fout, off_t outoff, size_t len, size_t *done)
{
	struct wnode *in = wnode_of(nin), *out = wnode_of(nout);
	struct copy k = {.from = {.off = (uint64_t)off},
		.to = {.off = (uint64_t)outoff, .length = len},
		.source = fin};
	struct handle_job job = {.code = FILEOP_COPY_RANGE, .add = add_copy, .arg = &k};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	uint64_t copied;
	int err;

	if (in->tree != out->tree)
		return -EXDEV;
	err = tree_open_now(fin, op_call(op));
	if (!err)
		err = tree_send_buffer(in, op_call(op));
	if (!err)
		err = tree_send_buffer(out, op_call(op));
	if (err)
		return err;
	note_changing(out, fout);
	err = tree_on_handle(fout, op_call(op), &job, &b, &body);
	if (err ==
		-EBADF) { /* the target's handle is new or was good: then it is the source's that is lost */
		batch_release(&b);
		err = tree_renew(fin, op_call(op), k.asked);
		if (!err)
			err = tree_on_handle(fout, op_call(op), &job, &b, &body);
	}
	note_changed(out, fout, err);
	if (err)
		return err;
	copied = reader_u64(&body);
	*done = (size_t)copied;
	return body.bad || copied > len ? -EPROTO : 0;
}
