/*
 * WebSockets: see websocket.h. Opening one, and what its owner does with it.
 */
#include "websocket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "cleanup.h"
#include "log.h"
#include "relay_socket.h"
#include "websocket_impl.h"

/* ---- waiting ---- */

static bool waiter_told(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->told);
}

/* Lets go of the lock until something has changed. 0 or -EINTR. */
static int wait_for_change(struct websocket *w, struct call *c, int64_t deadline)
{
	struct waiter x = {.call = c};

	x.next = w->waiters;
	w->waiters = &x;
	pthread_mutex_unlock(&w->set->lock);
	int err = call_wait(c, waiter_told, &x, deadline);
	pthread_mutex_lock(&w->set->lock);
	for (struct waiter **at = &w->waiters; *at; at = &(*at)->next) {
		if (*at == &x) {
			*at = x.next;
			break;
		}
	}
	return err;
}

/* ---- opening ---- */

static int find_server(
	struct call *c, const struct http_target *target, struct sockaddr_storage *to, socklen_t *size)
{
	struct sockaddr_un *un = (struct sockaddr_un *)to;

	if (!target->unix_path)
		return relay_resolve(c, target->base, to, size);
	if (strlen(target->unix_path) >= sizeof(un->sun_path))
		return -ENAMETOOLONG;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, target->unix_path, strlen(target->unix_path) + 1);
	*size = sizeof(*un);
	return 0;
}

/* The requests: to the relay and through it to the service, or to the server itself. */
static int make_requests(
	struct websocket *w, const struct http_target *target, const struct websocket_spec *spec)
{
	const char *slashes = strstr(target->base, "//");
	const char *server = slashes ? slashes + 2 : "localhost";
	char host[32]; /* a number of ours */

	int err = websocket_make_key(w->key);
	if (err)
		return err;
	if (spec->protocol && !(w->wanted = strdup(spec->protocol)))
		return -ENOMEM;
	if (!spec->port)
		return websocket_request(&w->out, spec, server, target->token, w->key);
	snprintf(host, sizeof(host), "localhost:%u", spec->port);
	buf_printf(&w->out,
		"GET /api/sandboxfs/relay/%u HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
		"Upgrade: sandboxfs-relay\r\n",
		spec->port, server);
	if (target->token)
		buf_printf(&w->out, "Authorization: Bearer %s\r\n", target->token);
	buf_str(&w->out, "\r\n");
	err = websocket_request(&w->request, spec, host, NULL, w->key);
	return err ? err : buf_error(&w->out);
}

static int make_socket(struct websocket *w)
{
	int one = 1;

	w->fd = socket(w->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (w->fd < 0)
		return -errno;
	/* A link that is gone is noticed without a byte to send. */
	if (w->address.ss_family != AF_UNIX &&
		(setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
			setsockopt(w->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) < 0))
		log_debug("websocket: %s", strerror(errno));
	return websocket_try_connect(w);
}

static struct websocket *make(struct websocket_set *s, const struct websocket_spec *spec,
	const struct http_target *target, const struct websocket_events *ev, void *arg, int *err)
{
	struct websocket *w = calloc(1, sizeof(*w));

	if (!w) {
		*err = -ENOMEM;
		return NULL;
	}
	w->fd = -1;
	w->set = s;
	w->ev = *ev;
	w->arg = arg;
	atomic_init(&w->refs, 1);
	*err = make_requests(w, target, spec);
	if (*err) {
		websocket_release(w);
		return NULL;
	}
	return w;
}

/* Into the list, and on its way. With the lock held. */
static int start(struct websocket_set *s, struct websocket *w, struct call *c)
{
	int err = websocket_set_run(s);

	if (err)
		return err;
	if (s->count >= WEBSOCKET_CONNECTIONS)
		return call_fault(c, EMFILE, NULL, "%d connections are open; close one", s->count);
	err = make_socket(w);
	if (err) {
		if (w->fd >= 0)
			close(w->fd);
		return err == -ENOENT || err == -ECONNREFUSED
				   ? call_fault(c, EHOSTUNREACH, NULL, "the sandbox's server cannot be reached")
				   : err;
	}
	w->deadline = call_now_ms() + sandbox_options(s->sb)->timeout_ms;
	s->refs++;
	s->count++;
	sandbox_use(s->sb, 1);
	w->next = s->first;
	if (w->next)
		w->next->prev = w;
	s->first = w;
	websocket_arm(w);
	websocket_set_wake(s); /* the deadline is new */
	return 0;
}

int websocket_open(struct websocket_set *s, struct call *c, const struct websocket_spec *spec,
	const struct websocket_events *ev, void *arg, struct websocket **out)
{
	int err = websocket_check(c, spec);

	if (!err)
		err = call_may_wait(c);
	if (!err)
		err = sandbox_ready(s->sb, c);
	if (err)
		return err;
	const struct http_target *target = sandbox_target(s->sb);
	if (!target)
		return call_fault(c, EHOSTUNREACH, NULL, "the sandbox does not run");
	struct websocket *w = make(s, spec, target, ev, arg, &err);
	if (!w)
		return err;
	err = find_server(c, target, &w->address, &w->address_size);
	pthread_mutex_lock(&s->lock);
	if (!err)
		err = start(s, w, c);
	if (err) {
		pthread_mutex_unlock(&s->lock);
		websocket_release(w);
		return err;
	}
	while (!err && w->state < WEBSOCKET_OPEN)
		err = wait_for_change(w, c, -1);
	if (!err && w->state == WEBSOCKET_ENDED)
		err = w->err;
	if (err && err != -EINTR)
		call_fault(c, -err, NULL, "%s", w->why ? w->why : strerror(-err));
	pthread_mutex_unlock(&s->lock);
	if (err) {
		websocket_put(w);
		return err;
	}
	*out = w;
	return 0;
}

/* ---- what owners do ---- */

struct websocket *websocket_get(struct websocket *w)
{
	atomic_fetch_add(&w->refs, 1);
	return w;
}

/* Nobody listens any more. With the lock held. */
static void leave(struct websocket *w)
{
	w->left = true;
	if (w->state < WEBSOCKET_OPEN) {
		websocket_finish(w, -ECANCELED, NULL);
		return;
	}
	if (w->state == WEBSOCKET_OPEN) {
		w->state = WEBSOCKET_CLOSING;
		w->close_code = WEBSOCKET_NORMAL;
		w->deadline = call_now_ms() + WEBSOCKET_CLOSE_MS;
		websocket_tell_waiters(w);
	}
	if (w->state == WEBSOCKET_CLOSING) {
		w->paused = false; /* nobody wants it: it is dropped */
		w->kicked = true;
		websocket_set_wake(w->set);
	}
}

void websocket_leave(struct websocket *w)
{
	AUTO_UNLOCK(&w->set->lock);
	if (!w->left)
		leave(w);
}

void websocket_put(struct websocket *w)
{
	struct websocket_set *s = w->set;

	pthread_mutex_lock(&s->lock);
	if (atomic_fetch_sub(&w->refs, 1) > 1) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	bool ended = w->state == WEBSOCKET_ENDED;
	if (ended)
		websocket_bury(w);
	else if (!w->left)
		leave(w); /* buries it if it ends at once */
	if (!s->running) {
		/* No thread is left that could name it, or free it. */
		s->refs++;
		websocket_set_free_dead(s);
		pthread_mutex_unlock(&s->lock);
		websocket_set_put(s);
		return;
	}
	websocket_set_wake(s);
	pthread_mutex_unlock(&s->lock);
}

const char *websocket_protocol(const struct websocket *w)
{
	return w->protocol;
}

int websocket_send(
	struct websocket *w, struct call *c, bool text, const void *p, size_t n, bool wait)
{
	struct wslay_event_msg message = {
		.opcode = text ? WSLAY_TEXT_FRAME : WSLAY_BINARY_FRAME, .msg = p, .msg_length = n};
	AUTO_UNLOCK(&w->set->lock);

	for (;;) {
		if (w->state != WEBSOCKET_OPEN || !wslay_event_get_write_enabled(w->frames))
			return -EPIPE;
		size_t queued = wslay_event_get_queued_msg_length(w->frames);
		size_t count = wslay_event_get_queued_msg_count(w->frames);
		if (!count || (queued + n <= WEBSOCKET_QUEUE && count < WEBSOCKET_QUEUE / 64))
			break;
		if (!wait)
			return -EAGAIN;
		int err = wait_for_change(w, c, -1);
		if (err)
			return err;
	}
	if (wslay_event_queue_msg(w->frames, &message) != 0)
		return -ENOMEM;
	websocket_arm(w);
	return 0;
}

bool websocket_writable(struct websocket *w)
{
	AUTO_UNLOCK(&w->set->lock);

	return w->state != WEBSOCKET_OPEN ||
		   wslay_event_get_queued_msg_length(w->frames) < WEBSOCKET_QUEUE / 2;
}

void websocket_resume(struct websocket *w)
{
	AUTO_UNLOCK(&w->set->lock);
	if (!w->paused)
		return;
	w->paused = false;
	w->kicked = true;
	websocket_set_wake(w->set);
}

int websocket_close(struct websocket *w, struct call *c, uint16_t code)
{
	int err = 0;
	AUTO_UNLOCK(&w->set->lock);

	if (w->state == WEBSOCKET_OPEN) {
		w->state = WEBSOCKET_CLOSING;
		w->close_code = code;
		w->deadline = call_now_ms() + WEBSOCKET_CLOSE_MS;
		w->kicked = true;
		websocket_set_wake(w->set);
		websocket_tell_waiters(w);
	}
	while (c && !err && w->state != WEBSOCKET_ENDED)
		err = wait_for_change(w, c, -1);
	return err;
}
