/*
 * WebSockets: the set, its thread, and the way to a service. See websocket_impl.h.
 *
 * One lock covers everything; the thread holds it while it handles events, which never block, and not while it waits for
 * them. What is put by another thread may still be named by events that were fetched before: it is put aside, and freed by
 * the thread before it waits again.
 * A socket that has nothing to do is taken out of epoll altogether: a hang-up would be told of it over and over.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "cleanup.h"
#include "log.h"
#include "websocket_impl.h"

enum {
	WEBSOCKET_AGAIN_MS = 20, /* a full queue of a Unix socket cannot be waited for */
	WEBSOCKET_EVENTS = 64,
	WEBSOCKET_STACK = 256 << 10,
	WEBSOCKET_READ = 16 << 10
};

/* ---- small things ---- */

void websocket_set_put(struct websocket_set *s)
{
	pthread_mutex_lock(&s->lock);
	bool last = --s->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (!last)
		return;
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->wake >= 0)
		close(s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void websocket_set_wake(struct websocket_set *s)
{
	uint64_t one = 1;

	if (s->wake >= 0 && write(s->wake, &one, sizeof(one)) < 0)
		log_error("websocket: %s", strerror(errno));
}

static void arm(struct websocket *w, uint32_t events)
{
	struct epoll_event e = {.events = events, .data = {.ptr = w}};
	int op = !w->armed ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

	if (w->armed == events || w->fd < 0)
		return;
	if (epoll_ctl(w->set->epoll, op, w->fd, &e) < 0)
		log_error("websocket: epoll: %s", strerror(errno)); /* it stalls until its deadline */
	else
		w->armed = events;
}

void websocket_tell_waiters(struct websocket *w)
{
	for (struct waiter *x = w->waiters; x; x = x->next) {
		atomic_store(&x->told, true);
		call_wake(x->call);
	}
}

void websocket_release(struct websocket *w)
{
	if (w->frames)
		wslay_event_context_free(w->frames);
	buf_release(&w->out);
	buf_release(&w->request);
	buf_release(&w->in);
	free(w->wanted);
	free(w->protocol);
	free(w->why);
	free(w);
}

/* Out of the list, and freed when nobody can name it any more. */
void websocket_bury(struct websocket *w)
{
	struct websocket_set *s = w->set;

	if (w->prev)
		w->prev->next = w->next;
	else
		s->first = w->next;
	if (w->next)
		w->next->prev = w->prev;
	s->count--;
	sandbox_use(s->sb, -1);
	w->next = s->dead;
	s->dead = w;
}

/* It is over: the socket goes, and its owner is told. */
void websocket_finish(struct websocket *w, int err, const char *why)
{
	struct websocket_end end = {.err = err, .code = WEBSOCKET_ABNORMAL, .reason = why ? why : ""};
	bool was_open = w->state >= WEBSOCKET_OPEN;

	if (w->state == WEBSOCKET_ENDED)
		return;
	if (w->frames && wslay_event_get_close_received(w->frames)) {
		uint16_t code = wslay_event_get_status_code_received(w->frames);
		end.code = code && code != WEBSOCKET_ABNORMAL ? code : WEBSOCKET_NO_CODE;
		end.err = 0;
		end.reason = w->why ? w->why : "";
	} else if (err == -EPROTO && w->frames) {
		end.code = wslay_event_get_status_code_sent(w->frames);
	}
	w->state = WEBSOCKET_ENDED;
	w->deadline = -1;
	w->again_at = 0;
	arm(w, 0);
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	if (!was_open) {
		w->err = err ? err : -ECONNRESET;
		if (!w->why && why)
			w->why = strdup(why);
	} else if (!w->left && w->ev.end) {
		w->ev.end(w->arg, &end);
	}
	websocket_tell_waiters(w);
	if (atomic_load(&w->refs) == 0)
		websocket_bury(w);
}

/* ---- the way to the service ---- */

int websocket_try_connect(struct websocket *w)
{
	w->again_at = 0;
	if (connect(w->fd, (struct sockaddr *)&w->address, w->address_size) == 0 ||
		errno == EINPROGRESS)
		return 0;
	if (errno != EAGAIN)
		return -errno;
	w->again_at = call_now_ms() + WEBSOCKET_AGAIN_MS;
	return 0;
}

/* 1: it is connected, 0: not yet, or a negative errno. */
static int connected(struct websocket *w)
{
	int err = 0;
	struct sockaddr_storage peer;
	socklen_t size = sizeof(err);

	if (w->again_at)
		return 0;
	if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
		return -errno;
	if (err)
		return -err;
	size = sizeof(peer);
	if (getpeername(w->fd, (struct sockaddr *)&peer, &size) < 0)
		return errno == ENOTCONN ? 0 : -errno;
	return 1;
}

/* Sends the request and reads its answer. >0: the size of its head; 0: not whole yet; or a negative errno. */
static ssize_t ask(struct websocket *w)
{
	while (w->out.size > 0) {
		ssize_t n = send(w->fd, w->out.data, w->out.size, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		buf_consume(&w->out, (size_t)n);
	}
	for (;;) {
		ssize_t head = websocket_head_size(w->in.data, w->in.size);
		if (head != 0)
			return head;
		char *p = buf_reserve(&w->in, WEBSOCKET_READ);
		if (!p)
			return -ENOMEM;
		ssize_t n = recv(w->fd, p, WEBSOCKET_READ, 0);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		w->in.size += (size_t)n;
	}
}

/* The sandbox's server has answered: is the port open? */
static void relay_answered(struct websocket *w, size_t head)
{
	int status = websocket_head_status(w->in.data, head);

	if (status == 404) {
		websocket_finish(
			w, -ENOTSUP, "this server has no relay to its ports; it takes sandboxd in the sandbox");
	} else if (status == 502) {
		websocket_finish(w, -ECONNREFUSED, "nothing listens on that port in the sandbox");
	} else if (status != 101) {
		bool token = status == 401 || status == 403;
		websocket_finish(w, token ? -EACCES : -EIO,
			token ? "the sandbox's server wants another token"
				  : "the sandbox's server does not relay to its ports");
	} else {
		buf_consume(&w->in, head);
		buf_release(&w->out);
		w->out = w->request;
		w->request = (struct buf)BUF_INIT;
		w->state = WEBSOCKET_SHAKE;
	}
}

static void service_answered(struct websocket *w, size_t head)
{
	char *why;
	int err = websocket_answer(w->in.data, head, w->key, w->wanted, &w->protocol, &why);

	if (!err)
		err = websocket_frames_begin(w);
	if (err) {
		websocket_finish(w, err, why);
		free(why);
		return;
	}
	w->in_at = head;
	w->state = WEBSOCKET_OPEN;
	w->deadline = -1;
	websocket_tell_waiters(w);
}

/* Goes on as far as it can. */
static void move(struct websocket *w)
{
	if (w->state == WEBSOCKET_CONNECTING) {
		int ok = connected(w);
		if (ok < 0)
			websocket_finish(w, ok, "the sandbox's server cannot be reached");
		if (ok <= 0)
			return;
		w->state = w->request.size ? WEBSOCKET_RELAY : WEBSOCKET_SHAKE;
	}
	while (w->state == WEBSOCKET_RELAY || w->state == WEBSOCKET_SHAKE) {
		ssize_t head = ask(w);
		if (head < 0)
			websocket_finish(w, (int)head,
				w->state == WEBSOCKET_RELAY ? "the sandbox's server ended the connection"
				: head == -EPROTO           ? "the service does not speak HTTP"
											: "the service ended the connection");
		if (head <= 0)
			return;
		if (w->state == WEBSOCKET_RELAY)
			relay_answered(w, (size_t)head);
		else
			service_answered(w, (size_t)head);
	}
	if (w->state != WEBSOCKET_OPEN && w->state != WEBSOCKET_CLOSING)
		return;
	size_t queued = wslay_event_get_queued_msg_length(w->frames);
	size_t ours = websocket_frames_queued(w);
	if (!websocket_frames_move(w)) {
		bool protocol = wslay_event_get_close_sent(w->frames) && !w->close_queued;
		websocket_finish(w, protocol ? -EPROTO : -ECONNRESET,
			protocol ? "the service broke the protocol" : "the connection broke");
		return;
	}
	/* A pong that goes out now and then is no progress. */
	if (w->state == WEBSOCKET_CLOSING && websocket_frames_queued(w) < ours)
		w->deadline = call_now_ms() + WEBSOCKET_CLOSE_MS;
	if (wslay_event_get_queued_msg_length(w->frames) < queued) {
		websocket_tell_waiters(w);
		if (!w->left && w->ev.sent)
			w->ev.sent(w->arg);
	}
}

void websocket_arm(struct websocket *w)
{
	uint32_t events = 0;

	switch (w->state) {
	case WEBSOCKET_CONNECTING:
		events = w->again_at ? 0 : EPOLLOUT;
		break;
	case WEBSOCKET_RELAY:
	case WEBSOCKET_SHAKE:
		events = w->out.size ? EPOLLOUT : EPOLLIN;
		break;
	case WEBSOCKET_OPEN:
	case WEBSOCKET_CLOSING:
		if (!w->paused && !websocket_frames_full(w) && wslay_event_want_read(w->frames))
			events |= EPOLLIN;
		if (wslay_event_want_write(w->frames) ||
			(w->state == WEBSOCKET_CLOSING && !w->close_queued))
			events |= EPOLLOUT;
		break;
	default:
		return;
	}
	arm(w, events);
}

static void serve(struct websocket *w)
{
	if (w->state == WEBSOCKET_ENDED)
		return;
	w->kicked = false;
	move(w);
	websocket_arm(w);
}

/* ---- the thread ---- */

/* Connects again, gives up what takes too long. How long may be waited now: ms, or -1. */
static int tick(struct websocket_set *s)
{
	int64_t now = call_now_ms(), next = -1;

	for (struct websocket *w = s->first, *after; w; w = after) {
		after = w->next;
		if (w->deadline >= 0 && w->deadline <= now) {
			websocket_finish(w, -ETIMEDOUT, "no answer came in time");
			continue;
		}
		if (w->again_at && w->again_at <= now) {
			int err = websocket_try_connect(w);
			if (err) {
				websocket_finish(w, err, "the sandbox's server cannot be reached");
				continue;
			}
			websocket_arm(w);
		}
		if (w->again_at && (next < 0 || w->again_at < next))
			next = w->again_at;
		if (w->deadline >= 0 && (next < 0 || w->deadline < next))
			next = w->deadline;
	}
	return next < 0 ? -1 : next <= now ? 0 : (int)(next - now);
}

void websocket_set_free_dead(struct websocket_set *s)
{
	while (s->dead) {
		struct websocket *w = s->dead;
		s->dead = w->next;
		s->refs--; /* the thread's keeps the set */
		websocket_release(w);
	}
}

static void serve_kicked(struct websocket_set *s)
{
	uint64_t count;

	if (read(s->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("websocket: %s", strerror(errno));
	for (struct websocket *w = s->first, *after; w; w = after) {
		after = w->next;
		if (w->kicked)
			serve(w);
	}
}

static void *set_main(void *arg)
{
	struct websocket_set *s = arg;
	struct epoll_event events[WEBSOCKET_EVENTS];

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int wait = tick(s);

		websocket_set_free_dead(s);
		pthread_mutex_unlock(&s->lock);
		int n = epoll_wait(s->epoll, events, WEBSOCKET_EVENTS, wait);
		pthread_mutex_lock(&s->lock);
		for (int i = 0; i < n; i++) {
			struct websocket *w = events[i].data.ptr;
			if (w)
				serve(w);
			else
				serve_kicked(s);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* With the lock held. */
int websocket_set_run(struct websocket_set *s)
{
	sigset_t all, old;
	pthread_attr_t attr;
	struct epoll_event e = {.events = EPOLLIN};

	if (s->stop)
		return -ECANCELED;
	if (s->running)
		return 0;
	if (s->epoll < 0)
		s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->wake < 0)
		s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll < 0 || s->wake < 0)
		return -errno;
	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &e) < 0 && errno != EEXIST)
		return -errno;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WEBSOCKET_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int err = -pthread_create(&s->thread, &attr, set_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	s->running = !err;
	return err;
}

int websocket_set_new(struct sandbox *sb, struct websocket_set **out)
{
	struct websocket_set *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sb = sb;
	s->refs = 1;
	s->epoll = s->wake = -1;
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

void websocket_set_stop(struct websocket_set *s)
{
	pthread_mutex_lock(&s->lock);
	bool join = s->running && !s->stop;
	s->stop = true;
	websocket_set_wake(s);
	pthread_mutex_unlock(&s->lock);
	if (join)
		pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	if (join)
		s->running = false; /* from now on who puts frees */
	for (struct websocket *w = s->first, *after; w; w = after) {
		after = w->next;
		websocket_finish(w, -ECANCELED, "the sandbox ends");
	}
	if (!s->running)
		websocket_set_free_dead(s);
	pthread_mutex_unlock(&s->lock);
}

void websocket_set_free(struct websocket_set *s)
{
	websocket_set_stop(s);
	websocket_set_put(s);
}
