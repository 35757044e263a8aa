/*
 * A queue of calls that wait for a condition under somebody's lock: a condition variable whose waits can be cancelled.
 * Owns nothing: the waiters live on the stacks of the waiting threads. Lock order: the owner's lock, then a call's.
 */
#ifndef SBX_WAITQ_H
#define SBX_WAITQ_H

#include <pthread.h>

#include "call.h"

struct waitq_waiter;
struct waitq {
	struct waitq_waiter *first; /* under the owner's lock */
};

/*
 * Waits for the next waitq_wake; lock is held, released meanwhile, and held again after. Look at the condition in a
 * loop. 0, -EINTR (cancelled), -ETIMEDOUT (deadline of call_now_ms; <0 none).
 */
int waitq_wait(struct waitq *q, pthread_mutex_t *lock, struct call *c, int64_t deadline_ms);
/* Wakes all; lock is held. */
void waitq_wake(struct waitq *q);

#endif
