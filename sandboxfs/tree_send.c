/*
 * Sending what was written: the buffer and the stage of a node.
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
 * wnode.busy serialises all that sends for one node, and the openings that may stage, from the look at the other open files until this
 * one is among them; it is held over requests and waited for with the call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- one at a time --- */

int tree_io_begin(struct wnode *n, struct call *c)
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

void tree_io_end(struct wnode *n)
{
	pthread_mutex_lock(&n->lock);
	n->busy = false;
	waitq_wake(&n->io_queue);
	pthread_mutex_unlock(&n->lock);
	tree_note_dirty(n);
}

/* --- sending --- */

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

static void add_fsync(struct batch *b, uint64_t handle)
{
	struct buf *q = batch_add(b, FILEOP_FSYNC, 0);

	buf_u64(q, handle);
	buf_u8(q, 0);
}

/* One attempt to send p (or nothing) for f, and what `how` says. */
static int send_once(struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off,
	unsigned how, struct fileop_attr *a)
{
	struct wnode *n = f->node;
	struct fileop_attr before = {.size = 0};
	AUTO_BATCH b;
	struct reader body;
	int err, got;

	batch_init(&b, n->tree->client, c);
	if (size && (how & SEND_KEPT) && (f->flags & O_APPEND))
		b.pin = &n->append_seq; /* what is sent twice must not be there twice */
	add_handle(&b, FILEOP_GETATTR, FILEOP_MUST, f->handle);
	if (size)
		add_write(&b, f->handle, off, p, size);
	if (how & SEND_COMMIT)
		add_handle(&b, FILEOP_COMMIT, FILEOP_MUST, f->handle);
	if (how & SEND_SYNC)
		add_fsync(&b, f->handle);
	add_handle(&b, FILEOP_GETATTR, 0, f->handle);
	err = batch_send(&b);
	if (err)
		return err;
	err = batch_next(&b, &body);
	if (!err)
		err = fileop_get_attr(&body, &before);
	if (!err && size)
		err = batch_next(&b, &body);
	if (!err && (how & SEND_COMMIT))
		err = batch_next(&b, &body);
	if (err)
		return err;
	if (how & SEND_SYNC) {
		got = batch_next(&b, &body);
		if (got) /* what was sent has been, and must not be sent again */
			n->sync_err = got;
	}
	got = batch_next(&b, &body);
	if (!got)
		got = fileop_get_attr(&body, a);
	if (got)
		return got;
	note_own_change(n, &before, f->staged, a);
	return 0;
}

int tree_send(struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off,
	unsigned how, struct fileop_attr *a)
{
	int err = send_once(f, c, p, size, off, how, a);

	if (err == -EBADF) {
		err = tree_reopen(f, c);
		if (!err)
			err = send_once(f, c, p, size, off, f->staged ? how : how & ~SEND_COMMIT, a);
	}
	return err;
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
		tree_remove_file(n, f);
	}
}

/* --- pushing: busy is ours --- */

void tree_clear_buffer(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);

	batch_unpin(n->tree->client, &n->append_seq);
	n->buffer_used = 0;
	n->buffer_file = NULL;
	n->held_err = 0;
	if (!n->files || !n->files->next) {
		free(n->buffer);
		n->buffer = NULL;
	}
}

bool tree_gone_by_us(struct wnode *n)
{
	AUTO_UNLOCK(&n->tree->lock);
	return n->unlinked_here;
}

bool tree_has_unsent(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);
	bool unsent = n->buffer_used > 0;

	for (struct wfile *f = n->files; f && !unsent; f = f->next)
		unsent = f->staged && f->wrote;
	return unsent;
}

/*
 * Whose turn it is: with commit the staged files first that have nothing in the buffer, so that no older stage goes over what the
 * buffer's file has written. NULL: nothing is left.
 */
static struct wfile *next_to_push(struct wnode *n, bool commit)
{
	AUTO_UNLOCK(&n->lock);

	for (struct wfile *f = n->files; commit && f; f = f->next)
		if (f->staged && f != n->buffer_file)
			return f;
	return n->buffer_used ? n->buffer_file : NULL;
}

/* The first bytes of the buffer are in the sandbox. */
static void consume(struct wnode *n, size_t size)
{
	pthread_mutex_lock(&n->lock);
	bool rest = size < n->buffer_used;
	if (rest) {
		memmove(n->buffer, n->buffer + size, n->buffer_used - size);
		n->buffer_used -= size;
	}
	pthread_mutex_unlock(&n->lock);
	if (!rest)
		tree_clear_buffer(n);
}

static int push_file(
	struct wnode *n, struct wfile *f, struct call *c, unsigned how, struct fileop_attr *a)
{
	size_t size = n->buffer_file == f ? n->buffer_used : 0;
	bool bytes, commit;
	int err;

	pthread_mutex_lock(&n->lock);
	commit = (how & SEND_COMMIT) && f->staged;
	how = commit ? how : how & ~SEND_COMMIT;
	if (size && n->append_seq) { /* what was sent before, as it was; what came since follows */
		size = n->append_size < size ? n->append_size : size;
		how = n->append_how;
		commit = how & SEND_COMMIT;
	} else if (size) { /* not of a stage beside it, which has nothing in the buffer */
		n->append_size = size;
		n->append_how = how;
	}
	bytes = size || (commit && f->pushed);
	pthread_mutex_unlock(&n->lock);
	err = tree_send(f, c, n->buffer, size, n->buffer_off, how | SEND_KEPT, a);
	if (err == -ESTALE)
		err = tree_salvage_unsent(n, f, n->buffer, size, c, a);
	else if (!err && bytes && a->nlink == 0 && !tree_gone_by_us(n))
		err = tree_salvage(n, f, c);
	if (commit) { /* its directory has one name more */
		struct wnode *parent = tree_parent(n);

		if (parent)
			tree_forget_attr(parent);
		node_put(parent ? &parent->node : NULL);
	}
	pthread_mutex_lock(&n->lock);
	n->held_err = err;
	if (!err) {
		f->pushed |= size > 0;
		if (commit)
			f->staged = f->unborn = f->pushed = false;
	}
	pthread_mutex_unlock(&n->lock);
	if (err)
		tree_retry_later(n->tree);
	else if (size)
		consume(n, size);
	return err;
}

int tree_push(struct wnode *n, struct call *c, unsigned how, struct fileop_attr *a, bool *sent)
{
	struct wfile *f;

	/* f stays while busy is ours: with unsent bytes it is not taken away, others may be at any time. */
	*sent = false;
	while ((f = next_to_push(n, (how & SEND_COMMIT) != 0))) {
		int err = push_file(n, f, c, how, a);
		if (err)
			return err;
		*sent = true;
	}
	if (*sent)
		bury_released(n);
	return 0;
}

static int settle(struct wnode *n, struct call *c, unsigned how, struct fileop_attr *a, bool *sent)
{
	struct fileop_attr mine;
	bool any = false;
	int err = tree_io_begin(n, c);

	if (!err) {
		n->sync_err = 0;
		err = tree_push(n, c, how, a ? a : &mine, &any);
		if (!err)
			err = n->sync_err;
		tree_io_end(n);
	}
	if (sent)
		*sent = any && !err;
	return err;
}

int tree_settle(struct wnode *n, struct call *c, struct fileop_attr *a, bool *sent)
{
	return settle(n, c, SEND_COMMIT, a, sent);
}

int tree_settle_synced(struct wnode *n, struct call *c, bool *sent)
{
	return settle(n, c, SEND_COMMIT | SEND_SYNC, NULL, sent);
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
	err = tree_dirty_nodes(dir->tree, &list, &n);
	for (size_t i = 0; i < n && !err; i++) {
		struct wnode *parent = tree_parent(list[i]);
		if (parent == dir)
			err = tree_settle(list[i], c, NULL, NULL);
		node_put(parent ? &parent->node : NULL);
	}
	tree_put_nodes(list, n);
	return err;
}

int tree_drop_unsent(struct wnode *n, struct call *c)
{
	int err = tree_io_begin(n, c);

	if (err)
		return err;
	pthread_mutex_lock(&n->lock);
	for (struct wfile *f = n->files; f; f = f->next)
		f->staged = f->unborn = false;
	n->changes++;
	pthread_mutex_unlock(&n->lock);
	tree_clear_buffer(n);
	bury_released(n);
	tree_io_end(n);
	return 0;
}

/* Sends the buffer, without giving a stage its name. */
int tree_send_buffer(struct wnode *n, struct call *c)
{
	struct fileop_attr a;
	bool sent;
	int err = tree_io_begin(n, c);

	if (!err) {
		err = tree_push(n, c, 0, &a, &sent);
		tree_io_end(n);
	}
	return err;
}
