/*
 * The end of a server (sandbox.h): its starts are cancelled, its prober ended, then each sandbox says goodbye and is stopped, several at a
 * time and within one time for all. Owns the threads that do this, while it lasts.
 */
#include <stdlib.h>

#include "cleanup.h"
#include "sandbox_impl.h"

/* The end of a mount takes no longer, whatever its servers do; and the second of sandbox_stop_by. */
enum { FAREWELL_MS = 4000, FAREWELLS = 16 };

static void cancel_start(struct sandbox *sb)
{
	pthread_mutex_lock(&sb->lock);
	sb->closed = true;
	if (sb->starter)
		call_cancel(sb->starter);
	waitq_wake(&sb->changed);
	pthread_mutex_unlock(&sb->lock);
}

/* What is left to be ended, under lock; the lists themselves do not change any more. */
struct farewell {
	pthread_mutex_t lock;
	struct sandbox *next, *then;
};

static void *say_farewell(void *arg)
{
	struct farewell *f = arg;

	for (;;) {
		pthread_mutex_lock(&f->lock);
		if (!f->next)
			f->next = steal(f->then);
		struct sandbox *sb = f->next;
		if (sb)
			f->next = sb->next;
		pthread_mutex_unlock(&f->lock);
		if (!sb)
			return NULL;
		sandbox_probe_end(sb);
		sandbox_release_attachments(sb);
		sandbox_stop(sb);
	}
}

/* Several at a time: one whose server is slow to hear of it must not take the others' time. */
static void end_lists(struct sandbox *some, struct sandbox *others)
{
	struct farewell f = {.next = some, .then = others};
	pthread_t helpers[FAREWELLS];
	unsigned count = 0;

	pthread_mutex_init(&f.lock, NULL);
	for (struct sandbox *sb = some; sb && sb->next && count < FAREWELLS; sb = sb->next)
		if (pthread_create(&helpers[count], NULL, say_farewell, &f) == 0)
			count++;
	(void)say_farewell(&f); /* without any of them as well */
	while (count)
		pthread_join(helpers[--count], NULL);
	pthread_mutex_destroy(&f.lock);
}

static void put_list(struct sandbox *list)
{
	struct sandbox *next;

	for (struct sandbox *sb = list; sb; sb = next) {
		next = sb->next;
		sandbox_put(sb);
	}
}

void server_end_sandboxes(struct server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	if (!s->end_by_ms)
		s->end_by_ms = call_now_ms() + FAREWELL_MS;
	for (struct sandbox *sb = s->sandboxes; sb; sb = sb->next)
		cancel_start(sb);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->has_prober)
		pthread_join(s->prober, NULL);
	s->has_prober = false;
	pthread_mutex_lock(&s->lock);
	while (s->background)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	end_lists(s->sandboxes, s->destroyed);
}

void server_free(struct server *s)
{
	if (!s)
		return;
	server_end_sandboxes(s);
	put_list(s->sandboxes);
	put_list(s->destroyed);
	if (s->driver_state)
		s->driver->close(s->driver_state);
	fault_clear(&s->fault);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
