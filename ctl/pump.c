/*
 * The pump: serves channels that were woken. A source wakes with its own locks held, while serving asks the source
 * (which takes these locks again): so the wake only queues the channel, and this thread does the rest.
 *
 * Owns the thread (started at the first opening that needs it) and the queue. Its lock is a leaf: nothing is called with it held.
 */
#include <errno.h>

#include "cleanup.h"
#include "kinds.h"

enum { PUMP_STACK = 256 * 1024 };

struct ctl_pump {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* something is queued, a channel has been served, or stop */
	struct ctl_channel *first, **last;
	pthread_t thread;
	unsigned channels; /* that may be woken */
	bool started, stop, retired;
};

int ctl_pump_new(struct ctl_pump **out)
{
	struct ctl_pump *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	p->last = &p->first;
	*out = p;
	return 0;
}

void ctl_pump_free(struct ctl_pump *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	if (p->started)
		pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void *pump_thread(void *arg)
{
	struct ctl_pump *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stop && !(p->retired && p->channels == 0)) {
		struct ctl_channel *ch = p->first;
		if (!ch) {
			pthread_cond_wait(&p->wake, &p->lock);
			continue;
		}
		p->first = ch->pump_next;
		if (!p->first)
			p->last = &p->first;
		ch->queued = false;
		ch->busy = true;
		pthread_mutex_unlock(&p->lock);
		ctl_channel_serve(ch);
		pthread_mutex_lock(&p->lock);
		ch->busy = false;
		pthread_cond_broadcast(&p->wake);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int ctl_pump_start(struct ctl_pump *p)
{
	AUTO_UNLOCK(&p->lock);
	if (p->retired)
		return -ESTALE;
	p->channels++;
	if (p->started)
		return 0;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PUMP_STACK);
	int err = pthread_create(&p->thread, &attr, pump_thread, p);
	pthread_attr_destroy(&attr);
	p->started = err == 0;
	p->channels -= err != 0;
	return -err;
}

void ctl_pump_retire(struct ctl_pump *p)
{
	AUTO_UNLOCK(&p->lock);
	p->retired = true;
	pthread_cond_broadcast(&p->wake);
}

void ctl_pump_wake(struct ctl_pump *p, struct ctl_channel *ch)
{
	AUTO_UNLOCK(&p->lock);
	if (ch->queued)
		return;
	ch->queued = true;
	ch->pump_next = NULL;
	*p->last = ch;
	p->last = &ch->pump_next;
	pthread_cond_broadcast(&p->wake);
}

void ctl_pump_leave(struct ctl_pump *p, struct ctl_channel *ch)
{
	AUTO_UNLOCK(&p->lock);
	if (ch->queued) {
		struct ctl_channel **at = &p->first;
		while (*at != ch)
			at = &(*at)->pump_next;
		*at = ch->pump_next;
		if (!*at)
			p->last = at;
		ch->queued = false;
	}
	while (ch->busy)
		pthread_cond_wait(&p->wake, &p->lock);
	p->channels--;
	if (p->retired)
		pthread_cond_broadcast(&p->wake);
}
