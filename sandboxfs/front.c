/*
 * The FUSE session: its mount, its threads, its end, and what the kernel is told unasked. See front.h.
 *
 * Telling the kernel to drop pages waits for the requests that hold these pages, dirty ones are even written first. Hence: it holds no
 * lock; it is done by threads on which no answer depends; and while one is on its way somebody must read requests, also when
 * the mount ends. A mount that was detached while in use goes on asking until the program is gone, and a notification that
 * waits in the kernel cannot be killed, since its own program is the one that would have to answer.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "front_impl.h"
#include "timed.h"

enum { MAX_THREADS = 8192, LOOK_AGAIN_MS = 50 };

struct op_table *front_ops(struct front *f)
{
	return f->ops;
}

int front_new(struct node *root, struct front **out)
{
	struct front *f = calloc(1, sizeof *f);
	int err;

	if (!f)
		return -ENOMEM;
	f->root = root;
	err = timed_cond_init(&f->told);
	if (!err)
		err = op_table_new(&f->ops);
	if (err) {
		free(f);
		return err;
	}
	pthread_mutex_init(&f->lock, NULL);
	*out = f;
	return 0;
}

int front_mount(struct front *f, struct fuse_args *args, const char *mountpoint)
{
	f->se = fuse_session_new(args, &front_requests, sizeof front_requests, f);
	if (!f->se)
		return -EINVAL;
	if (fuse_session_mount(f->se, mountpoint) < 0)
		return -EIO;
	return loop_new(f->se, MAX_THREADS, &f->loop);
}

static void cancel_all(void *arg)
{
	struct front *f = arg;

	op_table_cancel_all(f->ops);
}

/* Is there a notification left to come back? Waits a little for its end. */
static bool still_telling(struct front *f)
{
	AUTO_UNLOCK(&f->lock);

	if (f->telling)
		(void)timed_cond_wait(&f->told, &f->lock, call_now_ms() + LOOK_AGAIN_MS);
	return f->telling > 0;
}

/* The loop is over: nothing more is told, and what was being told waits for requests that are answered here (with EINTR). */
static void answer_the_last(struct front *f)
{
	struct fuse_buf buf = {.mem = NULL};
	struct pollfd fd = {.fd = fuse_session_fd(f->se), .events = POLLIN};

	pthread_mutex_lock(&f->lock);
	f->ended = true;
	pthread_mutex_unlock(&f->lock);
	while (still_telling(f)) {
		while (poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) &&
			   fuse_session_receive_buf(f->se, &buf) > 0)
			fuse_session_process_buf(f->se, &buf);
	}
	free(buf.mem);
}

int front_serve(struct front *f)
{
	int err = loop_run(f->loop, cancel_all, f);

	answer_the_last(f);
	return err;
}

void front_stop(struct front *f)
{
	loop_stop(f->loop);
}

void front_counts(struct front *f, uint64_t *requests, uint64_t *active, uint64_t *threads)
{
	*active = op_table_active(f->ops, requests);
	*threads = f->loop ? loop_threads(f->loop) : 0;
}

static bool begin_telling(struct front *f)
{
	AUTO_UNLOCK(&f->lock);

	f->telling += !f->ended;
	return !f->ended;
}

static void end_telling(struct front *f)
{
	AUTO_UNLOCK(&f->lock);

	f->telling--;
	pthread_cond_broadcast(&f->told);
}

void front_forget_inode(struct front *f, struct node *n, bool data)
{
	if (!begin_telling(f))
		return;
	/* ENOENT: the kernel does not know it any more. Nothing else can be done about a failure. */
	(void)fuse_lowlevel_notify_inval_inode(f->se, front_ino(f, n), data ? 0 : -1, 0);
	end_telling(f);
}

void front_free(struct front *f)
{
	if (!f)
		return;
	loop_free(f->loop);
	if (f->se)
		fuse_session_destroy(f->se);
	op_table_free(f->ops);
	pthread_cond_destroy(&f->told);
	pthread_mutex_destroy(&f->lock);
	node_forget_all();
	node_put(f->root);
	free(f);
}
