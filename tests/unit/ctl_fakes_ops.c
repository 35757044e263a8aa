/*
 * The doubles of the front in ctl_fakes.h: ops and their answers, polls, the filler of a listing. The lock covers what is in an
 * op; counters are atomic, for the threads of the tree use them. Knows nothing of sandboxes.
 */
#include "ctl_fakes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "ctl_fakes_impl.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct op {
	struct call call;
	pid_t pid;
	void (*parked)(struct op *, void *);
	void *parked_arg;
	bool answered;
	int err;
	char *data;
	size_t size;
};

struct op *fake_op(pid_t pid)
{
	struct op *op = calloc(1, sizeof *op);
	if (!op)
		abort();
	op->pid = pid ? pid : gettid();
	call_init(&op->call, op->pid);
	return op;
}

void fake_op_free(struct op *op)
{
	call_destroy(&op->call);
	free(op->data);
	free(op);
}

void fake_op_cancel(struct op *op)
{
	call_cancel(&op->call);
	pthread_mutex_lock(&lock);
	void (*fn)(struct op *, void *) = steal(op->parked);
	pthread_mutex_unlock(&lock);
	if (fn)
		fn(op, op->parked_arg);
}

bool fake_op_answered(struct op *op)
{
	AUTO_UNLOCK(&lock);
	while (!op->answered)
		if (!fake_wait(&changed, &lock))
			return false;
	return true;
}

bool fake_op_is_parked(struct op *op)
{
	AUTO_UNLOCK(&lock);
	return op->parked != NULL;
}

int fake_op_err(struct op *op)
{
	return op->err;
}

const char *fake_op_data(struct op *op, size_t *n)
{
	if (n)
		*n = op->size;
	return op->data ? op->data : "";
}

struct call *op_call(struct op *op)
{
	return &op->call;
}

pid_t op_pid(struct op *op)
{
	return op->pid;
}

static void answer(struct op *op, int err, const void *p, size_t n)
{
	AUTO_UNLOCK(&lock);
	if (op->answered)
		abort(); /* exactly once */
	op->err = err;
	op->size = n;
	op->data = malloc(n + 1);
	if (n)
		memcpy(op->data, p, n);
	op->data[n] = 0;
	op->answered = true;
	pthread_cond_broadcast(&changed);
}

void op_reply_err(struct op *op, int err)
{
	answer(op, err, NULL, 0);
}

void op_reply_data(struct op *op, const void *p, size_t n)
{
	answer(op, 0, p, n);
}

void op_reply_write(struct op *op, size_t n)
{
	(void)n;
	answer(op, 0, NULL, 0);
}

int op_park(struct op *op, void (*on_cancel)(struct op *op, void *arg), void *arg)
{
	if (call_cancelled(&op->call))
		return -EINTR;
	AUTO_UNLOCK(&lock);
	op->parked_arg = arg;
	op->parked = on_cancel;
	return 0;
}

bool op_unpark(struct op *op)
{
	AUTO_UNLOCK(&lock);
	return steal(op->parked) != NULL;
}

static _Atomic int polls_notified, polls_alive;

struct op_poll {
	int nothing;
};

struct op_poll *fake_poll(void)
{
	polls_alive++;
	return calloc(1, sizeof(struct op_poll));
}

int fake_poll_notified(void)
{
	return polls_notified;
}

int fake_poll_alive(void)
{
	return polls_alive;
}

void op_poll_notify(struct op_poll *p)
{
	(void)p;
	AUTO_UNLOCK(&lock);
	polls_notified++;
	pthread_cond_broadcast(&changed);
}

void op_poll_free(struct op_poll *p)
{
	if (p)
		polls_alive--;
	free(p);
}

bool node_filler_add(struct node_filler *f, const char *name, const struct stat *st,
	const struct node_entry *e, off_t next)
{
	(void)st;
	(void)next;
	if (f->count == f->room)
		return false;
	f->with_attributes = f->with_attributes || e;
	f->names[f->count++] = strdup(name);
	return true;
}

void fake_filler_clear(struct node_filler *f)
{
	for (unsigned i = 0; i < f->count; i++)
		free(f->names[i]);
	f->count = 0;
}
