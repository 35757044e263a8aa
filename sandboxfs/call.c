/*
 * Calls and faults (call.h). Owns the lock and the condition of each call and the strings of its
 * fault; no threads, nothing at file scope. Must not know who waits, nor for what.
 */
#include "call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "timed.h"

void fault_clear(struct fault *f)
{
	free(f->code);
	free(f->message);
	free(f->suggestion);
	free(f->operation);
	free(f->path);
	memset(f, 0, sizeof(*f));
}

static char *copy_string(const char *s)
{
	return s ? strdup(s) : NULL;
}

void fault_copy(struct fault *to, const struct fault *from)
{
	if (to == from)
		return;
	fault_clear(to);
	*to = *from;
	to->code = copy_string(from->code);
	to->message = copy_string(from->message);
	to->suggestion = copy_string(from->suggestion);
	to->operation = copy_string(from->operation);
	to->path = copy_string(from->path);
}

void call_init(struct call *c, int pid)
{
	memset(c, 0, sizeof(*c));
	c->pid = pid;
	pthread_mutex_init(&c->lock, NULL);
	(void)timed_cond_init(&c->wake); /* CLOCK_MONOTONIC is always there */
}

void call_destroy(struct call *c)
{
	fault_clear(&c->fault);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
}

void call_cancel(struct call *c)
{
	AUTO_UNLOCK(&c->lock);
	c->cancelled = true;
	pthread_cond_broadcast(&c->wake);
}

/* Lock held. */
static bool is_cancelled(struct call *c)
{
	if (c->until_ms && call_now_ms() >= c->until_ms)
		c->cancelled = true;
	return c->cancelled;
}

bool call_cancelled(struct call *c)
{
	AUTO_UNLOCK(&c->lock);
	return is_cancelled(c);
}

void call_end_by(struct call *c, int64_t until_ms)
{
	AUTO_UNLOCK(&c->lock);
	if (!c->until_ms || until_ms < c->until_ms)
		c->until_ms = until_ms;
	pthread_cond_broadcast(&c->wake);
}

void call_wake(struct call *c)
{
	AUTO_UNLOCK(&c->lock);
	pthread_cond_broadcast(&c->wake);
}

int call_wait(struct call *c, bool (*done)(void *arg), void *arg, int64_t deadline_ms)
{
	AUTO_UNLOCK(&c->lock);
	for (;;) {
		/* What is done is done: a cancel that comes with the answer does not take it away. */
		if (done(arg))
			return 0;
		if (is_cancelled(c))
			return -EINTR;
		if (c->never_waits)
			return -ENOMEM;
		if (deadline_ms >= 0 && call_now_ms() >= deadline_ms)
			return -ETIMEDOUT;
		bool sooner = c->until_ms && (deadline_ms < 0 || c->until_ms < deadline_ms);
		(void)timed_cond_wait(&c->wake, &c->lock, sooner ? c->until_ms : deadline_ms);
	}
}

int call_may_wait(struct call *c)
{
	return !c->never_waits ? 0
						   : call_fault(c, ENOMEM, NULL,
								 "no thread can be started to wait for the sandbox; end some "
								 "programs, or raise ulimit -u");
}

int64_t call_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int call_fault(struct call *c, int err, const char *code, const char *fmt, ...)
{
	if (!c || c->fault.err)
		return -err;
	struct fault *f = &c->fault;
	fault_clear(f);
	f->err = err;
	f->code = copy_string(code);
	f->pid = c->pid;
	clock_gettime(CLOCK_REALTIME, &f->when);
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&f->message, fmt, ap) < 0)
		f->message = NULL; /* out of memory: the errno alone has to do */
	va_end(ap);
	return -err;
}

const char *fault_errno_name(int err)
{
	const char *name = err == ENOTSUP ? "ENOTSUP" : strerrorname_np(err);
	return name ? name : "EIO";
}

void call_fault_prefix(struct call *c, const char *prefix)
{
	if (!c || !c->fault.err)
		return;
	char *longer;
	const char *old = c->fault.message ? c->fault.message : "";
	if (asprintf(&longer, "%s%s", prefix, old) < 0)
		return;
	free(c->fault.message);
	c->fault.message = longer;
}
