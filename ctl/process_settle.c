/*
 * What must be done before the end of a process is told to those who follow it: see processes.h.
 *
 * Owns one thread per set, started when first needed. However many ask at once, caches are dropped once for all who
 * asked before it began. Wakes run with the set's lock held: they only queue something (ctl_stream_wake).
 */
#include <signal.h>

#include "cleanup.h"
#include "log.h"
#include "processes.h"

static void settle_wake(struct process_set *set)
{
	for (struct process_settle *s = set->settle_waiting; s; s = s->next) {
		if (s->ticket <= set->settle_done)
			s->wake(s->arg);
	}
}

static void *settle_main(void *arg)
{
	struct process_set *set = arg;

	pthread_mutex_lock(&set->lock);
	for (;;) {
		while (!set->settle_stop && set->settle_done == set->settle_asked)
			pthread_cond_wait(&set->settle, &set->lock);
		if (set->settle_stop)
			break;
		uint64_t asked = set->settle_asked;
		pthread_mutex_unlock(&set->lock);
		sandbox_invalidate(set->sandbox);
		pthread_mutex_lock(&set->lock);
		set->settle_done = asked;
		settle_wake(set);
	}
	set->settle_done = set->settle_asked;
	settle_wake(set);
	pthread_mutex_unlock(&set->lock);
	return NULL;
}

/* With the lock held. */
static bool settle_start(struct process_set *set)
{
	sigset_t all, old;

	if (set->settling || set->settle_stop)
		return set->settling && !set->settle_stop;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
	set->settling = pthread_create(&set->settler, NULL, settle_main, set) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!set->settling)
		log_error("%s: no thread to drop caches", sandbox_name(set->sandbox));
	return set->settling;
}

void process_settle_ask(struct process_set *set, struct process_settle *s)
{
	AUTO_UNLOCK(&set->lock);
	if (s->ticket || !settle_start(set))
		return;
	s->ticket = ++set->settle_asked;
	s->next = set->settle_waiting;
	set->settle_waiting = s;
	pthread_cond_signal(&set->settle);
}

bool process_settled(struct process_set *set, struct process_settle *s)
{
	AUTO_UNLOCK(&set->lock);
	return s->ticket <= set->settle_done;
}

void process_settle_leave(struct process_set *set, struct process_settle *s)
{
	AUTO_UNLOCK(&set->lock);
	for (struct process_settle **at = &set->settle_waiting; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			return;
		}
	}
}

void process_settle_stop(struct process_set *set)
{
	pthread_mutex_lock(&set->lock);
	set->settle_stop = true;
	/* It is stopped when the sandbox is destroyed, and again when its memory goes. */
	bool running = set->settling;
	set->settling = false;
	pthread_cond_signal(&set->settle);
	pthread_mutex_unlock(&set->lock);
	if (running)
		pthread_join(set->settler, NULL);
}
