/*
 * Ops in progress: their table, answers, parking, and interrupts.
 *
 * An interrupt of the kernel is not ^C: it is sent for any signal that has a handler (a resized terminal, a
 * child's end), and only once per request. So the interrupt thread looks which signals are
 * pending for the caller and cancels for those that mean "stop"; for others it looks again every
 * 100 ms until the request has ended, because a second signal brings no second interrupt.
 *
 * The kernel's interrupt finds its op by number in the table, never by pointer: the answer may be
 * given on another thread at the same moment.
 *
 * Lock order: table lock, then an op's call.lock; neither is held over on_cancel or an answer.
 */
#include "op_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "caller.h"
#include "cleanup.h"
#include "timed.h"

enum { LOOK_AGAIN_MS = 100 };

struct op_table {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct op *first; /* all ops in progress */
	uint64_t next_number;
	uint64_t active;
	unsigned interrupted; /* ops with that flag */
	bool fresh;           /* an interrupt came that was not looked at yet */
	bool stop;
	bool closing; /* the mount has ended: new ops are born cancelled */
	pthread_t thread;
};

static void op_unref(struct op *op)
{
	if (atomic_fetch_sub(&op->refs, 1) == 1) {
		call_destroy(&op->call);
		free(op);
	}
}

/* Cancels an op on which the caller holds a reference of its own. */
static void op_cancel(struct op *op)
{
	void (*parked)(struct op *, void *);
	void *arg;

	call_cancel(&op->call);
	pthread_mutex_lock(&op->call.lock);
	parked = op->parked;
	arg = op->parked_arg;
	op->parked = NULL;
	pthread_mutex_unlock(&op->call.lock);
	if (parked)
		parked(op, arg);
}

/* The next interrupted op with a number above `after`, with a reference; NULL: none. */
static struct op *next_interrupted(struct op_table *t, uint64_t after)
{
	struct op *best = NULL;

	for (struct op *op = t->first; op; op = op->next)
		if (op->interrupted && op->number > after && (!best || op->number < best->number))
			best = op;
	if (best)
		atomic_fetch_add(&best->refs, 1);
	return best;
}

static void clear_interrupted(struct op_table *t, struct op *op)
{
	if (op->interrupted) {
		op->interrupted = false;
		t->interrupted--;
	}
}

static void look_at_interrupted(struct op_table *t)
{
	uint64_t after = 0;

	for (;;) {
		pthread_mutex_lock(&t->lock);
		struct op *op = next_interrupted(t, after);
		pthread_mutex_unlock(&t->lock);
		if (!op)
			return;
		after = op->number;
		if (caller_gives_up(op->pid, op->patient)) {
			pthread_mutex_lock(&t->lock);
			clear_interrupted(t, op);
			pthread_mutex_unlock(&t->lock);
			op_cancel(op);
		}
		op_unref(op);
	}
}

static void *interrupt_thread(void *arg)
{
	struct op_table *t = arg;

	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		if (!t->interrupted) {
			pthread_cond_wait(&t->wake, &t->lock);
			continue;
		}
		if (!t->fresh) {
			/* whatever it says, it is time to look */
			(void)timed_cond_wait(&t->wake, &t->lock, call_now_ms() + LOOK_AGAIN_MS);
		}
		t->fresh = false;
		pthread_mutex_unlock(&t->lock);
		look_at_interrupted(t);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

int op_table_new(struct op_table **out)
{
	struct op_table *t = calloc(1, sizeof *t);
	int err;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	err = timed_cond_init(&t->wake);
	if (!err)
		err = -pthread_create(&t->thread, NULL, interrupt_thread, t);
	if (err) {
		free(t);
		return err;
	}
	*out = t;
	return 0;
}

void op_table_free(struct op_table *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	pthread_cond_destroy(&t->wake);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void op_table_cancel_all(struct op_table *t)
{
	uint64_t after = 0;

	pthread_mutex_lock(&t->lock);
	t->closing = true;
	pthread_mutex_unlock(&t->lock);
	for (;;) {
		struct op *best = NULL;

		pthread_mutex_lock(&t->lock);
		for (struct op *op = t->first; op; op = op->next)
			if (op->number > after && (!best || op->number < best->number))
				best = op;
		if (best)
			atomic_fetch_add(&best->refs, 1);
		pthread_mutex_unlock(&t->lock);
		if (!best)
			return;
		after = best->number;
		op_cancel(best);
		op_unref(best);
	}
}

uint64_t op_table_active(struct op_table *t, uint64_t *total)
{
	AUTO_UNLOCK(&t->lock);

	*total = t->next_number;
	return t->active;
}

/* libfuse calls this with locks of its own held: note and leave. */
static void on_interrupt(fuse_req_t req, void *number_as_pointer)
{
	struct front *f = fuse_req_userdata(req);
	struct op_table *t = front_ops(f);
	uint64_t number = (uintptr_t)number_as_pointer;

	AUTO_UNLOCK(&t->lock);
	for (struct op *op = t->first; op; op = op->next) {
		if (op->number != number)
			continue;
		if (!op->interrupted) {
			op->interrupted = true;
			t->interrupted++;
		}
		t->fresh = true;
		pthread_cond_signal(&t->wake);
		break;
	}
}

struct op *op_new(
	struct front *f, struct op_table *t, fuse_req_t req, bool patient, bool never_waits)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct op *op = calloc(1, sizeof *op);

	if (!op) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	op->req = req;
	op->front = f;
	op->pid = ctx->pid;
	op->patient = patient;
	atomic_init(&op->refs, 1);
	call_init(&op->call, ctx->pid);
	op->call.never_waits = never_waits;
	pthread_mutex_lock(&t->lock);
	op->number = ++t->next_number;
	op->call.cancelled = t->closing;
	op->next = t->first;
	if (t->first)
		t->first->prev = op;
	t->first = op;
	t->active++;
	pthread_mutex_unlock(&t->lock);
	/* An interrupt that came before is delivered here at once. */
	fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)op->number);
	return op;
}

fuse_req_t op_finish(struct op *op)
{
	struct op_table *t = front_ops(op->front);
	fuse_req_t req = op->req;

	pthread_mutex_lock(&t->lock);
	clear_interrupted(t, op);
	if (op->next)
		op->next->prev = op->prev;
	if (op->prev)
		op->prev->next = op->next;
	else
		t->first = op->next;
	t->active--;
	pthread_mutex_unlock(&t->lock);
	op_unref(op);
	return req;
}

struct call *op_call(struct op *op)
{
	return &op->call;
}

pid_t op_pid(struct op *op)
{
	return op->pid;
}

void op_reply_err(struct op *op, int err)
{
	/* A number that the kernel refuses would leave its caller waiting for ever. */
	fuse_reply_err(op_finish(op), err < 0 && err > -512 ? -err : err ? EIO : 0);
}

void op_reply_data(struct op *op, const void *p, size_t n)
{
	fuse_reply_buf(op_finish(op), p, n);
}

void op_reply_write(struct op *op, size_t n)
{
	fuse_reply_write(op_finish(op), n);
}

int op_park(struct op *op, void (*on_cancel)(struct op *op, void *arg), void *arg)
{
	AUTO_UNLOCK(&op->call.lock);

	if (op->call.cancelled)
		return -EINTR;
	op->parked = on_cancel;
	op->parked_arg = arg;
	return 0;
}

bool op_unpark(struct op *op)
{
	AUTO_UNLOCK(&op->call.lock);
	bool mine = op->parked != NULL;

	op->parked = NULL;
	return mine;
}

/* struct fuse_pollhandle is libfuse's; ours is the same thing under a name without FUSE. */
void op_poll_notify(struct op_poll *p)
{
	fuse_lowlevel_notify_poll((struct fuse_pollhandle *)p);
}

void op_poll_free(struct op_poll *p)
{
	if (p)
		fuse_pollhandle_destroy((struct fuse_pollhandle *)p);
}
