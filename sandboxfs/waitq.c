/*
 * See waitq.h.
 */
#include "waitq.h"

struct waitq_waiter {
	struct call *call;
	bool woken; /* under the call's lock */
	struct waitq_waiter *next;
};

static bool is_woken(void *arg)
{
	return ((struct waitq_waiter *)arg)->woken;
}

int waitq_wait(struct waitq *q, pthread_mutex_t *lock, struct call *c, int64_t deadline_ms)
{
	struct waitq_waiter w = {.call = c, .next = q->first};
	int err;

	q->first = &w;
	pthread_mutex_unlock(lock);
	err = call_wait(c, is_woken, &w, deadline_ms);
	pthread_mutex_lock(lock);
	for (struct waitq_waiter **at = &q->first; *at; at = &(*at)->next) {
		if (*at == &w) {
			*at = w.next;
			break;
		}
	}
	return err;
}

void waitq_wake(struct waitq *q)
{
	struct waitq_waiter *w, *next;

	/* A woken waiter takes itself out under the owner's lock, which we hold. */
	for (w = q->first; w; w = next) {
		next = w->next;
		pthread_mutex_lock(&w->call->lock);
		w->woken = true;
		pthread_cond_broadcast(&w->call->wake);
		pthread_mutex_unlock(&w->call->lock);
	}
}
