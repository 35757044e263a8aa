/*
 * Relays: see relay.h.
 *
 * One lock covers everything; the thread holds it while it handles events, which never block, and not while it waits for
 * them. What is closed by another thread may still be named by events that were fetched before: it is marked dead,
 * put aside, and freed by the thread before it waits again.
 * A socket that has nothing to do is taken out of epoll altogether: a hang-up would be told of it over and over.
 */
#include "relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "relay_socket.h"

enum {
	RELAY_BUFFER = 64 << 10,
	RELAY_HEAD_MAX = 8 << 10,
	RELAY_CONNECT_MS = 30000, /* until the server has answered the request */
	RELAY_STARVED_MS = 200,   /* no descriptor was free: until the next is tried */
	RELAY_AGAIN_MS = 20,      /* a full queue of a Unix socket cannot be waited for */
	RELAY_EVENTS = 64
};

enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_CLIENT, SOURCE_SERVER };

/* A descriptor in epoll. */
struct source {
	enum source_kind kind;
	int fd;
	uint32_t armed; /* 0: not in epoll */
	void *owner;    /* listener or connection */
};

struct listener {
	struct listener *next;
	struct source source;
	uint16_t port; /* inside */
	bool dead;
};

/* Bytes on their way in one direction. */
struct flow {
	char *data; /* RELAY_BUFFER bytes */
	size_t at, size;
	bool ended; /* no more will come */
	bool shut;  /* and that was passed on */
};

enum connection_state {
	CONNECTION_CONNECTING,
	CONNECTION_ASKING, /* the request is on its way */
	CONNECTION_HEAD,   /* its answer is */
	CONNECTION_OPEN
};

struct connection {
	struct connection *next, *prev;
	struct source client, server;
	enum connection_state state;
	uint16_t port;
	bool dead;
	int64_t deadline, again_at; /* again_at 0: not waiting to connect again */
	struct sockaddr_storage address;
	socklen_t address_size;
	struct buf request;
	struct flow up, down; /* to the sandbox, from it */
};

struct relay_set {
	struct sandbox *sb;
	pthread_mutex_t lock; /* covers all below */
	int epoll;
	struct source wake;
	pthread_t thread;
	bool running, stop;
	struct listener *listeners, *dead_listeners;
	struct connection *connections, *dead_connections;
	unsigned count;
	bool full;         /* listeners are out of epoll */
	int64_t accept_at; /* likewise until then, for want of descriptors; 0: no */
	struct sockaddr_storage
		address; /* of a server reached over TCP, looked up when the first port was opened */
	socklen_t address_size;
};

/* ---- epoll ---- */

static void source_arm(struct relay_set *s, struct source *x, uint32_t events)
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

static void source_close(struct relay_set *s, struct source *x)
{
	source_arm(s, x, 0);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
}

/* ---- connections ---- */

static void listeners_arm(struct relay_set *s)
{
	s->full = s->count >= RELAY_CONNECTIONS;
	for (struct listener *l = s->listeners; l; l = l->next)
		source_arm(s, &l->source, s->full || s->accept_at ? 0 : EPOLLIN);
}

/* Closes both sides and puts it aside. reset: the client is to see that this was no proper end. */
static void connection_close(struct relay_set *s, struct connection *x, bool reset)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	if (x->dead)
		return;
	x->dead = true;
	if (reset && x->client.fd >= 0 &&
		setsockopt(x->client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) < 0)
		log_debug("relay: %s", strerror(errno));
	source_close(s, &x->client);
	source_close(s, &x->server);
	if (x->prev)
		x->prev->next = x->next;
	else
		s->connections = x->next;
	if (x->next)
		x->next->prev = x->prev;
	x->next = s->dead_connections;
	s->dead_connections = x;
	s->count--;
	if (s->full)
		listeners_arm(s);
}

static void connection_free(struct connection *x)
{
	free(x->up.data);
	free(x->down.data);
	buf_release(&x->request);
	free(x);
}

static bool flow_has_room(const struct flow *f)
{
	return !f->ended && f->size < RELAY_BUFFER;
}

/* Takes what fd has. False: it broke. */
static bool flow_fill(struct flow *f, int fd)
{
	if (f->at > 0) {
		memmove(f->data, f->data + f->at, f->size);
		f->at = 0;
	}
	while (flow_has_room(f)) {
		ssize_t n = recv(fd, f->data + f->size, RELAY_BUFFER - f->size, 0);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0)
			f->ended = true;
		f->size += (size_t)n;
	}
	return true;
}

/* Gives fd what there is, and the end after it. False: it broke. */
static bool flow_drain(struct flow *f, int fd)
{
	while (f->size > 0) {
		ssize_t n = send(fd, f->data + f->at, f->size, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		f->at += (size_t)n;
		f->size -= (size_t)n;
	}
	f->at = 0;
	if (f->ended && !f->shut) {
		f->shut = true;
		if (shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN)
			return false;
	}
	return true;
}

/* What each side waits for now. */
static void connection_arm(struct relay_set *s, struct connection *x)
{
	uint32_t client = 0, server = 0;

	if (x->dead)
		return;
	if (flow_has_room(&x->up))
		client |= EPOLLIN;
	if (x->down.size > 0 && x->state == CONNECTION_OPEN)
		client |= EPOLLOUT;
	if (x->state >= CONNECTION_HEAD && flow_has_room(&x->down))
		server |= EPOLLIN;
	if ((x->state == CONNECTION_CONNECTING && !x->again_at) || x->request.size > 0 ||
		(x->state == CONNECTION_OPEN && x->up.size > 0))
		server |= EPOLLOUT;
	source_arm(s, &x->client, client);
	source_arm(s, &x->server, server);
}

/* The answer to the request, bounded. False: it is none, or a refusal. */
static bool connection_head(struct connection *x)
{
	struct flow *f = &x->down;
	size_t look = f->size < RELAY_HEAD_MAX ? f->size : RELAY_HEAD_MAX;
	const char *end = memmem(f->data + f->at, look, "\r\n\r\n", 4);

	if (!end)
		return look < RELAY_HEAD_MAX && !f->ended;
	if (look < 12 || memcmp(f->data + f->at, "HTTP/1.1 101", 12) != 0)
		return false;
	size_t head = (size_t)(end - (f->data + f->at)) + 4;
	f->at += head;
	f->size -= head;
	x->state = CONNECTION_OPEN;
	x->deadline = -1;
	return true;
}

static int connection_connect(struct connection *x)
{
	x->again_at = 0;
	if (connect(x->server.fd, (struct sockaddr *)&x->address, x->address_size) == 0) {
		x->state = CONNECTION_ASKING;
		return 0;
	}
	if (errno == EINPROGRESS)
		return 0;
	if (errno != EAGAIN)
		return -errno;
	x->again_at = call_now_ms() + RELAY_AGAIN_MS;
	return 0;
}

/* Moves whatever can be moved. False: it is over, and reset tells how. */
static bool connection_move(struct connection *x, bool *reset)
{
	*reset = true;
	if (x->state == CONNECTION_CONNECTING) {
		int err = 0;
		socklen_t size = sizeof(err);

		if (x->again_at)
			return flow_fill(&x->up, x->client.fd);
		if (getsockopt(x->server.fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 || err)
			return false;
		struct sockaddr_storage peer;
		size = sizeof(peer);
		if (getpeername(x->server.fd, (struct sockaddr *)&peer, &size) < 0)
			return errno == ENOTCONN && flow_fill(&x->up, x->client.fd);
		x->state = CONNECTION_ASKING;
	}
	if (x->state == CONNECTION_ASKING) {
		while (x->request.size > 0) {
			ssize_t n = send(x->server.fd, x->request.data, x->request.size, MSG_NOSIGNAL);
			if (n < 0)
				return (errno == EAGAIN || errno == EINTR) && flow_fill(&x->up, x->client.fd);
			buf_consume(&x->request, (size_t)n);
		}
		x->state = CONNECTION_HEAD;
	}
	if (!flow_fill(&x->up, x->client.fd) || !flow_fill(&x->down, x->server.fd))
		return false;
	if (x->state == CONNECTION_HEAD && !connection_head(x))
		return false;
	if (x->state != CONNECTION_OPEN)
		return true;
	if (!flow_drain(&x->up, x->server.fd) || !flow_drain(&x->down, x->client.fd))
		return false;
	*reset = false;
	return !(x->up.shut && x->down.shut);
}

static void connection_serve(struct relay_set *s, struct connection *x)
{
	bool reset;

	if (x->dead)
		return;
	if (connection_move(x, &reset))
		connection_arm(s, x);
	else
		connection_close(s, x, reset);
}

/* Where the sandbox's server is now. */
static int connection_address(struct relay_set *s, struct connection *x)
{
	const struct http_target *target = sandbox_target(s->sb);
	struct sockaddr_un *un = (struct sockaddr_un *)&x->address;

	if (!target)
		return -EHOSTUNREACH;
	if (!target->unix_path) {
		x->address = s->address;
		x->address_size = s->address_size;
		return s->address_size ? 0 : -EHOSTUNREACH;
	}
	if (strlen(target->unix_path) >= sizeof(un->sun_path))
		return -ENAMETOOLONG;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, target->unix_path, strlen(target->unix_path) + 1);
	x->address_size = sizeof(*un);
	return 0;
}

static int connection_request(struct relay_set *s, struct connection *x)
{
	const struct http_target *target = sandbox_target(s->sb);

	if (!target)
		return -EHOSTUNREACH;
	const char *host = strstr(target->base, "//");
	buf_printf(&x->request,
		"GET /api/sandboxfs/relay/%u HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
		"Upgrade: sandboxfs-relay\r\n",
		x->port, host ? host + 2 : "localhost");
	if (target->token)
		buf_printf(&x->request, "Authorization: Bearer %s\r\n", target->token);
	buf_str(&x->request, "\r\n");
	return buf_error(&x->request);
}

/* Takes fd. */
static void connection_new(struct relay_set *s, struct listener *l, int fd)
{
	struct connection *x = calloc(1, sizeof(*x));
	int one = 1, err = x ? 0 : -ENOMEM;

	if (err) {
		close(fd);
		return;
	}
	x->client = (struct source){SOURCE_CLIENT, fd, 0, x};
	x->server = (struct source){SOURCE_SERVER, -1, 0, x};
	x->port = l->port;
	x->deadline = call_now_ms() + RELAY_CONNECT_MS;
	x->next = s->connections;
	if (x->next)
		x->next->prev = x;
	s->connections = x;
	s->count++;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		log_debug("relay: %s", strerror(errno));
	x->up.data = malloc(RELAY_BUFFER);
	x->down.data = malloc(RELAY_BUFFER);
	err = x->up.data && x->down.data ? connection_address(s, x) : -ENOMEM;
	if (!err)
		err = connection_request(s, x);
	if (!err) {
		x->server.fd = socket(x->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		err = x->server.fd < 0 ? -errno : connection_connect(x);
	}
	if (!err) {
		connection_arm(s, x);
		return;
	}
	log_info("%s: ports/%u: %s", sandbox_name(s->sb), x->port, strerror(-err));
	connection_close(s, x, true);
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
	listeners_arm(s);
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
		listeners_arm(s);
	}
	if (s->accept_at)
		next = s->accept_at;
	for (struct connection *x = s->connections, *after; x; x = after) {
		after = x->next;
		if (x->deadline >= 0 && x->deadline <= now) {
			connection_close(s, x, true);
			continue;
		}
		if (x->again_at && x->again_at <= now) {
			if (connection_connect(x) < 0) {
				connection_close(s, x, true);
				continue;
			}
			connection_arm(s, x);
		}
		if (x->again_at && (next < 0 || x->again_at < next))
			next = x->again_at;
		if (x->deadline >= 0 && (next < 0 || x->deadline < next))
			next = x->deadline;
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
	source_arm(s, &s->wake, EPOLLIN);
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
	source_close(s, &l->source);
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
	listeners_arm(s);
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
