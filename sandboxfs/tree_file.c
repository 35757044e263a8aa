/*
 * Open files of the file tree.
 *
 * Writing. Bytes gather in one buffer per node (one run of one open file) and go in one request when the run
 * breaks, the buffer is full, or somebody must see them: a flush (close), fsync, fstat, a read, another opening, a command. Close waits
 * until they are in the sandbox. If they cannot be sent, they are kept and stay visible here.
 * O_APPEND is sent as an append, never by offset.
 *
 * Staging. The first and only opening of a new file, or of one that it truncates, writes to a nameless file in the sandbox; COMMIT
 * gives it its name, or copies it over the old content in place. So a program in the sandbox never sees half a file, and a
 * cut link tears none. What ends the staging early is whatever must see the file: a second opening, a
 * look-up of the name by another operation, fstat after the first write (its times must be the last ones), a command.
 * O_EXCL claims its name at once, as locks need it, and is not staged.
 *
 * wnode.busy serialises all that sends for one node; it is held over requests and waited for with the call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- one at a time --- */

static int io_begin(struct wnode *n, struct call *c)
{
	AUTO_UNLOCK(&n->lock);

	while (n->busy) {
		int err = waitq_wait(&n->io_queue, &n->lock, c, -1);
		if (err)
			return err;
	}
	n->busy = true;
	return 0;
}

static void io_end(struct wnode *n)
{
	pthread_mutex_lock(&n->lock);
	n->busy = false;
	waitq_wake(&n->io_queue);
	pthread_mutex_unlock(&n->lock);
	tree_note_dirty(n);
}

/* --- sending --- */

static unsigned open_flags(int flags)
{
	int mode = flags & O_ACCMODE;

	return (mode != O_WRONLY ? FILEOP_O_READ : 0) | (mode != O_RDONLY ? FILEOP_O_WRITE : 0) |
		   (flags & O_APPEND ? FILEOP_O_APPEND : 0) | (flags & O_TRUNC ? FILEOP_O_TRUNC : 0);
}

static void add_open(struct batch *b, uint64_t handle, const char *path, const struct wnode *expect,
	unsigned flags, mode_t mode)
{
	struct buf *q = batch_add(b, FILEOP_OPEN, FILEOP_MUST);

	buf_u64(q, handle);
	buf_bytes(q, path, strlen(path));
	buf_u64(q, expect ? expect->dev : 0);
	buf_u64(q, expect ? expect->ino : 0);
	buf_u32(q, flags);
	buf_u32(q, mode & 07777);
}

static int get_opened(struct reader *body, struct fileop_attr *a, bool *created, bool *staged)
{
	int err = fileop_get_attr(body, a);

	*created = reader_u8(body);
	*staged = reader_u8(body);
	return err ? err : body->bad ? -EPROTO : 0;
}

/* The server has lost the handle (it was started anew): opens the same inode again. A stage is lost with it. */
static int reopen(struct wfile *f, struct call *c)
{
	struct wnode *n = f->node;
	unsigned flags = open_flags(f->flags & ~(O_TRUNC | O_EXCL | O_CREAT));
	uint64_t handle = batch_client_handle(n->tree->client);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct fileop_attr a;
	struct reader body;
	bool created, staged;
	int err;

	batch_init(&b, n->tree->client, c);
	if (f->staged && f->pushed)
		return call_fault(c, ESTALE, NULL,
			"the sandbox ended while this file was being written; what had been sent of it is "
			"lost");
	err = tree_path(n, 0, &path);
	if (err)
		return err;
	if (f->unborn)
		add_open(&b, handle, path.data, NULL, flags | FILEOP_O_CREATE | FILEOP_O_STAGE, 0644);
	else
		add_open(
			&b, handle, path.data, n, flags | (f->staged ? FILEOP_O_TRUNC | FILEOP_O_STAGE : 0), 0);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = get_opened(&body, &a, &created, &staged);
	if (err)
		return err == -ENOENT ? -ESTALE : err;
	pthread_mutex_lock(&n->lock);
	f->handle = handle;
	f->staged = staged;
	f->unborn = f->unborn && created && staged;
	pthread_mutex_unlock(&n->lock);
	return 0;
}

static void add_handle(struct batch *b, enum fileop_code code, unsigned opflags, uint64_t handle)
{
	struct fileop_target target = {.handle = handle, .path = "/"};
	struct buf *q = batch_add(b, code, opflags);

	if (code == FILEOP_GETATTR)
		fileop_put_target(q, &target);
	else
		buf_u64(q, handle);
}

static void add_write(struct batch *b, uint64_t handle, uint64_t off, const void *p, size_t n)
{
	struct buf *q = batch_add(b, FILEOP_WRITE, FILEOP_MUST);

	buf_u64(q, handle);
	buf_u64(q, off);
	buf_bytes(q, p, n);
}

/* What the kernel holds of this file is still what it is: before was what it knew, all since is our own. */
static void note_own_change(
	struct wnode *n, const struct fileop_attr *before, bool whole, const struct fileop_attr *after)
{
	AUTO_UNLOCK(&n->lock);

	if (n->data_cached && (whole || tree_same_data(before, &n->data_attr)))
		n->data_attr = *after;
	n->attr = *after;
	n->has_attr = true;
}

/* One attempt to send p (or nothing) for f, and to commit its stage. */
static int send_once(struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off,
	bool commit, struct fileop_attr *a)
{
	struct wnode *n = f->node;
	struct fileop_attr before = {.size = 0};
	AUTO_BATCH b;
	struct reader body;
	int err, got;

	batch_init(&b, n->tree->client, c);
	add_handle(&b, FILEOP_GETATTR, FILEOP_MUST, f->handle);
	if (size)
		add_write(&b, f->handle, off, p, size);
	if (commit)
		add_handle(&b, FILEOP_COMMIT, FILEOP_MUST, f->handle);
	add_handle(&b, FILEOP_GETATTR, 0, f->handle);
	err = batch_send(&b);
	if (err)
		return err;
	err = batch_next(&b, &body);
	if (!err)
		err = fileop_get_attr(&body, &before);
	if (!err && size)
		err = batch_next(&b, &body);
	if (!err && commit)
		err = batch_next(&b, &body);
	if (err)
		return err;
	got = batch_next(&b, &body);
	if (!got)
		got = fileop_get_attr(&body, a);
	if (got)
		return got;
	note_own_change(n, &before, f->staged, a);
	return 0;
}

static int send(struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off,
	bool commit, struct fileop_attr *a)
{
	int err = send_once(f, c, p, size, off, commit, a);

	if (err == -EBADF) {
		err = reopen(f, c);
		if (!err)
			err = send_once(f, c, p, size, off, commit && f->staged, a);
	}
	return err;
}

/* --- the list of open files --- */

static void wfile_free(struct wfile *f)
{
	free(f->ahead);
	free(f);
}

static void add_file(struct wnode *n, struct wfile *f)
{
	AUTO_UNLOCK(&n->lock);

	f->node = n;
	f->next = n->files;
	n->files = f;
	n->mappable += (f->flags & O_ACCMODE) == O_RDWR;
}

static void remove_file(struct wnode *n, struct wfile *f)
{
	pthread_mutex_lock(&n->lock);
	for (struct wfile **at = &n->files; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	n->mappable -= (f->flags & O_ACCMODE) == O_RDWR;
	pthread_mutex_unlock(&n->lock);
	tree_close_handle(n->tree, f->handle);
	wfile_free(f);
}

/* Files that were closed while they had unsent bytes, and have none any more. */
static void bury_released(struct wnode *n)
{
	for (;;) {
		struct wfile *f;

		pthread_mutex_lock(&n->lock);
		for (f = n->files; f; f = f->next)
			if (f->released && !f->staged && n->buffer_file != f)
				break;
		pthread_mutex_unlock(&n->lock);
		if (!f)
			return;
		remove_file(n, f);
	}
}

/* --- pushing: busy is ours --- */

static void clear_buffer(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);

	n->buffer_used = 0;
	n->buffer_file = NULL;
	n->held_err = 0;
	if (!n->files || !n->files->next) {
		free(n->buffer);
		n->buffer = NULL;
	}
}

static bool gone_by_us(struct wnode *n)
{
	AUTO_UNLOCK(&n->tree->lock);
	return n->unlinked_here;
}

/* Sends the buffer, and with commit gives the stage its name. sent: was there anything. */
static int push(struct wnode *n, struct call *c, bool commit, struct fileop_attr *a, bool *sent)
{
	struct wfile *f = n->buffer_file, *staged = NULL;
	size_t size = n->buffer_used;
	int err;

	/* busy is ours: nobody else changes what is read here without the lock */
	for (struct wfile *g = n->files; g; g = g->next)
		if (g->staged)
			staged = g;
	*sent = size || (commit && staged);
	if (!*sent)
		return 0;
	if (!f)
		f = staged;
	err = send(f, c, n->buffer, size, n->buffer_off, commit && f->staged, a);
	if (!err && size && a->nlink == 0 && !gone_by_us(n))
		err = tree_salvage(n, f, c);
	if (err) {
		pthread_mutex_lock(&n->lock);
		n->held_err = err;
		pthread_mutex_unlock(&n->lock);
		if (err != -EINTR)
			tree_retry_later(n->tree);
		return err;
	}
	pthread_mutex_lock(&n->lock);
	f->pushed |= size > 0;
	if (commit)
		f->staged = f->unborn = f->pushed = false;
	pthread_mutex_unlock(&n->lock);
	clear_buffer(n);
	bury_released(n);
	return 0;
}

int tree_settle(struct wnode *n, struct call *c, struct fileop_attr *a, bool *sent)
{
	struct fileop_attr mine;
	bool any = false;
	int err = io_begin(n, c);

	if (!err) {
		err = push(n, c, true, a ? a : &mine, &any);
		io_end(n);
	}
	if (sent)
		*sent = any && !err;
	return err;
}

static bool is_staged(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);

	for (struct wfile *f = n->files; f; f = f->next)
		if (f->staged)
			return true;
	return false;
}

int tree_settle_children(struct wnode *dir, const char *name, struct call *c)
{
	struct wnode **list;
	size_t n;
	int err = 0;

	if (name) {
		struct wnode *child = tree_find_child(dir, name);
		if (child && is_staged(child))
			err = tree_settle(child, c, NULL, NULL);
		node_put(child ? &child->node : NULL);
		return err;
	}
	list = tree_dirty_nodes(dir->tree, &n);
	for (size_t i = 0; i < n && !err; i++) {
		struct wnode *parent = tree_parent(list[i]);
		if (parent == dir)
			err = tree_settle(list[i], c, NULL, NULL);
		node_put(parent ? &parent->node : NULL);
	}
	tree_put_nodes(list, n);
	return err;
}

void tree_drop_unsent(struct wnode *n)
{
	pthread_mutex_lock(&n->lock);
	for (struct wfile *f = n->files; f; f = f->next)
		f->staged = f->unborn = false;
	n->changes++;
	pthread_mutex_unlock(&n->lock);
	clear_buffer(n);
	bury_released(n);
	tree_note_dirty(n);
}

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
	add_open(&b, f->handle, path.data, n, open_flags(o->flags) | (stage ? FILEOP_O_STAGE : 0), 0);
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
		err = get_opened(&body, &a, &created, &staged);
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
		wfile_free(f);
		return err == -ENODATA ? -ESTALE : err;
	}
	if (o->flags & O_TRUNC) {
		pthread_mutex_lock(&n->lock);
		n->changes++;
		pthread_mutex_unlock(&n->lock);
	}
	add_file(n, f);
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
	unsigned flags = open_flags(o->flags) | FILEOP_O_CREATE |
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
	f->handle = batch_client_handle(dir->tree->client);
	add_open(&b, f->handle, path.data, NULL, flags, mode);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = get_opened(&body, &a, &created, &staged);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (err) {
		wfile_free(f);
		return err;
	}
	f->staged = staged;
	f->unborn = staged && created;
	alone = !has_open_files(n);
	note_opened(n, f, &a, NULL, o);
	add_file(n, f);
	tree_note_dirty(n);
	if (staged && !alone)
		err = tree_settle(n, op_call(op), &a, NULL);
	if (err) {
		remove_file(n, f);
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
	/* The bytes live as long as the open file, and that as long as this request. */
	op_reply_data(op, f->ahead + at, size);
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

/* Sends the buffer, without giving a stage its name. */
static int send_buffer(struct wnode *n, struct call *c)
{
	struct fileop_attr a;
	bool sent;
	int err = io_begin(n, c);

	if (!err) {
		err = push(n, c, false, &a, &sent);
		io_end(n);
	}
	return err;
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
	if (unsent && (err = send_buffer(n, op_call(op))) == -EINTR)
		return err; /* after another failure the bytes are laid over what is read */
	if (size > FILEOP_MAX_READ)
		size = FILEOP_MAX_READ;
	err = read_once(n, f, op, size, off);
	if (err == -EBADF) {
		err = io_begin(n, op_call(op));
		if (!err) {
			err = reopen(f, op_call(op));
			io_end(n);
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
		err = push(n, c, false, &a, &sent);
	if (err)
		return err;
	if (size < BUFFER_SIZE / 2 && !scarce)
		return buffer_add(n, f, p, size, off);
	pthread_mutex_lock(&n->lock);
	n->changes++;
	f->wrote = true;
	pthread_mutex_unlock(&n->lock);
	/* What is behind the buffer has been pushed or fills it: large writes go as they are. */
	err = n->buffer_used ? push(n, c, false, &a, &sent) : 0;
	if (!err)
		err = send(f, c, p, size, off, false, &a);
	if (!err)
		f->pushed = true;
	return err;
}

int tree_write(struct node *node, struct op *op, void *file, const void *p, size_t size, off_t off,
	size_t *done)
{
	struct wnode *n = wnode_of(node);
	int err = io_begin(n, op_call(op));

	if (err)
		return err;
	err = write_locked(n, file, op_call(op), p, size, (uint64_t)off);
	io_end(n);
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

static void settle_untouched(struct wnode *n)
{
	struct call c;

	call_init(&c, 0);
	(void)tree_settle(n, &c, NULL, NULL); /* what fails is kept and listed in ctl/sync */
	call_destroy(&c);
}

int tree_release(struct node *node, struct op *op, void *file)
{
	struct wnode *n = wnode_of(node);
	struct wfile *f = file;
	bool keep;

	(void)op;
	if (f->staged && !f->wrote)
		settle_untouched(n);
	pthread_mutex_lock(&n->lock);
	/* The close said so: these bytes are still to be sent. */
	keep = n->buffer_file == f || f->staged;
	f->released = true;
	pthread_mutex_unlock(&n->lock);
	if (keep && gone_by_us(n)) {
		pthread_mutex_lock(&n->lock);
		f->staged = f->unborn = false;
		pthread_mutex_unlock(&n->lock);
		clear_buffer(n);
		keep = false;
	}
	if (!keep)
		remove_file(n, f);
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
	int err = send_buffer(n, op_call(op));

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
	f->wrote = true;
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
	int err = send_buffer(n, op_call(op));

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
	err = send_buffer(in, op_call(op));
	if (!err)
		err = send_buffer(out, op_call(op));
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
	to->wrote = true;
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
