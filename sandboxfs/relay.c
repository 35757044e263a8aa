/*
 * Relays: see relay.h.
 *
 * One lock covers everything; the thread holds it while it handles events, which never block, and not while it waits for
 * them. What is closed by another thread may still be named by events that were fetched before: it is marked dead,
 * put aside, and freed by the thread before it waits again.
 * A socket that has nothing to do is taken out of epoll altogether: a hang-up would be told of it over and over.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "relay_impl.h"
#include "relay_socket.h"

enum {
	RELAY_STARVED_MS = 200, /* no descriptor was free: until the next is tried */
	RELAY_EVENTS = 64
};

/* ---- epoll ---- */

void relay_source_arm(struct relay_set *s, struct source *x, uint32_t events)
{
	struct epoll_event e = {.events = events, .data = {.ptr = x}};
	int op = !x->armed ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

	if (x->armed == events || x->fd < 0)
		return;
	if (epoll_ctl(s->epoll, op, x->fd, &e) < 0)
		log_error(
			"relay: epoll: %s", strerror(errno)); /* the connection stalls until its peer leaves */
	else
		x->armed = events;
}

void relay_source_close(struct relay_set *s, struct source *x)
{
	relay_source_arm(s, x, 0);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
}

void relay_listeners_arm(struct relay_set *s)
{
	s->full = s->count >= RELAY_CONNECTIONS;
	for (struct listener *l = s->listeners; l; l = l->next)
		relay_source_arm(s, &l->source, s->full || s->accept_at ? 0 : EPOLLIN);
}

/* ---- the thread ---- */

static void listener_accept(struct relay_set *s, struct listener *l)
{
	while (!l->dead && s->count < RELAY_CONNECTIONS) {
		int fd = accept4(l->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			/* A listener whose connection cannot be taken would be told of at once, over and over. */
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
				log_error("relay: %s", strerror(errno));
				s->accept_at = call_now_ms() + RELAY_STARVED_MS;
			}
			break;
		}
		connection_new(s, l, fd);
	}
	relay_listeners_arm(s);
}

static void relay_event(struct relay_set *s, struct source *x)
{
	uint64_t count;

	switch (x->kind) {
	case SOURCE_WAKE:
		if (read(x->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			log_error("relay: %s", strerror(errno));
		break;
	case SOURCE_LISTENER:
		listener_accept(s, x->owner);
		break;
	default:
		connection_serve(s, x->owner);
	}
}

/* Connects again, gives up what takes too long. How long may be waited now: ms, or -1. */
static int relay_tick(struct relay_set *s)
{
	int64_t now = call_now_ms(), next = -1;

	if (s->accept_at && s->accept_at <= now) {
		s->accept_at = 0;
		relay_listeners_arm(s);
	}
	if (s->accept_at)
		next = s->accept_at;
	for (struct connection *x = s->connections, *after; x; x = after) {
		after = x->next;
		connection_tick(s, x, now, &next);
	}
	return next < 0 ? -1 : next <= now ? 0 : (int)(next - now);
}

static void relay_bury(struct relay_set *s)
{
	while (s->dead_connections) {
		struct connection *x = s->dead_connections;
		s->dead_connections = x->next;
		connection_free(x);
	}
	while (s->dead_listeners) {
		struct listener *l = s->dead_listeners;
		s->dead_listeners = l->next;
		free(l);
	}
}

static void *relay_main(void *arg)
{
	struct relay_set *s = arg;
	struct epoll_event events[RELAY_EVENTS];

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int wait = relay_tick(s);

		relay_bury(s);
		pthread_mutex_unlock(&s->lock);
		int n = epoll_wait(s->epoll, events, RELAY_EVENTS, wait);
		pthread_mutex_lock(&s->lock);
		for (int i = 0; i < n; i++) {
			struct source *x = events[i].data.ptr;
			if (x->fd >= 0)
				relay_event(s, x);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- what callers do ---- */

static void relay_wake(struct relay_set *s)
{
	uint64_t one = 1;

	if (write(s->wake.fd, &one, sizeof(one)) < 0)
		log_error("relay: %s", strerror(errno));
}

int relay_set_new(struct sandbox *sb, struct relay_set **out)
{
	struct relay_set *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sb = sb;
	s->epoll = -1;
	s->wake = (struct source){SOURCE_WAKE, -1, 0, NULL};
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

/* With the lock held. */
static int relay_run(struct relay_set *s)
{
	sigset_t all, old;
	int err = 0;

	if (s->running)
		return 0;
	if (s->epoll < 0)
		s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->wake.fd < 0)
		s->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll < 0 || s->wake.fd < 0)
		return -errno;
	relay_source_arm(s, &s->wake, EPOLLIN);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&s->thread, NULL, relay_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->running = !err;
	return err;
}

static void listener_close(struct relay_set *s, struct listener **at)
{
	struct listener *l = *at;

	*at = l->next;
	l->dead = true;
	sandbox_use(s->sb, -1);
	relay_source_close(s, &l->source);
	for (struct connection *x = s->connections, *next; x; x = next) {
		next = x->next;
		if (x->port == l->port)
			connection_close(s, x, true);
	}
	l->next = s->dead_listeners;
	s->dead_listeners = l;
}

void relay_set_stop(struct relay_set *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	while (s->listeners)
		listener_close(s, &s->listeners);
	while (s->connections)
		connection_close(s, s->connections, true);
	bool running = s->running;
	s->running = false;
	if (running)
		relay_wake(s);
	pthread_mutex_unlock(&s->lock);
	if (running)
		pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	relay_bury(s);
	pthread_mutex_unlock(&s->lock);
}

void relay_set_free(struct relay_set *s)
{
	if (!s)
		return;
	relay_set_stop(s);
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->wake.fd >= 0)
		close(s->wake.fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int relay_open(struct relay_set *s, struct call *c, uint16_t port, uint16_t *listens)
{
	const struct http_target *target = sandbox_target(s->sb);
	struct sockaddr_storage address = {0};
	socklen_t address_size = 0;
	AUTO_FD int fd = -1;
	int err = 0;

	if (!target)
		return call_fault(c, EHOSTUNREACH, NULL, "the sandbox does not run");
	if (!target->unix_path)
		err = relay_resolve(c, target->base, &address, &address_size);
	if (err)
		return err;
	*listens = port;
	err = relay_listen(listens, &fd);
	if (err)
		return call_fault(
			c, -err, NULL, "no socket can be opened on 127.0.0.1: %s", strerror(-err));
	struct listener *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	AUTO_UNLOCK(&s->lock);
	for (struct listener *other = s->listeners; other; other = other->next) {
		if (other->port == port)
			err = -EEXIST;
	}
	if (!err)
		err = s->stop ? -ECANCELED : relay_run(s);
	if (err) {
		free(l);
		return err;
	}
	if (address_size) {
		s->address = address;
		s->address_size = address_size;
	}
	l->port = port;
	l->source = (struct source){SOURCE_LISTENER, steal_fd(&fd), 0, l};
	l->next = s->listeners;
	s->listeners = l;
	sandbox_use(s->sb, 1);
	relay_listeners_arm(s);
	return 0;
}

void relay_close(struct relay_set *s, uint16_t port)
{
	AUTO_UNLOCK(&s->lock);
	for (struct listener **at = &s->listeners; *at; at = &(*at)->next) {
		if ((*at)->port == port) {
			listener_close(s, at);
			if (s->running)
				relay_wake(s);
			return;
		}
	}
}
