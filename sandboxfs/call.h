/*
 * A call: one piece of work that somebody waits for, and how it can end early.
 *
 * Owns its lock and condition. Every blocking function of the program takes a call;
 * call_cancel() from any thread ends its wait with -EINTR. A call also carries the fault:
 * the sentence for the person, filled in once, where a failure is understood.
 * Knows nothing of FUSE or HTTP.
 */
#ifndef SBX_CALL_H
#define SBX_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* What a person must know of a failure. Strings are owned; NULL where not known. */
struct fault {
	int err;       /* positive errno; 0: no fault */
	char *code;    /* the API's word, e.g. FILE_NOT_FOUND */
	char *message; /* FILE: what is wrong; the way out */
	char *suggestion;
	char *operation;
	char *path;
	struct timespec when; /* CLOCK_REALTIME */
	int pid;              /* who asked; 0 unknown */
	bool retry;           /* safe to repeat as it is */
};

/* The name of an errno (positive) as the manual has it: of ENOTSUP's two this one; EIO for a number without a name. */
const char *fault_errno_name(int err);
void fault_clear(struct fault *f);
/* Deep copy; on out of memory strings are missing, err never is. */
void fault_copy(struct fault *to, const struct fault *from);

struct call {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* CLOCK_MONOTONIC; signalled by call_wake and call_cancel */
	bool cancelled;      /* under lock */
	int64_t until_ms;    /* under lock: from then on it is cancelled; 0: by call_cancel alone */
	/* Set before the work begins, by who gives the thread: there is no other to go on meanwhile, so what would wait fails, -ENOMEM. */
	bool never_waits;
	int pid;            /* who asked, for the fault; 0 unknown */
	struct fault fault; /* the thread that does the work alone writes it */
};

void call_init(struct call *c, int pid);
void call_destroy(struct call *c);
/* Any thread; idempotent. */
void call_cancel(struct call *c);
bool call_cancelled(struct call *c);
/* Cancels it at that time (call_now_ms), if it lasts so long: one limit for all it does. Any thread, also while it waits; the earliest counts. */
void call_end_by(struct call *c, int64_t until_ms);
/* Wakes the waiter to look at its condition again; any thread. */
void call_wake(struct call *c);
/*
 * Waits until done(arg) is true (asked with the lock held; what it looks at is changed before call_wake).
 * 0, -EINTR when cancelled, -ETIMEDOUT at deadline_ms (call_now_ms clock; <0: none), -ENOMEM if it never waits.
 */
int call_wait(struct call *c, bool (*done)(void *arg), void *arg, int64_t deadline_ms);
int64_t call_now_ms(void); /* CLOCK_MONOTONIC */
/* Before work that waits elsewhere than in call_wait, or must not be begun and left: 0, or -ENOMEM with a fault if c never waits. */
int call_may_wait(struct call *c);

/* Fills the fault if none is there yet and returns -err: return call_fault(c, ENOTSUP, NULL, "ports/%s: …", …). c may be NULL. */
int call_fault(struct call *c, int err, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Puts a prefix such as "exec: " in front of the message; no effect without a fault. */
void call_fault_prefix(struct call *c, const char *prefix);

#endif
