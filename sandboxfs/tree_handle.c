/*
 * Open files and their handles: the list of a node's open files, opening, and what is done when the server has lost a handle.
 *
 * A server that was started anew answers EBADF to every handle of before. Whoever meets that opens the same inode again (tree_renew; once,
 * whoever comes first) and asks a second time: a program keeps its descriptor over a restart, whatever it does with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- the list of open files --- */

void tree_free_file(struct wfile *f)
{
	free(f->ahead);
	free(f->path);
	free(f);
}

void tree_add_file(struct wnode *n, struct wfile *f)
{
	AUTO_UNLOCK(&n->lock);

	f->node = n;
	f->next = n->files;
	n->files = f;
	n->mappable += (f->flags & O_ACCMODE) == O_RDWR;
}

void tree_remove_file(struct wnode *n, struct wfile *f)
{
	uint64_t handle;
	bool used, open;

	pthread_mutex_lock(&n->lock);
	for (struct wfile **at = &n->files; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	n->mappable -= (f->flags & O_ACCMODE) == O_RDWR;
	handle = f->handle;
	used = f->users > 0;
	open = !f->later;
	f->removed = true;
	pthread_mutex_unlock(&n->lock);
	if (open)
		tree_close_handle(n->tree, handle);
	if (!used)
		tree_free_file(f);
}

static struct wfile *borrow(struct wnode *n, bool by_path)
{
	struct wfile *any = NULL;
	AUTO_UNLOCK(&n->lock);

	/* A writable one if there is: it can be truncated, and a staged one holds what the file now is. */
	for (struct wfile *f = n->files; f; f = f->next) {
		if (f->by_path != by_path)
			continue;
		any = f;
		if ((f->flags & O_ACCMODE) != O_RDONLY)
			break;
	}
	if (any)
		any->users++;
	return any;
}

struct wfile *tree_borrow_file(struct wnode *n)
{
	return borrow(n, false);
}

struct wfile *tree_borrow_by_path(struct wnode *n)
{
	return borrow(n, true);
}

void tree_return_file(struct wnode *n, struct wfile *f)
{
	bool last;

	if (!f)
		return;
	pthread_mutex_lock(&n->lock);
	last = --f->users == 0 && f->removed;
	pthread_mutex_unlock(&n->lock);
	if (last)
		tree_free_file(f);
}

uint64_t tree_handle(struct wfile *f)
{
	AUTO_UNLOCK(&f->node->lock);
	return f->handle;
}

uint64_t tree_any_handle(struct wnode *n)
{
	struct wfile *f = tree_borrow_file(n);
	uint64_t handle = f ? tree_handle(f) : 0;

	tree_return_file(n, f);
	return handle;
}

/* --- opening --- */

unsigned tree_open_flags(int flags)
{
	int mode = flags & O_ACCMODE;

	return (mode != O_WRONLY ? FILEOP_O_READ : 0) | (mode != O_RDONLY ? FILEOP_O_WRITE : 0) |
		   (flags & O_APPEND ? FILEOP_O_APPEND : 0) | (flags & O_TRUNC ? FILEOP_O_TRUNC : 0);
}

void tree_add_open(struct batch *b, uint64_t handle, const char *path, const struct wnode *expect,
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

int tree_get_opened(struct reader *body, struct fileop_attr *a, bool *created, bool *staged)
{
	int err = fileop_get_attr(body, a);

	*created = reader_u8(body);
	*staged = reader_u8(body);
	return err ? err : body->bad ? -EPROTO : 0;
}

/* --- opening again --- */

static int reopen_by(struct wfile *f, struct call *c, unsigned which)
{
	struct wnode *n = f->node;
	unsigned flags = tree_open_flags(f->flags & ~(O_TRUNC | O_EXCL | O_CREAT));
	uint64_t handle = batch_client_handle(n->tree->client);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct fileop_attr a;
	struct reader body;
	bool created, staged;
	int err;

	batch_init(&b, n->tree->client, c);
	err = tree_path(n, which, &path);
	if (err)
		return err == -ESTALE ? -ENODATA : err;
	if (f->unborn)
		tree_add_open(
			&b, handle, path.data, NULL, flags | FILEOP_O_CREATE | FILEOP_O_STAGE, f->mode);
	else
		tree_add_open(
			&b, handle, path.data, n, flags | (f->staged ? FILEOP_O_TRUNC | FILEOP_O_STAGE : 0), 0);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		err = tree_get_opened(&body, &a, &created, &staged);
	if (err)
		return err;
	AUTO_UNLOCK(&n->lock);
	f->handle = handle;
	f->later = false;
	f->staged = staged;
	f->unborn = f->unborn && created && staged;
	return 0;
}

int tree_reopen(struct wfile *f, struct call *c)
{
	struct wnode *n = f->node;
	bool lost;
	int err = -ESTALE;

	pthread_mutex_lock(&n->lock);
	lost = f->staged && f->pushed;
	pthread_mutex_unlock(&n->lock);
	if (lost)
		return call_fault(c, ESTALE, NULL,
			"the sandbox ended while this file was being written; what had been sent of it is "
			"lost");
	for (unsigned which = 0; err == -ESTALE || err == -ENOENT || err == -ENOTDIR; which++)
		err = reopen_by(f, c, which);
	return err == -ENODATA ? -ESTALE : err;
}

int tree_renew(struct wfile *f, struct call *c, uint64_t lost)
{
	int err = tree_io_begin(f->node, c);

	if (err)
		return err;
	if (f->handle == lost) /* written with busy alone */
		err = tree_reopen(f, c);
	tree_io_end(f->node);
	return err;
}

int tree_on_handle(struct wfile *f, struct call *c, const struct handle_job *job, struct batch *b,
	struct reader *body)
{
	int err;

	err = tree_open_now(f, c);
	if (err)
		return err;
	for (bool again = false;; again = true) {
		uint64_t handle = tree_handle(f);

		batch_init(b, f->node->tree->client, c);
		job->add(batch_add(b, job->code, 0), handle, job->arg);
		err = batch_send(b);
		if (!err)
			err = batch_next(b, body);
		if (err != -EBADF || again)
			return err;
		batch_release(b);
		err = tree_renew(f, c, handle);
		if (err)
			return err;
	}
}
