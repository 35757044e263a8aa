/*
 * One connection of a relay: asks the sandbox's server for the port, then moves bytes and half-closes both ways through
 * a bounded buffer each. See relay_impl.h. Touches neither listeners nor other connections.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "relay_impl.h"

enum {
	RELAY_BUFFER = 64 << 10,
	RELAY_HEAD_MAX = 8 << 10,
	RELAY_CONNECT_MS = 30000, /* until the server has answered the request */
	RELAY_AGAIN_MS = 20       /* a full queue of a Unix socket cannot be waited for */
};

void connection_close(struct relay_set *s, struct connection *x, bool reset)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	if (x->dead)
		return;
	x->dead = true;
	if (reset && x->client.fd >= 0 &&
		setsockopt(x->client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) < 0)
		log_debug("relay: %s", strerror(errno));
	relay_source_close(s, &x->client);
	relay_source_close(s, &x->server);
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
		relay_listeners_arm(s);
}

void connection_free(struct connection *x)
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
	relay_source_arm(s, &x->client, client);
	relay_source_arm(s, &x->server, server);
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

void connection_serve(struct relay_set *s, struct connection *x)
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

void connection_new(struct relay_set *s, struct listener *l, int fd)
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

void connection_tick(struct relay_set *s, struct connection *x, int64_t now, int64_t *next)
{
	if (x->deadline >= 0 && x->deadline <= now) {
		connection_close(s, x, true);
		return;
	}
	if (x->again_at && x->again_at <= now) {
		if (connection_connect(x) < 0) {
			connection_close(s, x, true);
			return;
		}
		connection_arm(s, x);
	}
	if (x->again_at && (*next < 0 || x->again_at < *next))
		*next = x->again_at;
	if (x->deadline >= 0 && (*next < 0 || x->deadline < *next))
		*next = x->deadline;
}
