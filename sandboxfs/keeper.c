/*
 * The keeper's thread and list: see keeper.h. Knows nothing of what it keeps.
 */
#include "keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "call.h"
#include "timed.h"

static const char keeper_key;

/* Drops one reference and the lock. */
static void keeper_put(struct keeper *k)
{
	bool last = --k->refs == 0;

	pthread_mutex_unlock(&k->lock);
	if (!last)
		return;
	pthread_cond_destroy(&k->wake);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

/* True: something was done and the lock let go, look again from the start. */
static bool keeper_round(struct keeper *k, int64_t *next, bool *idle)
{
	int64_t now = call_now_ms();

	*next = -1;
	*idle = true;
	for (struct kept *i = k->items; i; i = i->next) {
		if (i->finished)
			continue;
		*idle = false;
		if (i->tend(i, now, next))
			return true;
	}
	return false;
}

static void *keeper_main(void *arg)
{
	struct keeper *k = arg;
	int64_t next;
	bool idle;

	pthread_mutex_lock(&k->lock);
	for (;;) {
		if (keeper_round(k, &next, &idle))
			continue;
		if (k->stopping && idle)
			break;
		(void)timed_cond_wait(&k->wake, &k->lock, next); /* looked at in any case */
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

static void *keeper_make(struct sandbox *sb)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->sb = sb;
	k->refs = 1;
	pthread_mutex_init(&k->lock, NULL);
	(void)timed_cond_init(&k->wake); /* CLOCK_MONOTONIC is always there */
	return k;
}

static void keeper_stop(void *data)
{
	struct keeper *k = data;

	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	bool running = k->running;
	pthread_cond_broadcast(&k->wake);
	pthread_mutex_unlock(&k->lock);
	if (!running)
		return;
	pthread_join(k->thread, NULL);
	pthread_mutex_lock(&k->lock);
	k->running = false;
	pthread_mutex_unlock(&k->lock);
}

static void keeper_release(void *data)
{
	struct keeper *k = data;

	keeper_stop(k);
	pthread_mutex_lock(&k->lock);
	keeper_put(k);
}

static int keeper_run(struct keeper *k)
{
	sigset_t all, old;
	int err;

	if (k->stopping)
		return -ECANCELED;
	if (k->running)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
	err = -pthread_create(&k->thread, NULL, keeper_main, k);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	k->running = !err;
	return err;
}

int keeper_add(struct sandbox *sb, struct kept *item)
{
	struct keeper *k = sandbox_attach(sb, &keeper_key, keeper_make, keeper_stop, keeper_release);
	int err;

	if (!k)
		return -ENOMEM;
	pthread_mutex_lock(&k->lock);
	err = keeper_run(k);
	if (!err) {
		item->keeper = k;
		item->prev = NULL;
		item->next = k->items;
		if (item->next)
			item->next->prev = item;
		k->items = item;
		k->refs++;
		pthread_cond_broadcast(&k->wake);
	}
	pthread_mutex_unlock(&k->lock);
	return err;
}

void keeper_remove(struct kept *item)
{
	struct keeper *k = item->keeper;

	pthread_mutex_lock(&k->lock);
	if (item->prev)
		item->prev->next = item->next;
	else
		k->items = item->next;
	if (item->next)
		item->next->prev = item->prev;
	keeper_put(k);
}

bool keeper_is_self(const struct keeper *k)
{
	return k->running && pthread_equal(pthread_self(), k->thread);
}
